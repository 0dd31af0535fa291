// Package capture owns the state: which containers run, what is open in them, who can
// reach it, and the numbering of events. It turns the observations of the sources into
// events for the sinks, and into an immutable view for everybody who reads.
//
// All of it happens in one goroutine, that of [Capture.Run]. It reads one bounded
// inbox, does no I/O and never blocks: what needs I/O is done by a source before it
// sends, and what a sink's queue cannot take is counted. There is no lock.
//
// Invariants:
//
//   - DO know every running container, monitored or not. DON'T forget the ones that
//     are not: they own sockets in shared namespaces, and publish ports for the
//     containers that share their namespace.
//   - DO account for every opening and closing: it is an event of its own, or counted in
//     a burst, or counted in a gap. [model.Stage] shows the sums.
//   - DO give each container its own share of whatever is bounded. DON'T let one
//     container's storm cost another an event.
//   - DO keep all times on the boot clock. DON'T convert to the wall clock but for an
//     event that leaves.
//   - DON'T do I/O, wait for a channel or a lock, or call a function that may.
package capture

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// inboxLength bounds what waits for the capture. Each namespace has at most one
// observation in it; what is more waits in the kernel.
const inboxLength = 64

// Options are the capture's surroundings and settings.
type Options struct {
	Tuning Tuning
	Engine source.Engine
	Logger logrus.FieldLogger
	// Sinks consume the events, each behind a queue of its own.
	Sinks  []Sink
	Resume Resume
	// HostName is put into events; empty takes the engine's.
	HostName string
	// EngineAddress is shown in the status.
	EngineAddress string
	// Observer receives the duration of scans; nil where nobody measures.
	Observer source.Observer
	ProcRoot string
	// Prove returns nil if a container's first process is the one that ProcRoot shows;
	// nil is [attribute.Prove].
	Prove      func(procRoot string, container *model.Container) error
	Attributor *attribute.Attributor
	Finder     *attribute.Finder
	Mode       source.Mode
	// OpenProbe loads eBPF; nil where there is none.
	OpenProbe func() (source.Probe, error)
}

// Capture watches the namespaces of containers. View, Open, Containers, Status, Ready,
// Tune and Gap are safe for concurrent use; Run or Once is called once.
type Capture struct {
	options Options
	tuning  Tuning
	log     logrus.FieldLogger
	env     *source.Env
	engine  *source.Containers
	wall    *clock.Wall

	tracker    *tracker.Tracker
	containers map[string]*member
	namespaces map[model.Namespace]*namespace
	byCookie   map[uint64]*namespace // by the namespace's cookie in eBPF's events
	reaches    map[model.Endpoint]exposure.Reach
	changes    []tracker.Change // reused
	owners     ownerCache
	forms      *attribute.Forms // in which cgroup paths name this engine's containers
	pending    pending
	bursts     bursts
	sinks      []*outlet
	resume     memory
	storm      storm

	hostName string
	engineIs link
	// engineBack is when the engine was reached again after it had been away.
	engineBack clock.Instant
	synced     bool
	single     bool // one list is made, without watchers that run
	watched    bool // a watcher was started
	reader     *source.Reader
	lossAt     clock.Instant // eBPF lost something the last time
	hostCookie uint64        // of the host's namespace in eBPF's events; 0 where it is not known
	unnamed    uint64        // openings and closings in cgroups that had ended, since the last gap
	lastID     uint64
	startedAt  time.Time
	now        clock.Instant // of the observation that is being handled
	counts     counts
	running    map[*source.Watcher]struct{}
	buffers    int // namespaces for which the receive buffers were computed

	stuckAfter time.Duration
	timers     timers
	// begin starts the watcher of a namespace.
	begin func(*source.Env, model.Namespace) *source.Watcher

	tunings chan Tuning // of capacity 1: the newest counts
	gaps    chan string
	views   views
	version atomic.Uint64
	over    chan struct{} // closed when Run or Once has ended

	background sync.WaitGroup
}

// timers are what Run waits for beside observations. Each is set only while there is
// something to wait for: an idle capture is not woken by them but for the round.
type timers struct {
	expiry, burst, storm, view *time.Timer
	burstSet, viewSet          bool
}

// New returns a capture that does nothing yet.
func New(o Options) *Capture {
	if o.Prove == nil {
		o.Prove = attribute.Prove
	}
	c := &Capture{
		options: o, tuning: o.Tuning, log: o.Logger, wall: clock.NewWall(),
		env: &source.Env{
			ProcRoot: o.ProcRoot, Logger: o.Logger, Mode: o.Mode, Finder: o.Finder, Attributor: o.Attributor, Observer: o.Observer,
			Inbox: make(chan source.Observation, inboxLength), Closed: make(chan struct{}),
		},
		tracker:    tracker.New(o.Tuning.CloseGrace),
		containers: map[string]*member{},
		namespaces: map[model.Namespace]*namespace{},
		byCookie:   map[uint64]*namespace{},
		reaches:    map[model.Endpoint]exposure.Reach{},
		hostName:   o.HostName,
		engineIs:   link{lost: errors.New("not connected yet"), since: time.Now()},
		startedAt:  time.Now(),
		now:        clock.Now(),
		counts:     newCounts(),
		running:    map[*source.Watcher]struct{}{},
		stuckAfter: stuckAfter,
		begin:      source.Start,
		timers:     timers{expiry: stoppedTimer(), burst: stoppedTimer(), storm: stoppedTimer(), view: stoppedTimer()},
		tunings:    make(chan Tuning, 1),
		gaps:       make(chan string, 16),
		views:      newViews(),
		over:       make(chan struct{}),
	}
	for _, s := range o.Sinks {
		c.sinks = append(c.sinks, newOutlet(s))
	}
	c.engine = &source.Containers{Env: c.env, Engine: o.Engine, Address: o.EngineAddress, Prove: o.Prove}
	c.applySettings()
	c.publishDirectory()
	c.recall()
	c.buildView()
	return c
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// roundInterval is the time between two rounds, which do what nothing else triggers.
const roundInterval = 10 * time.Second

// Run watches until ctx ends, and returns nil then. All its goroutines have ended when
// it returns, but for a watcher that the kernel does not let go.
func (c *Capture) Run(ctx context.Context) error {
	defer close(c.over)
	probe, err := c.startProbe()
	if err != nil {
		close(c.env.Closed)
		return err
	}
	end := c.start(probe)
	rounds := time.NewTicker(roundInterval)
	defer rounds.Stop()
	stopping := ctx.Done()
	for !end.done {
		select {
		case o := <-c.env.Inbox:
			if failed := c.handleBatch(o); failed != nil && err == nil {
				err = failed
				c.beginStop(end)
				stopping = nil
			}
		case <-stopping:
			stopping = nil
			c.beginStop(end)
		case <-end.flushed:
			end.flushed = nil
			c.stopSources(end)
		case <-end.workers:
			end.workers = nil
		case <-end.patience.C:
			c.abandon(end)
		case t := <-c.tunings:
			c.tune(t)
		case reason := <-c.gaps:
			c.gap(nil, reason, 0)
		case <-c.timers.expiry.C:
		case <-c.timers.burst.C:
			c.timers.burstSet = false
			c.now = clock.Now()
			c.flushReadyBursts()
		case <-c.timers.storm.C:
			c.settleDown()
		case r := <-c.views.requests:
			c.views.waiting = append(c.views.waiting, r)
		case <-c.timers.view.C:
			c.timers.viewSet = false
		case <-rounds.C:
			c.round()
		}
		c.afterEach()
		end.done = end.stopping && end.flushed == nil && end.workers == nil && len(c.running) == 0
	}
	c.finish()
	return err
}

// handleBatch handles an observation and those that wait behind it, but not without end.
// An error ends the program.
func (c *Capture) handleBatch(o source.Observation) error {
	for left := 2 * inboxLength; ; left-- {
		c.now = clock.Now()
		if err := c.handle(o); err != nil || left == 0 {
			return err
		}
		select {
		case o = <-c.env.Inbox:
		default:
			return nil
		}
	}
}

// handle takes an observation over.
func (c *Capture) handle(o source.Observation) error {
	switch o := o.(type) {
	case *source.Facts:
		c.takeFacts(o)
		o.Release()
	case *source.Counts:
		c.takeCounts(o)
	case *source.Closes:
		c.takeCloses(o)
		o.Answer()
	case *source.Scan:
		c.takeScan(o)
		o.Answer()
	case *source.ContainerChange:
		return c.takeContainer(o)
	case *source.Held:
		c.takeHeld(o)
	case *source.Fresh:
		c.answerFresh(o)
		o.Answer()
	case *source.Holders:
		c.answerHolders(o)
		o.Answer()
	case *source.Holdings:
		c.answerHoldings(o)
		o.Answer()
	case *source.WatcherOf:
		if m := c.containers[o.ID]; m != nil && m.namespace != nil {
			o.Watcher = m.namespace.watcher
		}
		o.Answer()
	case source.SessionOpened:
		c.sessionOpened(o)
	case source.SessionClosed:
		c.sessionClosed(o)
	case source.Failed:
		c.watcherFailed(o)
	case source.WatcherEnded:
		c.watcherEnded(o)
	case source.Loss:
		c.takeLoss(o)
	case source.Malformed:
		c.scanAll()
	case source.ProbeState:
		c.takeProbeState(o)
	case source.EngineInfo:
		c.takeEngineInfo(o)
	case source.EngineEnded:
		return o.Err
	}
	return nil
}

// afterEach does what may be due after anything has happened.
func (c *Capture) afterEach() {
	c.expire()
	c.setBurstTimer()
	c.serveViews()
}

// round restarts watchers that are stuck, reports what was dropped, forgets what waited
// in vain, and has the journal learn of sockets and processes that came and went
// without an event.
func (c *Capture) round() {
	c.now = clock.Now()
	c.restartStuck()
	c.prunePending()
	c.reportOverruns()
	c.reportUnnamed()
	c.tracker.Prune(c.now)
	c.keepState()
}

// expire reports the closings of endpoints whose close grace is over, and sets the timer
// for the next.
func (c *Capture) expire() {
	next, waits := c.tracker.NextExpiry()
	if !waits {
		return
	}
	now := clock.Now()
	if !next.After(now) {
		c.now = now
		c.publish(c.tracker.Expire(c.changes[:0], now))
		if next, waits = c.tracker.NextExpiry(); !waits {
			return
		}
	}
	c.timers.expiry.Reset(max(next.Sub(now), time.Millisecond))
}

// Gap reports that something was missed outside the capture.
func (c *Capture) Gap(reason string) {
	select {
	case c.gaps <- reason:
	case <-c.over:
	}
}
