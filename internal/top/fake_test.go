package top

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"portwatcher/internal/model"
)

// begin is when the tests' clock starts.
var begin = time.Date(2026, 11, 22, 18, 36, 28, 123456789, time.UTC)

// listener is a listener of the process "nginx" in a container.
func listener(container string, number uint16, address string, exposure model.Exposure, published ...string) model.Listener {
	return model.Listener{
		Container: &model.ContainerRef{ID: strings.Repeat("8f", 32) + container, Name: container, Image: "nginx:1.27", Project: "shop", Service: container},
		Protocol:  model.TCP, Address: netip.MustParseAddr(address), Port: number, Exposure: exposure, Published: published,
		Processes: []model.Process{{PID: 1800 + int(number), ContainerPID: 1, Name: "nginx", Executable: "/usr/sbin/nginx"}}, Source: model.SourceEBPF,
	}
}

func openAt(l model.Listener, at time.Time) model.Open {
	return model.Open{Time: at, Listener: l, OpenedAt: at}
}

func event(id uint64, kind model.Type, l model.Listener) *model.Event {
	e := &model.Event{ID: id, Time: begin.Add(time.Duration(id) * time.Millisecond), Type: kind, Listener: l}
	if kind == model.Closed {
		seconds := 12.34
		e.OpenSeconds = &seconds
	}
	return e
}

// fakeSource writes nothing by itself.
type fakeSource struct {
	events []*model.Event
	err    error
	run    func(ctx context.Context, b *Board) error
	panics atomic.Bool // Title, which each frame asks for
	frames atomic.Int64
}

func (s *fakeSource) Run(ctx context.Context, b *Board) error {
	if s.run != nil {
		return s.run(ctx, b)
	}
	<-ctx.Done()
	return nil
}

func (s *fakeSource) History(context.Context, *model.Listener) ([]*model.Event, error) {
	return s.events, s.err
}

func (s *fakeSource) Title() string {
	if s.panics.Load() {
		panic("the title is broken")
	}
	s.frames.Add(1)
	return "live from the test"
}

// view is a screen without a terminal, and a clock that the test moves.
type view struct {
	*screen
	t      *testing.T
	source *fakeSource
	clock  time.Time
}

func newView(t *testing.T, open ...model.Open) *view {
	t.Helper()
	v := &view{t: t, source: &fakeSource{}, clock: begin}
	board := NewBoard()
	board.now = func() time.Time { return v.clock }
	v.screen = newScreen(t.Context(), board, v.source)
	v.screen.now = board.now
	board.expect()
	board.replace(open, begin)
	v.tick()
	return v
}

func (v *view) tick() { v.Update(tick{}) }

// key presses keys, each a character or a name.
func (v *view) key(names ...string) {
	v.t.Helper()
	for _, name := range names {
		key, special := map[string]tea.KeyPressMsg{
			"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
			"pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown}, "home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd},
			"backspace": {Code: tea.KeyBackspace}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl},
		}[name]
		if !special {
			key = tea.KeyPressMsg{Code: []rune(name)[0], Text: name}
		}
		if got := key.String(); got != name && special {
			v.t.Fatalf("key %q is named %q", name, got)
		}
		_, command := v.Update(key)
		if name == "enter" && command != nil {
			v.Update(command())
		}
	}
}

// drawn is the screen, without styles.
func (v *view) drawn() string { return ansi.Strip(v.View().Content) }

func (v *view) wants(texts ...string) {
	v.t.Helper()
	for _, text := range texts {
		if !strings.Contains(v.drawn(), text) {
			v.t.Errorf("want %q on the screen:\n%s", text, v.drawn())
		}
	}
}

func (v *view) wantsNot(texts ...string) {
	v.t.Helper()
	for _, text := range texts {
		if strings.Contains(v.drawn(), text) {
			v.t.Errorf("want no %q on the screen:\n%s", text, v.drawn())
		}
	}
}

// order holds the rows on the screen against texts, from the first.
func (v *view) order(texts ...string) {
	v.t.Helper()
	lines := strings.Split(v.drawn(), "\n")[3:]
	for i, text := range texts {
		if !strings.Contains(lines[i], text) {
			v.t.Errorf("row %d: want %q in it:\n%s", i, text, v.drawn())
			return
		}
	}
}

// many is a list of so many endpoints in containers of ten each.
func many(count int) []model.Open {
	open := make([]model.Open, count)
	for i := range open {
		open[i] = openAt(listener(fmt.Sprintf("container-%03d", i/10), uint16(1000+i), "0.0.0.0", model.Network), begin)
	}
	return open
}
