package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// terminal is a pseudo-terminal with the view on it, and an emulator that reads it.
type terminal struct {
	t       *testing.T
	master  *os.File
	tty     *os.File
	before  unix.Termios
	screen  vt10x.Terminal
	ended   chan struct{} // closed when the view has ended
	err     error         // of the view; valid after ended
	reading sync.WaitGroup
	cancel  context.CancelFunc

	mutex   sync.Mutex
	written int
	last    []byte // of what was written
}

// lastBytes is how much of what was written is kept.
const lastBytes = 4096

// onTerminal shows the view on a pseudo-terminal of 80x24. It is stopped at the
// end of the test if it has not ended.
func onTerminal(t *testing.T, board *Board, source Source, environment ...string) *terminal {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		kernel.Skip(t, fmt.Sprintf("needs a pseudo-terminal: %v", err))
	}
	x := &terminal{t: t, master: master, tty: tty, screen: vt10x.New(vt10x.WithSize(80, 24)), ended: make(chan struct{})}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	x.before = x.termios()
	x.reading.Go(x.read)
	ctx, cancel := context.WithCancel(t.Context())
	x.cancel = cancel
	go func() {
		defer close(x.ended)
		x.err = Run(ctx, Options{
			Board: board, Source: source, Output: tty, Input: tty,
			// The emulator supports every sequence of this kind of terminal.
			Environment: append([]string{"TERM=linux"}, environment...),
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-x.ended
		tty.Close()
		x.reading.Wait()
		master.Close()
	})
	return x
}

func (x *terminal) termios() unix.Termios {
	x.t.Helper()
	settings, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return *settings
}

func (x *terminal) read() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := x.master.Read(buffer)
		if err != nil {
			return // the other side is closed
		}
		if _, err := x.screen.Write(buffer[:n]); err != nil {
			x.t.Error(err)
		}
		x.mutex.Lock()
		x.written += n
		x.last = append(x.last, buffer[:n]...)
		x.last = x.last[max(0, len(x.last)-lastBytes):]
		x.mutex.Unlock()
	}
}

func (x *terminal) bytes() int {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	return x.written
}

func (x *terminal) ending() string {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	return string(x.last)
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.master.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// wants waits until all texts are on the screen.
func (x *terminal) wants(texts ...string) {
	x.t.Helper()
	x.until(fmt.Sprintf("%q on the screen", texts), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	})
}

func (x *terminal) until(what string, condition func(screen string) bool) {
	x.t.Helper()
	kernel.Await(x.t, what, func() string {
		screen := x.screen.String()
		if condition(screen) {
			return ""
		}
		return "\n" + screen
	})
}

// wantsEnd waits for the end, after which the terminal is as it was.
func (x *terminal) wantsEnd() error {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(20 * time.Second):
		x.t.Fatalf("it has not ended:\n%s", x.screen.String())
	}
	if after := x.termios(); after != x.before {
		x.t.Errorf("the terminal's settings are %+v, want %+v as before", after, x.before)
	}
	x.until("the main screen and the cursor", func(string) bool {
		ending := x.ending()
		left, shown := strings.LastIndex(ending, "\x1b[?1049l"), strings.LastIndex(ending, "\x1b[?25h")
		// It may have ended before it took the screen.
		return left >= strings.LastIndex(ending, "\x1b[?1049h") && shown >= strings.LastIndex(ending, "\x1b[?25l")
	})
	return x.err
}

func boardOf(open ...model.Open) *Board {
	b := NewBoard()
	b.expect()
	b.replace(open, time.Now())
	return b
}

func TestOnATerminal(t *testing.T) {
	now := time.Now()
	board := boardOf(openAt(web, now), openAt(db, now), openAt(back, now), openAt(hostileListener(), now))
	x := onTerminal(t, board, &fakeSource{})
	x.wants("live from the test", "CONTAINER↑", "4 open ports", "published *:8", "?]0;title??[", "q quit")
	if x.termios() == x.before {
		t.Error("the terminal is not in raw mode")
	}
	board.Event(event(1, model.Opened, listener("late", 8443, "::", model.Host)))
	x.wants("late", "5 open ports", "opened    late 8443/tcp")
	board.Event(event(2, model.Closed, listener("late", 8443, "::", model.Host)))
	x.wants("4 open ports", "closed    late 8443/tcp")
	x.press("s")
	x.wants("PORT↑")
	x.press("/loopback\r")
	x.wants(`filter "loopback": 1 of 4`)
	x.press("\x1b") // Esc alone
	x.wants("1/4")
	x.press("\x1b[B\x1b[B") // down, twice
	x.wants("3/4")
	x.press("?")
	x.wants("KEYS")
	x.press("q")
	if err := x.wantsEnd(); err != nil {
		t.Errorf("q: error %v", err)
	}
}

func TestResize(t *testing.T) {
	x := onTerminal(t, boardOf(many(50)...), &fakeSource{})
	x.wants("EVENTS", "container-000  1000/tcp   0.0.0.0   network    2800 nginx", "1/50")
	x.screen.Resize(40, 12)
	if err := pty.Setsize(x.tty, &pty.Winsize{Rows: 12, Cols: 40}); err != nil {
		t.Fatal(err)
	}
	// The kernel signals the terminal's foreground processes, of which this one is
	// none: it is not their session's.
	if err := unix.Kill(unix.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	x.until("8 rows and no events", func(screen string) bool {
		return strings.Count(screen, "/tcp") == 8 && !strings.Contains(screen, "EVENTS") && strings.Contains(screen, "1/50")
	})
	x.press("\x03") // ctrl+c
	if err := x.wantsEnd(); err != nil {
		t.Errorf("ctrl+c: error %v", err)
	}
}

func TestSignalEndsTheView(t *testing.T) {
	x := onTerminal(t, boardOf(openAt(web, time.Now())), &fakeSource{})
	x.wants("web")
	x.cancel() // as a signal does in the command
	if err := x.wantsEnd(); err != nil {
		t.Errorf("error %v", err)
	}
}

func TestSourceEndsTheView(t *testing.T) {
	source := &fakeSource{run: func(context.Context, *Board) error { return errRefused }}
	x := onTerminal(t, boardOf(openAt(web, time.Now())), source)
	if err := x.wantsEnd(); !errors.Is(err, errRefused) {
		t.Errorf("error %v, want that of the source", err)
	}
}

var errRefused = errors.New("a token is needed")

// A panic leaves a terminal that can be used, wherever it is.
func TestPanic(t *testing.T) {
	t.Run("of the view", func(t *testing.T) {
		source := &fakeSource{}
		x := onTerminal(t, boardOf(openAt(web, time.Now())), source)
		x.wants("web")
		source.panics.Store(true)
		if err := x.wantsEnd(); err == nil || !strings.Contains(err.Error(), "the title is broken") {
			t.Errorf("error %v, want the panic's", err)
		}
	})
	t.Run("of the source", func(t *testing.T) {
		source := &fakeSource{run: func(context.Context, *Board) error { panic("no such luck") }}
		x := onTerminal(t, boardOf(openAt(web, time.Now())), source)
		if err := x.wantsEnd(); err == nil || !strings.Contains(err.Error(), "no such luck") {
			t.Errorf("error %v, want the panic's", err)
		}
	})
}

func TestNoColorOnATerminal(t *testing.T) {
	x := onTerminal(t, boardOf(openAt(web, time.Now())), &fakeSource{}, "NO_COLOR=1", "COLORTERM=truecolor")
	x.wants("published *:8080")
	if written := x.ending(); strings.Contains(written, "\x1b[3") {
		t.Errorf("there are colors in %q", written)
	}
}

// With 3,000 ports and 500 events a second the number of frames and what is
// written stay bounded, and nothing is missing in the end.
func TestManyEvents(t *testing.T) {
	const events, lasts = 1000, 2 * time.Second
	source := &fakeSource{}
	board := boardOf(many(3000)...)
	x := onTerminal(t, board, source)
	x.wants("3000 open ports", "1/3000")
	began, frames, written := time.Now(), source.frames.Load(), x.bytes()
	pace := time.NewTicker(lasts / events)
	defer pace.Stop()
	for id := range uint64(events) {
		kind := model.Opened
		if id%2 == 1 {
			kind = model.Closed
		}
		board.Event(event(id+1, kind, listener("flapping", uint16(10000+id/2), "::", model.Network)))
		<-pace.C
	}
	board.Event(event(events+1, model.Opened, listener("the-last", 1, "::", model.Network)))
	x.wants("the-last", "3001 open ports")
	took := time.Since(began)
	// One frame for each read of the board, and one for what is left.
	most := int64(took/refreshInterval) + 3
	if count := source.frames.Load() - frames; count > most {
		t.Errorf("%d frames in %s, want at most %d", count, took, most)
	}
	// A frame is less than the screen with its styles.
	if count := int64(x.bytes() - written); count > most*80*24*3 {
		t.Errorf("%d bytes were written in %s: too much for %d frames", count, took, most)
	}
	x.press("q")
	if err := x.wantsEnd(); err != nil {
		t.Error(err)
	}
}

func TestNoTerminal(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	err = Run(t.Context(), Options{Board: NewBoard(), Source: &fakeSource{}, Output: file, Input: file})
	if !errors.Is(err, ErrNoTerminal) || !strings.Contains(err.Error(), "portwatcher ports") {
		t.Errorf("error %v, want %v", err, ErrNoTerminal)
	}
}
