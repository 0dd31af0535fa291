package top

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// row is an open endpoint, prepared to be drawn, so that a frame with 3,000 rows is cheap. It
// is immutable.
type row struct {
	*model.Open
	key    model.Endpoint
	cells  [textColumns]string
	widths [textColumns]int // in terminal cells
	search string           // in lower case
	// appeared is when the row came into a view that was shown already; else zero.
	appeared time.Time
}

func newRow(o *model.Open, appeared time.Time) *row {
	r := &row{Open: o, key: o.Endpoint(), appeared: appeared}
	r.cells[columnContainer] = output.Printable(o.ContainerName())
	var hidden string // found by a search, but not shown in the table
	if c := o.Container; c != nil {
		hidden = c.Project + "/" + c.Service + " " + c.Image
	}
	r.cells[columnPort] = fmt.Sprintf("%d/%s", o.Port, o.Protocol)
	r.cells[columnAddress] = addressText(&o.Listener)
	r.cells[columnExposure] = exposureText(&o.Listener)
	if o.Drift != "" {
		r.cells[columnExposure] += " [" + output.Printable(string(o.Drift)) + "]"
	}
	r.cells[columnProcess] = processText(o.Processes)
	for i, cell := range r.cells {
		r.widths[i] = width(cell)
	}
	r.search = strings.ToLower(strings.Join(r.cells[:], "  ") + "  " + strings.Join(o.Published, " ") + "  " + hidden)
	return r
}

// sameLife reports whether two states of one endpoint have the same opening and owner.
func sameLife(a, b *model.Open) bool {
	return a.OpenedAt.Equal(b.OpenedAt) && a.Drift == b.Drift &&
		slices.EqualFunc(a.Processes, b.Processes, func(x, y model.Process) bool { return x.PID == y.PID })
}

// compare orders two rows by a column, then by container, port and address.
func (r *row) compare(other *row, by column) int {
	first := 0
	switch by {
	case columnPort:
		first = cmp.Compare(r.Port, other.Port)
	case columnAddress:
		first = r.Address.Compare(other.Address)
	case columnExposure:
		first = model.CompareReach(r.Exposure, other.Exposure)
	case columnProcess:
		first = cmp.Compare(processName(r.Processes), processName(other.Processes))
	case columnAge:
		first = other.OpenedAt.Compare(r.OpenedAt) // the youngest first
	}
	return cmp.Or(first, cmp.Compare(r.cells[columnContainer], other.cells[columnContainer]), r.key.Compare(other.key))
}

func processName(processes []model.Process) string {
	if len(processes) == 0 {
		return ""
	}
	return processes[0].Name
}

// concerning returns the events of one port of a container, or of the container that replaced
// it under the same name. They include the bursts that may contain the port.
func concerning(events []*model.Event, of *model.Listener) (found []*model.Event) {
	for _, e := range events {
		if concerns(e, of) {
			found = append(found, e)
		}
	}
	return found
}

func concerns(e *model.Event, of *model.Listener) bool {
	if e.Type == model.Gap || e.ContainerName() != of.ContainerName() {
		return false
	}
	if e.Type != model.Bursts || e.Burst == nil {
		return e.Port == of.Port && e.Protocol == of.Protocol
	}
	// The list of ports in a burst may be incomplete.
	mayBe := e.Port == 0 && (e.PortCount > len(e.Ports) || slices.Contains(e.Ports, of.Port))
	return (e.Port == of.Port || mayBe) && (e.Protocol == of.Protocol || e.Protocol == 0)
}

func addressText(l *model.Listener) string {
	if !l.Address.IsValid() {
		return "-"
	}
	return output.AddressText(l)
}

// exposureText names who can reach an endpoint. It writes a wildcard of the host as "*".
func exposureText(l *model.Listener) string {
	if l.Exposure != model.Published {
		return output.Printable(cmp.Or(string(l.Exposure), "-")) + output.ForwardSuffix(l.Forward)
	}
	parts := []string{"published"}
	for _, address := range l.Published {
		if parsed, err := netip.ParseAddrPort(address); err == nil && parsed.Addr().IsUnspecified() {
			address = fmt.Sprintf("*:%d", parsed.Port())
		}
		parts = append(parts, address)
	}
	return output.Printable(strings.Join(slices.Compact(parts), " "))
}

const processesInRow = 3

func processText(processes []model.Process) string {
	if len(processes) == 0 {
		return "-"
	}
	return output.ProcessList(processes, processesInRow)
}

// age formats a duration in at most 6 cells.
func age(d time.Duration) string {
	d = max(d, 0)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d < 100*day:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}
