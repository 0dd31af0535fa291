package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Queued returns how many connections wait in the accept queues of a TCP port, in the network
// namespace of process pid: the kernel shows them as rx_queue of a listener
// (get_tcp4_sock in net/ipv4/tcp_ipv4.c). The error is that of the files.
func Queued(procRoot string, pid int, port uint16) (sum uint64, err error) {
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		text, err := ReadFile(procRoot, pid, name)
		if errors.Is(err, fs.ErrNotExist) && name == "net/tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx_queue:rx_queue ...
			columns := strings.Fields(line)
			if len(columns) < 5 || columns[3] != fmt.Sprintf("%02X", stateListen) || !strings.HasSuffix(columns[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			_, queue, _ := strings.Cut(columns[4], ":")
			waiting, err := strconv.ParseUint(queue, 16, 32)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/%s: rx_queue %q: %w", pid, name, queue, err)
			}
			sum += waiting
		}
	}
	return sum, nil
}
