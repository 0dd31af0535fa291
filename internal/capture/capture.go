// Package capture owns the state: which containers run, what is open in them, who can
// reach it, and the numbering of events. It turns the observations of the sources into
// events for the sinks, and into an immutable view for readers.
//
// All state belongs to one goroutine, that of [Capture.Run]. It reads one bounded inbox,
// does no I/O and never blocks: a source does the I/O before it sends, and what a sink's
// queue drops is counted. There is no lock.
//
// Invariants:
//
//   - DO keep every running container, monitored or not. DON'T forget the others: they
//     own sockets in shared namespaces, and publish ports for the containers that share
//     their namespace.
//   - DO account for every opening and closing: it is an event of its own, or counted in
//     a burst, or counted in a gap. [model.Stage] has the sums.
//   - DO give each container its own share of whatever is bounded. DON'T let one
//     container's storm cost another an event.
//   - DO keep all times on the boot clock. DON'T convert to the wall clock except in an
//     event or a view.
//   - DON'T do I/O, wait for a channel or a lock, or call a function that may.
package capture

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/expect"
	"portwatcher/internal/exposure"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// inboxLength bounds the inbox. Each namespace has at most one observation in it; the rest
// waits in the kernel.
const inboxLength = 64

// Options are the settings and the dependencies of a [Capture].
type Options struct {
	Tuning Tuning
	Engine source.Engine
	Logger logrus.FieldLogger
	// Sinks consume the events, each behind a queue of its own.
	Sinks  []Sink
	Resume Resume
	// Expect is the file of expectations; nil is none.
	Expect *expect.File
	// HostName is the host in events; empty means the engine's.
	HostName string
	// EngineAddress is for the status and for log messages.
	EngineAddress string
	// Observer receives the duration of each scan; it may be nil.
	Observer source.Observer
	ProcRoot string
	// Host means that the host's own ports are reported; see [model.HostOwner].
	Host bool
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
// Tune, Expect and Gap are safe for concurrent use. One of Run and List is called, one time.
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
	changes    []tracker.Change // reused, as woken
	woken      []tracker.Change
	owners     map[[2]uint64]cgroupOwner // by the cgroups of facts, until the containers change
	forms      *attribute.Forms          // in which cgroup paths name this engine's containers
	pending    pending
	bursts     bursts
	forwards   map[model.Endpoint]heldForward
	sinks      []*outlet
	resume     memory
	storm      storm
	drift      drift

	hostName string
	link     link
	// engineBack is when the engine was last reached after it could not be.
	engineBack clock.Instant
	// engineMissed is when events of the engine were last known to be missed.
	engineMissed clock.Instant

	synced     bool
	single     bool // List was called: no watcher is started
	watched    bool // a watcher was started
	reader     *source.Reader
	lossAt     clock.Instant // when eBPF last lost something
	hostCookie uint64        // of the host's namespace in eBPF's events; 0 where it is not known
	unnamed    unnamed
	lastID     uint64
	startedAt  time.Time
	now        clock.Instant // when the handling of the present observation began
	counts     counts
	running    map[*source.Watcher]struct{}
	buffers    int // namespaces for which the receive buffers were computed

	stuckAfter time.Duration
	timers     timers
	// begin starts the watcher of a namespace.
	begin func(*source.Env, model.Namespace) *source.Watcher

	tunings chan Tuning // of capacity 1: the newest counts
	gaps    chan string
	files   chan *expect.File // of capacity 1: the newest counts
	views   views
	version atomic.Uint64
	over    chan struct{} // closed when Run or List has ended

	background sync.WaitGroup
}

// timers wake Run beside observations. Each is set only while it is needed: only the
// round wakes an idle capture.
type timers struct {
	expiry, burst, storm, view, forward, drift *time.Timer
	burstSet, viewSet, forwardSet              bool
}

// New returns a capture that has not started.
func New(o Options) *Capture {
	if o.Prove == nil {
		o.Prove = attribute.Prove
	}
	c := &Capture{
		options: o, tuning: o.Tuning, log: o.Logger, wall: clock.NewWall(),
		env: &source.Env{
			ProcRoot: o.ProcRoot, Host: o.Host, Logger: o.Logger, Mode: o.Mode, Finder: o.Finder, Attributor: o.Attributor, Observer: o.Observer,
			Inbox: make(chan source.Observation, inboxLength), Closed: make(chan struct{}), Search: make(chan struct{}, 1),
		},
		tracker:    tracker.New(o.Tuning.CloseGrace),
		containers: map[string]*member{},
		namespaces: map[model.Namespace]*namespace{},
		byCookie:   map[uint64]*namespace{},
		reaches:    map[model.Endpoint]exposure.Reach{},
		forwards:   map[model.Endpoint]heldForward{},
		hostName:   o.HostName,
		link:       link{lost: errors.New("not connected yet"), since: time.Now()},
		startedAt:  time.Now(),
		now:        clock.Now(),
		counts:     newCounts(),
		running:    map[*source.Watcher]struct{}{},
		stuckAfter: stuckAfter,
		begin:      source.Start,
		timers: timers{
			expiry: clock.StoppedTimer(), burst: clock.StoppedTimer(), storm: clock.StoppedTimer(), view: clock.StoppedTimer(),
			forward: clock.StoppedTimer(), drift: clock.StoppedTimer(),
		},
		tunings: make(chan Tuning, 1),
		gaps:    make(chan string, 16),
		files:   make(chan *expect.File, 1),
		drift:   drift{judge: expect.NewJudge(o.Resume.Drifts)},
		views:   newViews(),
		over:    make(chan struct{}),
	}
	for _, s := range o.Sinks {
		c.sinks = append(c.sinks, newOutlet(s))
	}
	c.engine = &source.Containers{Env: c.env, Engine: o.Engine, Address: o.EngineAddress, Prove: o.Prove}
	c.applySettings()
	c.publishDirectory()
	c.drift.judge.SetFile(o.Expect, time.Now())
	c.recall()
	c.buildView()
	return c
}

// Gap emits a gap for what was missed outside the capture.
func (c *Capture) Gap(reason string) {
	select {
	case c.gaps <- reason:
	case <-c.over:
	}
}
