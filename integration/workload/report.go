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

	"portwatcher/internal/model"
)

// A report is what portwatcher's log and the workload's facts are compared by.
type report struct {
	action   string // "opened", "closed" or "changed"
	protocol string
	address  string
	port     uint16
}

func (r report) String() string {
	return fmt.Sprintf("%s %d/%s on %s", r.action, r.port, r.protocol, r.address)
}

// isOfOne says whether an event is of one endpoint: a gap and a burst are not, and
// what they stand for is missing.
func isOfOne(e *model.Event) bool { return e.Type != model.Gap && e.Type != model.Bursts }

func reportOf(e *model.Event) report {
	return report{string(e.Type), e.Protocol.String(), e.Address.String(), e.Port}
}

// report is the one that the fact calls for.
func (f *fact) report() report { return report{f.Action, f.Protocol, f.Address, f.Port} }

// textEvent is an event as `portwatcher run --format text` prints it.
var textEvent = regexp.MustCompile(`^\S+ (\S+): (New port opened|Port closed|Port changed owner): (\d+)/(\w+) on (\S+)`)

var textActions = map[string]model.Type{"New port opened": model.Opened, "Port closed": model.Closed, "Port changed owner": model.Changed}

// parseLog reads the events of one container from portwatcher's standard output,
// in either format and in their order. Other lines are passed over.
func parseLog(log io.Reader, container string) ([]report, error) {
	var seen []report
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "{") {
			e := &model.Event{}
			if err := json.Unmarshal(lines.Bytes(), e); err != nil {
				return nil, fmt.Errorf("read portwatcher's line %q: %w", lines.Text(), err)
			}
			if e.Container != nil && e.Container.Name == container && isOfOne(e) {
				seen = append(seen, reportOf(e))
			}
			continue
		}
		m := textEvent.FindStringSubmatch(lines.Text())
		if m == nil || m[1] != container {
			continue
		}
		number, err := strconv.ParseUint(m[3], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read portwatcher's line %q: %w", lines.Text(), err)
		}
		seen = append(seen, report{string(textActions[m[2]]), m[4], m[5], uint16(number)})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read portwatcher's log: %w", err)
	}
	return seen, nil
}

// compareLog holds that the log says the same as the record, in the same order,
// of the ports of the facts.
func (c *comparison) compareLog(t *truth, log []report, events []*model.Event) {
	ours := map[number]bool{}
	for _, f := range t.facts {
		ours[number{f.Protocol, f.Port}] = true
	}
	log = slices.DeleteFunc(slices.Clone(log), func(r report) bool { return !ours[number{r.protocol, r.port}] })
	var recorded []report
	for _, e := range events {
		if e.Container == nil || e.Container.Name != t.container || !isOfOne(e) {
			continue
		}
		if r := reportOf(e); ours[number{r.protocol, r.port}] {
			recorded = append(recorded, r)
		}
	}
	for i, r := range recorded {
		switch {
		case i >= len(log):
			c.missing = append(c.missing, r.String()+" (in the log)")
		case log[i] != r:
			c.wrongf("the log has %s where the journal has %s", log[i], r)
			return
		}
	}
	if len(log) > len(recorded) {
		c.missing = append(c.missing, log[len(recorded)].String()+" (in the journal)")
	}
}
