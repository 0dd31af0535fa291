package capture

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/expect"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// networked returns a container on a network, with port 80 published.
func networked(name string) *model.Container {
	c := container(name)
	c.Addresses = []netip.Addr{netip.MustParseAddr("172.17.0.2")}
	c.Ports = []model.PublishedPort{{Protocol: model.TCP, Port: 80, Host: netip.MustParseAddrPort("0.0.0.0:8080")}}
	return c
}

// devices are the interfaces that the kernel has, by kind and address: "veth 172.17.0.2".
func (r *rig) devices(list ...string) source.Interfaces {
	read := source.Interfaces{Read: r.now, List: []model.Interface{}}
	for _, text := range list {
		kind, address, _ := strings.Cut(text, " ")
		read.List = append(read.List, model.Interface{Name: "eth0", Kind: kind, Addresses: []netip.Addr{netip.MustParseAddr(address)}})
	}
	return read
}

// interfaces has the watcher of a namespace read its interfaces.
func (r *rig) interfaces(inode uint64, list ...string) {
	r.t.Helper()
	at := r.tick()
	r.do(source.InterfacesRead{Watcher: r.watcher(inode), Changed: at, Interfaces: r.devices(list...)})
}

// inspected reports a change of a container, with the interfaces of its namespace.
func (r *rig) inspected(kind engine.Kind, c *model.Container, inode uint64, list ...string) {
	r.t.Helper()
	r.tick()
	r.do(&source.ContainerChange{
		Change: engine.Change{Kind: kind, Container: c, Time: r.wall.Time(r.now)}, Namespace: model.Namespace{Inode: inode},
		Interfaces: r.devices(list...),
	})
}

// reachNow returns the exposure of each open endpoint of the view.
func (r *rig) reachNow() (list []string) {
	r.buildView()
	for _, o := range r.views.latest.Load().Open {
		list = append(list, o.Container.Name+" "+reachText(o.Exposure, o.Published))
	}
	return list
}

func (r *rig) wantsReach(want ...string) {
	r.t.Helper()
	if got := r.reachNow(); !slices.Equal(got, want) {
		r.t.Fatalf("open are %q, want %q", got, want)
	}
}

// The owner of a shared namespace dies: the engine takes its interface out of the namespace,
// and the others live on there. Until it does, nothing changes.
func TestOwnerOfASharedNamespaceDies(t *testing.T) {
	for _, kernelFirst := range []bool{true, false} {
		r := newRig(t, nil)
		vpn, app := networked("vpn"), container("app")
		r.inspected(engine.Started, vpn, 1, "veth 172.17.0.2")
		r.inspected(engine.Started, app, 1, "veth 172.17.0.2")
		r.synced()
		r.open(1)
		s := r.socket(80)
		q := r.question(1, s)
		r.resolve(q, app)
		r.wantsReach("app published")
		want := []string{"opened app 80/tcp published sock_diag"}
		if kernelFirst {
			r.interfaces(1)
			r.change(engine.Stopped, vpn, 0)
		} else {
			r.change(engine.Stopped, vpn, 0)
			r.wants(want...)
			r.interfaces(1)
		}
		want = append(want, "changed app 80/tcp published to loopback rtnetlink")
		r.wants(want...)
		r.wantsReach("app loopback")
		r.inspected(engine.Started, vpn, 2, "veth 172.17.0.2")
		r.open(2)
		r.scan(2, vpn, r.socket(80))
		r.wantsReach("app loopback", "vpn published")
		r.change(engine.Stopped, app, 0)
		r.wants(append(want, "opened vpn 80/tcp published sock_diag", "closed app 80/tcp loopback engine")...)
	}
}

// Where the kernel reports no change after the death, the reading that was asked for shows
// who can reach the others.
func TestInterfacesThatOutliveTheirOwner(t *testing.T) {
	r := newRig(t, nil)
	vpn, app := networked("vpn"), container("app")
	r.inspected(engine.Started, vpn, 1, "veth 172.17.0.2")
	r.inspected(engine.Started, app, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	r.resolve(r.question(1, r.socket(80)), app)
	r.change(engine.Stopped, vpn, 0)
	r.do(source.InterfacesRead{Watcher: r.watcher(1), Interfaces: r.devices("veth 172.17.0.2")})
	r.wants("opened app 80/tcp published sock_diag", "changed app 80/tcp published to network engine")
}

// A network is disconnected and connected: one event each, with what it was before.
func TestNetworkGoesAndComes(t *testing.T) {
	r := newRig(t, nil)
	web := networked("web")
	r.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	r.scan(1, web, r.socket(80))
	at := r.now
	r.interfaces(1)
	alone := container("web")
	r.inspected(engine.Updated, alone, 0)
	r.inspected(engine.Updated, web, 0, "veth 172.17.0.2")
	r.interfaces(1, "veth 172.17.0.2")
	r.wants("opened web 80/tcp published sock_diag", "changed web 80/tcp published to loopback rtnetlink", "changed web 80/tcp loopback to published engine")
	events := r.out.events()
	down, up := events[1], events[2]
	if down.Type != model.Changed || down.PreviousExposure != model.Published || !slices.Equal(down.PreviousPublished, []string{"0.0.0.0:8080"}) ||
		len(down.Published) != 0 || down.Outside == nil || *down.Outside || len(down.Processes) != 1 {
		t.Errorf("%+v", down)
	}
	if got := down.Time.Sub(r.wall.Time(at)); got <= 0 || got > 2*time.Millisecond {
		t.Errorf("the time is %v after the last observation before, want that of the kernel's report", got)
	}
	if up.PreviousExposure != model.Loopback || up.PreviousPublished != nil || up.Outside == nil || !*up.Outside {
		t.Errorf("%+v", up)
	}
}

// Interfaces that were read before those that are known do not replace them.
func TestLateInterfaces(t *testing.T) {
	r := newRig(t, nil)
	web := networked("web")
	r.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	r.scan(1, web, r.socket(80))
	late := r.devices()
	r.interfaces(1, "veth 172.17.0.2")
	r.do(source.InterfacesRead{Watcher: r.watcher(1), Changed: r.now, Interfaces: late})
	r.wants("opened web 80/tcp published sock_diag")
	r.wantsReach("web published")
}

// An interface that the engine does not know, and one on the host's own network.
func TestInterfacesBesideTheEngine(t *testing.T) {
	r := newRig(t, nil)
	alone := container("alone")
	r.inspected(engine.Started, alone, 1)
	r.synced()
	r.open(1)
	r.scan(1, alone, r.socket(80))
	r.interfaces(1, "veth 10.9.9.2")
	r.interfaces(1, "veth 10.9.9.2", "macvlan 192.0.2.9")
	r.interfaces(1)
	r.wants("opened alone 80/tcp loopback sock_diag", "changed alone 80/tcp loopback to network rtnetlink",
		"changed alone 80/tcp network to lan rtnetlink", "changed alone 80/tcp lan to loopback rtnetlink")
	if lan := r.out.events()[2]; lan.Outside == nil || !*lan.Outside {
		t.Errorf("%+v: want it reached from outside", lan)
	}
}

// While the interfaces cannot be read, the engine's description counts.
func TestUnknownInterfaces(t *testing.T) {
	r := newRig(t, nil)
	web := networked("web")
	r.change(engine.Started, web, 1)
	r.synced()
	r.open(1)
	r.do(source.InterfacesRead{Watcher: r.watcher(1), Changed: r.now, Interfaces: source.Interfaces{Read: r.now}})
	r.scan(1, web, r.socket(80))
	r.change(engine.Updated, container("web"), 0)
	r.wants("opened web 80/tcp published sock_diag", "changed web 80/tcp published to loopback engine")
}

// Other published ports are a change of the exposure, although that is published before and
// after.
func TestOtherPublishedPort(t *testing.T) {
	r := newRig(t, nil)
	web := networked("web")
	r.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	r.scan(1, web, r.socket(80))
	local := networked("web")
	local.Ports[0].Host = netip.MustParseAddrPort("127.0.0.1:8081")
	r.inspected(engine.Updated, local, 0, "veth 172.17.0.2")
	r.wants("opened web 80/tcp published sock_diag", "changed web 80/tcp published to published at 127.0.0.1:8081 engine")
	if e := r.out.events()[1]; e.Outside == nil || *e.Outside {
		t.Errorf("%+v: only the host itself can reach it", e)
	}
}

// Until all containers are known, a namespace may seem to have fewer than it has.
func TestReachBeforeAllAreKnown(t *testing.T) {
	r := newRig(t, nil)
	app := container("app")
	r.inspected(engine.Started, app, 1, "veth 172.17.0.2")
	r.open(1)
	r.scan(1, app, r.socket(80))
	r.inspected(engine.Started, networked("vpn"), 1, "veth 172.17.0.2")
	r.wants("opened app 80/tcp network sock_diag")
	r.synced()
	r.wants("opened app 80/tcp network sock_diag", "changed app 80/tcp network to published engine")
}

// What changed while portwatcher did not run is reported after the first scan: what has
// closed meanwhile has not changed.
func TestReachThatChangedMeanwhile(t *testing.T) {
	web := networked("web")
	before := newRig(t, nil)
	before.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	before.synced()
	before.open(1)
	stays, goes := before.socket(80), before.socket(81)
	before.scan(1, web, stays, goes)
	r := newRig(t, func(o *Options) { o.Resume = Resume{Again: true, SameBoot: true, FirstID: 10, Open: before.states()} })
	r.inspected(engine.Started, container("web"), 1)
	r.open(1)
	r.interfaces(1)
	r.synced()
	r.wants()
	r.scan(1, web, stays)
	r.wants("closed web 81/tcp network restart", "changed web 80/tcp published to loopback restart")
}

// A container that restarts within the close grace keeps its endpoints, and may have other
// published ports.
func TestReachAfterARestartWithinTheGrace(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.CloseGrace = time.Minute })
	web := networked("web")
	r.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	r.scan(1, web, r.socket(80))
	r.change(engine.Stopped, web, 0)
	again := networked("web")
	again.Ports[0].Host = netip.MustParseAddrPort("0.0.0.0:8099")
	r.inspected(engine.Started, again, 2, "veth 172.17.0.2")
	r.open(2)
	r.scan(2, again, r.socket(80))
	r.wants("opened web 80/tcp published sock_diag", "changed web 80/tcp published to published at 0.0.0.0:8099 engine")
	r.wantsReach("web published at 0.0.0.0:8099")
}

// A burst holds openings back: they are emitted as they are in the end, and only what was
// emitted before changes.
func TestReachInABurst(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Tuning.BurstLimit = 1 })
	web := networked("web")
	r.inspected(engine.Started, web, 1, "veth 172.17.0.2")
	r.synced()
	r.open(1)
	first, second, third := r.socket(80), r.socket(81), r.socket(82)
	r.facts(r.of(web, r.fact(probe.Opened, 1, first)))
	r.facts(r.of(web, r.fact(probe.Opened, 1, second)), r.of(web, r.fact(probe.Opened, 1, third)))
	r.interfaces(1)
	again := r.socket(80)
	r.facts(r.fact(probe.Closed, 1, first))
	r.interfaces(1, "veth 172.17.0.2")
	r.facts(r.of(web, r.fact(probe.Opened, 1, again)))
	r.flushBursts()
	r.wants("opened web 80/tcp published ebpf", "changed web 80/tcp published to loopback rtnetlink",
		"changed web 80/tcp loopback to published ebpf",
		"opened web 81/tcp network ebpf", "opened web 82/tcp network ebpf", "burst web +1 -1")
	r.balance()
	var set model.OpenSet
	for _, e := range r.out.events() {
		set.Apply(e)
	}
	for _, o := range r.states() {
		for endpoint, folded := range set.All() {
			if endpoint == o.Endpoint() && (folded.Exposure != o.Exposure || !slices.Equal(folded.Published, o.Published)) {
				t.Errorf("%v is %s by the events, and %s", endpoint, folded.Exposure, o.Exposure)
			}
		}
	}
}

// Whatever happens, the events fold to what is open, with those who can reach it, and with how
// that differs from what is expected.
func TestReachOfRandomHistories(t *testing.T) {
	for run := range uint64(40) {
		seed := uint64(time.Now().UnixNano()) + run
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			r := newRig(t, func(o *Options) {
				o.Tuning.BurstLimit = int(run%3) * 5
				o.Tuning.CloseGrace = time.Duration(run%2) * 20 * time.Millisecond
			})
			r.synced()
			pausing := func(f func()) { // f sets the clock
				now := r.now
				f()
				r.now = now
			}
			files := []*expect.File{
				nil, expectations(t), expectations(t, "{target: '*', port: '80,81', exposure: network}"),
				expectations(t, "{target: box0, port: 80-82/tcp, exposure: published, outside: false}", "{target: 'box[12]', port: 80/tcp, exposure: host, process: nginx}"),
			}
			inode, open := map[string]uint64{}, map[string][]model.Socket{}
			flush := func() { // flushBursts sets the clock
				for id := range r.bursts {
					r.flushBurst(id)
				}
			}
			describe := func(name string) *model.Container {
				c := container(name)
				if random.IntN(3) > 0 {
					c = networked(name)
					c.Ports[0].Host = netip.MustParseAddrPort([]string{"0.0.0.0:8080", "127.0.0.1:8080"}[random.IntN(2)])
				}
				return c
			}
			devices := func() []string {
				return [][]string{nil, {"veth 172.17.0.2"}, {"macvlan 192.0.2.9"}, {"veth 172.17.0.2", "veth 10.9.9.9"}}[random.IntN(4)]
			}
			for range 600 {
				name := fmt.Sprint("box", random.IntN(3))
				at, runs := inode[name]
				switch what := random.IntN(16); {
				case !runs:
					inode[name] = uint64(1 + random.IntN(2)) // two share one
					r.inspected(engine.Started, describe(name), inode[name], devices()...)
					r.open(inode[name])
				case what == 0:
					r.change(engine.Stopped, container(name), 0)
					delete(inode, name)
					delete(open, name)
				case what < 3:
					r.inspected(engine.Updated, describe(name), 0, devices()...)
				case what < 5:
					r.interfaces(at, devices()...)
				case what == 5:
					flush()
				case what == 14:
					pausing(func() { r.replaceFile(files[random.IntN(len(files))]) })
				case what == 15:
					pausing(r.judge)
				case what == 6:
					r.publish(r.tracker.Expire(r.changes[:0], r.now))
				case what < 10 && len(open[name]) > 0:
					i := random.IntN(len(open[name]))
					r.facts(r.of(container(name), r.fact(probe.Closed, at, open[name][i])))
					open[name] = slices.Delete(open[name], i, i+1)
				default:
					s := r.socket(uint16(80 + random.IntN(3)))
					r.facts(r.of(container(name), r.fact(probe.Opened, at, s)))
					open[name] = append(open[name], s)
				}
			}
			r.now = r.now.Add(time.Second)
			r.publish(r.tracker.Expire(r.changes[:0], r.now))
			flush()
			pausing(r.judge)
			var set model.OpenSet
			for _, e := range r.out.events() {
				set.Apply(e)
			}
			folded := map[model.Endpoint]string{}
			for endpoint, o := range set.All() {
				folded[endpoint] = reachText(o.Exposure, o.Published) + " " + string(o.Drift)
			}
			for _, o := range r.states() {
				if got, want := folded[o.Endpoint()], reachText(o.Exposure, o.Published)+" "+string(o.Drift); got != want {
					t.Errorf("%v is %q by the events, want %q", o.Endpoint(), got, want)
				}
				delete(folded, o.Endpoint())
			}
			if len(folded) > 0 {
				t.Errorf("%v are open by the events alone", folded)
			}
			r.compareDrifts()
		})
	}
}
