package top

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// Capture watches in this process; [portwatcher/internal/capture.Capture] implements it.
type Capture interface {
	Run(ctx context.Context) error
	View() *model.View
	Ready() error
}

const (
	// localInterval is the time between two reads of the capture's status.
	localInterval = time.Second
	// roundsToList is after how many of them the list is read: processes change without an
	// event.
	roundsToList = 10
)

type local struct {
	capture Capture
	board   *Board
	why     string
}

// Local returns a source that watches by itself. The caller passes the capture's events to
// [Board.Event] of the same board. why is the reason why no instance is asked.
func Local(c Capture, b *Board, why string) Source { return &local{capture: c, board: b, why: why} }

// Title implements Source.
func (l *local) Title() string { return "watching by itself: " + l.why }

// Run implements Source.
func (l *local) Run(ctx context.Context, b *Board) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := l.capture.Run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errors.New("the capture ended by itself")
		}
		return err
	})
	group.Go(func() error {
		for round := 0; ; round++ {
			l.update(b, round%roundsToList == 0)
			if !clock.Sleep(ctx, localInterval) {
				return nil
			}
		}
	})
	return group.Wait()
}

func (l *local) update(b *Board, list bool) {
	if list {
		b.expect()
	}
	view := l.capture.View()
	if list {
		b.replace(view.Open, b.now()) // if it is refused, the next one follows soon
	}
	status := watchStatus{Host: view.Status.Host, Gaps: view.Status.Gaps, Lost: view.Status.Lost, EngineError: view.Status.Engine.Error}
	for _, w := range view.Status.Watchers {
		status.Sources = append(status.Sources, w.Source)
	}
	for _, c := range view.Containers {
		if c.Monitored {
			status.Containers++
		}
	}
	if err := l.capture.Ready(); err != nil {
		status.NotReady = err.Error()
	}
	b.setStatus(status)
}

// History implements Source: it has the events since the start.
func (l *local) History(_ context.Context, of *model.Listener) ([]*model.Event, error) {
	return l.board.history(of), nil
}
