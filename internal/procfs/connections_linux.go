package procfs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Connections returns how many TCP connections were opened so far in the network
// namespace of process pid, by its clients and its servers: the sum of ActiveOpens and
// PassiveOpens. Its errors are those of [Read].
//
// Source: /proc/net/snmp, proc_pid_net(5); RFC 4022.
func Connections(procRoot string, pid int) (uint64, error) {
	path := filepath.Join(procRoot, strconv.Itoa(pid), "net/snmp")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, pathError("read", path, gone(err))
	}
	return parseConnections(path, string(text))
}

// parseConnections reads the two lines of TCP: the names of the columns, and their
// values.
func parseConnections(path, text string) (sum uint64, err error) {
	var names []string
	number := 0
	for line := range strings.Lines(text) {
		number++
		columns := strings.Fields(line)
		if len(columns) == 0 || columns[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = columns
			continue
		}
		found := 0
		for i := 1; i < len(columns) && i < len(names); i++ {
			if names[i] != "ActiveOpens" && names[i] != "PassiveOpens" {
				continue
			}
			opens, err := strconv.ParseUint(columns[i], 10, 64)
			if err != nil {
				return 0, &ParseError{path, number, strconv.Quote(string(clip([]byte(columns[i])))) + ", want a number"}
			}
			sum += opens
			found++
		}
		if found == 2 {
			return sum, nil
		}
		break
	}
	return 0, &ParseError{path, number, "no ActiveOpens and PassiveOpens of Tcp"}
}
