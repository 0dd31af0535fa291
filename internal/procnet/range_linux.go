package procnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EphemeralPorts returns the range from which the kernel gives ports to clients,
// in the network namespace of process pid.
//
// /proc/sys/net shows the namespace of the thread that looks, whatever process's
// folder it is reached through: so a thread enters the namespace, and leaves it
// again. It needs CAP_SYS_ADMIN for that, and CAP_SYS_PTRACE for processes of others;
// without them the error wraps EPERM or EACCES, and the zero Range, which marks
// nothing, is what is left. Errors of a missing process wrap [ErrProcessGone].
func EphemeralPorts(procRoot string, pid int) (Range, error) {
	type answer struct {
		ports Range
		err   error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread()
		ports, home, err := ephemeralPorts(procRoot, pid)
		if home {
			runtime.UnlockOSThread()
		}
		// Otherwise the thread ends with the goroutine.
		answers <- answer{ports, err}
	}()
	a := <-answers
	return a.ports, a.err
}

// ephemeralPorts is EphemeralPorts on a thread that is locked; home says that the
// thread is in the namespace it came from. That it returns matters: it may be the
// main thread, whose namespace is what others see as the process's.
func ephemeralPorts(procRoot string, pid int) (_ Range, home bool, err error) {
	namespace := filepath.Join(procRoot, strconv.Itoa(pid), "ns/net")
	there, err := open(unix.AT_FDCWD, namespace, unix.O_RDONLY)
	if err != nil {
		return Range{}, true, pathError("open", namespace, gone(err))
	}
	defer unix.Close(there)
	const own = "/proc/thread-self/ns/net"
	back, err := open(unix.AT_FDCWD, own, unix.O_RDONLY)
	if err != nil {
		return Range{}, true, pathError("open", own, err)
	}
	defer unix.Close(back)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return Range{}, true, pathError("enter", namespace, err)
	}
	ports, err := readRange(filepath.Join(procRoot, "sys/net/ipv4/ip_local_port_range"))
	if backErr := unix.Setns(back, unix.CLONE_NEWNET); backErr != nil {
		return Range{}, false, errors.Join(err, pathError("enter", own, backErr))
	}
	return ports, true, err
}

func readRange(path string) (Range, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Range{}, err
	}
	columns := strings.Fields(string(text))
	if len(columns) == 2 {
		first, firstErr := strconv.ParseUint(columns[0], 10, 16)
		last, lastErr := strconv.ParseUint(columns[1], 10, 16)
		if firstErr == nil && lastErr == nil && first <= last {
			return Range{uint16(first), uint16(last)}, nil
		}
	}
	return Range{}, &ParseError{path, 1, fmt.Sprintf("%q, want two ports, the lower first", clip(text))}
}
