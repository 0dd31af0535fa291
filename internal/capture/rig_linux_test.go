package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

// live runs a capture on the real kernel.
type live struct {
	*Capture
	t      *testing.T
	out    *consumer
	engine *fakeEngine
	logs   *logtest.Hook
	stop   func() error  // returns what Run has returned
	done   chan struct{} // closed when Run has returned
}

// prepare returns a capture that does not run yet.
func prepare(t *testing.T, change func(*Options)) *live {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.DebugLevel)
	l := &live{t: t, out: newConsumer("output"), engine: &fakeEngine{changes: make(chan engine.Change)}, logs: hook, done: make(chan struct{})}
	options := newOptions(logger, l.out)
	options.Engine, options.HostName, options.Tuning.ScanInterval = l.engine, "", 10*time.Millisecond
	if change != nil {
		change(&options)
	}
	l.Capture = New(options)
	return l
}

func start(t *testing.T, change func(*Options)) *live {
	t.Helper()
	l := prepare(t, change)
	l.start()
	return l
}

func (l *live) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var result error
	go func() {
		result = l.Run(ctx)
		close(l.done)
	}()
	l.stop = func() error {
		cancel()
		<-l.done
		return result
	}
	l.t.Cleanup(func() { _ = l.stop() })
}

// report has the engine report something of a container.
func (l *live) report(kind engine.Kind, c *model.Container) {
	l.engine.changes <- engine.Change{Kind: kind, Container: c, Time: time.Now()}
}

// boxed returns a container whose first process is a box's.
func boxed(b *kernel.Box, name string) *model.Container {
	c := container(name)
	c.ID = fmt.Sprintf("%060x%04x", 0, b.Process.Pid%65536)
	c.PID = b.Process.Pid
	return c
}

// lines describes the events so far. What closes may be found by a scan or by a
// notification, whichever comes first.
func (l *live) lines() (lines []string) {
	for _, s := range l.out.lines() {
		if strings.HasPrefix(s, "closed ") {
			s = strings.Replace(s, "destroy", "sock_diag", 1)
		}
		lines = append(lines, s)
	}
	return lines
}

func (l *live) await(want ...string) {
	l.t.Helper()
	kernel.Await(l.t, "the events", func() string {
		got := l.lines()
		if slices.Equal(got, want) {
			return ""
		}
		return fmt.Sprintf("\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	})
}

func (l *live) logged(part string) (count int) {
	for _, entry := range l.logs.AllEntries() {
		if strings.Contains(entry.Message, part) {
			count++
		}
	}
	return count
}

// watched waits until the only namespace has been scanned once.
func (l *live) watched(source model.Source) {
	l.t.Helper()
	kernel.Eventually(l.t, "the namespace is watched", func() bool {
		w := l.Status().Watchers
		return len(w) == 1 && w[0].Source == source && !w[0].LastScan.IsZero()
	})
}

// fakeProbe reports what the test wants.
type fakeProbe struct {
	stubProbe
	events chan probe.Event
	flush  chan struct{}
	held   chan probe.Event // read only by a flush, before its end
	behind atomic.Bool      // a flush is not answered
	counts chan []probe.Count
}

func newFakeProbe() *fakeProbe {
	return &fakeProbe{
		stubProbe: stubProbe{closed: make(chan struct{})}, events: make(chan probe.Event),
		flush: make(chan struct{}, 1), held: make(chan probe.Event, 8), counts: make(chan []probe.Count, 8),
	}
}

func (p *fakeProbe) Read(e *probe.Event) error {
	select {
	case *e = <-p.events:
		return p.record(e)
	case <-p.flush:
		select {
		case *e = <-p.held:
			p.signal()
			return p.record(e)
		default:
			return probe.ErrFlushed
		}
	case <-p.closed:
		return os.ErrClosed
	}
}

func (p *fakeProbe) record(e *probe.Event) error {
	switch e.Kind {
	case probe.Opened:
		p.add(func(s *probe.Stats) { s.Opened++ })
	case probe.Closed:
		p.add(func(s *probe.Stats) { s.Closed++ })
	default:
		return errors.New("the ring is broken")
	}
	return nil
}

// Flush is answered when everything that was sent before has been read: events has no
// buffer.
func (p *fakeProbe) Flush() error {
	select {
	case <-p.closed:
		return os.ErrClosed
	default:
	}
	if !p.behind.Load() {
		p.signal()
	}
	return nil
}

func (p *fakeProbe) signal() {
	select {
	case p.flush <- struct{}{}:
	default:
	}
}

// catchUp answers the flushes that were not answered.
func (p *fakeProbe) catchUp() {
	p.behind.Store(false)
	p.signal()
}

func (p *fakeProbe) Counts(dst []probe.Count) ([]probe.Count, error) {
	select {
	case list := <-p.counts:
		return append(dst, list...), nil
	default:
		return dst, nil
	}
}

func (p *fakeProbe) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// startProbed runs a capture on a fake probe.
func startProbed(t *testing.T, change func(*Options)) (*live, *fakeProbe) {
	t.Helper()
	p := newFakeProbe()
	return start(t, func(o *Options) {
		o.OpenProbe = func() (source.Probe, error) { return p, nil }
		if change != nil {
			change(o)
		}
	}), p
}

// startProbedBox runs a capture on a fake probe, with a box that it watches as the
// container web. The cookie is that of the box's namespace in eBPF's events.
func startProbedBox(t *testing.T) (l *live, p *fakeProbe, b *kernel.Box, cookie uint64) {
	t.Helper()
	l, p = startProbed(t, nil)
	b = kernel.NewBox(t)
	cookie = cookieOf(b, t)
	l.report(engine.Started, boxed(b, "web"))
	l.watched(model.SourceEBPF)
	return l, p, b, cookie
}

// cookieOf asks for the number of a box's namespace in eBPF's events.
func cookieOf(b *kernel.Box, t *testing.T) (cookie uint64) {
	t.Helper()
	b.Socket(2, func(fd int) (err error) {
		if cookie, err = probe.NetnsCookie(fd); err != nil {
			kernel.Skip(t, "the kernel has no namespace cookies: "+err.Error())
		}
		return nil
	})
	return cookie
}

func event(b *kernel.Box, netns uint64, kind probe.Kind, socket model.Socket) probe.Event {
	e := probe.Event{Kind: kind, Time: clock.Now(), NetnsCookie: netns, Socket: socket}
	if kind == probe.Opened {
		e.PID, e.Name = b.Process.Pid, "sleep"
	}
	return e
}
