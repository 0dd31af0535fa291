package top

import (
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"portwatcher/internal/model"
)

// hostile is what a container may be named, and what runs in it.
const hostile = "\x1b]0;title\x07\x1b[2J\u202e界界界\u0301\u009b31m\r\n\t\x00\xff"

func hostileListener() model.Listener {
	l := listener("x", 81, "fe80::1%"+hostile[:6], model.Exposure(hostile), hostile)
	l.Container.Name, l.Container.Image, l.Container.Project = hostile, hostile, hostile
	l.Processes = []model.Process{{PID: 1, Name: hostile, Executable: hostile}, {PID: 2, Name: hostile}}
	l.Source = model.Source(hostile)
	return l
}

// Whatever the terminal's size and whatever is shown, the screen fits, and only
// the view's own styles reach the terminal.
func TestFitsEverySize(t *testing.T) {
	open := append(many(200), openAt(web, begin), openAt(hostileListener(), begin))
	for _, state := range []struct {
		name string
		keys []string
	}{
		{"table", nil},
		{"end", []string{"end", "S"}},
		{"filter", []string{"/", "界"}},
		{"no match", []string{"/", "~", "enter"}},
		{"details", []string{"/", "界", "enter", "enter"}},
		{"help", []string{"?"}},
		{"paused without events", []string{"p", "e"}},
	} {
		v := newView(t, open...)
		v.board.setStatus(watchStatus{Host: hostile, Containers: 3, Sources: []model.Source{model.Source(hostile)}})
		v.board.Event(event(1, model.Opened, hostileListener()))
		v.board.Event(&model.Event{ID: 2, Time: begin, Type: model.Type(hostile), Listener: hostileListener()})
		v.board.Event(&model.Event{ID: 3, Time: begin, Type: model.Gap, Reason: hostile})
		v.source.events = []*model.Event{event(1, model.Opened, hostileListener())}
		v.tick()
		v.key(state.keys...)
		for width := 1; width <= 130; width += 1 + width/10 {
			for _, height := range []int{1, 2, 3, 5, 8, 17, 24, 60} {
				v.Update(tea.WindowSizeMsg{Width: width, Height: height})
				checkFits(t, v, state.name, width, height)
			}
		}
	}
}

func checkFits(t *testing.T, v *view, name string, width, height int) {
	t.Helper()
	content := v.View().Content
	lines := strings.Split(content, "\n")
	if len(lines) > height {
		t.Fatalf("%s at %dx%d: %d lines", name, width, height, len(lines))
	}
	for _, line := range lines {
		if w := ansi.StringWidth(line); w > width {
			t.Fatalf("%s at %dx%d: a line of %d cells: %q", name, width, height, w, line)
		}
		rest := line
		for _, as := range []style{bold, faint, reverse, red, green, yellow, magenta, cyan, "0"} {
			rest = strings.ReplaceAll(rest, "\x1b["+string(as)+"m", "")
		}
		for _, r := range rest {
			if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%s at %dx%d: %q reaches the terminal: %q", name, width, height, r, line)
			}
		}
	}
}

// At 80 columns nothing of a usual row is lost.
func TestEightyColumns(t *testing.T) {
	v := newView(t, openAt(listener("shop_web_1", 8080, "0.0.0.0", model.Published, "0.0.0.0:18080", "[::]:18080"), begin))
	v.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	v.wants("> shop_web_1  8080/tcp   0.0.0.0   published *:18080  9880 nginx  0s")
	v.Update(tea.WindowSizeMsg{Width: 45, Height: 24})
	v.wants("shop_we", "8080/tcp", "publ")
	v.Update(tea.WindowSizeMsg{Width: 20, Height: 10})
	v.wants("shop_web_1")
}

func TestAge(t *testing.T) {
	for seconds, want := range map[int]string{-5: "0s", 0: "0s", 59: "59s", 61: "1m01s", 3599: "59m59s", 3600: "1h00m", 86399: "23h59m", 90000: "1d01h", 8640000: "100d"} {
		if got := age(time.Duration(seconds) * time.Second); got != want || len(got) > ageWidth {
			t.Errorf("%d s: %q, want %q", seconds, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, test := range []struct {
		text  string
		cells int
		want  string
	}{{"abc", 5, "abc  "}, {"abcdef", 4, "abc…"}, {"界界", 3, "界…"}, {"界界", 2, "… "}, {"abc", 0, ""}, {"", 2, "  "}, {"abc", 1, "…"}} {
		if got := fit(test.text, test.cells); got != test.want {
			t.Errorf("%q in %d: %q, want %q", test.text, test.cells, got, test.want)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	board := NewBoard()
	board.expect()
	board.replace(many(3000), begin)
	m := newScreen(b.Context(), board, &fakeSource{})
	l := listener("x", 1, "::", model.Network)
	b.ReportAllocs()
	for id := uint64(1); b.Loop(); id++ {
		for range 100 { // of 500 events a second
			board.Event(event(id, model.Opened, l))
		}
		m.Update(tick{})
		m.View()
	}
}
