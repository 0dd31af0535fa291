package top

import (
	"cmp"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

type details struct {
	row    *row
	events []*model.Event // oldest first
	loaded bool           // the history has come, or failed
	failed error
	back   int // how many lines the history is scrolled back
}

type history struct {
	of     *model.Listener
	events []*model.Event
	err    error
}

func (m *screen) openDetails() tea.Cmd {
	if m.cursor >= len(m.rows) {
		return nil
	}
	r := m.rows[m.cursor]
	m.details = &details{row: r}
	m.details.add(m.shown.events)
	ctx, source := m.ctx, m.source
	return func() tea.Msg {
		events, err := source.History(ctx, &r.Listener)
		return history{of: &r.Listener, events: events, err: err}
	}
}

func (d *details) add(events []*model.Event) {
	d.events = merge(d.events, concerning(events, &d.row.Listener))
}

func (m *screen) detailLines() []string {
	r, state := m.details.row, "not open any more"
	if now := m.all[r.key]; now != nil {
		r, state = now, "open for "+m.age(now.OpenedAt)
	}
	title := fmt.Sprintf("%s on %s in %s, %s", r.cells[columnPort], r.cells[columnAddress], r.cells[columnContainer], state)
	lines := append(m.header(), "", m.line(bold, title))
	for _, fact := range facts(r) {
		lines = append(lines, m.line(plain, fmt.Sprintf("  %-10s  %s", fact[0], fact[1])))
	}
	lines = append(lines, "", m.line(bold, "HISTORY (UTC) of "+r.cells[columnPort]+" in this container, the newest last"))
	return append(lines, m.historyLines(max(1, m.height-len(lines)-1))...)
}

// facts are the properties of an endpoint with their names.
func facts(r *row) [][2]string {
	all := append(owner(r.Container), [][2]string{
		{"exposure", output.ReachText(r.Exposure, r.Published) + output.ForwardSuffix(r.Forward)},
		{"opened", stamp(r.OpenedAt) + ", source " + cmp.Or(string(r.Source), "not known")},
	}...)
	label := "process"
	for _, p := range r.Processes {
		all = append(all, [2]string{label, processDetails(&p)})
		label = ""
	}
	if len(r.Processes) == 0 {
		all = append(all, [2]string{label, "not known"})
	}
	for i := range all {
		all[i][1] = output.Printable(all[i][1])
	}
	return all
}

// owner describes a container; nil is the host.
func owner(c *model.ContainerRef) [][2]string {
	if c == nil {
		return [][2]string{{"container", "none: it is the host's own"}}
	}
	name := c.Name
	if c.Project != "" {
		name += " (" + c.Project + "/" + c.Service + ")"
	}
	return [][2]string{{"container", name + " " + c.ID[:min(len(c.ID), 12)]}, {"image", cmp.Or(c.Image, "not known")}}
}

func processDetails(p *model.Process) string {
	text := fmt.Sprintf("pid %d %s", p.PID, p.Name)
	if p.ContainerPID != 0 {
		text += fmt.Sprintf(", %d in the container", p.ContainerPID)
	}
	if p.Executable != "" {
		text += ", " + p.Executable
	}
	if p.Arguments != "" {
		text += " " + p.Arguments
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
			lines = append(lines, m.line(eventStyle(e), "  "+e.Time.UTC().Format("2006-01-02")+eventText(e, false)[1:]))
		}
	}
	end := max(min(height, len(lines)), len(lines)-d.back)
	lines = lines[max(0, end-height):end]
	switch {
	case d.failed != nil:
		lines = append(lines[:min(len(lines), height-1)], m.line(red, "  The history cannot be read: "+printableError(d.failed)))
	case !d.loaded:
		lines = append(lines[:min(len(lines), height-1)], m.line(faint, "  Reading the history."))
	case len(lines) == 0:
		lines = append(lines, m.line(faint, "  The journal has no event of it."))
	}
	return lines
}

func (m *screen) helpLines() []string {
	lines := append(m.header(), "", m.line(bold, "KEYS"))
	for _, key := range keysHelp {
		lines = append(lines, m.line(plain, fmt.Sprintf("  %-16s  %s", key[0], key[1])))
	}
	return append(lines, "", m.line(plain, "  + marks what has just opened. Exposure: published, lan and host can be reached"),
		m.line(plain, "  from outside, network from the container's networks, loopback from inside alone."))
}
