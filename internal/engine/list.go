package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"portwatcher/internal/model"
)

// parallelInspects bounds the requests that one list sends at a time.
const parallelInspects = 8

// inspected is the result of an inspection. Without a container and an error the
// container is not running.
type inspected struct {
	id        string
	container *model.Container
	startedAt time.Time // zero where the engine leaves it out
	unclear   error     // parts of the answer that could not be parsed
	err       error     // of the inspection
	again     bool      // the inspection before failed
	list      int       // the latest list that was requested before
}

func (i *inspected) running() bool { return i.container != nil }

// inspect requests one container. One that is gone is not an error.
func inspect(ctx context.Context, a api, id string) inspected {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	result := inspected{id: id}
	answer, err := a.ContainerInspect(ctx, id)
	switch {
	case cerrdefs.IsNotFound(err):
	case err != nil:
		result.err = fmt.Errorf("inspect container %s: %w", id, err)
	default:
		result.container, result.startedAt, result.unclear = convert(answer)
	}
	return result
}

// list requests the running containers.
func list(ctx context.Context, a api) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	summaries, err := a.ContainerList(ctx, container.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return summaries, nil
}

// listAll lists the running containers and inspects each. Those that run come ordered by
// name. The error is that of the list; errors of single inspections are in the results.
func listAll(ctx context.Context, a api) ([]inspected, error) {
	summaries, err := list(ctx, a)
	if err != nil {
		return nil, err
	}
	results := make([]inspected, len(summaries))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(parallelInspects, len(summaries)) {
		workers.Go(func() {
			for i := range next {
				results[i] = inspect(ctx, a, summaries[i].ID)
			}
		})
	}
	for i := range summaries {
		next <- i
	}
	close(next)
	workers.Wait()
	slices.SortStableFunc(results, func(a, b inspected) int { return cmp.Compare(a.sortKey(), b.sortKey()) })
	return results, nil
}

func (i *inspected) sortKey() string {
	if i.container == nil {
		return i.id
	}
	return i.container.Name
}

// listing is the answer to a list.
type listing struct {
	number    int
	summaries []container.Summary
	err       error
}

// list requests a list, in place of the one under way: that may be older than what has to
// be found.
func (f *follower) list(ctx context.Context) {
	f.cancelList()
	ctx, f.cancelList = context.WithCancel(ctx)
	f.listNumber++
	f.listTime, f.unsettled = time.Now(), nil
	f.listDue.Reset(listInterval)
	number, a := f.listNumber, f.api
	f.requests.Go(func() {
		summaries, err := list(ctx, a)
		select {
		case f.lists <- listing{number, summaries, err}:
		case <-ctx.Done():
		}
	})
}

// listed reconciles the known containers with the engine's list.
func (f *follower) listed(ctx context.Context, l listing) {
	if l.number != f.listNumber {
		return
	}
	if l.err != nil {
		f.listFailed(ctx, l.err)
		return
	}
	f.listFailures = 0
	f.listPause.Reset()
	f.listDue.Reset(listInterval)
	f.drain(ctx) // the time of a die event is more exact than that of the list
	if l.number != f.listNumber {
		return
	}
	f.unsettled = map[string]struct{}{}
	running := make(map[string]struct{}, len(l.summaries))
	for i := range l.summaries {
		running[l.summaries[i].ID] = struct{}{}
		f.reconcile(ctx, &l.summaries[i])
	}
	for id, t := range f.containers {
		_, runs := running[id]
		switch {
		case runs, t.seen >= f.listNumber: // the latter may not be in the list
		case t.busy: // the answer may be older than the list
			t.recheck = true
			f.unsettled[id] = struct{}{}
		default:
			f.stopped(ctx, t, f.listTime)
		}
	}
	f.complete(ctx)
}

// listFailed has a failed list repeated. One error alone, unless the engine hangs, is no
// reason to report that the containers are not known.
func (f *follower) listFailed(ctx context.Context, err error) {
	f.listFailures++
	f.listDue.Reset(f.listPause.NextBackOff())
	if f.listFailures > 1 || !f.connected || errors.Is(err, context.DeadlineExceeded) {
		f.lost(ctx, err)
	}
}

// reconcile inspects a listed container if it is new or has changed.
func (f *follower) reconcile(ctx context.Context, s *container.Summary) {
	t := f.containers[s.ID]
	switch {
	case t == nil:
		t = f.track(&model.Container{ID: s.ID, Name: listedName(s), Image: s.Image, Labels: s.Labels})
		t.cause, t.at = byList, f.listTime
		f.inspect(ctx, t)
	case t.busy:
	case t.failing():
		if t.reported {
			return
		}
	case f.unchanged(t, s):
		return
	default:
		t.cause, t.at = byList, f.listTime
		f.inspect(ctx, t)
	}
	f.unsettled[t.id] = struct{}{}
}

// complete reports the latest list when all its containers are known.
func (f *follower) complete(ctx context.Context) {
	if f.unsettled == nil || len(f.unsettled) > 0 || !f.subscribed {
		return
	}
	f.unsettled = nil
	f.connected = true
	if f.absent {
		f.absent = false
		f.down = reminder{}
		f.engine.log.Infof("Connected to the Docker Engine at %s, which runs %d containers", f.engine.host, len(f.containers))
	}
	f.send(ctx, Change{Kind: Synced, Time: f.listTime})
}

// listedName returns the name of a listed container among the aliases that links give it.
func listedName(s *container.Summary) string {
	for _, name := range s.Names {
		if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") {
			return name
		}
	}
	return s.ID
}
