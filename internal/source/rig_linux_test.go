package source

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/attribute"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/testutil/kernel"
	"portwatcher/internal/tracker"
)

// rig stands for the capture: it answers the sources' questions from a tracker, and
// keeps the changes.
type rig struct {
	*Env
	t    *testing.T
	logs *logtest.Hook
	over chan struct{} // closed when the inbox is not read any more

	mutex    sync.Mutex
	tracker  *tracker.Tracker
	changes  []tracker.Change
	received []Observation // those that are no question
	closes   int           // notifications
}

// newRig returns an environment whose inbox is read until the test ends. Directory is
// that of one container, whose first process is the box's.
func newRig(t *testing.T, b *kernel.Box) (r *rig, id model.Namespace) {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	finder := attribute.NewFinder("/proc")
	r = &rig{t: t, logs: hook, tracker: tracker.New(0), over: make(chan struct{})}
	r.Env = &Env{
		ProcRoot: "/proc", Logger: logger, Mode: Netlink, Finder: finder, Attributor: attribute.NewAttributor(finder, nil),
		Inbox: make(chan Observation), Closed: make(chan struct{}),
	}
	r.Settings.Store(&Settings{ScanInterval: time.Hour})
	if b != nil {
		var err error
		if id, err = netns.Identify("/proc", b.Process.Pid); err != nil {
			t.Fatal(err)
		}
		web := &model.Container{ID: strings.Repeat("1", 64), Name: "web", PID: b.Process.Pid}
		r.Directory.Store(&Directory{
			Containers: map[string]*model.Container{web.ID: web},
			Namespaces: map[model.Namespace]*Members{id: {Containers: []*model.Container{web}, Names: "web"}},
		})
		r.tracker.OpenNamespace(id)
	}
	go r.run()
	t.Cleanup(func() {
		close(r.Closed)
		<-r.over
	})
	return r, id
}

func (r *rig) run() {
	defer close(r.over)
	for {
		select {
		case o := <-r.Inbox:
			r.take(o)
		case <-r.Closed:
			return
		}
	}
}

func (r *rig) take(o Observation) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	switch o := o.(type) {
	case *Scan:
		o.Unknown = o.Unknown[:0]
		if !o.Resolved {
			o.Unknown = r.tracker.Unknown(o.Unknown, o.Watcher.id, o.Snapshot.Sockets)
		}
		if len(o.Unknown) == 0 {
			r.changes = r.tracker.Snapshot(r.changes, o.Watcher.id, o.Snapshot)
		}
		o.Answer()
	case *Closes:
		r.closes += len(o.List)
		for i := range o.List {
			r.changes, _ = r.tracker.Closed(r.changes, o.Watcher.id, o.List[i].Socket.Cookie, o.Time, model.SourceSockDiag)
		}
		o.Answer()
	case *Holders:
		r.tracker.Holders(func(p *model.Process) {
			o.Recorded = append(o.Recorded, attribute.Recorded{PID: p.PID, Name: p.Name})
		})
		o.Answer()
	case *Holdings:
		var held func(int) bool
		if o.PIDs != nil {
			held = func(pid int) bool { _, ok := o.PIDs[pid]; return ok }
		}
		o.Holdings = r.tracker.Holdings(o.Holdings[:0], held)
		o.Answer()
	case *Fresh:
		o.Holdings, o.More = r.tracker.Fresh(o.Holdings, o.Watcher.id, o.Until)
		o.Answer()
	case *WatcherOf:
		o.Answer()
	case *Held:
		r.changes = r.tracker.Held(r.changes, o.Lookup)
		r.received = append(r.received, o)
	default:
		r.received = append(r.received, o)
	}
}

// lines describes the changes so far.
func (r *rig) lines() (lines []string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, c := range r.changes {
		lines = append(lines, fmt.Sprintf("%s %d/%s %s", c.Type, c.Endpoint.Port, c.Endpoint.Protocol, c.Source))
	}
	return lines
}

func (r *rig) await(want ...string) {
	r.t.Helper()
	kernel.Await(r.t, "the changes", func() string {
		if got := r.lines(); !slices.Equal(got, want) {
			return fmt.Sprintf("got %q, want %q", got, want)
		}
		return ""
	})
}

func (r *rig) open() []tracker.Change {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.tracker.Open()
}

// count returns how many observations so far f accepts.
func (r *rig) number(f func(Observation) bool) (n int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, o := range r.received {
		if f(o) {
			n++
		}
	}
	return n
}

func (r *rig) logged(part string) (count int) {
	for _, entry := range r.logs.AllEntries() {
		if strings.Contains(entry.Message, part) {
			count++
		}
	}
	return count
}

// manual returns a watcher of a box that does nothing by itself, but for receiving
// closes.
func manual(t *testing.T, b *kernel.Box) (*Watcher, *rig) {
	t.Helper()
	r, id := newRig(t, b)
	w := NewWatcher(r.Env, id)
	w.runs = true
	var err error
	if w.session, err = w.open(r.Settings.Load()); err != nil {
		t.Fatal(err)
	}
	if !w.session.notified || w.session.quiet.counter == nil {
		t.Fatal("neither closes are received nor sockets counted")
	}
	t.Cleanup(func() {
		w.session.close()
		w.endReceiver()
	})
	return w, r
}
