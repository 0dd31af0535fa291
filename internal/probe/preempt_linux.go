package probe

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// preemptFiles have the preemption mode. Containers have no debugfs of their own, so
// the second is that of the host's first process.
var preemptFiles = []string{"/sys/kernel/debug/sched/preempt", "/proc/1/root/sys/kernel/debug/sched/preempt"}

// notPreempted returns nil if the kernel does not preempt its own code.
func notPreempted() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read the kernel's version: %w", err)
	}
	var mode []byte
	var modeErr error
	for _, file := range preemptFiles {
		if mode, modeErr = os.ReadFile(file); modeErr == nil {
			break
		}
	}
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read the kernel's arguments: %w", err)
	}
	return judgePreemption(unix.ByteSliceToString(name.Version[:]), string(mode), string(arguments), modeErr)
}

// judgePreemption decides by the kernel's version, such as "#1 SMP PREEMPT_DYNAMIC
// Debian 6.1", by debugfs, such as "none (voluntary) full", and by the kernel's
// arguments. err is the reason why the mode is missing.
func judgePreemption(version, mode, arguments string, err error) error {
	_, current, ok := strings.Cut(mode, "(")
	current, _, _ = strings.Cut(current, ")")
	for _, argument := range strings.Fields(arguments) {
		if value, has := strings.CutPrefix(argument, "preempt="); has && !ok {
			current = value
		}
	}
	switch {
	case !strings.Contains(version, "PREEMPT"):
		return nil
	case !strings.Contains(version, "PREEMPT_DYNAMIC"):
		return errors.New("the kernel preempts programs")
	case current == "none" || current == "voluntary":
		return nil
	case current == "" && err == nil:
		return fmt.Errorf("it is not known whether the kernel preempts programs: its mode is %q", mode)
	case current == "":
		return fmt.Errorf("it is not known whether the kernel preempts programs: %w", err)
	}
	return fmt.Errorf("the kernel preempts programs: preempt=%s", current)
}
