package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// details are those of one port.
type details struct {
	row    *row
	events []*model.Event // oldest first
	asked  bool           // the history has come, or failed
	failed error
	back   int // how many lines the history is scrolled back
}

// history is what a source knows of the past of one port.
type history struct {
	of     *model.Listener
	events []*model.Event
	err    error
}

// openDetails shows the row under the cursor, and asks for its history.
func (m *screen) openDetails() tea.Cmd {
	if m.cursor >= len(m.rows) || m.rows[m.cursor].listener.Container == nil {
		return nil
	}
	r := m.rows[m.cursor]
	m.details = &details{row: r}
	m.details.follow(m.shown.events)
	ctx, source := m.ctx, m.source
	return func() tea.Msg {
		events, err := source.History(ctx, r.listener)
		return history{of: r.listener, events: events, err: err}
	}
}

func (d *details) is(of *model.Listener) bool { return d.row.listener == of }

func (d *details) take(h history) {
	d.asked, d.failed = true, h.err
	d.add(h.events)
}

// follow takes over what has happened since.
func (d *details) follow(events []*model.Event) { d.add(events) }

func (d *details) add(events []*model.Event) {
	var mine []*model.Event
	for _, e := range events {
		if concerns(e, d.row.listener) {
			mine = append(mine, e)
		}
	}
	d.events = merge(d.events, mine)
}

// scroll moves in the history, if the key is one that does.
func (d *details) scroll(name string, height int) {
	switch name {
	case "up", "k":
		d.back++
	case "down", "j":
		d.back--
	case "pgup", "ctrl+b":
		d.back += height / 2
	case "pgdown", "ctrl+f":
		d.back -= height / 2
	case "home", "g":
		d.back = len(d.events)
	case "end", "G":
		d.back = 0
	}
	d.back = max(0, min(d.back, len(d.events)-1))
}

// current returns the row as it is now; open is false where it has closed.
func (m *screen) current() (r *row, open bool) {
	at := slices.IndexFunc(m.shown.rows, func(r *row) bool { return r.key == m.details.row.key })
	if at < 0 {
		return m.details.row, false
	}
	return m.shown.rows[at], true
}

func (m *screen) detailLines() []string {
	r, open := m.current()
	lines := m.header()
	title := fmt.Sprintf("%s on %s in %s", r.cells[columnPort], r.cells[columnAddress], r.cells[columnContainer])
	state := "not open any more"
	if open {
		state = "open for " + m.age(r.openedAt)
	}
	lines = append(lines, "", m.paint.text(cut(title+", "+state, m.width), bold))
	for _, fact := range facts(r) {
		lines = append(lines, cut(fmt.Sprintf("  %-10s  %s", fact[0], fact[1]), m.width))
	}
	lines = append(lines, "", m.paint.text(cut("HISTORY (UTC) of "+r.cells[columnPort]+" in this container, the newest last", m.width), bold))
	room := max(1, m.height-len(lines)-1)
	lines = append(lines, m.historyLines(room)...)
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = lines[:max(1, min(len(lines), m.height-1))]
	return append(lines, m.paint.text(cut("Esc back  up/down scroll the history  p pause  q quit  ? help", m.width), faint))
}

// facts are what is known of an endpoint, each with its name.
func facts(r *row) [][2]string {
	l, c := r.listener, r.listener.Container
	name := c.Name
	if c.Project != "" {
		name += " (" + c.Project + "/" + c.Service + ")"
	}
	exposure := cmp.Or(string(l.Exposure), "not known")
	if len(l.Published) > 0 {
		exposure += " at " + strings.Join(l.Published, ", ")
	}
	all := [][2]string{
		{"container", name + " " + c.ID[:min(len(c.ID), 12)]},
		{"image", cmp.Or(c.Image, "not known")},
		{"exposure", exposure},
		{"opened", stamp(r.openedAt) + ", told by " + cmp.Or(string(l.Source), "an unknown source")},
	}
	for i, p := range l.Processes {
		all = append(all, [2]string{map[bool]string{true: "process"}[i == 0], processDetails(&p)})
	}
	if len(l.Processes) == 0 {
		all = append(all, [2]string{"process", "not known"})
	}
	for i := range all {
		all[i][1] = output.Printable(all[i][1])
	}
	return all
}

func processDetails(p *model.Process) string {
	text := fmt.Sprintf("pid %d %s", p.PID, p.Name)
	if p.ContainerPID != 0 {
		text += fmt.Sprintf(", %d in the container", p.ContainerPID)
	}
	if p.Executable != "" {
		text += ", " + p.Executable
	}
	if p.UID != nil {
		text += fmt.Sprintf(", user id %d", *p.UID)
	}
	return text
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func (m *screen) historyLines(height int) []string {
	d := m.details
	var lines []string
	for _, e := range d.events {
		if isShown(e) {
			text := "  " + e.Time.UTC().Format("2006-01-02") + eventText(e, false)[1:]
			lines = append(lines, m.paint.text(cut(text, m.width), eventStyle(e)))
		}
	}
	end := max(min(height, len(lines)), len(lines)-d.back)
	lines = lines[max(0, end-height):end]
	switch {
	case d.failed != nil:
		lines = append(lines[:min(len(lines), height-1)], m.paint.text(cut("  The history cannot be read: "+printableError(d.failed), m.width), red))
	case !d.asked:
		lines = append(lines[:min(len(lines), height-1)], m.paint.text(cut("  Asking for the history.", m.width), faint))
	case len(lines) == 0:
		lines = append(lines, m.paint.text(cut("  Nothing is recorded of it.", m.width), faint))
	}
	return lines
}

func (m *screen) helpLines() []string {
	lines := append(m.header(), "", m.paint.text(cut("KEYS", m.width), bold))
	for _, key := range keysHelp {
		lines = append(lines, cut(fmt.Sprintf("  %-16s  %s", key[0], key[1]), m.width))
	}
	lines = append(lines, "", cut("  + marks what has just opened. Exposure: published and host can be reached from", m.width),
		cut("  outside, network from the container's networks, loopback from inside alone.", m.width))
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = lines[:max(1, min(len(lines), m.height-1))]
	return append(lines, m.paint.text(cut("any key leads back", m.width), faint))
}
