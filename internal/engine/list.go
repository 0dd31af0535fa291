package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
