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

// key handles a key. What it returns is done outside.
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
	case m.details != nil:
		m.detailsKey(name)
	default:
		return m.tableKey(name)
	}
	return nil
}

// typeKey handles a key while the filter is typed.
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
		m.type_(text)
	}
}

func (m *screen) detailsKey(name string) {
	switch name {
	case "esc", "enter", "left", "h", "backspace":
		m.details = nil
	case "?":
		m.help = true
	case "p", "space":
		m.pause()
	default:
		m.details.scroll(name, m.height)
	}
}

func (m *screen) tableKey(name string) tea.Cmd {
	switch name {
	case "?":
		m.help = true
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
	case "p", "space":
		m.pause()
	case "enter":
		return m.openDetails()
	default:
		m.move(name)
	}
	return nil
}

// move moves the cursor, if the key is one that does.
func (m *screen) move(name string) {
	page := max(1, m.layout().rows-1)
	to := m.cursor
	switch name {
	case "up", "k":
		to--
	case "down", "j":
		to++
	case "pgup", "ctrl+b":
		to -= page
	case "pgdown", "ctrl+f":
		to += page
	case "home", "g":
		to = 0
	case "end", "G":
		to = len(m.rows) - 1
	default:
		return
	}
	m.moveTo(to)
	m.moved = m.cursor > 0
}

// pause stops the view, or shows what has happened since.
func (m *screen) pause() {
	m.paused = !m.paused
	if !m.paused {
		m.look()
	}
}
