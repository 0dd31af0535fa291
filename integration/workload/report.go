package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/port"
)

// A report is what portwatcher's log and the workload's facts are compared by.
type report struct {
	action   string // "opened" or "closed"
	protocol string
	address  string
	port     uint16
}

func (r report) String() string {
	return fmt.Sprintf("%s %d/%s on %s", r.action, r.port, r.protocol, r.address)
}

// expected returns the reports that the facts call for.
func expected(facts []fact) map[report]bool {
	want := map[report]bool{}
	for _, f := range facts {
		if f.Action == actionOpened || f.Action == actionClosed {
			want[report{f.Action, f.Protocol, f.Address, f.Port}] = true
		}
	}
	return want
}

// absent returns the wanted reports that were not seen, sorted.
func absent(want, seen map[report]bool) []string {
	var missing []string
	for r := range want {
		if !seen[r] {
			missing = append(missing, r.String())
		}
	}
	slices.Sort(missing)
	return missing
}

// textEvent is an event as `portwatcher run --format text` prints it.
var textEvent = regexp.MustCompile(`^\S+ (\S+): (New port opened|Port closed): (\d+)/(\w+) on (\S+)`)

// parseReports reads the events of one container from portwatcher's standard
// output, in either format. Other lines are passed over.
func parseReports(log io.Reader, container string) (map[report]bool, error) {
	seen := map[report]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "{") {
			var e port.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return nil, fmt.Errorf("read portwatcher's line %q: %w", lines.Text(), err)
			}
			if e.Container != nil && e.Container.Name == container {
				seen[report{string(e.Type), e.Protocol.String(), e.Address.String(), e.Port}] = true
			}
			continue
		}
		m := textEvent.FindStringSubmatch(lines.Text())
		if m == nil || m[1] != container {
			continue
		}
		action := actionOpened
		if m[2] == "Port closed" {
			action = actionClosed
		}
		number, err := strconv.ParseUint(m[3], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read portwatcher's line %q: %w", lines.Text(), err)
		}
		seen[report{action, m[4], m[5], uint16(number)}] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read portwatcher's log: %w", err)
	}
	return seen, nil
}
