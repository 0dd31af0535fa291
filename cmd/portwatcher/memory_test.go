package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

func nullLogger() logrus.FieldLogger {
	log, _ := logtest.NewNullLogger()
	return log
}

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
		}, nullLogger())
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
		freeMemory(t.Context(), func() error { return nil }, nullLogger())
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
		freeMemory(ctx, func() error { return errors.New("never ready") }, nullLogger())
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("ended after %v, want a minute", took)
		}
	})
}

// The pages of the program are fewer afterwards, and the program runs on.
func TestUnmapProgram(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pages, err := os.ReadFile(program) // so that all of it may be mapped
	if err != nil || len(pages) == 0 {
		t.Fatalf("read the program: %v", err)
	}
	before := resident(t, program)
	if err := unmapProgram("/proc/self/maps"); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, program); before == 0 || after >= before {
		t.Errorf("%d KiB of the program were mapped, and %d are", before, after)
	}
	if err := unmapProgram("/nonexistent"); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("without a list of mappings: %v", err)
	}
}

// resident returns how many KiB of a file's read-only mappings are in memory.
func resident(t *testing.T, file string) (sum int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	its := false
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if strings.Contains(fields[0], "-") {
			_, _, its = programMapping(line, file)
		} else if fields[0] == "Rss:" && its {
			size, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += size
		}
	}
	return sum
}

func TestProgramMapping(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00c01000 r-xp 00000000 fe:00 131 /portwatcher\n":           true,
		"00c01000-01a00000 r--p 00801000 fe:00 131 /portwatcher\n":           true,
		"01a00000-01b00000 rw-p 01600000 fe:00 131 /portwatcher\n":           false, // its content would be lost
		"00400000-00c01000 r-xs 00000000 fe:00 131 /portwatcher\n":           false,
		"00400000-00c01000 r-xp 00000000 fe:00 131 /other\n":                 false,
		"00400000-00c01000 r-xp 00000000 fe:00 131 /portwatcher (deleted)\n": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0 \n":                     false,
		"zz-00c01000 r-xp 00000000 fe:00 131 /portwatcher\n":                 false,
		"00c01000-00400000 r-xp 00000000 fe:00 131 /portwatcher\n":           false,
	} {
		begin, end, ok := programMapping(line, "/portwatcher")
		if ok != want || ok && begin >= end {
			t.Errorf("%q: %x-%x, %t, want %t", line, begin, end, ok, want)
		}
	}
}
