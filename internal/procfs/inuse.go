package procfs

import (
	"bytes"
	"fmt"
)

// InUse is how many sockets of a network namespace are in the kernel's tables,
// of IPv4 and IPv6 together. Not counted are TCP sockets that neither listen nor
// are part of a connection, those in TIME_WAIT, and UDP sockets without a port.
// A socket of MPTCP counts once, as that of TCP below it does.
type InUse struct {
	TCP int // listeners and connections
	UDP int // bound, connected or not
}

// parseInUse adds the numbers in /proc/<pid>/net/sockstat or sockstat6 to sum.
// The lines wanted begin "TCP: inuse 5 " or "UDP6: inuse 2\n"; the others are of
// other protocols. Source: sockstat_seq_show in net/ipv4/proc.c,
// sockstat6_seq_show in net/ipv6/proc.c. With an error comes the line that it is
// about, or the last.
func parseInUse(sum *InUse, text []byte, tcp, udp string) (at int, err error) {
	foundTCP, foundUDP := false, false
	for line := range bytes.Lines(text) {
		at++
		name, rest := field(bytes.TrimSuffix(line, []byte{'\n'}))
		var into *int
		switch {
		case string(name) == tcp && !foundTCP:
			into, foundTCP = &sum.TCP, true
		case string(name) == udp && !foundUDP:
			into, foundUDP = &sum.UDP, true
		default:
			continue
		}
		label, rest := field(rest)
		number, _ := field(rest)
		count, ok := decimal(number)
		if string(label) != "inuse" || !ok {
			return at, fmt.Errorf("%q, want %s inuse and a number below 1<<32", clip(bytes.TrimSpace(line)), name)
		}
		*into += int(count)
	}
	if !foundTCP || !foundUDP {
		return at, fmt.Errorf("ends after %q, want lines that begin with %s and %s", clip(text), tcp, udp)
	}
	return at, nil
}
