package top

import (
	tea "charm.land/bubbletea/v2"
)

// keysHelp are the keys, as the help shows them.
var keysHelp = [][2]string{
	{"q, ctrl+c", "quit"},
	{"up, down, k, j", "move by one row"},
	{"PgUp, PgDn", "move by one screen"},
	{"home, end, g, G", "move to the first or the last row"},
	{"enter", "details and history of the port; Esc leads back"},
	{"/", "filter: only what has this text in any column; Esc clears"},
	{"s, S", "sort by the next column; reverse the order"},
	{"e", "hide or show the events"},
	{"p, space", "pause the view, and go on"},
	{"?", "this help"},
}

// key handles a key, and returns the command that it starts.
func (m *screen) key(key tea.KeyPressMsg) tea.Cmd {
	name := key.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case name == "ctrl+z":
		return tea.Suspend
	case m.typing:
		m.typeKey(name, key.Text)
	case name == "q":
		return tea.Quit
	case m.help:
		m.help = false // any key
	case name == "?":
		m.help = true
	case name == "p", name == "space":
		m.pause()
	case m.details != nil:
		m.detailsKey(name)
	default:
		return m.tableKey(name)
	}
	return nil
}

func (m *screen) typeKey(name, text string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing = false
		m.setFilter("")
	case "backspace":
		if all := []rune(m.filter); len(all) > 0 {
			m.setFilter(string(all[:len(all)-1]))
		}
	case "ctrl+u":
		m.setFilter("")
	case "up", "down", "pgup", "pgdown":
		m.move(name)
	default:
		m.typeText(text)
	}
}

func (m *screen) detailsKey(name string) {
	switch name {
	case "esc", "enter", "left", "h", "backspace":
		m.details = nil
	default:
		d := m.details
		last := max(0, len(d.events)-1)
		if to, moves := target(name, last-d.back, m.height/2, last); moves {
			d.back = last - max(0, min(to, last))
		}
	}
}

func (m *screen) tableKey(name string) tea.Cmd {
	switch name {
	case "/":
		m.typing = true
	case "esc":
		m.setFilter("")
	case "s":
		m.sort = (m.sort + 1) % columnCount
		m.arrange()
	case "S", "shift+s":
		m.reverse = !m.reverse
		m.arrange()
	case "e":
		m.hideEvents = !m.hideEvents
		m.scroll()
	case "enter":
		return m.openDetails()
	default:
		m.move(name)
	}
	return nil
}

// move moves the cursor, if the key is one that does.
func (m *screen) move(name string) {
	if to, moves := target(name, m.cursor, max(1, m.layout().rows-1), len(m.rows)-1); moves {
		m.moveTo(to)
		m.moved = m.cursor > 0
	}
}

// target returns where a key moves to from an index, which may be out of range. moves is
// false for other keys.
func target(name string, at, page, last int) (to int, moves bool) {
	switch name {
	case "up", "k":
		return at - 1, true
	case "down", "j":
		return at + 1, true
	case "pgup", "ctrl+b":
		return at - page, true
	case "pgdown", "ctrl+f":
		return at + page, true
	case "home", "g":
		return 0, true
	case "end", "G":
		return last, true
	}
	return at, false
}

// pause stops the view, or shows what has happened since.
func (m *screen) pause() {
	m.paused = !m.paused
	if !m.paused {
		m.refresh()
	}
}
