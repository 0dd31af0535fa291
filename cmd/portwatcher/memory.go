package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// gcPercent is half of the runtime's default: idle, 100 containers need some 3 MB less, and
// a storm by netlink some 15 % more CPU.
const gcPercent = 50

// settleTime is how long after readiness freeMemory waits: the events of the start are
// written then, and the first round of the capture has passed.
const settleTime = 12 * time.Second

// freeMemory returns the memory that only the start needed, such as the kernel's type
// information, to the system after everything was scanned. The runtime alone would keep it
// as room for garbage, of which there is little later.
func freeMemory(ctx context.Context, ready func() error, log logrus.FieldLogger) {
	for left := settleTime; left > 0; left -= time.Second {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		if ready() != nil {
			left = settleTime + time.Second
		}
	}
	runtime.GC() // each collection halves the stacks that the first scans made large
	debug.FreeOSMemory()
	if err := unmapProgram("/proc/self/maps"); err != nil {
		log.WithError(err).Debug("The pages of the program that only the start used stay mapped.")
	}
}

// unmapProgram makes the kernel unmap the pages of the program's own file that are only read and
// executed. The start touches most of them, and each use maps its neighbours, too; what is used
// later is mapped again. Nothing is lost, because these pages are those of the
// file. Sources: madvise(2), MADV_DONTNEED; proc_pid_maps(5).
func unmapProgram(maps string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	text, err := os.ReadFile(maps)
	if err != nil {
		return fmt.Errorf("read the program's mappings: %w", err)
	}
	var failures []error
	for line := range strings.Lines(string(text)) {
		begin, end, ok := programMapping(line, program)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_DONTNEED); errno != 0 {
			failures = append(failures, fmt.Errorf("unmap %x-%x: %w", begin, end, errno))
		}
	}
	return errors.Join(failures...)
}

// programMapping reads a line of /proc/<pid>/maps. ok is false unless it is a private mapping of
// a file that nobody can write.
func programMapping(line, file string) (begin, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != file || fields[1] != "r-xp" && fields[1] != "r--p" {
		return 0, 0, false
	}
	first, last, _ := strings.Cut(fields[0], "-")
	from, err := strconv.ParseUint(first, 16, 64)
	to, err2 := strconv.ParseUint(last, 16, 64)
	return uintptr(from), uintptr(to), err == nil && err2 == nil && from < to
}
