package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// A logLine is an event of one endpoint as portwatcher printed it.
type logLine struct {
	kind model.Type
	at   model.Endpoint // without the container
	text string
}

func (l logLine) String() string {
	return fmt.Sprintf("%s %d/%s on %s", l.kind, l.at.Port, l.at.Protocol, l.at.Address)
}

func (l logLine) same(other logLine) bool { return l.kind == other.kind && l.at == other.at }

// lineOf is the line that an event is to have in the log.
func lineOf(e *model.Event) logLine {
	return logLine{kind: e.Type, at: model.Endpoint{Protocol: e.Protocol, Address: e.Address, Port: e.Port}}
}

// ofOneEndpoint reports whether an event is of one endpoint of a container: a gap and a
// burst are not.
func ofOneEndpoint(e *model.Event, container string) bool {
	return e.Container != nil && e.Container.Name == container && e.Type != model.Gap && e.Type != model.Bursts && e.Type != model.Drifted
}

// textEvent is an event as `portwatcher run --format text` prints it.
var textEvent = regexp.MustCompile(`^\S+ (\S+): (New port opened|Port closed|Port changed owner): (\d+)/(\w+) on (\S+)`)

var textTypes = map[string]model.Type{"New port opened": model.Opened, "Port closed": model.Closed, "Port changed owner": model.Changed}

// parseLog reads the events of one container from portwatcher's standard output, in either
// format and in their order. It ignores other lines.
func parseLog(log, container string) (lines []logLine, err error) {
	for text := range strings.Lines(log) {
		text = strings.TrimSuffix(text, "\n")
		if strings.HasPrefix(text, "{") {
			e := &model.Event{}
			if err := json.Unmarshal([]byte(text), e); err != nil {
				return nil, fmt.Errorf("read portwatcher's line %q: %w", text, err)
			}
			if ofOneEndpoint(e, container) {
				lines = append(lines, lineOf(e))
				lines[len(lines)-1].text = text
			}
			continue
		}
		m := textEvent.FindStringSubmatch(text)
		if m == nil || m[1] != container {
			continue
		}
		line := logLine{kind: textTypes[m[2]], text: text}
		port, err := strconv.ParseUint(m[3], 10, 16)
		if err == nil {
			err = line.at.Protocol.UnmarshalText([]byte(m[4]))
		}
		if err == nil {
			line.at.Address, err = netip.ParseAddr(m[5])
		}
		if err != nil {
			return nil, fmt.Errorf("read portwatcher's line %q: %w", text, err)
		}
		line.at.Port = uint16(port)
		lines = append(lines, line)
	}
	return lines, nil
}

// compareLog finds where the log has something else than the journal, in its order, of the
// ports of the facts.
func compareLog(facts []truth.Fact, log []logLine, events []truth.Event, container string) (problems []truth.Problem) {
	ours := map[numbered]bool{}
	for _, f := range facts {
		ours[numbered{f.Protocol, f.Port}] = true
	}
	others := func(l logLine) bool { return !ours[numbered{l.at.Protocol, l.at.Port}] }
	log = slices.DeleteFunc(slices.Clone(log), others)
	var recorded []logLine
	for i := range events {
		if e := &events[i].Event; ofOneEndpoint(e, container) && !others(lineOf(e)) {
			recorded = append(recorded, lineOf(e))
		}
	}
	for i, l := range recorded {
		switch {
		case i >= len(log):
			problems = append(problems, truth.Problem{Kind: truth.Missing, Text: l.String() + " (in the log)"})
		case !log[i].same(l):
			return append(problems, truth.Problem{Kind: truth.Unordered, Text: fmt.Sprintf("the log has %s where the journal has %s", log[i], l)})
		}
	}
	if len(log) > len(recorded) {
		problems = append(problems, truth.Problem{Kind: truth.Missing, Text: log[len(recorded)].String() + " (in the journal)"})
	}
	return problems
}
