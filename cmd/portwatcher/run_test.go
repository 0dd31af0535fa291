package main

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// The memory of the start is freed settleTime after everything was scanned,
// however long that takes.
func TestFreeMemoryWaitsForTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		const startTook = 20 * time.Second
		freeMemory(t.Context(), func() error {
			if time.Since(begin) < startTook {
				return errors.New("not ready")
			}
			return nil
		})
		if took := time.Since(begin); took < startTook+settleTime-time.Second || took > startTook+settleTime+time.Second {
			t.Errorf("after %v, want about %v after the start of %v", took, settleTime, startTook)
		}
	})
}

func TestFreeMemoryFreesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		garbage := make([]byte, 64<<20)
		for i := range garbage {
			garbage[i] = 1
		}
		runtime.KeepAlive(garbage)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		freeMemory(t.Context(), func() error { return nil })
		runtime.ReadMemStats(&after)
		held := func(m *runtime.MemStats) uint64 { return m.HeapSys - m.HeapReleased }
		if held(&after)+(32<<20) > held(&before) {
			t.Errorf("the heap held %d bytes and holds %d", held(&before), held(&after))
		}
	})
}

func TestFreeMemoryEndsWithTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		begin := time.Now()
		freeMemory(ctx, func() error { return errors.New("never ready") })
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("ended after %v, want a minute", took)
		}
	})
}
