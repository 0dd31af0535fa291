// Package top is the live view in a terminal: what is open, and what has just
// happened.
//
// A [Source] writes to a [Board]; the view looks at the board a few times a
// second. So the number of frames does not depend on the number of events, and
// a slow terminal slows nothing but itself. Only the rows that fit on the screen
// are drawn.
//
// Nothing that comes from a source is trusted: what could steer the terminal is
// replaced before it is shown.
package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"

	"portwatcher/internal/model"
)

// Source tells a board what is open and what happens.
type Source interface {
	// Run writes to the board until ctx ends, and returns nil then. An error ends
	// the view.
	Run(ctx context.Context, b *Board) error
	// History returns events of one port of a container, oldest first. The
	// container is not nil.
	History(ctx context.Context, of *model.Listener) ([]*model.Event, error)
	// Title says where the data comes from.
	Title() string
}

// Options say what to show, and where.
type Options struct {
	Board  *Board
	Source Source
	// Output is the terminal to draw on, and Input where keys come from.
	Output, Input *os.File
	// Environment is that of the process: TERM, NO_COLOR.
	Environment []string
}

// ErrNoTerminal says that the output is not a terminal.
var ErrNoTerminal = errors.New(`the live view needs a terminal on standard output, and this is none: "portwatcher ports" prints what is open, "portwatcher events --follow" what happens`)

// CheckTerminal returns [ErrNoTerminal] where nothing can be drawn.
func CheckTerminal(output *os.File) error {
	if !term.IsTerminal(output.Fd()) {
		return ErrNoTerminal
	}
	return nil
}

// framesPerSecond bounds what is written to the terminal.
const framesPerSecond = 20

// Run shows the view until the user quits or ctx ends, and returns nil then. The
// terminal is as it was before when it returns, also after a panic. The source
// has ended by then.
func Run(ctx context.Context, o Options) error {
	if err := CheckTerminal(o.Output); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := newModel(ctx, o.Board, o.Source, !noColor(o.Environment))
	options := []tea.ProgramOption{
		tea.WithOutput(o.Output), tea.WithEnvironment(o.Environment),
		tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler(),
	}
	if term.IsTerminal(o.Input.Fd()) { // else keys come from the controlling terminal
		options = append(options, tea.WithInput(o.Input))
	}
	program := tea.NewProgram(guarded{m, cancel}, options...)
	var others sync.WaitGroup
	others.Go(func() {
		if err := runSource(ctx, &o); err != nil {
			cancel(err)
		}
	})
	others.Go(func() {
		<-ctx.Done()
		program.Quit() // ends in order, unlike the program's own context
	})
	_, err := program.Run()
	cancel(nil)
	others.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	if err != nil {
		return fmt.Errorf("draw on the terminal: %w", err)
	}
	return nil
}

// runSource makes an error of a panic, which would leave the terminal unusable.
func runSource(ctx context.Context, o *Options) (err error) {
	defer recovered("the source of the view", func(e error) { err = e })
	return o.Source.Run(ctx, o.Board)
}

// recovered makes an error of a panic. It is to be deferred.
func recovered(what string, fail func(error)) {
	if r := recover(); r != nil {
		fail(fmt.Errorf("%s failed: %v\n%s", what, r, debug.Stack()))
	}
}

// guarded is a screen whose panic ends the view in order.
type guarded struct {
	*screen
	fail func(error)
}

// Update implements [tea.Model].
func (g guarded) Update(message tea.Msg) (_ tea.Model, command tea.Cmd) {
	defer recovered("the view", g.fail)
	_, command = g.screen.Update(message)
	return g, command
}

// View implements [tea.Model].
func (g guarded) View() tea.View {
	defer recovered("the view", g.fail)
	return g.screen.View()
}
