package top

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// column is a column of the table.
type column int

const (
	columnContainer column = iota
	columnPort
	columnAddress
	columnExposure
	columnProcess
	columnAge
	columnCount
)

// textColumns are those whose text a row knows; the age changes by itself.
const textColumns = columnAge

// row is an open endpoint, prepared to be shown: what a frame needs of 3,000
// rows is computed once for each. It is not changed once it is made, but for
// shown, before others see it.
type row struct {
	key      model.Endpoint
	listener *model.Listener
	openedAt time.Time // of the source's clock
	cells    [textColumns]string
	widths   [textColumns]int // in terminal cells
	search   string           // lower case
	// shown is when it came while somebody looked; zero for what was there before.
	shown time.Time
}

func endpointOf(l *model.Listener) model.Endpoint {
	return model.Endpoint{Container: l.Container.ID, Protocol: l.Protocol, Address: l.Address, Port: l.Port}
}

// samePort says whether two are of the same port of one container, or of the one
// that came in its place under the same name.
func samePort(a, b *model.Listener) bool {
	return a.Container != nil && b.Container != nil && a.Container.Name == b.Container.Name &&
		a.Port == b.Port && a.Protocol == b.Protocol
}

// concerns says whether an event is of a port, or of a burst of its container in
// which it may be: a burst's list of ports may be incomplete.
func concerns(e *model.Event, of *model.Listener) bool {
	if e.Type != model.Bursts || e.Burst == nil {
		return samePort(&e.Listener, of)
	}
	any := *of // as far as the burst does not say it
	if e.Port == 0 && (e.PortCount > len(e.Ports) || slices.Contains(e.Ports, of.Port)) {
		any.Port = 0
	}
	if e.Protocol == 0 {
		any.Protocol = 0
	}
	return samePort(&e.Listener, &any)
}

func newRow(l *model.Listener, openedAt time.Time) *row {
	r := &row{key: model.Endpoint{Protocol: l.Protocol, Address: l.Address, Port: l.Port}, listener: l, openedAt: openedAt}
	var also string // what is found, and not shown in the table
	if c := l.Container; c != nil {
		r.key.Container = c.ID
		r.cells[columnContainer] = output.Printable(c.Name)
		also = c.Project + "/" + c.Service + " " + c.Image
	}
	r.cells[columnPort] = fmt.Sprintf("%d/%s", l.Port, l.Protocol)
	r.cells[columnAddress] = addressText(l)
	r.cells[columnExposure] = exposureText(l)
	r.cells[columnProcess] = processText(l.Processes)
	for i, cell := range r.cells {
		r.widths[i] = width(cell)
	}
	r.search = strings.ToLower(strings.Join(r.cells[:], "  ") + "  " + strings.Join(l.Published, " ") + "  " + also)
	return r
}

// compare orders two rows by a column, and where they are alike there by the
// container, port and address.
func (r *row) compare(other *row, by column) int {
	first := 0
	switch by {
	case columnPort:
		first = cmp.Compare(r.key.Port, other.key.Port)
	case columnAddress:
		first = r.key.Address.Compare(other.key.Address)
	case columnExposure:
		first = cmp.Compare(reach(r.listener.Exposure), reach(other.listener.Exposure))
	case columnProcess:
		first = cmp.Compare(processName(r.listener), processName(other.listener))
	case columnAge:
		first = other.openedAt.Compare(r.openedAt) // the youngest first
	}
	return cmp.Or(first, cmp.Compare(r.cells[columnContainer], other.cells[columnContainer]), r.key.Compare(other.key))
}

// reach orders exposures from the farthest.
func reach(e model.Exposure) int {
	switch e {
	case model.Published:
		return 0
	case model.Host:
		return 1
	case model.Network:
		return 2
	case model.Loopback:
		return 3
	}
	return 4
}

func processName(l *model.Listener) string {
	if len(l.Processes) == 0 {
		return ""
	}
	return l.Processes[0].Name
}

func addressText(l *model.Listener) string {
	if !l.Address.IsValid() {
		return "-"
	}
	return output.AddressText(l)
}

// exposureText names who can reach an endpoint. A wildcard of the host is "*",
// as other tools write it.
func exposureText(l *model.Listener) string {
	if l.Exposure != model.Published {
		return output.Printable(cmp.Or(string(l.Exposure), "-"))
	}
	var b strings.Builder
	b.WriteString("published")
	var last string
	for _, address := range l.Published {
		parsed, err := netip.ParseAddrPort(address)
		if err == nil && parsed.Addr().IsUnspecified() {
			address = fmt.Sprintf("*:%d", parsed.Port())
		}
		if address != last {
			b.WriteString(" " + address)
		}
		last = address
	}
	return output.Printable(b.String())
}

// processesInRow bounds a row's width; the details have all of them.
const processesInRow = 3

func processText(processes []model.Process) string {
	if len(processes) == 0 {
		return "-"
	}
	return output.ProcessList(processes, processesInRow)
}

// width is how many cells of the terminal a text takes.
func width(s string) int {
	if isPlain(s) {
		return len(s)
	}
	return ansi.StringWidth(s)
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// fit makes a text exactly so many cells wide; what is cut off is marked.
func fit(s string, cells int) string {
	if cells <= 0 {
		return ""
	}
	w := width(s)
	if w > cells {
		s = ansi.Truncate(s, cells, "…")
		w = width(s)
	}
	return s + strings.Repeat(" ", max(0, cells-w))
}

// age is a duration for people, in at most 6 cells.
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
