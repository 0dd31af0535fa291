package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

const (
	// maxEnding is how long the end of a container waits for the kernel's earlier reports.
	// In a storm portwatcher is seconds behind; the bounds of all that waits keep it below
	// this.
	maxEnding = 30 * time.Second
	// infoRetry is the time between two attempts to read the engine's information.
	infoRetry = 10 * time.Second
	// infoTime is how long the first container waits for the engine's information: events
	// have the host's name.
	infoTime = 2 * time.Second
)

// Engine lists and follows the containers; see [engine.Engine].
type Engine interface {
	Info(ctx context.Context) (engine.Info, error)
	List(ctx context.Context) ([]*model.Container, error)
	Follow(ctx context.Context, changes chan<- engine.Change) error
}

// Containers follows the engine, and reads the network namespace of each container. It
// runs in the goroutine of Run.
type Containers struct {
	Env    *Env
	Engine Engine
	// Address is the engine's, for log messages.
	Address string
	// Prove returns nil if a container's first process is the one that ProcRoot shows;
	// see [attribute.Prove].
	Prove func(procRoot string, container *model.Container) error

	// hostNamespace is the host's own, zero until it is known.
	hostNamespace model.Namespace
	// ending are the changes of the containers whose end waits until the kernel's earlier
	// reports are sent: the end, and what the engine has reported since.
	ending map[string][]engine.Change
	over   chan ended
	// informed is closed when the engine's information has come; waited means that the
	// first container has waited for that.
	informed chan struct{}
	askInfo  chan struct{} // awaitInfo asks now
	waited   bool
	hostSent bool
}

// ended is a container of which all reports of the kernel were sent.
type ended struct {
	id   string
	late bool
}

// Run sends what changes until ctx ends.
func (c *Containers) Run(ctx context.Context) {
	c.ending, c.over = map[string][]engine.Change{}, make(chan ended)
	c.informed, c.askInfo = make(chan struct{}), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	asking.Go(func() { c.awaitInfo(ctx) })
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
			for _, waiting := range c.ending { // portwatcher stops: these ends wait no longer
				c.Env.send(&ContainerChange{Change: waiting[0], Late: true})
			}
			if ctx.Err() == nil {
				c.Env.send(EngineEnded{fmt.Errorf("following the Docker Engine ended: %w", err)})
			}
			return
		}
	}
}

// take sends a change, now or, where an end waits, after that: when the engine reports
// the end of a container, its last openings and closings may not have arrived yet, and
// would have no owner afterwards.
func (c *Containers) take(ctx context.Context, change engine.Change) {
	if change.Container == nil {
		if change.Kind == engine.Synced && c.Env.Host {
			c.sendHost()
		}
		c.Env.send(&ContainerChange{Change: change})
		return
	}
	c.waitInfo(ctx)
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

// end sends the end of a container, and the changes since, up to its next end.
func (c *Containers) end(ctx context.Context, e ended) {
	waiting := c.ending[e.id]
	delete(c.ending, e.id)
	c.Env.send(&ContainerChange{Change: waiting[0], Late: e.late})
	for _, change := range waiting[1:] {
		c.take(ctx, change)
	}
}

// await waits until all earlier reports of the kernel of a container are sent: all that is
// in eBPF's ring, and a storm of destroy notifications to its end. It returns true where
// that took too long.
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

// Inspect adds the network namespace of the container's process, and its interfaces, to a
// change. There is none where the engine does not describe the container.
func (c *Containers) Inspect(change engine.Change) *ContainerChange {
	if change.Kind == engine.Failed {
		return &ContainerChange{Change: change, Err: change.Err}
	}
	id, err := c.identify(change.Container)
	if err != nil {
		return &ContainerChange{Change: change, Err: err, Ended: errors.Is(err, netns.ErrProcessGone)}
	}
	o := &ContainerChange{Change: change, Namespace: id, Host: c.isHost(id, change.Container)}
	o.Interfaces = c.interfacesOf(o)
	return o
}

// sendHost sends, one time, the owner of the host's own ports. It comes after the first list of
// containers, so that no port of theirs is reported as the host's.
func (c *Containers) sendHost() {
	if c.hostSent {
		return
	}
	c.hostSent = true
	host, err := c.InspectHost()
	if err != nil {
		c.Env.send(EngineEnded{err})
		return
	}
	c.Env.send(host)
}

// InspectHost returns the owner of the host's own ports, as a container that has started.
func (c *Containers) InspectHost() (*ContainerChange, error) {
	const asked = "the host's own ports (--host) cannot be watched"
	if !procfs.HostProcesses(c.Env.ProcRoot) {
		return nil, errors.New(asked + ": the host's processes are not visible here, which needs the host's pid namespace (docker run --pid host; in Compose, pid: host)")
	}
	id, err := procfs.HostNamespace(c.Env.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf(asked+": %w", err)
	}
	owner := model.HostOwner(procfs.FirstProcess(c.Env.ProcRoot), id)
	return &ContainerChange{Change: engine.Change{Kind: engine.Started, Container: owner, Time: time.Now()}, Namespace: id, Host: true}, nil
}

// identify returns the network namespace of a container's first process, after a proof
// that the process is the container's: the pid may be of another machine, or another
// process by now, whose ports would be reported as the container's. The errors are those of
// [netns.Identify] and of the proof.
func (c *Containers) identify(container *model.Container) (id model.Namespace, err error) {
	root := c.Env.ProcRoot
	err = netns.Hold(root, container.PID, func() error {
		if err := c.Prove(root, container); err != nil {
			return err
		}
		var err error
		id, err = netns.Identify(root, container.PID)
		return err
	})
	if stranger, ok := errors.AsType[*attribute.StrangerError](err); ok {
		err = fmt.Errorf("the engine at %s reports process %d as container %s's, but it is not: is that engine on this machine? "+
			"portwatcher watches the containers of its own machine, and needs the host's pid namespace (docker run --pid host; in Compose, pid: host): %w",
			c.Address, container.PID, container.Name, stranger)
	}
	return id, err
}

// isHost reports whether a namespace is the host's: that of the host's first process, or
// of a container with network mode host. A container with network mode container:x can be
// there, too, where x has ended since.
func (c *Containers) isHost(id model.Namespace, container *model.Container) bool {
	if container.NetworkMode == "host" {
		c.hostNamespace = id
	} else if c.hostNamespace == (model.Namespace{}) {
		host, err := procfs.HostNamespace(c.Env.ProcRoot)
		if err != nil {
			c.Env.Logger.WithError(err).Debug("The host's network namespace is not known yet.")
			return false
		}
		c.hostNamespace = host
	}
	return id == c.hostNamespace
}

// waitInfo lets the first container wait, for infoTime at most, for awaitInfo: events have
// the host's name.
func (c *Containers) waitInfo(ctx context.Context) {
	if c.waited {
		return
	}
	c.waited = true
	signal(c.askInfo) // the engine answers by now
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	select {
	case <-c.informed:
	case <-ctx.Done():
	}
}

// awaitInfo asks for the engine's information until it comes or ctx ends, and sends it. An
// engine that hangs delays nothing else.
func (c *Containers) awaitInfo(ctx context.Context) {
	var notices Notices
	for {
		info, err := c.Engine.Info(ctx)
		if err == nil {
			c.Env.send(EngineInfo{info})
			close(c.informed)
			return
		}
		// A lost connection is reported for all.
		if _, absent := errors.AsType[*engine.ConnectError](err); ctx.Err() == nil && !absent && notices.First("info") {
			c.Env.Logger.WithError(err).Warn("The engine does not answer with its host's name. Until it does, events have the name that --host-name sets, or none.")
		}
		select {
		case <-time.After(infoRetry):
		case <-c.askInfo:
		case <-ctx.Done():
			return
		}
	}
}
