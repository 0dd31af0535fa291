package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// newFor is how long what has just come is marked.
const newFor = 3 * time.Second

// noteFor is how long a remark is shown.
const noteFor = 20 * time.Second

// layout is how many lines each part has.
type layout struct {
	rows, events int // events with its title; 0 while hidden
}

// chromeLines are those of the header (2), the table's title and the footer.
const chromeLines = 4

func (m *screen) layout() layout {
	left := max(1, m.height-chromeLines)
	l := layout{rows: left}
	const leastEvents = 4
	if !m.hideEvents && left >= 3*leastEvents {
		l.events = max(leastEvents, left*2/5)
		l.rows = left - l.events
	}
	return l
}

// View implements [tea.Model].
func (m *screen) View() tea.View {
	lines := m.lines()
	v := tea.NewView(strings.Join(lines[:min(len(lines), max(1, m.height))], "\n"))
	v.AltScreen = true
	v.WindowTitle = "portwatcher top"
	return v
}

// lines returns the screen, each line no wider than it.
func (m *screen) lines() []string {
	switch {
	case m.help:
		return m.helpLines()
	case m.details != nil:
		return m.detailLines()
	}
	l := m.layout()
	lines := append(make([]string, 0, m.height+chromeLines), m.header()...)
	lines = append(lines, m.table(l.rows)...)
	if l.events > 0 {
		lines = append(lines, m.eventLines(l.events)...)
	}
	return append(lines, m.footer())
}

// header are two lines: where the data comes from and whether it does, and how
// the watching goes.
func (m *screen) header() []string {
	s := &m.shown
	first := "portwatcher"
	if s.status.Host != "" {
		first += " on " + s.status.Host
	}
	state, as := m.source.Title(), green
	switch {
	case s.link.lost != nil:
		state = fmt.Sprintf("connection lost %s ago, trying again: %s", age(m.at.Sub(s.link.since)), printableError(s.link.lost))
		as = red
	case s.status.Trouble != "":
		state, as = s.status.Trouble, red
	case m.paused:
		state, as = "PAUSED (p goes on), "+state, yellow
	}
	line := m.paint.text(cut(first, m.width), bold)
	if room := m.width - width(first) - gap; room > 0 {
		line += separator(1) + m.paint.text(cut(state, room), as)
	}
	return []string{line, m.paint.text(cut(m.counts(), m.width), faint)}
}

func (m *screen) counts() string {
	s := &m.shown
	text := "waiting for what is open"
	if s.known {
		text = count(len(s.rows), "open port") + ", " + count(s.status.Containers, "container") + ", " +
			count(s.status.Namespaces, "network namespace")
	}
	if s.status.Sources != "" {
		text += "  source " + s.status.Sources
	}
	if s.status.Gaps > 0 {
		text += "  " + count(int(s.status.Gaps), "gap")
	}
	if s.status.Lost > 0 {
		text += "  " + count(int(s.status.Lost), "lost event")
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// table is its title and so many lines.
func (m *screen) table(height int) []string {
	c := fitColumns(&m.longest, m.width)
	lines := append(make([]string, 0, height+1), m.paint.text(m.tableTitle(&c), bold))
	for i := m.first; i < min(m.first+height, len(m.rows)); i++ {
		lines = append(lines, m.row(&c, m.rows[i], i == m.cursor))
	}
	if len(m.rows) == 0 {
		lines = append(lines, m.paint.text(cut("  "+m.emptiness(), m.width), faint))
	}
	for len(lines) < height+1 {
		lines = append(lines, "")
	}
	return lines
}

func (m *screen) emptiness() string {
	switch {
	case !m.shown.known:
		return "Nothing is known yet."
	case m.filter != "":
		return fmt.Sprintf("Nothing that is open has %q in it. Esc clears the filter.", m.filter)
	}
	return "No port is open."
}

func (m *screen) tableTitle(c *columns) string {
	line := strings.Repeat(" ", gutter)
	for n, i := range c.shown {
		title := titles[i]
		if i == m.sort {
			title += map[bool]string{false: "↑", true: "↓"}[m.reverse]
		}
		line += separator(n) + fit(title, c.widths[i])
	}
	return cut(line, m.width)
}

func separator(n int) string {
	if n == 0 {
		return ""
	}
	return strings.Repeat(" ", gap)
}

func (m *screen) row(c *columns, r *row, selected bool) string {
	mark, as := " ", plain
	if !r.shown.IsZero() && m.at.Sub(r.shown) < newFor {
		mark, as = "+", green
	}
	pointer := " "
	if selected {
		pointer = ">"
	}
	if m.shown.link.lost != nil {
		as = faint
	}
	if selected || as == faint || c.total() > m.width { // one style for the line
		line := pointer + mark
		for n, i := range c.shown {
			line += separator(n) + fit(m.cell(r, i), c.widths[i])
		}
		if selected {
			as = reverse
		}
		return m.paint.text(fit(line, m.width), as)
	}
	var line strings.Builder
	line.WriteString(pointer + m.paint.text(mark, as))
	for n, i := range c.shown {
		of := as
		if i == columnExposure {
			of = exposureStyle(r.listener.Exposure)
		}
		line.WriteString(separator(n) + m.paint.text(fit(m.cell(r, i), c.widths[i]), of))
	}
	return line.String()
}

func (m *screen) cell(r *row, i column) string {
	if i == columnAge {
		return m.age(r.openedAt)
	}
	return r.cells[i]
}

// age is how long ago a moment of the source's clock was.
func (m *screen) age(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return age(m.at.Add(-m.shown.behind).Sub(since))
}

// footer tells of the filter, a remark, or the keys.
func (m *screen) footer() string {
	var text string
	var as = faint
	switch {
	case m.typing:
		text, as = "/"+m.filter+"_", bold
	case m.shown.note.text != "" && m.at.Sub(m.shown.note.at) < noteFor:
		text, as = m.shown.note.text, yellow
	case m.filter != "":
		text, as = fmt.Sprintf("filter %q: %d of %d  Esc clears it", m.filter, len(m.rows), len(m.shown.rows)), bold
	default:
		text = "q quit  / filter  s sort  enter details  e events  p pause  ? help"
	}
	var place string
	if len(m.rows) > 0 {
		place = fmt.Sprintf("%d/%d", m.cursor+1, len(m.rows))
	}
	room := m.width - width(place) - 1
	if room < 10 {
		return m.paint.text(cut(text, m.width), as)
	}
	return m.paint.text(fit(text, room), as) + " " + m.paint.text(place, faint)
}

// cut shortens a text to so many cells where it is longer.
func cut(s string, cells int) string {
	if width(s) <= cells {
		return s
	}
	return fit(s, cells)
}
