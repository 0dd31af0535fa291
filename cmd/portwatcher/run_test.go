package main

import (
	"context"
	"errors"
	"runtime"
	"strings"
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

// A stop waits for slow consumers of events, and is a failure where one of them has not
// written its last events in time.
func TestStopWaitsForTheLastEvents(t *testing.T) {
	type test struct {
		printing, recording time.Duration
		want                []string // in the error
	}
	for name, test := range map[string]test{
		"in time":         {printing: 5 * time.Second, recording: 6 * time.Second},
		"standard output": {printing: time.Hour, want: []string{"standard output was not read within 8s"}},
		"the journal":     {recording: time.Hour, want: []string{"the journal could not be written within 8s"}},
		"both":            {time.Hour, time.Hour, []string{"standard output was not read", "the journal could not be written"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended, end := context.WithCancel(t.Context())
				defer end()
				takes := func(d time.Duration) *consumer {
					return start(ended, func(ctx context.Context) error {
						<-ctx.Done()
						select {
						case <-time.After(d):
						case <-ended.Done():
						}
						return nil
					})
				}
				err := finish(nil, takes(test.printing), takes(test.recording), writeLimit)
				if (err == nil) != (test.want == nil) {
					t.Fatalf("error %v, want %q in it", err, test.want)
				}
				for _, part := range test.want {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %v, want %q in it", err, part)
					}
				}
			})
		})
	}
}
