package top

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"portwatcher/internal/output"
)

const (
	// newFor is how long a new row is marked.
	newFor = 3 * time.Second
	// noteFor is how long a note is shown.
	noteFor = 20 * time.Second
	// chromeLines are the lines of the header (2), of the table's title and of the footer.
	chromeLines = 4
	// leastEvents is the least number of lines of the events.
	leastEvents = 4
)

// layout is how many lines each part has.
type layout struct {
	rows, events int // events with its title; 0 while hidden
}

func (m *screen) layout() layout {
	left := max(1, m.height-chromeLines)
	l := layout{rows: left}
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
		return m.filled(m.helpLines(), "any key leads back")
	case m.details != nil:
		return m.filled(m.detailLines(), "Esc back  up/down scroll the history  p pause  q quit  ? help")
	}
	l := m.layout()
	lines := append(m.header(), m.table(l.rows)...)
	if l.events > 0 {
		lines = append(lines, m.eventLines(l.events)...)
	}
	return append(lines, m.footer())
}

// line is a line of the screen: a text in a style, cut to the width.
func (m *screen) line(as style, text string) string { return as.paint(cut(text, m.width)) }

// filled makes the lines a whole screen with a footer.
func (m *screen) filled(lines []string, footer string) []string {
	return append(pad(lines, max(1, m.height-1)), m.line(faint, footer))
}

// pad cuts or extends lines to a height.
func pad(lines []string, height int) []string {
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height]
}

// header returns two lines: the source with its state, and the counts.
func (m *screen) header() []string {
	s := &m.shown
	first := "portwatcher"
	if s.status.Host != "" {
		first += " on " + output.Printable(s.status.Host)
	}
	state, as := m.source.Title(), green
	switch {
	case s.link.lost != nil:
		state = fmt.Sprintf("connection lost %s ago, trying again: %s", age(m.at.Sub(s.link.since)), printableError(s.link.lost))
		as = red
	case s.status.trouble() != "":
		state, as = s.status.trouble(), red
	case m.paused:
		state, as = "PAUSED (p goes on), "+state, yellow
	}
	line := m.line(bold, first)
	if room := m.width - width(first) - gap; room > 0 {
		line += separator(1) + as.paint(cut(state, room))
	}
	return []string{line, m.line(faint, m.counts())}
}

func (m *screen) counts() string {
	s := &m.shown
	text := "waiting for the list of open ports"
	if s.known {
		text = count(len(s.open), "open port") + ", " + count(s.status.Containers, "container") + ", " +
			count(len(s.status.Sources), "network namespace")
	}
	if sources := s.status.sources(); sources != "" {
		text += "  source " + sources
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

func (m *screen) table(height int) []string {
	c := fitColumns(&m.longest, m.width)
	lines := append(make([]string, 0, height+1), bold.paint(m.tableTitle(&c)))
	for i := m.first; i < min(m.first+height, len(m.rows)); i++ {
		lines = append(lines, m.row(&c, m.rows[i], i == m.cursor))
	}
	if len(m.rows) == 0 {
		lines = append(lines, m.line(faint, "  "+m.noRows()))
	}
	return pad(lines, height+1)
}

func (m *screen) noRows() string {
	switch {
	case !m.shown.known:
		return "The list of open ports has not arrived yet."
	case m.filter != "":
		return fmt.Sprintf("No open port has %q in its row. Esc clears the filter.", m.filter)
	}
	return "No port is open."
}

func (m *screen) tableTitle(c *columns) string {
	line := strings.Repeat(" ", gutter)
	for n, i := range c.shown {
		title := titles[i]
		if i == m.sort && m.reverse {
			title += "↓"
		} else if i == m.sort {
			title += "↑"
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
	if !r.appeared.IsZero() && m.at.Sub(r.appeared) < newFor {
		mark, as = "+", green
	}
	pointer, whole := " ", plain // whole is a style for all of the line
	switch {
	case selected:
		pointer, whole = ">", reverse
	case m.shown.link.lost != nil:
		whole = faint
	}
	cells := make([]string, len(c.shown))
	for n, i := range c.shown {
		cells[n] = fit(m.cell(r, i), c.widths[i])
	}
	if whole != plain || c.total() > m.width {
		return cmp.Or(whole, as).paint(fit(pointer+mark+strings.Join(cells, separator(1)), m.width))
	}
	for n, i := range c.shown {
		if i == columnExposure {
			cells[n] = exposureStyle(r.Exposure).paint(cells[n])
		} else {
			cells[n] = as.paint(cells[n])
		}
	}
	return pointer + as.paint(mark) + strings.Join(cells, separator(1))
}

func (m *screen) cell(r *row, i column) string {
	if i == columnAge {
		return m.age(r.OpenedAt)
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

// footer shows the filter, a note, or the keys.
func (m *screen) footer() string {
	text, as := "q quit  / filter  s sort  enter details  e events  p pause  ? help", faint
	switch {
	case m.typing:
		text, as = "/"+m.filter+"_", bold
	case m.shown.note.text != "" && m.at.Sub(m.shown.note.at) < noteFor:
		text, as = m.shown.note.text, yellow
	case m.filter != "":
		text, as = fmt.Sprintf("filter %q: %d of %d  Esc clears it", m.filter, len(m.rows), len(m.shown.open)), bold
	}
	var place string
	if len(m.rows) > 0 {
		place = fmt.Sprintf("%d/%d", m.cursor+1, len(m.rows))
	}
	room := m.width - width(place) - 1
	if room < 10 {
		return m.line(as, text)
	}
	return as.paint(fit(text, room)) + " " + faint.paint(place)
}
