package top

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"portwatcher/internal/model"
)

// Capture watches by itself; [portwatcher/internal/capture.Capture] does.
type Capture interface {
	Run(ctx context.Context) error
	Open() []model.Open
	Containers() []model.ContainerState
	Status() model.CaptureStatus
	Ready() error
}

const (
	// lookInterval is the time between two looks at how the capture goes.
	lookInterval = time.Second
	// looksToList is after how many looks the list is taken anew: exposure changes
	// without an event.
	looksToList = 10
)

// local is a capture of this process.
type local struct {
	capture Capture
	board   *Board
	why     string
}

// Local returns a source that watches by itself. The capture's events go to
// [Board.Event] of the same board, by the caller's doing. why says for what
// reason no instance is asked.
func Local(c Capture, b *Board, why string) Source { return &local{capture: c, board: b, why: why} }

// Title implements Source.
func (l *local) Title() string { return "watching by itself: " + l.why }

// Run implements Source.
func (l *local) Run(ctx context.Context, b *Board) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := l.capture.Run(ctx)
		if err == nil && ctx.Err() == nil {
			err = fmt.Errorf("the watching ended by itself")
		}
		return err
	})
	group.Go(func() error {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for round := 0; ; round++ {
			l.look(b, round%looksToList == 0)
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
		}
	})
	return group.Wait()
}

func (l *local) look(b *Board, list bool) {
	if list {
		b.Begin()
		open := l.capture.Open()
		b.Replace(open, b.now()) // refused after a storm: the next one does
	}
	status := l.capture.Status()
	watched := 0
	for _, c := range l.capture.Containers() {
		if c.Monitored {
			watched++
		}
	}
	var trouble string
	if err := l.capture.Ready(); err != nil {
		trouble = err.Error()
	}
	b.SetStatus(newStatus(&status, watched, trouble))
}

// History implements Source: nothing is known but what happened since the start.
func (l *local) History(_ context.Context, of *model.Listener) ([]*model.Event, error) {
	return l.board.history(of), nil
}
