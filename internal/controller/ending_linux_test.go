package controller

import (
	"slices"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
)

// The engine tells of a container's end before all is read that eBPF told of it.
func TestEndWaitsForFacts(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	r.watched()
	web := b.container("web")
	b.listen(80)
	p.events <- tell(b, cookie, probe.Opened, r.dumped().Cookie, 80)
	r.wait("opened web 80/tcp loopback ebpf")
	p.behind.Store(true)
	r.tell(engine.Stopped, web)
	// It starts again at once, in another namespace.
	next := newBox(t)
	next.listen(90)
	again := next.container("web")
	again.ID = web.ID
	r.tell(engine.Started, again)
	p.events <- tell(b, cookie, probe.Opened, 1000002, 81)
	p.events <- tell(b, cookie, probe.Closed, 1000002, 81)
	want := []string{"opened web 80/tcp loopback ebpf", "opened web 81/tcp loopback ebpf", "closed web 81/tcp loopback ebpf"}
	r.wait(want...)
	p.behind.Store(false)
	signal(p.flush)
	r.wait(append(want, "closed web 80/tcp loopback engine", "opened web 90/tcp loopback sock_diag")...)
}

// An end that waits is taken over when portwatcher stops.
func TestStopTakesEndsOver(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	p.events <- tell(b, cookie, probe.Opened, 1000001, 80)
	r.wait("opened web 80/tcp loopback ebpf")
	p.behind.Store(true)
	r.tell(engine.Stopped, b.container("web"))
	r.tell(engine.Synced, nil) // the end was taken before this
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.wait("opened web 80/tcp loopback ebpf", "closed web 80/tcp loopback engine")
}

// Where facts were lost, a close tells of a port by itself; otherwise it is
// nothing new.
func TestCloseAfterLoss(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	p.events <- tell(b, cookie, probe.Closed, 1000001, 80)
	p.events <- tell(b, cookie, probe.Opened, 1000002, 81)
	r.wait("opened web 81/tcp loopback ebpf")
	p.lost.Store(1)
	p.events <- tell(b, cookie, probe.Closed, 1000003, 82)
	var transient []*port.Event
	kerneltest.Eventually(t, "the port is told of", func() bool {
		transient = slices.DeleteFunc(r.all(), func(e *port.Event) bool { return e.Port != 82 })
		return len(transient) == 2
	})
	for i, kind := range []port.Type{port.Opened, port.Closed} {
		e := transient[i]
		if e.Type != kind || !e.Transient || e.Source != port.SourceEBPF || !e.OpenedAt.IsZero() || e.OpenSeconds != nil {
			t.Errorf("%+v, want a transient %s, without a time of its opening", e, kind)
		}
	}
	if slices.ContainsFunc(r.all(), func(e *port.Event) bool { return e.Port == 80 }) {
		t.Errorf("%q, but nothing was lost when 80 closed", r.seen())
	}
}
