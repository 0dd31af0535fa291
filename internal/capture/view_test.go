package capture

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// view serves one who asks for a view, as Run does, and reports whether one was made.
func (r *rig) view() (v *model.View, made bool) {
	before := r.views.latest.Load()
	answers := make(chan *model.View)
	go func() { answers <- r.View() }()
	for {
		select {
		case request := <-r.views.requests:
			r.views.waiting = append(r.views.waiting, request)
		case v = <-answers:
			return v, r.views.latest.Load() != before
		}
		r.views.took = 0 // no pause
		r.serveViews()
	}
}

// A view is made when somebody asks and something has changed, and is not changed
// afterwards.
func TestView(t *testing.T) {
	r := newRig(t, nil)
	web, mate := r.run("web", 1), r.run("mate", 2)
	low, high := r.socket(80), r.socket(8080)
	udp := r.socket(80)
	udp.Protocol = model.UDP
	r.scan(1, web, high, udp, low)
	r.scan(2, mate, r.socket(90))
	first, _ := r.view()
	describe := func(v *model.View) string {
		var words []string
		for _, o := range v.Open {
			words = append(words, fmt.Sprintf("%s:%d/%s", o.Container.Name, o.Port, o.Protocol))
		}
		return strings.Join(words, " ")
	}
	const want = "mate:90/tcp web:80/tcp web:80/udp web:8080/tcp"
	if got := describe(first); got != want {
		t.Errorf("open are %s, want %s", got, want)
	}
	if len(first.Containers) != 2 || first.Containers[0].Name != "mate" || first.Containers[1].Namespace.Inode != 1 || !first.Containers[1].Monitored {
		t.Errorf("containers %+v", first.Containers)
	}
	r.views.latest.Load().at = clock.Now() // it is fresh, however slow the machine is
	if _, made := r.view(); made {
		t.Error("a view was made although nothing has changed")
	}
	r.scan(1, web, low)
	second, made := r.view()
	if !made || second.Version <= first.Version {
		t.Errorf("versions %d and %d, made: %v", first.Version, second.Version, made)
	}
	if got := describe(second); got != "mate:90/tcp web:80/tcp" {
		t.Errorf("then open are %s", got)
	}
	if got := describe(first); got != want {
		t.Errorf("the first view has become %s", got)
	}
	r.views.latest.Load().at = clock.Now().Add(-2 * viewAge)
	if _, made := r.view(); !made {
		t.Error("an old view is given out, and times go on")
	}
	if e := second.Counters.Events[model.EventKind{Type: model.Opened, Source: model.SourceSockDiag}]; e != 4 {
		t.Errorf("%d opened events are counted, want 4", e)
	}
}

// Views are not made more often than in a twentieth of the time.
func TestViewPause(t *testing.T) {
	r := newRig(t, nil)
	r.buildView()
	r.changed()
	r.views.took = time.Minute
	answer := make(chan *made, 1)
	r.views.waiting = append(r.views.waiting, answer)
	r.serveViews()
	if len(answer) != 0 || !r.timers.viewSet || !r.timers.view.Stop() {
		t.Errorf("%d answers, timer %v; want that it waits", len(answer), r.timers.viewSet)
	}
	r.views.took = 0
	r.serveViews()
	if len(answer) != 1 {
		t.Error("no answer after the pause")
	}
}

// What is asked for after the end is answered by the last view.
func TestViewAfterTheEnd(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	r.scan(1, web, r.socket(80))
	r.finish()
	close(r.over)
	if open := r.Open(); len(open) != 1 {
		t.Errorf("open are %+v", open)
	}
	if s := r.Status(); len(s.Watchers) != 1 {
		t.Errorf("watchers %+v", s.Watchers)
	}
	r.Gap("too late")
	open := r.Open()
	open[0].Port = 1
	if r.Open()[0].Port != 80 {
		t.Error("the list of one is that of another")
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Mode, o.EngineAddress, o.HostName = source.Netlink, "unix:///x", "" })
	if s := r.status(); s.Engine.Connected || s.Engine.Error == "" || s.Source.Destroy || len(s.Watchers) != 0 {
		t.Errorf("before the engine answers: %+v", s)
	}
	other := container("zzz")
	other.Labels = map[string]string{"watch": "no"}
	r.change(engine.Started, other, 1)
	r.run("web", 1)
	r.synced()
	r.do(source.EngineInfo{Info: engine.Info{Name: "node7", Version: "28"}})
	s := r.status()
	w := s.Watchers[0]
	if w.Source != model.SourceSockDiag || !w.Destroy || w.Stale || w.Host || !slices.Equal(w.Containers, []string{"web"}) || w.Name != "net:[1]" {
		t.Errorf("watcher %+v", w)
	}
	if !s.Engine.Connected || s.Engine.Reconnects != 0 || s.Engine.Address != "unix:///x" || s.Engine.Name != "node7" || s.Host != "node7" ||
		!s.Source.Destroy || s.Source.EBPF || s.Source.Wanted != "netlink" {
		t.Errorf("status %+v", s)
	}
	r.do(source.Failed{Watcher: r.watcher(1), Err: errors.New("cannot be read")})
	r.do(source.Failed{Watcher: r.watcher(1), Err: errors.New("cannot be read")})
	if n := r.logged("Ports cannot be read"); n != 1 || !r.status().Watchers[0].Stale {
		t.Errorf("logged %d times, stale %v; want once", n, r.status().Watchers[0].Stale)
	}
	r.do(source.SessionClosed{Watcher: r.watcher(1)})
	if s := r.status(); s.Source.Destroy || s.Watchers[0].Source != "" {
		t.Errorf("without a session: %+v", s.Watchers)
	}
	r.open(1)
	r.scan(1, nil)
	if r.status().Watchers[0].Stale {
		t.Error("stale after a scan")
	}
	r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Lost, Err: errors.New("gone")}})
	if s := r.status(); s.Engine.Error != "gone" || s.Engine.Connected {
		t.Errorf("engine %+v", s.Engine)
	}
	r.synced()
	if s := r.status(); s.Engine.Reconnects != 1 || s.Engine.Error != "" {
		t.Errorf("engine %+v", s.Engine)
	}
	r.gap(nil, "something was missed", 3)
	if s := r.status(); s.Gaps != 1 || s.Lost != 0 {
		t.Errorf("%d gaps, %d lost", s.Gaps, s.Lost)
	}
}

// Ready reports what does not work: the engine, or a namespace that is not scanned.
func TestReady(t *testing.T) {
	for _, test := range []struct {
		name     string
		bursts   int
		exact    bool
		after    time.Duration // since the watcher was started
		problems string
	}{
		{"fresh", 1, false, time.Second, ""},
		{"not scanned", 1, false, 40 * time.Second, "web"},
		{"the time between two scans of a burst", 2, false, 40 * time.Second, ""},
		{"several of them", 2, false, 100 * time.Second, "web"},
		{"with eBPF", 1, true, 40 * time.Second, ""},
		{"with eBPF, too long", 1, true, 100 * time.Second, "web"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, func(o *Options) {
				o.Tuning.ScanInterval, o.Tuning.BurstScans, o.Tuning.BurstDelay = 500*time.Millisecond, test.bursts, 30*time.Second
			})
			if err := r.ready(); err == nil {
				t.Error("ready before the first list")
			}
			if test.exact {
				r.probed()
			}
			r.run("web", 1)
			r.synced()
			r.now = clock.Now().Add(test.after)
			err := r.ready()
			if (err == nil) != (test.problems == "") || err != nil && !strings.Contains(err.Error(), test.problems) {
				t.Errorf("ready is %v, want %q", err, test.problems)
			}
			r.do(&source.ContainerChange{Change: engine.Change{Kind: engine.Lost, Err: errors.New("connection refused")}})
			if err := r.ready(); err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("ready is %v, want the engine's error", err)
			}
		})
	}
}

// A steady scan costs no memory in the capture.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	var sockets []model.Socket
	for number := range uint16(20) {
		sockets = append(sockets, r.socket(8000+number))
	}
	r.scan(1, web, sockets...)
	q := r.question(1, sockets...)
	if allocations := testing.AllocsPerRun(100, func() { _ = r.handle(q) }); allocations > 0 {
		t.Errorf("%v allocations", allocations)
	}
}

// The memory of a storm is given back when it is over, and not before.
func TestSettleDown(t *testing.T) {
	r := newRig(t, nil)
	r.countFacts(stormSize - 1)
	if r.timers.storm.Stop() {
		t.Error("the timer runs before there was a storm")
	}
	r.countFacts(1)
	if !r.timers.storm.Stop() {
		t.Error("the timer does not run after a storm began")
	}
	r.settleDown()
	if !r.timers.storm.Stop() {
		t.Error("over at once: the storm's first part has just been")
	}
	r.countFacts(stormSize)
	r.settleDown()
	if !r.timers.storm.Stop() {
		t.Error("over while it goes on")
	}
	r.countFacts(1)
	r.settleDown()
	if r.timers.storm.Stop() || r.storm.facts != 0 {
		t.Errorf("not over after its end: %+v", r.storm)
	}
}
