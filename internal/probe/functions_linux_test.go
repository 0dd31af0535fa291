package probe

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// TestEitherHook: both ways of watching TCP report the same. Where the kernel
// refuses the cheaper one, the other is used.
func TestEitherHook(t *testing.T) {
	s := newSpace(t)
	listener := func() []Kind {
		t.Helper()
		c := collect(t, s, Options{})
		s.do(func() {
			fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			s.bind(fd, inet4(9400))
			s.listen(fd)
			s.check("shutdown", unix.Shutdown(fd, unix.SHUT_RDWR))
			s.listen(fd)
			s.close(fd)
		})
		var kinds []Kind
		for _, e := range c.next(4) {
			if e.Socket.Port != 9400 || e.Socket.Protocol != model.TCP {
				t.Errorf("got %+v, want port 9400", e)
			}
			kinds = append(kinds, e.Kind)
		}
		c.quiet(s)
		if uses := slices.Contains(c.probe.Hooks(), "tp_btf/inet_sock_set_state"); uses != (c.probe.Fallback() != nil) {
			t.Errorf("hooks %v, fallback %v", c.probe.Hooks(), c.probe.Fallback())
		}
		t.Logf("hooks %v, fallback: %v", c.probe.Hooks(), c.probe.Fallback())
		return kinds
	}
	want := []Kind{Opened, Closed, Opened, Closed}
	if got := listener(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	before := functionHooksLeaveOut.Swap(true)
	defer functionHooksLeaveOut.Store(before)
	if functionHooksUsable(nil) == nil {
		t.Error("the function hooks are usable though they left out calls")
	}
	if got := listener(); !slices.Equal(got, want) {
		t.Errorf("by the state: got %v, want %v", got, want)
	}
}

// TestCallsLeftOut: threads that take the processor from each other all the time.
// With preempt=full the kernel leaves out calls of the function hooks: they are not
// used there, so that none is.
func TestCallsLeftOut(t *testing.T) {
	const threads, rounds = 8, 5000
	var spaces []*space
	for range threads {
		spaces = append(spaces, newSpace(t))
	}
	p := mustOpen(t, Options{ringBytes: 1, budget: 1})
	var working sync.WaitGroup
	for _, s := range spaces {
		working.Go(func() { fill(s, 2*rounds) })
	}
	working.Wait()
	if err := p.Alive(); err != nil {
		t.Error(err)
		functionHooksLeaveOut.Store(false)
	}
	stats := p.Stats() // others of the machine may add to it
	total := stats.Opened + stats.Closed + stats.CountedOpened + stats.CountedClosed + stats.Missed + stats.Lost
	if total < 2*threads*rounds {
		t.Errorf("%+v: %d of %d are accounted for", stats, total, 2*threads*rounds)
	}
	t.Logf("%+v", stats)
}
