package top

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"portwatcher/internal/client"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

const (
	// pastEvents is how many events from before the start are shown.
	pastEvents = 200
	// historyEvents is how many events of one port are requested.
	historyEvents = 200
	// statusInterval is the time between two requests of the status.
	statusInterval = 2 * time.Second
	// listInterval is the time between two requests of the list without a reason: processes
	// change without an event. maxListPause bounds the time after requests that failed.
	listInterval = 30 * time.Second
	maxListPause = 5 * time.Second
)

type remote struct {
	client *client.Client
	// stale has room for one: the list has to be read now.
	stale chan struct{}
	// needPast is set while the events from before the stream have to be read too.
	needPast atomic.Bool
}

// Remote returns a source that asks a running instance. The caller closes the client after the
// view has ended.
func Remote(c *client.Client) Source {
	return &remote{client: c, stale: make(chan struct{}, 1)}
}

// Title implements Source.
func (r *remote) Title() string { return "live from " + r.client.Server() }

// Run implements Source. It returns an error that trying again does not change: a wrong token.
func (r *remote) Run(ctx context.Context, b *Board) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return r.client.Stream(ctx, nil, func(m client.Message) error {
			r.handle(b, m)
			return nil
		})
	})
	group.Go(func() error { return r.keepList(ctx, b) })
	group.Go(func() error { return r.keepStatus(ctx, b) })
	return group.Wait()
}

func (r *remote) handle(b *Board, m client.Message) {
	switch {
	case m.Event != nil:
		b.Event(m.Event)
		return
	case m.Down != nil:
		b.lost(m.Down)
		return
	case m.Reset != nil:
		b.forget()
	case m.Hello != nil:
		b.connected()
	}
	r.needPast.Store(true)
	select {
	case r.stale <- struct{}{}:
	default:
	}
}

// keepList reads the list whenever it is stale, and after each interval.
func (r *remote) keepList(ctx context.Context, b *Board) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = maxListPause
	timer := time.NewTimer(listInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.stale:
		case <-timer.C:
		}
		if r.list(ctx, b) {
			pauses.Reset()
			timer.Reset(listInterval)
		} else {
			timer.Reset(pauses.NextBackOff())
		}
	}
}

// list returns false where it has to be called again.
func (r *remote) list(ctx context.Context, b *Board) bool {
	b.expect()
	ports, err := r.client.Ports(ctx, nil)
	if err != nil {
		b.lost(err)
		return false
	}
	if !b.replace(ports.Ports, ports.Time) {
		return false
	}
	b.connected()
	if !r.needPast.Swap(false) {
		return true
	}
	journal := b.journalNumber()
	past, err := r.client.Events(ctx, url.Values{"limit": {strconv.Itoa(pastEvents)}})
	if err != nil {
		r.needPast.Store(true)
		b.Note("The events from before cannot be read: %v", err)
		return false
	}
	b.past(journal, past.Events)
	return true
}

func (r *remote) keepStatus(ctx context.Context, b *Board) error {
	for {
		status, err := r.client.Status(ctx)
		switch problem := (*api.Problem)(nil); {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &problem): // other errors come with the stream too
			b.Note("The status of the instance cannot be read: %v", err)
		case err == nil:
			b.setStatus(statusOf(status))
		}
		if !clock.Sleep(ctx, statusInterval) {
			return nil
		}
	}
}

func statusOf(answer *api.Status) watchStatus {
	s := watchStatus{
		Host: answer.Host, Containers: answer.Containers, Gaps: answer.Gaps, Lost: answer.Lost,
		NotReady: answer.NotReady, EngineError: answer.Engine.Error,
	}
	for _, w := range answer.Watchers {
		s.Sources = append(s.Sources, w.Source)
	}
	return s
}

// containerName matches the names that the API takes.
// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// History implements Source.
func (r *remote) History(ctx context.Context, of *model.Listener) ([]*model.Event, error) {
	query := url.Values{
		"container": {of.ContainerName()}, "port": {strconv.Itoa(int(of.Port)) + "/" + of.Protocol.String()},
		"limit": {strconv.Itoa(historyEvents)},
	}
	// The name selects the earlier containers of this name too.
	if c := of.Container; c != nil && !containerName.MatchString(c.Name) {
		query.Set("container", c.ID)
	}
	events, err := r.client.Events(ctx, query)
	if err != nil {
		return nil, err
	}
	return events.Events, nil
}
