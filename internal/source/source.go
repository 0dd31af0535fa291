// Package source observes: the containers of the engine, the sockets of each
// network namespace, and what eBPF reports of the whole host.
//
// A source does all the I/O that an observation needs (/proc, cgroups, netlink)
// and then sends a complete value to the capture's inbox. It takes no lock of the
// capture and reads nothing of its state but immutable values: the [Directory] of
// running containers and the [Settings].
//
// Invariants:
//
//   - DO send observations of one namespace in the order in which the kernel made
//     them: a snapshot goes out after the notifications that were waiting when it
//     was taken, and after everything that eBPF had recorded by then.
//   - DO leave what the capture has not taken yet in the kernel, where each
//     container has its share. DON'T queue it without a bound here.
//   - DO let one source's failure be its own: an error or a panic is logged, and
//     ends in a restart with back-off.
//   - DON'T drop an observation without counting it: a loss is sent as one.
package source

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
)

// Mode reports which sources are used.
type Mode string

const (
	// Auto uses the best that works.
	Auto Mode = "auto"
	// EBPF insists on eBPF.
	EBPF Mode = "ebpf"
	// Netlink uses sock_diag and its notifications alone.
	Netlink Mode = "netlink"
	// Proc uses /proc/<pid>/net alone.
	Proc Mode = "proc"
)

// Observer receives durations. It must not block, and is called from any goroutine.
type Observer interface {
	// ObserveScan receives the duration of each dump of a namespace.
	ObserveScan(source model.Source, took time.Duration)
}

// Settings are those that may change while sources run. A value is immutable.
type Settings struct {
	ScanInterval time.Duration
	// BurstScans is how many scans make one, BurstDelay the time between them.
	BurstScans int
	BurstDelay time.Duration
	UDPClients bool
	// Exact means that eBPF reports every opening and closing, so that scans only
	// reconcile.
	Exact bool
	// Buffer is the receive buffer of one namespace's notifications, in bytes.
	Buffer int
}

// reconcileInterval is the least time between scans while eBPF reports every change.
const reconcileInterval = 30 * time.Second

// Interval returns the time between scans.
func (s *Settings) Interval() time.Duration {
	if s.Exact {
		return max(s.ScanInterval, reconcileInterval)
	}
	return s.ScanInterval
}

// Env is what all sources share. The capture owns it, and replaces Directory and
// Settings; everything else is set before the first source starts.
type Env struct {
	ProcRoot   string
	Logger     logrus.FieldLogger
	Mode       Mode
	Finder     *attribute.Finder
	Attributor *attribute.Attributor
	// Observer is nil where nobody measures.
	Observer Observer
	// Inbox receives the observations until Closed is closed.
	Inbox  chan Observation
	Closed chan struct{}

	Directory atomic.Pointer[Directory]
	Settings  atomic.Pointer[Settings]
	// Prober is set while eBPF is read; nil otherwise.
	Prober atomic.Pointer[Reader]
	// lateUntil is the clock.Instant until which destroy notifications of any namespace
	// may be late: the kernel has one queue for those of all.
	lateUntil atomic.Int64

	Notices Notices
}

// send delivers an observation. It returns false where the capture has ended.
func (e *Env) send(o Observation) bool {
	select {
	case e.Inbox <- o:
		return true
	case <-e.Closed:
		return false
	}
}

// ask delivers a question and waits for its answer. It returns false where the
// capture has ended.
func (e *Env) ask(q question) bool {
	q.begin()
	return e.send(q) && q.wait(e.Closed)
}

// reply is the capture's side of a question. It is reused: one question at a time.
type reply struct{ done chan struct{} }

type question interface {
	Observation
	begin()
	wait(closed <-chan struct{}) bool
}

func (r *reply) begin() {
	if r.done == nil {
		r.done = make(chan struct{}, 1)
	}
}

// Answer returns the question to the one that asked, if there is one. The capture calls
// it once for each question, and does not use the question's memory afterwards.
func (r *reply) Answer() { signal(r.done) }

func (r *reply) wait(closed <-chan struct{}) bool {
	select {
	case <-r.done:
		return true
	case <-closed:
		return false
	}
}

// signal puts a token into a channel of capacity 1, if there is none.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// maxNotices bounds what Notices remembers: keys name containers and namespaces, of
// which thousands come and go in a day.
const maxNotices = 1000

// Notices remembers what was logged already, so that a message comes once. The zero
// value is ready; it is safe for concurrent use.
type Notices struct {
	mutex  sync.Mutex
	keys   map[string]struct{}
	oldest []string // in the order in which they came
}

// First returns true the first time that it is called with a key, as far back as it
// remembers.
func (n *Notices) First(key string) bool {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if _, ok := n.keys[key]; ok {
		return false
	}
	if n.keys == nil {
		n.keys = map[string]struct{}{}
	}
	if len(n.oldest) == maxNotices {
		delete(n.keys, n.oldest[0])
		n.oldest = n.oldest[1:]
	}
	n.keys[key] = struct{}{}
	n.oldest = append(n.oldest, key)
	return true
}
