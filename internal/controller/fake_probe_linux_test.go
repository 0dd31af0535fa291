package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
)

// fakeProbe tells what the test says.
type fakeProbe struct {
	events chan probe.Event
	flush  chan struct{}
	held   chan probe.Event // read only by a flush, before its end
	closed chan struct{}
	lost   atomic.Uint64
	behind atomic.Bool // a flush is not answered
}

func newFakeProbe() *fakeProbe {
	return &fakeProbe{events: make(chan probe.Event), flush: make(chan struct{}, 1), held: make(chan probe.Event, 8), closed: make(chan struct{})}
}

func (p *fakeProbe) Read(e *probe.Event) error {
	select {
	case *e = <-p.events:
		if e.Kind == 0 {
			return errors.New("the ring is broken")
		}
		return nil
	case <-p.flush:
		select {
		case *e = <-p.held:
			signal(p.flush)
			return nil
		default:
			return probe.ErrFlushed
		}
	case <-p.closed:
		return os.ErrClosed
	}
}

// Flush is answered when everything that was sent before has been read: events
// has no buffer.
func (p *fakeProbe) Flush() error {
	select {
	case <-p.closed:
		return os.ErrClosed
	default:
		if !p.behind.Load() {
			signal(p.flush)
		}
		return nil
	}
}

func (p *fakeProbe) Lost() uint64 { return p.lost.Load() }
func (p *fakeProbe) Alive() error { return nil }

func (p *fakeProbe) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// startProbed runs a controller on a fake probe.
func startProbed(t *testing.T, change func(*Options)) (*rig, *fakeProbe) {
	t.Helper()
	p := newFakeProbe()
	r := start(t, func(o *Options) {
		o.Source = Auto
		o.OpenProbe = func() (Probe, error) { return p, nil }
		if change != nil {
			change(o)
		}
	})
	return r, p
}

// startProbedBox runs a controller on a fake probe, with a box that it watches as
// the container "web". The cookie is that of the box's namespace.
func startProbedBox(t *testing.T) (r *rig, p *fakeProbe, b *box, cookie uint64) {
	t.Helper()
	r, p = startProbed(t, nil)
	b = newBox(t)
	cookie = b.netnsCookie()
	r.tell(engine.Started, b.container("web"))
	r.registered(cookie)
	return r, p, b, cookie
}

func tell(b *box, netns uint64, kind probe.Kind, cookie uint64, number uint16) probe.Event {
	e := probe.Event{Kind: kind, Time: time.Now(), NetnsCookie: netns}
	e.Socket = port.Socket{Cookie: cookie, Protocol: port.TCP, Address: netip.IPv4Unspecified(), Port: number}
	if kind == probe.Opened {
		e.PID, e.Name = b.Process.Pid, "sleep"
	}
	return e
}

// registered waits until the box's namespace is known to the probe's reader.
func (r *rig) registered(cookie uint64) {
	r.t.Helper()
	r.eventually("the namespace is registered", func() bool { return r.byCookie[cookie] != nil })
}

// waiting waits until so many facts wait for their container.
func (r *rig) waiting(count int) {
	r.t.Helper()
	r.eventually(fmt.Sprint(count, " facts wait"), func() bool { return len(r.pending.facts) == count })
}
