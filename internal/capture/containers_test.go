package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

// left is the gap of a container that lives and is not monitored any more.
const left = "gap 0: not monitored any more; what it opens and closes is not reported from here on"

func TestOpenCloseAndEnd(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	eighty, more := r.socket(80), r.socket(81)
	r.scan(1, web, eighty)
	r.scan(1, web, eighty, more)
	r.scan(1, web, eighty)
	r.change(engine.Stopped, web, 0)
	r.wants("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag",
		"closed web 81/tcp loopback sock_diag", "closed web 80/tcp loopback engine")
	for i, e := range r.out.events() {
		if e.ID != uint64(i+1) || e.Host != "node1" || e.Time.Location() != time.UTC {
			t.Errorf("event %d has id %d, host %q, time %v", i, e.ID, e.Host, e.Time)
		}
		if len(e.Processes) != 1 || e.Processes[0].PID != 4711 {
			t.Errorf("event %d has processes %+v", i, e.Processes)
		}
		if e.Type == model.Closed && (e.OpenSeconds == nil || *e.OpenSeconds <= 0 || e.OpenedAt.IsZero()) {
			t.Errorf("%+v: want since when it was open, and for how long", e)
		}
	}
	if len(r.namespaces)+len(r.containers)+len(r.reaches)+len(r.byCookie) > 0 || r.tracker.HasNamespace(model.Namespace{Inode: 1}) {
		t.Errorf("%d namespaces, %d containers, %d reaches, %d cookies are left", len(r.namespaces), len(r.containers), len(r.reaches), len(r.byCookie))
	}
}

// An end that was reported a while ago closes as of then; one of the future, by another
// clock, as of now.
func TestTimeOfTheEnd(t *testing.T) {
	for _, ago := range []time.Duration{2 * time.Millisecond, -time.Hour} {
		r := newRig(t, nil)
		web := r.run("web", 1)
		r.scan(1, web, r.socket(80))
		at := r.wall.Time(r.now.Add(-ago))
		r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Stopped, Container: web, Time: at}})
		if ago < 0 {
			at = r.wall.Time(r.now)
		}
		if closed := r.out.events()[1]; closed.Time.Sub(at).Abs() > time.Millisecond {
			t.Errorf("closed at %v, want %v", closed.Time, at)
		}
	}
}

func TestSharedNamespace(t *testing.T) {
	r := newRig(t, nil)
	first, second := container("first"), container("second")
	second.Labels = map[string]string{"watch": "no"}
	second.Addresses = []netip.Addr{netip.MustParseAddr("172.17.0.2")}
	second.Ports = []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")}}
	r.change(engine.Started, second, 1) // not monitored, but it publishes for its mate
	if len(r.running) != 0 {
		t.Error("a namespace without a monitored container is watched")
	}
	r.change(engine.Started, first, 1)
	r.open(1)
	if len(r.running) != 1 || len(r.namespaces) != 1 {
		t.Errorf("%d watchers of %d namespaces, want one of one", len(r.running), len(r.namespaces))
	}
	s := r.socket(80)
	r.scan(1, nil, s) // two containers and no process of theirs: it belongs to neither
	r.wants()
	r.change(engine.Stopped, second, 0)
	q := r.question(1, s)
	if len(q.Unknown) != 1 {
		t.Fatal("the owner of the socket is not asked for again after a member has ended")
	}
	r.resolve(q, first)
	r.change(engine.Started, second, 1)
	renamed := *first
	renamed.Name = "renamed"
	r.synced()
	r.change(engine.Updated, &renamed, 0)
	r.change(engine.Stopped, &renamed, 0)
	r.wants("opened first 80/tcp loopback sock_diag", "changed first 80/tcp loopback to published engine", "closed renamed 80/tcp published engine")
	if len(r.namespaces) != 1 || r.namespaces[model.Namespace{Inode: 1}].watcher != nil {
		t.Error("the namespace of the one that is left is watched, or not known")
	}
}

// The members may change while a scan's owners are resolved.
func TestOwnersThatAreOutOfDate(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	nobodys, webs := r.socket(80), r.socket(81)
	q := r.question(1, nobodys, webs)
	mate := container("mate")
	r.change(engine.Started, mate, 1)
	q.Snapshot.New = newOwners(q.Unknown[1:], web)
	q.Snapshot.New[0] = newOwners([]int{0}, nil)[0]
	q.Resolved = true
	r.do(q)
	r.wants("opened web 81/tcp loopback sock_diag")
	q = r.question(1, nobodys, webs)
	if len(q.Unknown) != 1 || q.Unknown[0] != 0 {
		t.Errorf("unknown are %v, want the socket that nobody had before its container was known", q.Unknown)
	}
	ended := container("mate")
	r.change(engine.Stopped, mate, 0)
	r.resolve(q, ended)
	r.wants("opened web 81/tcp loopback sock_diag")
	q = r.question(1, nobodys, webs)
	unwatched := *web
	unwatched.Labels = map[string]string{"watch": "no"}
	r.change(engine.Updated, &unwatched, 0)
	r.do(q) // of a watcher that was stopped
	if len(q.Unknown) > 0 {
		t.Error("a watcher that was stopped is asked for owners")
	}
	r.wants("opened web 81/tcp loopback sock_diag", left)
}

func TestSelectionChangesByRename(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Tuning.Selection = selection(t, "web")
	})
	web := container("web")
	named := func(name string) *model.Container {
		c := *web
		c.Name = name
		return &c
	}
	r.change(engine.Started, named("other"), 1)
	r.synced()
	r.synced()
	if n := r.logged(`"web" yet`); n != 1 {
		t.Errorf("a name that matches nothing was logged %d times, want once", n)
	}
	r.change(engine.Updated, web, 0)
	r.open(1)
	s := r.socket(80)
	r.scan(1, web, s)
	r.change(engine.Updated, named("other"), 0)
	r.change(engine.Updated, web, 0)
	r.open(1)
	r.scan(1, web, s)
	r.wants("opened web 80/tcp loopback sock_diag", left, "opened web 80/tcp loopback sock_diag")
	if gap := r.out.events()[1]; gap.Container == nil || gap.Container.Name != "web" {
		t.Errorf("the gap is of %+v, want it of the container by the name that events had", gap.Container)
	}
	if r.counts.gaps != 0 {
		t.Errorf("%d gaps in the status: it was asked for", r.counts.gaps)
	}
}

// A container that is renamed has the new name in the list at once.
func TestRename(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.scan(1, web, r.socket(80))
	r.buildView()
	renamed := *web
	renamed.Name = "shop"
	r.change(engine.Updated, &renamed, 0)
	r.buildView()
	if v := r.views.latest.Load(); len(v.Open) != 1 || v.Open[0].Container.Name != "shop" || v.Containers[0].Name != "shop" {
		t.Errorf("open are %+v of %+v", v.Open, v.Containers)
	}
	if r.logged(`renamed from "web"`) != 1 {
		t.Error("the log does not report the new name")
	}
}

func TestNoProcessCanBeSeen(t *testing.T) {
	web := container("web")
	absent := func() *source.ContainerChange {
		return &source.ContainerChange{
			Change: engine.Change{Kind: engine.Started, Container: web}, Ended: true, Err: fmt.Errorf("x: %w", netns.ErrProcessGone),
		}
	}
	synced := &source.ContainerChange{Change: engine.Change{Kind: engine.Synced}}
	r := newRig(t, func(o *Options) { o.ProcRoot = t.TempDir() })
	r.do(absent())
	if err := r.handle(synced); !errors.Is(err, errNoHostPIDNamespace) {
		t.Errorf("error %v, want %v", err, errNoHostPIDNamespace)
	}

	if !procfs.HostProcesses("/proc") {
		kernel.Skip(t, "the processes here are not the host's")
	}
	r = newRig(t, nil) // a container that is listed while it dies proves nothing
	r.do(absent())
	r.do(synced)
	own := r.run("own", 1)
	r.scan(1, own, r.socket(80))
	r.wants("opened own 80/tcp loopback sock_diag")

	// Another reason explains more.
	r = newRig(t, nil)
	r.do(absent())
	strange := errors.New("the process is another's")
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Started, Container: container("far")}, Err: strange})
	if err := r.handle(synced); !errors.Is(err, strange) {
		t.Errorf("error %v, want %v", err, strange)
	}
	if r.logged("The container cannot be watched.") != 1 {
		t.Error("the log does not report the container that cannot be watched")
	}
}

// A host that is in a container's namespace by sight is shown so.
func TestHostNamespace(t *testing.T) {
	r := newRig(t, nil)
	web := container("web")
	r.do(&source.ContainerChange{
		Change: engine.Change{Kind: engine.Started, Container: web}, Namespace: model.Namespace{Inode: 1}, Host: true,
	})
	r.open(1)
	r.scan(1, web, r.socket(80))
	r.wants("opened web 80/tcp host sock_diag")
	r.change(engine.Stopped, web, 0)
	r.run("boxed", 2)
	if n := r.namespaces[model.Namespace{Inode: 2}]; n.host {
		t.Error("a namespace of its own is the host's")
	}
}

func TestEngineThatEnds(t *testing.T) {
	r := newRig(t, nil)
	if err := r.handle(source.EngineEnded{Err: errors.New("unexpected")}); err == nil || !strings.Contains(err.Error(), "unexpected") {
		t.Errorf("error %v, want the engine's", err)
	}
}

// The end of a container that portwatcher could not wait for may be incomplete.
func TestLateEnd(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.scan(1, web, r.socket(80))
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Stopped, Container: web, Time: r.wall.Time(r.now)}, Late: true})
	r.wants("opened web 80/tcp loopback sock_diag",
		"gap 0: the container has ended, and portwatcher is behind: its last openings and closings may be missing",
		"closed web 80/tcp loopback engine")
}

func selection(t *testing.T, text string) model.Selection {
	t.Helper()
	parsed, err := model.ParseSelection(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// A word selects the containers of a Compose service until a container has that very
// name, and again when it has ended.
func TestServiceBesideName(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.Selection = selection(t, "web") })
	service := container("shop-web-1")
	service.Labels = map[string]string{model.LabelProject: "shop", model.LabelService: "web"}
	r.change(engine.Started, service, 1)
	r.open(1)
	s := r.socket(80)
	r.scan(1, service, s)
	r.change(engine.Started, container("web"), 2)
	r.change(engine.Stopped, container("web"), 0)
	r.open(1)
	r.scan(1, service, s)
	r.wants("opened shop-web-1 80/tcp loopback sock_diag", left, "opened shop-web-1 80/tcp loopback sock_diag")
}

// A sink that keeps the state receives the new name of a container, though nothing is open in it,
// and at the start the names of all, which may have been renamed since.
func TestRenameIsRecorded(t *testing.T) {
	var named []string
	r := newRig(t, func(o *Options) {
		o.Resume.Again = true
		o.Sinks = append(o.Sinks, Sink{Name: "journal", State: true, Offer: func(_ string, r Record, _ bool) bool {
			if r.Named != nil {
				named = append(named, r.Named.Container.ID+" "+r.Named.Container.Name)
			}
			return true
		}})
	})
	web := r.run("web", 1)
	renamed := *web
	renamed.Name = "shop"
	r.change(engine.Updated, &renamed, 0)
	if want := []string{web.ID + " web", web.ID + " shop"}; !slices.Equal(named, want) {
		t.Errorf("the names are %q, want %q", named, want)
	}
}
