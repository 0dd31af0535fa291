package harness

import (
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"
)

// Match selects events: an empty field matches any value.
type Match struct {
	Type      model.Type
	Container string // name
	Protocol  string
	Address   string
	Port      int
}

// Opened matches the opening of a port.
func Opened(container, protocol, address string, port int) Match {
	return Match{model.Opened, container, protocol, address, port}
}

// Closed matches the closing of a port.
func Closed(container, protocol, address string, port int) Match {
	return Match{model.Closed, container, protocol, address, port}
}

func (m Match) matches(e *truth.Event) bool {
	if e.Container == nil && e.Type == model.Gap {
		return m.Type == e.Type && m.Container == ""
	}
	return (m.Type == "" || m.Type == e.Type) &&
		(m.Container == "" || m.Container == e.ContainerName()) &&
		(m.Protocol == "" || m.Protocol == e.Protocol.String()) &&
		(m.Address == "" || m.Address == e.Address.String()) &&
		(m.Port == 0 || m.Port == int(e.Port))
}

// ParseEvent reads one line. It fails the test where the line breaks the contract of the
// design.
func ParseEvent(t testing.TB, line string) truth.Event {
	t.Helper()
	event, err := truth.Parse(line, time.Now())
	if err != nil {
		t.Errorf("an event breaks the contract: %v: %s", err, line)
	}
	return event
}
