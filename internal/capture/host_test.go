package capture

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

const hostInode = 9

// hosted returns a rig that reports the host's own ports.
func hosted(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, func(o *Options) { o.Host = true })
	owner := model.HostOwner(2, model.Namespace{Inode: hostInode})
	r.do(&source.ContainerChange{
		Change: engine.Change{Kind: engine.Started, Container: owner, Time: r.wall.Time(r.now)}, Namespace: model.Namespace{Inode: hostInode}, Host: true,
	})
	r.synced()
	r.open(hostInode)
	return r
}

// by gives a fact another process.
func by(f source.Fact, name string) source.Fact {
	f.Processes = []model.Process{{PID: 815, Name: name}}
	return f
}

// forwards describes the events of the host, with the containers that publish their ports.
func (r *rig) forwardLines() (lines []string) {
	for _, e := range r.out.events() {
		if e.Container == nil && e.Type != model.Gap {
			lines = append(lines, strings.Join([]string{string(e.Type), forwardText(e.Forward), string(e.Exposure)}, " "))
		}
	}
	return lines
}

func forwardText(f *model.Forward) string {
	switch {
	case f == nil:
		return "-"
	case f.Engine:
		return "for " + f.Container.Name
	}
	return "also " + f.Container.Name
}

func (r *rig) wantsForwards(want ...string) {
	r.t.Helper()
	if got := r.forwardLines(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		r.t.Fatalf("events of the host\n  got  %q\n  want %q", got, want)
	}
}

// publishing returns a container that publishes a port of the host, and starts it.
func (r *rig) publishing(name string, number uint16) *model.Container {
	r.t.Helper()
	c := container(name)
	c.Ports = []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), number)}}
	r.change(engine.Started, c, 1)
	return c
}

// The engine opens the port of the host before it reports the container: the opening waits,
// and keeps its time.
func TestForwardWaitsForItsContainer(t *testing.T) {
	r := hosted(t)
	opened, closed := r.openedAndClosed(hostInode, 8080)
	r.facts(by(opened, "docker-proxy"))
	r.wantsForwards()
	web := r.publishing("web", 8080)
	r.wantsForwards("opened for web host")
	if e := r.out.events()[0]; !e.Time.Equal(r.wall.Time(opened.Time)) {
		t.Errorf("it opened at %v, the event has %v", r.wall.Time(opened.Time), e.Time)
	}
	// The container ends before its forward: that is no change.
	r.change(engine.Stopped, web, 1)
	r.facts(closed)
	r.wantsForwards("opened for web host", "closed for web host")
}

func TestForwardWithoutAContainer(t *testing.T) {
	r := hosted(t)
	opened, closed := r.openedAndClosed(hostInode, 8080)
	r.facts(by(opened, "docker-proxy"))
	r.now = r.now.Add(forwardWait)
	r.emitForwards(r.now)
	r.wantsForwards("opened - host")

	again, _ := r.openedAndClosed(hostInode, 8081)
	r.facts(by(again, "docker-proxy"), closed)
	r.wantsForwards("opened - host", "closed - host")
	r.finish() // what waits is reported at the end
	r.wantsForwards("opened - host", "closed - host", "opened - host")
	for _, stage := range r.stages() {
		if stage.Name == "changes" && (stage.Held != 0 || stage.In != stage.Out) {
			t.Errorf("stage %+v: want as many out as in", stage)
		}
	}
}

// It closes while it waits: both are reported, in their order.
func TestForwardThatClosesAtOnce(t *testing.T) {
	r := hosted(t)
	opened, closed := r.openedAndClosed(hostInode, 8080)
	r.facts(by(opened, "docker-proxy"), closed)
	r.wantsForwards("opened - host", "closed - host")
}

// A process of the host and a container want the same port.
func TestHostAndContainerWantOnePort(t *testing.T) {
	r := hosted(t)
	opened, closed := r.openedAndClosed(hostInode, 8080)
	r.facts(by(opened, "nginx"))
	r.wantsForwards("opened - host")
	web := r.publishing("web", 8080)
	r.publishing("other", 9090)
	r.wantsForwards("opened - host", "changed also web host")
	if e := r.out.events()[1]; e.Change != model.ChangeForward || e.PreviousForward != nil {
		t.Errorf("want a change of the forward from none: %+v", e)
	}
	r.change(engine.Stopped, web, 1)
	r.facts(closed)
	r.wantsForwards("opened - host", "changed also web host", "changed - host", "closed - host")
}

// A container that the engine has not reported yet owns its sockets in the host's namespace.
func TestStrangerOnTheHost(t *testing.T) {
	r := hosted(t)
	guest := container("guest")
	r.paths[7] = "/docker/" + guest.ID
	s := r.socket(80)
	f := r.fact(probe.Opened, hostInode, s)
	f.Socket.Cgroup = 7
	r.facts(f)
	r.wants()
	r.change(engine.Started, guest, hostInode)
	r.wants("opened guest 80/tcp host ebpf")
	r.buildView()
	view := r.views.latest.Load()
	if len(view.Containers) != 1 || view.Containers[0].Name != "guest" {
		t.Errorf("the containers are %v: want no entry of the host", view.Containers)
	}
}

// Without eBPF, what closes in a namespace that a container shares with the host may be of
// either.
func TestUnknownCloseOnTheHost(t *testing.T) {
	r := hosted(t)
	s := r.socket(70)
	r.do(&source.Closes{Watcher: r.watcher(hostInode), Time: r.now, List: []source.Close{{Socket: s, Server: true}}})
	r.wantsForwards("opened - host", "closed - host")
	r.change(engine.Started, container("guest"), hostInode)
	next := r.socket(71)
	r.do(&source.Closes{Watcher: r.watcher(hostInode), Time: r.now, List: []source.Close{{Socket: next, Server: true}}})
	r.now = r.now.Add(time.Minute)
	r.finish()
	gaps := 0
	for _, e := range r.out.events() {
		if e.Type == model.Gap && e.Lost == 2 {
			gaps++
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps stand for the port, want 1: %q", gaps, r.forwardLines())
	}
}
