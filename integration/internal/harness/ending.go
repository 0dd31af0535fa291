package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// endOne waits until nobody else in this process ends a container of this engine.
// The caller ends its one container, waits until it has ended, and calls done.
//
// Docker Engine 20.10 deadlocks when containers leave their networks at the same
// moment, and answers nothing any more: libnetwork's endpoint.sbLeave holds the
// network's lock and waits in getSvcRecords for the controller's, while
// processEndpointDelete in watchLoop holds the controller's and waits for the
// network's. `docker rm a b c` removes up to 50 at the same time. Starting many at
// the same time is no problem.
func (e *Engine) endOne() (done func()) {
	e.ending.Lock()
	return e.ending.Unlock
}

// Remove kills and removes containers with their volumes, each after the other,
// without a process of the docker command for each. One that is gone, or whose
// engine is gone, is no error; after another error the others are removed all the
// same.
func (e *Engine) Remove(names ...string) error {
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if e.Host != "" {
		options = append(options, client.WithHost(e.Host))
	}
	docker, err := client.NewClientWithOpts(options...)
	if err != nil {
		return fmt.Errorf("remove containers: %w", err)
	}
	defer docker.Close()
	var failures error
	for _, name := range names {
		err := e.remove(docker, name)
		if client.IsErrConnectionFailed(err) {
			break
		}
		if err != nil && !cerrdefs.IsNotFound(err) {
			failures = errors.Join(failures, fmt.Errorf("remove container %s: %w", name, err))
		}
	}
	return failures
}

func (e *Engine) remove(docker *client.Client, name string) error {
	defer e.endOne()()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := docker.ContainerRemove(ctx, name, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if !cerrdefs.IsConflict(err) {
		return err
	}
	// It has ended by itself, and --rm removes it.
	gone, failed := docker.ContainerWait(ctx, name, container.WaitConditionRemoved)
	select {
	case <-gone:
		return nil
	case err := <-failed:
		return err
	}
}
