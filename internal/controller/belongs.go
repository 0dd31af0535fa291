package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

// identify returns the network namespace of a container's first process, which is
// proven to be the container's: the pid may be that of another machine, or of
// another process by now, and that process's ports would be taken for the
// container's. The errors are those of [netns.Identify], or say so.
func (c *Controller) identify(container *port.Container) (id port.Namespace, err error) {
	err = netns.Hold(c.ProcRoot, container.PID, func() error {
		if err := c.Prove(c.ProcRoot, container); err != nil {
			return err
		}
		var err error
		id, err = netns.Identify(c.ProcRoot, container.PID)
		return err
	})
	if stranger, ok := errors.AsType[*process.StrangerError](err); ok {
		err = c.disbelief(container, stranger)
	}
	return id, err
}

// disbelief is the error of a container whose process is not what the engine says.
func (c *Controller) disbelief(container *port.Container, why error) error {
	return fmt.Errorf("the engine at %s says that process %d is container %s's, but it is not: is that engine on this machine? "+
		"portwatcher watches the containers of its own machine, and needs the host's pid namespace (docker run --pid host; in Compose, pid: host): %w",
		c.EngineAddress, container.PID, container.Name, why)
}

// noticeTime is how long an engine may take to notice that a container's process
// has ended.
const noticeTime = 2 * time.Second

// tellAbsent warns of the monitored containers whose process is not there, while
// the engine goes on to list them: it has not noticed their end, or is elsewhere.
func (c *Controller) tellAbsent(ctx context.Context) error {
	absent := map[string]*member{}
	c.mutex.Lock()
	for id, m := range c.containers {
		if errors.Is(m.unreachable, ErrNoHostPIDNamespace) && c.Monitored(m.Container) {
			absent[id] = m
		}
	}
	c.mutex.Unlock()
	for until := time.Now().Add(noticeTime); len(absent) > 0 && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(noticeTime / 20):
		}
		all, err := c.Engine.List(ctx)
		if err != nil && len(all) == 0 {
			return err
		}
		listed := map[string]int{}
		for _, container := range all {
			listed[container.ID] = container.PID
		}
		maps.DeleteFunc(absent, func(id string, m *member) bool { return listed[id] != m.PID })
	}
	for _, m := range absent {
		c.log.WithField("container", m.Name).Warnf("The engine at %s goes on to list the container, but its process %d is not there: it has just ended, or that engine is not on this machine.",
			c.EngineAddress, m.PID)
	}
	return nil
}
