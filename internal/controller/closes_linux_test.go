package controller

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/tracker"
)

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	for i := range 2 * stormRate { // slow: never a storm
		now = now.Add(rateWindow / (stormRate / 2))
		if r.count(now); r.storm(now) {
			t.Fatalf("a storm after %d slow notifications", i+1)
		}
	}
	for range stormRate {
		now = now.Add(rateWindow / (4 * stormRate))
		r.count(now)
	}
	for range stormRate {
		now = now.Add(rateWindow / (4 * stormRate))
		r.count(now)
	}
	if !r.storm(now) {
		t.Errorf("no storm: %+v", r)
	}
	if r.storm(now.Add(2 * rateWindow)) {
		t.Error("a storm long after the last notification")
	}
}

// A port that lived between two looks in a shared namespace: nobody knows whose
// it was, and that is told.
func TestTransientInASharedNamespace(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	first, second := b.container("first"), b.container("second")
	second.ID = strings.Repeat("1", 64)
	r.tell(engine.Started, first)
	r.tell(engine.Started, second)
	r.eventually("both containers are known", func() bool { return len(r.containers) == 2 })
	r.watched()
	b.listen(80)()
	r.wait("gap: ports that opened and closed between two looks in the network namespace of first, second: 1, the last 80/tcp on 0.0.0.0; whose they were is not known")
}

func TestTransient(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	r.tell(engine.Started, b.container("web"))
	r.watched()
	b.listen(80)()
	kerneltest.Eventually(t, "the transient", func() bool { return len(r.all()) == 2 })
	for i, want := range []port.Type{port.Opened, port.Closed} {
		e := r.all()[i]
		if e.Type != want || !e.Transient || e.Port != 80 || e.Source != port.SourceDestroy || e.OpenSeconds != nil || !e.OpenedAt.IsZero() {
			t.Errorf("%+v, want a transient %s", e, want)
		}
	}
}

// A socket closes while the dump that shows it is being attributed: it opened,
// and then it closed.
func TestCloseWhileADumpIsAttributed(t *testing.T) {
	r, b := start(t, func(o *Options) { o.ScanInterval = time.Hour }), newBox(t)
	web := b.container("web")
	r.tell(engine.Started, web)
	w, c := r.watched(), r.Controller
	c.mutex.Lock()
	s := port.Socket{Cookie: 1 << 40, Protocol: port.TCP, Address: netip.IPv4Unspecified(), Port: 80}
	w.inFlight, w.unknown = []port.Socket{s}, []int{0}
	c.mutex.Unlock()

	w.destroyed(w.receiver, &sockdiag.Destroyed{Socket: s}, time.Now())
	if n := len(r.all()); n != 0 {
		t.Errorf("%d events before the dump is applied, want none", n)
	}

	c.mutex.Lock()
	now := time.Now()
	c.publish(c.tracker.Snapshot(nil, w.group.id, tracker.Snapshot{
		Began: now, Time: now, Source: port.SourceSockDiag, Sockets: w.inFlight, New: map[int]tracker.Owner{0: {Container: web}},
	}))
	w.closeDeferred()
	w.inFlight = nil
	c.mutex.Unlock()
	r.wait("opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback sock_diag")
}
