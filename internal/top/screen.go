package top

import (
	"context"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// refreshInterval is the time between two reads of the board: often enough to be live, seldom
// enough to be read.
const refreshInterval = 200 * time.Millisecond

// maxFilter bounds the filter, in characters.
const maxFilter = 100

// tick asks for the next read of the board.
type tick struct{}

// screen is the state of the view. One goroutine calls its methods. It implements [tea.Model].
type screen struct {
	ctx    context.Context
	board  *Board
	source Source
	now    func() time.Time

	width, height int
	shown         snapshot // of the board
	all           map[model.Endpoint]*row
	rows          []*row // the rows that match the filter, sorted
	at            time.Time
	paused        bool

	sort    column
	reverse bool
	filter  string
	typing  bool // keys go to the filter

	hideEvents bool
	help       bool
	details    *details

	// selected is the endpoint that the cursor follows after it was moved; until then the
	// cursor stays at the top.
	selected model.Endpoint
	moved    bool
	cursor   int // its index in rows
	first    int // index of the first visible row
	// longest are the widths of the longest texts since the filter changed, so that columns
	// do not jump.
	longest [textColumns]int
}

func newScreen(ctx context.Context, b *Board, s Source) *screen {
	m := &screen{ctx: ctx, board: b, source: s, now: time.Now, width: 80, height: 24}
	m.refresh()
	return m
}

// Init implements [tea.Model].
func (m *screen) Init() tea.Cmd { return nextTick() }

func nextTick() tea.Cmd {
	return tea.Tick(refreshInterval, func(time.Time) tea.Msg { return tick{} })
}

// Update implements [tea.Model].
func (m *screen) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tick:
		if !m.paused {
			m.refresh()
		}
		return m, nextTick()
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
		m.scroll()
	case tea.KeyPressMsg:
		return m, m.key(message)
	case tea.PasteMsg:
		if m.typing {
			m.typeText(message.Content)
		}
	case history:
		if m.details != nil && &m.details.row.Listener == message.of {
			m.details.loaded, m.details.failed = true, message.err
			m.details.add(message.events)
		}
	}
	return m, nil
}

func (m *screen) refresh() {
	m.at = m.now()
	s, changed := m.board.snapshot(m.shown.revision)
	if !changed {
		return
	}
	live := m.shown.known
	m.shown = s
	all := make(map[model.Endpoint]*row, len(s.open))
	for _, o := range s.open {
		r := m.all[o.Endpoint()]
		switch {
		case r == nil || !sameLife(r.Open, o):
			var appeared time.Time
			if live {
				appeared = m.at
			}
			r = newRow(o, appeared)
		case r.Open != o:
			r = newRow(o, r.appeared)
		}
		all[r.key] = r
	}
	m.all = all
	m.arrange()
	if m.details != nil {
		m.details.add(s.events)
	}
}

// arrange selects and sorts the rows, and keeps the cursor on its endpoint.
func (m *screen) arrange() {
	m.rows = m.rows[:0]
	filter := strings.ToLower(m.filter)
	for _, r := range m.all {
		if !strings.Contains(r.search, filter) {
			continue
		}
		m.rows = append(m.rows, r)
		for i, w := range r.widths {
			m.longest[i] = max(m.longest[i], w)
		}
	}
	slices.SortFunc(m.rows, func(a, b *row) int {
		if m.reverse {
			a, b = b, a
		}
		return a.compare(b, m.sort)
	})
	if m.moved {
		if at := slices.IndexFunc(m.rows, func(r *row) bool { return r.key == m.selected }); at >= 0 {
			m.cursor = at
		}
	}
	m.moveTo(m.cursor)
}

// moveTo puts the cursor on a row, or on the nearest one.
func (m *screen) moveTo(index int) {
	m.cursor = max(0, min(index, len(m.rows)-1))
	if m.cursor < len(m.rows) {
		m.selected = m.rows[m.cursor].key
	}
	m.scroll()
}

// scroll keeps the cursor visible and the screen filled.
func (m *screen) scroll() {
	height := m.layout().rows
	m.first = min(m.first, m.cursor)
	m.first = max(m.first, m.cursor-height+1)
	m.first = max(0, min(m.first, len(m.rows)-height))
}

func (m *screen) setFilter(text string) {
	m.filter, m.longest = text, [textColumns]int{}
	m.arrange()
}

func (m *screen) typeText(text string) {
	all := []rune(m.filter + output.Printable(text))
	m.setFilter(string(all[:min(len(all), maxFilter)]))
}
