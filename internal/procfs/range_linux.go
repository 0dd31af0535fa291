package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"portwatcher/internal/netns"
)

// EphemeralPorts returns the range from which the kernel gives ports to clients,
// in the network namespace of process pid.
//
// /proc/sys/net shows the namespace of the thread that reads it, whatever process's
// folder it is reached through: so a thread enters the namespace, and leaves it
// again. It needs CAP_SYS_ADMIN for that, and CAP_SYS_PTRACE for processes of others;
// without them the error wraps EPERM or EACCES, and the zero Range, which marks
// nothing, is what is left. Errors of a missing process wrap [ErrProcessGone].
func EphemeralPorts(procRoot string, pid int) (ports Range, err error) {
	namespace, err := netns.Open(procRoot, pid)
	if err != nil {
		return Range{}, err
	}
	err = namespace.Do(func() (err error) {
		ports, err = readRange(filepath.Join(procRoot, "sys/net/ipv4/ip_local_port_range"))
		return err
	})
	return ports, errors.Join(err, namespace.Close())
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
