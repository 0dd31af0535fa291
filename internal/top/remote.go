package top

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"portwatcher/internal/client"
	"portwatcher/internal/model"
	"portwatcher/internal/server/api"
)

const (
	// pastEvents is how many events from before the start are shown.
	pastEvents = 200
	// historyEvents is how many events of one port are asked for.
	historyEvents = 200
	// statusInterval is the time between two questions how the instance is.
	statusInterval = 2 * time.Second
	// listInterval is the time after which the list is asked for anew: exposure
	// changes without an event.
	listInterval = 30 * time.Second
	// listRetry is the time between two questions for the list that fail.
	listRetry = time.Second
)

// remote is a running instance.
type remote struct {
	client *client.Client
	// wanted has room for one: the list is to be asked for now.
	wanted chan struct{}
	// pastWanted says that the events from before are to be asked for, too.
	pastWanted atomic.Bool
}

// Remote returns a source that asks a running instance. The caller closes the
// client after the view has ended.
func Remote(c *client.Client) Source {
	return &remote{client: c, wanted: make(chan struct{}, 1)}
}

// Title implements Source.
func (r *remote) Title() string { return "live from " + r.client.Server() }

// Run implements Source. It returns an error that no other try would change: a
// wrong token.
func (r *remote) Run(ctx context.Context, b *Board) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return r.client.Stream(ctx, nil, func(m client.Message) error {
			r.take(b, m)
			return nil
		})
	})
	group.Go(func() error { return r.keepList(ctx, b) })
	group.Go(func() error { return r.keepStatus(ctx, b) })
	return group.Wait()
}

func (r *remote) take(b *Board, m client.Message) {
	switch {
	case m.Event != nil:
		b.Event(m.Event)
	case m.Down != nil:
		b.Lost(m.Down)
	case m.Reset != nil:
		b.Forget()
		r.want(true)
	case m.Hello != nil:
		b.Connected()
		r.want(true)
	}
}

func (r *remote) want(past bool) {
	if past {
		r.pastWanted.Store(true)
	}
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// keepList asks for what is open whenever that is wanted, and now and then.
func (r *remote) keepList(ctx context.Context, b *Board) error {
	timer := time.NewTimer(listInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wanted:
		case <-timer.C:
		}
		if r.list(ctx, b) {
			timer.Reset(listInterval)
		} else {
			timer.Reset(listRetry)
		}
	}
}

// list returns false where it has to be done again.
func (r *remote) list(ctx context.Context, b *Board) bool {
	b.Begin()
	ports, err := r.client.Ports(ctx, nil)
	if err != nil {
		b.Lost(err)
		return false
	}
	if !b.Replace(ports.Ports, ports.Time) {
		return false
	}
	b.Connected()
	if !r.pastWanted.Swap(false) {
		return true
	}
	journal := b.Journal()
	past, err := r.client.Events(ctx, url.Values{"limit": {strconv.Itoa(pastEvents)}})
	if err != nil {
		r.pastWanted.Store(true)
		b.Note("The events from before cannot be read: %v", err)
		return false
	}
	// Of another journal than it is by now they mean nothing, and are wanted anew.
	b.Past(journal, past.Events)
	return true
}

func (r *remote) keepStatus(ctx context.Context, b *Board) error {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	for {
		status, err := r.client.Status(ctx)
		switch problem := (*api.Problem)(nil); {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &problem): // else the stream tells that nobody answers
			b.Note("The state of the instance cannot be read: %v", err)
		case err == nil:
			b.SetStatus(newStatus(&status.CaptureStatus, status.Containers, status.NotReady))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// containerName matches what can be asked for by name.
// Source: https://docs.docker.com/reference/api/engine/ (ContainerCreate: name).
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// History implements Source.
func (r *remote) History(ctx context.Context, of *model.Listener) ([]*model.Event, error) {
	query := url.Values{
		"container": {of.Container.ID}, "port": {strconv.Itoa(int(of.Port)) + "/" + of.Protocol.String()},
		"limit": {strconv.Itoa(historyEvents)},
	}
	// By name, the containers are found that were there before it.
	if containerName.MatchString(of.Container.Name) {
		query.Set("container", of.Container.Name)
	}
	events, err := r.client.Events(ctx, query)
	if err != nil {
		return nil, err
	}
	return events.Events, nil
}
