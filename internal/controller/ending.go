package controller

import (
	"context"
	"errors"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/port"
)

// maxEnding is how long the end of a container waits for what the kernel tells
// of it. In a storm portwatcher is seconds behind; more than this it is not, with
// the bounds on what waits.
const maxEnding = 30 * time.Second

// endings are the containers whose end is not taken over yet: the engine told of
// it, but what they did last may still be on its way, and would belong to nobody
// afterwards. What else the engine tells of them waits too. It belongs to the
// goroutine of Run, but for over.
type endings struct {
	waiting map[string][]engine.Change
	over    chan string // ids of containers of which everything was told
}

// take applies what the engine tells, at once or when its turn comes.
func (c *Controller) take(ctx context.Context, change engine.Change) error {
	if change.Container == nil {
		return c.apply(ctx, change)
	}
	id := change.Container.ID
	if waiting, ends := c.endings.waiting[id]; ends {
		c.endings.waiting[id] = append(waiting, change)
		return nil
	}
	if change.Kind != engine.Stopped && change.Kind != engine.Passed {
		return c.apply(ctx, change)
	}
	c.endings.waiting[id] = []engine.Change{change}
	c.background.Go(func() {
		c.awaitTold(ctx, change.Container)
		select {
		case c.endings.over <- id:
		case <-ctx.Done():
		}
	})
	return nil
}

// end takes over the end of a container, and what the engine has told of it
// since, up to its next end.
func (c *Controller) end(ctx context.Context, id string) error {
	waiting := c.endings.waiting[id]
	delete(c.endings.waiting, id)
	if err := c.apply(ctx, waiting[0]); err != nil {
		return err
	}
	for _, change := range waiting[1:] {
		if err := c.take(ctx, change); err != nil {
			return err
		}
	}
	return nil
}

// endAll takes over the ends that still wait when portwatcher stops.
func (c *Controller) endAll() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, waiting := range c.endings.waiting {
		c.finish(waiting[0])
	}
}

// finish takes over the end of a container. The caller holds the lock.
func (c *Controller) finish(change engine.Change) {
	if change.Kind == engine.Passed {
		c.passed(change.Container, change.Time)
	} else {
		c.remove(change.Container.ID, change.Time)
	}
}

// awaitTold waits until everything is taken over that the kernel told of a
// container before now: all that is in eBPF's ring buffer, and a storm of destroy
// notifications to its end.
func (c *Controller) awaitTold(ctx context.Context, container *port.Container) {
	ctx, cancel := context.WithTimeout(ctx, maxEnding)
	defer cancel()
	c.mutex.Lock()
	facts := c.facts
	c.mutex.Unlock()
	if facts != nil {
		facts.flush(ctx)
	}
	for c.behind(container.ID) && ctx.Err() == nil {
		time.Sleep(catchUpStep)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.gap(container, "the container has ended, and portwatcher is more than "+maxEnding.String()+" behind: what it did last may be missing")
	}
}

// behind says whether destroy notifications of a container's namespace are still
// to be read, or come in such a number that more are on their way.
func (c *Controller) behind(id string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	m := c.containers[id]
	if m == nil || m.group == nil || m.group.watcher == nil {
		return false
	}
	w := m.group.watcher
	return w.closing != nil && (!w.closing.Empty() || w.rate.storm(time.Now()))
}
