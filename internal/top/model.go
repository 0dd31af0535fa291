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

// refresh is the time between two looks at the board: often enough to be live,
// seldom enough to be read.
const refresh = 200 * time.Millisecond

// tick asks for the next look at the board.
type tick struct{}

// screen is the state of the view. Its methods are called by one goroutine. It
// implements [tea.Model].
type screen struct {
	ctx    context.Context
	board  *Board
	source Source
	now    func() time.Time
	paint  paint

	width, height int
	shown         snapshot // as it was taken from the board
	rows          []*row   // those that match the filter, sorted
	at            time.Time
	paused        bool

	sort    column
	reverse bool
	filter  string
	typing  bool // keys go to the filter

	hideEvents bool
	help       bool
	details    *details

	// selected is the endpoint that the cursor follows once it has been moved;
	// until then it stays at the top.
	selected model.Endpoint
	moved    bool
	cursor   int // its index in rows
	first    int // index of the first visible row
	// longest are the widths of the longest texts that were shown since the filter
	// changed: columns that only grow do not jump about.
	longest [textColumns]int
}

func newModel(ctx context.Context, b *Board, s Source, colors bool) *screen {
	m := &screen{ctx: ctx, board: b, source: s, now: time.Now, paint: paint{colors: colors}, width: 80, height: 24}
	m.look()
	return m
}

// Init implements [tea.Model].
func (m *screen) Init() tea.Cmd { return nextTick() }

func nextTick() tea.Cmd {
	return tea.Tick(refresh, func(time.Time) tea.Msg { return tick{} })
}

// Update implements [tea.Model].
func (m *screen) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tick:
		if !m.paused {
			m.look()
		}
		return m, nextTick()
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
		m.scroll()
	case tea.KeyPressMsg:
		return m, m.key(message)
	case tea.PasteMsg:
		if m.typing {
			m.type_(message.Content)
		}
	case history:
		if m.details != nil && m.details.is(message.of) {
			m.details.take(message)
		}
	}
	return m, nil
}

// look takes over what is new on the board.
func (m *screen) look() {
	m.at = m.now()
	s, changed := m.board.look(m.shown.revision)
	if !changed {
		return
	}
	m.shown = s
	m.arrange()
	if m.details != nil {
		m.details.follow(m.shown.events)
	}
}

// arrange chooses and sorts the rows, and keeps the cursor on its endpoint.
func (m *screen) arrange() {
	m.rows = m.rows[:0]
	wanted := strings.ToLower(m.filter)
	for _, r := range m.shown.rows {
		if !strings.Contains(r.search, wanted) {
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

// moveTo puts the cursor on a row, or the nearest there is.
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

// maxFilter bounds the filter, in characters.
const maxFilter = 100

// type_ adds text to the filter.
func (m *screen) type_(text string) {
	all := []rune(m.filter + output.Printable(text))
	m.setFilter(string(all[:min(len(all), maxFilter)]))
}
