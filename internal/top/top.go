// Package top is the live view in a terminal: the open endpoints and the latest events.
//
// A [Source] writes to a [Board]; the view reads the board a few times a second. So the number
// of frames does not depend on the number of events, and a slow terminal slows nothing but the
// view. Only the rows that fit on the screen are drawn.
//
// Text from a source is not trusted: characters that control a terminal are replaced.
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

// Source provides what a board shows.
type Source interface {
	// Run writes to the board until ctx ends, and returns nil then. An error ends the view.
	Run(ctx context.Context, b *Board) error
	// History returns events of one port of a container, oldest first. The container is not nil.
	History(ctx context.Context, of *model.Listener) ([]*model.Event, error)
	// Title describes where the data comes from.
	Title() string
}

// Options are the arguments of [Run].
type Options struct {
	Board  *Board
	Source Source
	// Output is the terminal to draw on, and Input where keys come from.
	Output, Input *os.File
	// Environment is that of the process: TERM, NO_COLOR.
	Environment []string
}

// ErrNoTerminal is the error for an output that is no terminal.
var ErrNoTerminal = errors.New(`the live view needs a terminal on standard output: use "portwatcher ports" for what is open and "portwatcher events --follow" for events`)

// CheckTerminal returns [ErrNoTerminal] where nothing can be drawn.
func CheckTerminal(output *os.File) error {
	if !term.IsTerminal(output.Fd()) {
		return ErrNoTerminal
	}
	return nil
}

// framesPerSecond bounds what is written to the terminal.
const framesPerSecond = 20

// Run shows the view until the user quits or ctx ends, and returns nil then. When it returns,
// also after a panic, the source has ended and the terminal is as it was before.
func Run(ctx context.Context, o Options) error {
	if err := CheckTerminal(o.Output); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := []tea.ProgramOption{
		tea.WithOutput(o.Output), tea.WithEnvironment(o.Environment),
		tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler(),
	}
	if term.IsTerminal(o.Input.Fd()) { // else keys come from the controlling terminal
		options = append(options, tea.WithInput(o.Input))
	}
	program := tea.NewProgram(guarded{newScreen(ctx, o.Board, o.Source), cancel}, options...)
	var others sync.WaitGroup
	others.Go(func() {
		defer recovered("the source of the view", cancel)
		if err := o.Source.Run(ctx, o.Board); err != nil {
			cancel(err)
		}
	})
	others.Go(func() {
		<-ctx.Done()
		program.Quit() // restores the terminal, unlike the end of the program's own context
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

// recovered turns a panic into an error, so that the terminal is restored. It is deferred.
func recovered(what string, fail func(error)) {
	if r := recover(); r != nil {
		fail(fmt.Errorf("%s failed: %v\n%s", what, r, debug.Stack()))
	}
}

// guarded is a screen whose panic ends the view with an error.
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
