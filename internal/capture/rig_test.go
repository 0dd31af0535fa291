package capture

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/tracker"
)

// rig drives a capture without goroutines and without a kernel: the test hands each
// observation over, and its watchers do not run.
type rig struct {
	*Capture
	t      *testing.T
	out    *consumer
	logs   *logtest.Hook
	cookie uint64            // the last that was given to a socket
	paths  map[uint64]string // of cgroups
}

// newOptions returns options of a capture without an engine and a kernel.
func newOptions(logger *logrus.Logger, sinks ...*consumer) Options {
	finder := attribute.NewFinder("/proc")
	o := Options{
		Engine: &fakeEngine{}, Logger: logger, HostName: "node1", ProcRoot: "/proc", Mode: source.Auto,
		Finder: finder, Attributor: attribute.NewAttributor(finder, nil),
		Prove: func(string, *model.Container) error { return nil },
		Tuning: Tuning{
			ScanInterval: time.Hour,
			Enabled:      func(c *model.Container) bool { return c.Labels["watch"] != "no" },
		},
	}
	for _, s := range sinks {
		o.Sinks = append(o.Sinks, s.sink())
	}
	return o
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	r := &rig{t: t, out: newConsumer("output"), logs: hook, paths: map[uint64]string{}}
	options := newOptions(logger, r.out)
	if change != nil {
		change(&options)
	}
	r.Capture = New(options)
	r.begin = source.NewWatcher
	r.now = clock.Now().Add(-time.Minute)
	return r
}

// wants checks all events so far, which are described as line does.
func (r *rig) wants(want ...string) {
	r.t.Helper()
	if got := r.out.lines(); !slices.Equal(got, want) {
		r.t.Fatalf("events\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	}
}

func (r *rig) logged(part string) (count int) {
	for _, entry := range r.logs.AllEntries() {
		if strings.Contains(entry.Message, part) {
			count++
		}
	}
	return count
}

// container returns a container; its id and pid follow from the name.
func container(name string) *model.Container {
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	pid := 0
	for _, b := range []byte(name) {
		pid = 31*pid%1000 + int(b)
	}
	return &model.Container{ID: id, Name: name, PID: pid + 1000}
}

// tick lets a millisecond pass.
func (r *rig) tick() clock.Instant {
	r.now = r.now.Add(time.Millisecond)
	return r.now
}

func (r *rig) do(o source.Observation) {
	r.t.Helper()
	r.tick()
	if err := r.handle(o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) change(kind engine.Kind, c *model.Container, inode uint64) {
	r.t.Helper()
	r.do(&source.ContainerChange{
		Change: engine.Change{Kind: kind, Container: c, Time: r.wall.Time(r.now)}, Namespace: model.Namespace{Inode: inode},
	})
}

// netnsCookie is the number of a namespace in eBPF's events.
func netnsCookie(inode uint64) uint64 { return 1000 + inode }

// open has the watcher of a namespace open it.
func (r *rig) open(inode uint64) {
	r.t.Helper()
	r.do(source.SessionOpened{
		Watcher: r.watcher(inode), Source: model.SourceSockDiag, NetnsCookie: netnsCookie(inode), Destroy: true,
	})
}

func (r *rig) watcher(inode uint64) *source.Watcher {
	r.t.Helper()
	n := r.namespaces[model.Namespace{Inode: inode}]
	if n == nil || n.watcher == nil {
		r.t.Fatalf("namespace %d is not watched", inode)
	}
	return n.watcher
}

// run has a container start in a namespace that is watched.
func (r *rig) run(name string, inode uint64) *model.Container {
	r.t.Helper()
	c := container(name)
	r.change(engine.Started, c, inode)
	r.open(inode)
	return c
}

func (r *rig) synced() {
	r.t.Helper()
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Synced}})
}

// socket returns a new TCP socket at a port of all addresses.
func (r *rig) socket(number uint16) model.Socket {
	r.cookie++
	return model.Socket{Cookie: r.cookie, Inode: uint32(r.cookie), Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: number}
}

// question has the sockets of a namespace scanned, up to the capture's answer.
func (r *rig) question(inode uint64, sockets ...model.Socket) *source.Scan {
	r.t.Helper()
	q := &source.Scan{Watcher: r.watcher(inode), Epoch: r.namespaces[model.Namespace{Inode: inode}].epoch}
	q.Snapshot.Began = r.tick()
	q.Snapshot.Time, q.Snapshot.Source, q.Snapshot.Sockets = r.tick(), model.SourceSockDiag, sockets
	r.do(q)
	return q
}

// resolve gives the unknown sockets of a scan an owner, nil for nobody.
func (r *rig) resolve(q *source.Scan, owner *model.Container) {
	r.t.Helper()
	q.Snapshot.New = newOwners(q.Unknown, owner)
	q.Resolved = true
	r.do(q)
}

// scan has the sockets of a namespace scanned; the unknown ones are a container's.
func (r *rig) scan(inode uint64, owner *model.Container, sockets ...model.Socket) {
	r.t.Helper()
	if q := r.question(inode, sockets...); len(q.Unknown) > 0 {
		r.resolve(q, owner)
	}
}

// fact returns what eBPF reports of a socket.
func (r *rig) fact(kind probe.Kind, inode uint64, s model.Socket) source.Fact {
	f := source.Fact{Event: probe.Event{Kind: kind, Time: r.tick(), NetnsCookie: netnsCookie(inode), Socket: s}}
	if kind == probe.Opened {
		f.PID, f.Name = 4711, "server"
		f.Processes = []model.Process{{PID: 4711, Name: "server"}}
	}
	return f
}

// opened and closed return facts of a TCP socket with a new cookie.
func (r *rig) openedAndClosed(inode uint64, number uint16) (opened, closed source.Fact) {
	s := r.socket(number)
	return r.fact(probe.Opened, inode, s), r.fact(probe.Closed, inode, s)
}

func (r *rig) facts(list ...source.Fact) {
	r.t.Helper()
	r.do(&source.Facts{List: list, Cgroups: source.NewCgroupPaths(r.paths)})
}

// cgroup returns the id of a container's cgroup.
func (r *rig) cgroup(c *model.Container) uint64 {
	for id, path := range r.paths {
		if path == "/docker/"+c.ID {
			return id
		}
	}
	id := uint64(len(r.paths) + 1)
	paths := map[uint64]string{id: "/docker/" + c.ID}
	for id, path := range r.paths {
		paths[id] = path
	}
	r.paths = paths
	r.owners = nil
	return id
}

// of puts a fact into a container's cgroup.
func (r *rig) of(c *model.Container, f source.Fact) source.Fact {
	f.Socket.Cgroup = r.cgroup(c)
	return f
}

// balance checks that the stages of the pipeline balance, and returns them by name.
func (r *rig) balance() map[string]model.Stage {
	r.t.Helper()
	all := map[string]model.Stage{}
	for _, s := range r.stages() {
		all[s.Name] = s
		if out := s.Out + s.Counted + s.Held + s.Dropped + s.Lost; s.In != out {
			r.t.Errorf("stage %+v: %d in, and the others are %d", s, s.In, out)
		}
	}
	return all
}

// newOwners gives sockets, named by their indices, an owner; nil for nobody.
func newOwners(indices []int, c *model.Container) map[int]tracker.Owner {
	owners := map[int]tracker.Owner{}
	for _, i := range indices {
		owners[i] = tracker.Owner{Container: c}
		if c != nil {
			owners[i] = tracker.Owner{Container: c, Processes: []model.Process{{PID: 4711, Name: "server"}}}
		}
	}
	return owners
}
