package engine

import (
	"context"
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
	started   time.Time // zero where the engine leaves it out
	unclear   error     // parts of the answer that could not be parsed
	err       error     // of the inspection
}

func (i inspected) running() bool { return i.container != nil }

// inspect requests one container. One that is gone is not an error.
func inspect(ctx context.Context, a api, id string) inspected {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	answer, err := a.ContainerInspect(ctx, id)
	switch {
	case cerrdefs.IsNotFound(err):
		return inspected{id: id}
	case err != nil:
		return inspected{id: id, err: fmt.Errorf("inspect container %s: %w", id, err)}
	}
	result := inspected{id: id}
	result.container, result.started, result.unclear = convert(answer)
	return result
}

// lookup returns the result for a container that needs no inspection; false for others.
type lookup func(container.Summary) (inspected, bool)

// listAll lists the running containers and inspects each for which known has no
// result. Those that run come ordered by name. The error is that of the list; errors
// of single inspections are in the results.
func listAll(ctx context.Context, a api, known lookup) ([]inspected, error) {
	listContext, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	summaries, err := a.ContainerList(listContext, container.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
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
		var ok bool
		if results[i], ok = known(summaries[i]); !ok {
			next <- i
		}
	}
	close(next)
	workers.Wait()
	slices.SortStableFunc(results, func(a, b inspected) int { return strings.Compare(a.sortKey(), b.sortKey()) })
	return results, nil
}

// inspectAll has listAll inspect every container.
func inspectAll(container.Summary) (inspected, bool) { return inspected{}, false }

// unchanged has listAll inspect only containers that seem to have changed. A restart
// whose events were lost shows in the first process.
func (f *follower) unchanged(s container.Summary) (inspected, bool) {
	known, ok := f.known[s.ID]
	if !ok || f.engine.alive == nil {
		return inspected{}, false
	}
	paused := s.State == container.StatePaused
	same := slices.Contains(s.Names, "/"+known.container.Name) && paused == known.container.Paused
	return known, same && f.engine.alive(known.container)
}

func (i inspected) sortKey() string {
	if i.container == nil {
		return i.id
	}
	return i.container.Name
}
