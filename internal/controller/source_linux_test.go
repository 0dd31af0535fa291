package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/probe"
)

// With eBPF, scans are rare: an old one does not mean that the capture is stuck.
func TestReadyWithProbe(t *testing.T) {
	r, _ := startProbed(t, nil)
	b := newBox(t)
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	r.registered(b.netnsCookie())
	kerneltest.Eventually(t, "ready", func() bool { return r.Ready() == nil })
	w := r.watched()
	w.last.Store(time.Now().Add(-reconcileInterval).UnixNano())
	if err := r.Ready(); err != nil {
		t.Errorf("a reconciliation ago: %v", err)
	}
	w.last.Store(time.Now().Add(-4 * reconcileInterval).UnixNano())
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("four of them ago: %v, want an error that names the container", err)
	}
}

// A probe that breaks hands over to the scans without losing state.
func TestProbeBreaks(t *testing.T) {
	opens := 0
	p := newFakeProbe()
	r := start(t, func(o *Options) {
		o.Source = Auto
		o.OpenProbe = func() (Probe, error) {
			if opens++; opens > 1 {
				return nil, errors.New("not yet")
			}
			return p, nil
		}
	})
	b := newBox(t)
	cookie := b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	closeIt := b.listen(80) // unseen: there was no event
	r.tell(engine.Synced, nil)
	p.events <- probe.Event{} // an error of Read
	const gap = "gap: eBPF has stopped working; sock_diag takes over"
	r.wait(gap, "opened web 80/tcp loopback sock_diag")
	if n := r.logged("eBPF has stopped working"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
	closeIt()
	r.wait(gap, "opened web 80/tcp loopback sock_diag", "closed web 80/tcp loopback sock_diag")
}

func TestProbeThatIsInsistedOn(t *testing.T) {
	failure := &probe.UnsupportedError{Feature: "BTF", Remedy: "another kernel", Err: errors.New("none")}
	r := start(t, func(o *Options) {
		o.Source = EBPF
		o.OpenProbe = func() (Probe, error) { return nil, failure }
	})
	<-r.done
	if err := r.stop(); !errors.Is(err, failure) || !strings.Contains(err.Error(), "--source ebpf") {
		t.Errorf("error %v, want %v", err, failure)
	}
}

func TestProcAlone(t *testing.T) {
	r, b := start(t, func(o *Options) { o.Source = Proc }), newBox(t)
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback proc")
	b.listen(81)()
	closeIt := b.listen(82)
	kerneltest.Eventually(t, "the second port", func() bool { return len(r.seen()) >= 2 })
	closeIt()
	kerneltest.Eventually(t, "its close", func() bool {
		seen := r.seen()
		return seen[len(seen)-1] == "closed web 82/tcp loopback proc"
	})
}
