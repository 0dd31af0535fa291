package source

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

const (
	// maxEnding is how long the end of a container waits for what the kernel reported of
	// it before. In a storm portwatcher is seconds behind; more than this it is not, with
	// the bounds on what waits.
	maxEnding = 30 * time.Second
	// infoRetry is the time between two attempts to learn about the engine.
	infoRetry = 10 * time.Second
	// infoTime bounds the first attempt on a connection, for which the containers wait:
	// their events have the host's name.
	infoTime = 2 * time.Second
)

// Engine knows the containers; see [engine.Engine].
type Engine interface {
	Info(ctx context.Context) (engine.Info, error)
	List(ctx context.Context) ([]*port.Container, error)
	Follow(ctx context.Context, changes chan<- engine.Change) error
}

// Containers follows the engine, and reads of each container's process what the
// capture needs. It runs in the goroutine of Run.
type Containers struct {
	Env    *Env
	Engine Engine
	// Address is the engine's, for messages.
	Address string
	// Prove returns nil if a container's first process is the one that ProcRoot shows;
	// see [process.Prove].
	Prove func(procRoot string, container *port.Container) error

	// hostNamespace is the host's own, zero until it is known.
	hostNamespace port.Namespace
	// ending are the containers whose end waits until the kernel's reports of before
	// are sent, with what the engine reported of them since.
	ending map[string][]engine.Change
	over   chan ended
	// asked says that the engine was asked about itself since it was connected.
	asked    bool
	informed atomic.Bool // it has answered
}

// ended is a container of which everything was sent.
type ended struct {
	id   string
	late bool
}

// Run sends what changes until ctx ends.
func (c *Containers) Run(ctx context.Context) {
	c.ending, c.over = map[string][]engine.Change{}, make(chan ended)
	changes := make(chan engine.Change, 64)
	followed := make(chan error, 1)
	go func() { followed <- c.Engine.Follow(ctx, changes) }()
	for {
		select {
		case change := <-changes:
			c.take(ctx, change)
		case e := <-c.over:
			c.end(ctx, e)
		case err := <-followed:
			for _, waiting := range c.ending { // portwatcher stops: nothing more is awaited
				c.Env.send(&ContainerChange{Change: waiting[0], Late: true})
			}
			if ctx.Err() == nil {
				c.Env.send(EngineEnded{fmt.Errorf("following the Docker Engine ended: %w", err)})
			}
			return
		}
	}
}

// take sends a change, at once or when its turn comes: the engine has reported the end
// of a container, but what it did last may still be on its way, and would belong to
// nobody afterwards.
func (c *Containers) take(ctx context.Context, change engine.Change) {
	if change.Container == nil {
		c.asked = c.asked && change.Kind != engine.Lost
		c.Env.send(&ContainerChange{Change: change})
		return
	}
	c.askInfo(ctx)
	id := change.Container.ID
	if waiting, ends := c.ending[id]; ends {
		c.ending[id] = append(waiting, change)
		return
	}
	if change.Kind != engine.Stopped && change.Kind != engine.Passed {
		c.Env.send(c.Inspect(change))
		return
	}
	c.ending[id] = []engine.Change{change}
	go func() {
		late := c.await(ctx, id)
		select {
		case c.over <- ended{id, late}:
		case <-ctx.Done():
		}
	}()
}

// end sends the end of a container, and what the engine has reported of it since, up to
// its next end.
func (c *Containers) end(ctx context.Context, e ended) {
	waiting := c.ending[e.id]
	delete(c.ending, e.id)
	c.Env.send(&ContainerChange{Change: waiting[0], Late: e.late})
	for _, change := range waiting[1:] {
		c.take(ctx, change)
	}
}

// await waits until everything is sent that the kernel reported of a container before
// now: all that is in eBPF's ring, and a storm of destroy notifications to its end. It
// returns true where that took too long.
func (c *Containers) await(ctx context.Context, id string) (late bool) {
	ctx, cancel := context.WithTimeout(ctx, maxEnding)
	defer cancel()
	if reader := c.Env.Prober.Load(); reader != nil {
		reader.Flush(ctx)
	}
	q := &WatcherOf{ID: id}
	if c.Env.ask(q) && q.Watcher != nil {
		q.Watcher.Drain(ctx)
	}
	return errors.Is(ctx.Err(), context.DeadlineExceeded)
}

// Inspect adds to a change what is read of the container's process.
func (c *Containers) Inspect(change engine.Change) *ContainerChange {
	result := &ContainerChange{Change: change}
	container := change.Container
	id, err := c.identify(container)
	switch {
	case errors.Is(err, netns.ErrProcessGone):
		result.Ended, result.Err = true, err
	case err != nil:
		result.Err = err
	default:
		result.Namespace, result.Host = id, c.isHost(id, container)
	}
	return result
}

// identify returns the network namespace of a container's first process, which is
// proven to be the container's: the pid may be that of another machine, or of another
// process by now, and that process's ports would be taken for the container's. The
// errors are those of [netns.Identify], or say so.
func (c *Containers) identify(container *port.Container) (id port.Namespace, err error) {
	root := c.Env.ProcRoot
	err = netns.Hold(root, container.PID, func() error {
		if err := c.Prove(root, container); err != nil {
			return err
		}
		var err error
		id, err = netns.Identify(root, container.PID)
		return err
	})
	if stranger, ok := errors.AsType[*process.StrangerError](err); ok {
		err = fmt.Errorf("the engine at %s says that process %d is container %s's, but it is not: is that engine on this machine? "+
			"portwatcher watches the containers of its own machine, and needs the host's pid namespace (docker run --pid host; in Compose, pid: host): %w",
			c.Address, container.PID, container.Name, stranger)
	}
	return id, err
}

// isHost reports whether a namespace is the host's: that of the host's first process, or
// of a container whose network mode is host. Others can be there by another network mode,
// container:x, when x has ended since.
func (c *Containers) isHost(id port.Namespace, container *port.Container) bool {
	root := c.Env.ProcRoot
	if container.NetworkMode == "host" {
		c.hostNamespace = id
	} else if c.hostNamespace == (port.Namespace{}) {
		first := 1
		if process.HostProcesses(root) {
			first = 2 // the kernel's own, which some systems let be read where they hide 1
		}
		host, err := netns.Identify(root, first)
		if err != nil {
			c.Env.Logger.WithError(err).Debug("The host's network namespace is not known yet.")
			return false
		}
		c.hostNamespace = host
	}
	return id == c.hostNamespace
}

// askInfo asks the engine about itself, once on each connection until it has answered.
func (c *Containers) askInfo(ctx context.Context) {
	if c.asked || c.informed.Load() {
		return
	}
	c.asked = true
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	c.inform(ctx)
}

func (c *Containers) inform(ctx context.Context) bool {
	info, err := c.Engine.Info(ctx)
	if err != nil {
		c.Env.Logger.WithError(err).Debug("The engine does not answer with its host's name; events are without it until it does.")
		return false
	}
	c.informed.Store(true)
	c.Env.send(EngineInfo{info})
	return true
}

// AwaitInfo asks the engine about itself until it answers or ctx ends, and sends the
// answer. An engine that hangs holds up nothing else.
func (c *Containers) AwaitInfo(ctx context.Context) {
	for !c.informed.Load() && !c.inform(ctx) {
		if !clock.Sleep(ctx, infoRetry) {
			return
		}
	}
}
