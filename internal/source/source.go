// Package source observes the containers of the engine, the sockets of each network
// namespace, and the reports of eBPF about the whole host.
//
// A source does all the I/O that an observation needs (/proc, cgroups, netlink) and
// then sends a complete value to the capture's inbox. It takes no lock of the capture
// and reads immutable values of its state only: the [Directory] of running containers
// and the [Settings].
//
// Invariants:
//
//   - DO send the observations of one namespace in the order of the kernel: a snapshot
//     comes after the notifications that waited when it was taken, and after everything
//     that eBPF had recorded by then.
//   - DO leave what the capture has not read yet in the kernel, where each container has
//     its share. DON'T queue it without a bound here.
//   - DO isolate the failure of one source: an error or a panic is logged and ends in a
//     restart with back-off.
//   - DON'T drop an observation without counting it: a loss is an observation.
package source

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
)

// Mode selects the sources.
type Mode string

const (
	// Auto uses the best source that works.
	Auto Mode = "auto"
	// EBPF fails where eBPF does not work.
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
	// Exact means that eBPF reports every opening and closing: scans only reconcile.
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

// Env is the environment that all sources share. The capture owns it, and replaces
// Directory and Settings; the other fields are set before the first source starts.
type Env struct {
	ProcRoot   string
	Logger     logrus.FieldLogger
	Mode       Mode
	Finder     *attribute.Finder
	Attributor *attribute.Attributor
	// Observer is nil where nothing is measured.
	Observer Observer
	// Host means that the host's own ports are reported.
	Host bool
	// Inbox receives the observations until Closed is closed.
	Inbox  chan Observation
	Closed chan struct{}
	// Search requests a search for inner namespaces; nil where nothing searches.
	Search chan struct{}

	Directory atomic.Pointer[Directory]
	Settings  atomic.Pointer[Settings]
	// Prober is nil while eBPF is not read.
	Prober atomic.Pointer[Reader]
	// lateUntil is the clock.Instant until which destroy notifications of any namespace may
	// be late: the kernel has one queue for all namespaces.
	lateUntil atomic.Int64

	Notices Notices
}

// send delivers an observation. It returns false after the end of the capture.
func (e *Env) send(o Observation) bool {
	select {
	case e.Inbox <- o:
		return true
	case <-e.Closed:
		return false
	}
}

// ask delivers a question and waits for its answer. It returns false after the end of
// the capture.
func (e *Env) ask(q question) bool {
	q.begin()
	return e.send(q) && q.wait(e.Closed)
}

// reply is embedded in an observation that the capture answers. It serves one question
// at a time, again and again.
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

// Answer wakes the source that asked. The capture calls it one time for each question,
// and does not use the question's memory afterwards.
func (r *reply) Answer() { signal(r.done) }

func (*reply) observation() {}

func (r *reply) wait(closed <-chan struct{}) bool {
	select {
	case <-r.done:
		return true
	case <-closed:
		return false
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// maxNotices bounds the keys of [Notices]: thousands of containers and namespaces come and
// go in a day.
const maxNotices = 1000

// Notices are keys of the messages that were logged, so that each is logged one time. The
// zero value is ready; it is safe for concurrent use.
type Notices struct {
	mutex  sync.Mutex
	keys   map[string]struct{}
	oldest []string // in the order in which they came
}

// First returns true the first time that it is called with a key, of the last maxNotices.
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

// reportTrouble logs, one time each, why processes could not be found.
func (e *Env) reportTrouble(denied int, err error) {
	if denied > 0 && e.Notices.First("denied") {
		processes := "a process"
		if denied > 1 {
			processes = fmt.Sprintf("%d processes", denied)
		}
		e.Logger.Infof("The open files of %s cannot be listed, so a port that they hold is reported without its process. This needs the capabilities SYS_PTRACE and DAC_READ_SEARCH, and no denial by AppArmor (security_opt apparmor=unconfined) or by the system.", processes)
	}
	if err != nil && e.Notices.First("attribution") {
		e.Logger.WithError(err).Warn("Owners of sockets could not be read completely. This message is logged one time.")
	}
}
