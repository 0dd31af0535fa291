// Package controller joins containers and network namespaces to events: it
// keeps one watcher for each namespace that holds a monitored container, and
// completes what the tracker says with container, exposure and number.
//
// It does not talk to the engine or the kernel itself, and knows no consumer:
// events go to a [Sink] that must not block.
//
// Invariants:
//
//   - DO know every running container, monitored or not. DON'T forget the ones
//     that are not: they own sockets in shared namespaces, and publish ports for
//     their namespace-mates.
//   - DO let one watcher's failure be its own. DON'T let it end the others.
//   - DO number events where they are made, under the lock. DON'T let a slow
//     consumer hold that lock: what its queue cannot take is counted and told
//     as a gap.
package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/engine"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/tracker"
)

// Engine tells of containers.
type Engine interface {
	Info(ctx context.Context) (engine.Info, error)
	List(ctx context.Context) ([]*port.Container, error)
	Follow(ctx context.Context, changes chan<- engine.Change) error
}

// Options are the controller's surroundings and settings.
type Options struct {
	Tuning
	Engine Engine
	Logger logrus.FieldLogger
	// Sink takes the events for standard output; nil where nobody reads them.
	Sink Sink
	// SinkQueue returns how full the queue behind Sink is; nil where there is
	// none.
	SinkQueue func() (length, capacity int)
	// Journal takes the record, and JournalQueue is what SinkQueue is for Sink.
	Journal      Journal
	JournalQueue func() (length, capacity int)
	Resume       Resume
	// HostName is put into events; empty takes the engine's.
	HostName string
	// EngineAddress is told in the status.
	EngineAddress string
	// Observer is told how long things took; nil where nobody measures.
	Observer Observer
	ProcRoot string
	// Prove returns nil if a container's first process is the one that ProcRoot
	// shows; nil is [process.Prove].
	Prove      func(procRoot string, container *port.Container) error
	Attributor *process.Attributor
	Finder     *process.Finder
	Source     Source
	// OpenProbe loads eBPF; nil where there is none.
	OpenProbe func() (Probe, error)
}

// Controller watches the namespaces of containers. Its methods are safe for
// concurrent use; Run or Once is called once.
type Controller struct {
	Options
	log logrus.FieldLogger

	mutex      sync.Mutex
	tracker    *tracker.Tracker
	containers map[string]*member
	groups     map[port.Namespace]*group
	reaches    map[port.Endpoint]reach
	changes    []tracker.Change // reused
	hostName   string
	// hostNamespace is the host's own, zero until it is known.
	hostNamespace port.Namespace
	lastID        uint64
	outlets       []*outlet
	startedAt     time.Time
	counts        counts
	still         bool // watchers do not run: Once looks by itself
	synced        bool
	link          link
	said          said

	probing  bool                // eBPF tells of every change
	facts    *factReader         // nil while eBPF is not read
	byCookie map[uint64]*watcher // by the namespace's cookie in its events
	pending  pending
	calm     calm
	lossAt   time.Time // facts were lost the last time
	// toldOverflow is when a gap told of facts that pending gave up.
	toldOverflow time.Time

	resume memory
	kept   uint64 // the tracker's revision that the journal has

	endings    endings
	holders    holders
	background sync.WaitGroup // what Run has started, but for watchers
	watchers   sync.WaitGroup
	stuckAfter time.Duration
	wake       chan struct{} // the close grace of an endpoint began
	tunings    chan Tuning   // of capacity 1: the newest counts
}

// member is a running container.
type member struct {
	*port.Container
	group     *group // nil where its namespace could not be identified
	monitored bool
	// unreachable says why there is no group.
	unreachable error
}

// group is a network namespace with its containers.
type group struct {
	id      port.Namespace
	host    bool
	members map[string]*member
	epoch   uint64 // rises whenever the members change
	unbound map[uint64]unbound
	// netnsCookie is the namespace's in eBPF events, 0 until it is known.
	netnsCookie uint64
	watcher     *watcher // nil while no member is monitored
	// resumed says that the first scan finds what happened while portwatcher did
	// not run.
	resumed bool
	// abandoned are watchers that were stuck and have not ended.
	abandoned int
}

// ErrNoHostPIDNamespace says that no container's process can be seen.
var ErrNoHostPIDNamespace = errors.New("no container's process can be seen here: portwatcher needs the host's pid namespace (docker run --pid host; in Compose, pid: host)")

// New returns a controller that does nothing yet.
func New(o Options) *Controller {
	c := &Controller{
		Options:    o,
		log:        o.Logger,
		tracker:    tracker.New(o.CloseGrace),
		containers: map[string]*member{},
		groups:     map[port.Namespace]*group{},
		reaches:    map[port.Endpoint]reach{},
		hostName:   o.HostName,
		byCookie:   map[uint64]*watcher{},
		calm:       calm{timer: stoppedTimer()},
		wake:       make(chan struct{}, 1),
		tunings:    make(chan Tuning, 1),
		endings:    endings{waiting: map[string][]engine.Change{}, over: make(chan string)},
		stuckAfter: stuckAfter,
		link:       link{lost: errors.New("not connected yet"), since: time.Now()},
		startedAt:  time.Now(),
		outlets:    newOutlets(o),
	}
	if c.Prove == nil {
		c.Prove = process.Prove
	}
	c.recall()
	return c
}

// Run watches until ctx ends, and returns nil then. All its goroutines have
// ended when it returns.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	changes := make(chan engine.Change, 64)
	c.background.Go(func() {
		err := c.Engine.Follow(ctx, changes)
		if ctx.Err() == nil {
			cancel(fmt.Errorf("following the Docker Engine ended: %w", err))
		}
	})
	defer func() {
		cancel(nil)
		c.background.Wait()
		c.endAll()
		c.stopWatchers()
		c.awaitWatchers()
		c.keepState()
	}()
	// While the engine lists its containers; before any of them is watched.
	first, err := c.startProbe()
	if err != nil {
		return err
	}
	if first != nil {
		c.background.Go(func() { c.runProbe(ctx, first) })
	}
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	rounds := time.NewTicker(roundInterval)
	defer rounds.Stop()
	for {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		case change := <-changes:
			if err := c.take(ctx, change); err != nil {
				return err
			}
		case id := <-c.endings.over:
			if err := c.end(ctx, id); err != nil {
				return err
			}
		case <-c.wake:
		case <-c.calm.timer.C:
			c.settleDown()
		case tuning := <-c.tunings:
			c.tune(ctx, tuning)
		case <-rounds.C:
			c.round(ctx)
		case <-expiry.C:
		}
		expiry.Reset(c.expire())
	}
}

// roundInterval is the time between two looks at what nothing else notices.
const roundInterval = 10 * time.Second

// round restarts watchers that are stuck, tells of what was dropped, has the
// journal learn of sockets and processes that came and went without an event, and
// has these looked for.
func (c *Controller) round(ctx context.Context) {
	c.restartStuck(ctx)
	c.keepState()
	c.refreshHolders(ctx)
}

// expire closes what the close grace has run out for, and returns how long to
// wait for the next.
func (c *Controller) expire() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	now := time.Now()
	c.publish(c.tracker.Expire(c.changes[:0], now))
	next, ok := c.tracker.NextExpiry()
	if !ok {
		return time.Hour
	}
	return max(next.Sub(now), time.Millisecond)
}

// apply takes over what the engine tells. An error ends the program.
func (c *Controller) apply(ctx context.Context, change engine.Change) error {
	c.learnHostName(ctx)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.tellAway()
	switch change.Kind {
	case engine.Started:
		c.add(ctx, change.Container)
	case engine.Stopped, engine.Passed:
		c.finish(change)
	case engine.Updated:
		c.update(ctx, change.Container)
	case engine.Lost:
		c.link.lose(change.Err)
	case engine.Synced:
		c.link.connect()
		first := !c.synced
		c.synced = true
		c.tellUnmatched()
		if first {
			if err := c.blind(); err != nil {
				return err
			}
			c.closeForgone()
		}
	}
	return nil
}

// blind returns why, if there are containers and the namespace of none can be
// reached. A process that has just ended is no proof of anything, unless the
// processes seen here are not the host's.
func (c *Controller) blind() error {
	var why error
	for _, m := range c.containers {
		if m.group != nil {
			return nil
		}
		if why == nil || errors.Is(why, ErrNoHostPIDNamespace) { // another reason tells more
			why = m.unreachable
		}
	}
	if errors.Is(why, ErrNoHostPIDNamespace) && process.HostProcesses(c.ProcRoot) {
		return nil
	}
	return why
}

func (c *Controller) learnHostName(ctx context.Context) {
	if c.hostName != "" && c.link.version != "" { // written by this goroutine alone
		return
	}
	info, err := c.Engine.Info(ctx)
	if err != nil {
		c.log.WithError(err).Debug("The engine does not tell its host's name; events are without it until it does.")
		return
	}
	c.mutex.Lock()
	c.link.name, c.link.version = info.Name, info.Version
	if c.hostName == "" {
		c.hostName = info.Name
	}
	c.mutex.Unlock()
}

// tellUnmatched says once of each name asked for that nothing has it, and that
// it is waited for where that is so.
func (c *Controller) tellUnmatched() {
	if c.Unmatched == nil {
		return
	}
	all := make([]*port.Container, 0, len(c.containers))
	for _, m := range c.containers {
		all = append(all, m.Container)
	}
	for _, entry := range c.Unmatched(all) {
		c.once("unmatched "+entry, func() {
			if c.still {
				c.log.Warnf("No running container matches %q.", entry)
			} else {
				c.log.Warnf("No running container matches %q yet; waiting for it.", entry)
			}
		})
	}
}

// Ready returns nil while the capture works: the engine answers, and each
// watched namespace was scanned not long ago. Otherwise it says what does not.
func (c *Controller) Ready() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.synced {
		return fmt.Errorf("the containers are not known yet: %w", c.link.lost)
	}
	if c.link.lost != nil {
		return fmt.Errorf("the Docker Engine cannot be reached: %w", c.link.lost)
	}
	between := c.scanInterval(c.probing)
	if c.BurstScans > 1 {
		between = max(between, c.BurstDelay)
	}
	limit := max(3*between, 10*time.Second)
	for _, g := range c.groups {
		if g.watcher == nil {
			continue
		}
		if age := time.Since(g.watcher.freshAt()); age > limit {
			return fmt.Errorf("network namespace %s of %s was not scanned for %s", g.id, g.names(), age.Round(time.Second))
		}
	}
	return nil
}
