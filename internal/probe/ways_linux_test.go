package probe

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// seen is what a probe reported of one namespace since the last call.
type seen struct {
	events []Event
	counts []Count
}

// take reads all that is in the ring and in the counts.
func take(t *testing.T, p *Probe, s *space) seen {
	t.Helper()
	var got seen
	for _, e := range drain(t, p) {
		if e.NetnsCookie == s.cookie {
			got.events = append(got.events, e)
		}
	}
	counts, err := p.Counts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.NetnsCookie == s.cookie {
			got.counts = append(got.counts, c)
		}
	}
	return got
}

// drain reads the events that are there.
func drain(t *testing.T, p *Probe) []Event {
	t.Helper()
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	var events []Event
	for {
		var e Event
		err := p.Read(&e)
		if errors.Is(err, ErrFlushed) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}

// of returns what was seen of a port.
func (got seen) of(number uint16) seen {
	var only seen
	for _, e := range got.events {
		if e.Socket.Port == number {
			only.events = append(only.events, e)
		}
	}
	for _, c := range got.counts {
		if c.Socket.Port == number {
			only.counts = append(only.counts, c)
		}
	}
	return only
}

// check compares with the kinds of the events and the numbers counted. It
// returns the one count, if there is one.
func (got seen) check(t *testing.T, what string, events []Kind, opened, closed, missed uint64) Count {
	t.Helper()
	same := len(got.events) == len(events)
	for i := range got.events {
		same = same && got.events[i].Kind == events[i]
	}
	var sum Count
	for _, c := range got.counts {
		sum.Opened += c.Opened
		sum.Closed += c.Closed
		sum.Missed += c.Missed
	}
	if !same || sum.Opened != opened || sum.Closed != closed || sum.Missed != missed || len(got.counts) > 1 {
		t.Errorf("%s: got %+v\nwant events %v, %d opened, %d closed, %d missed", what, got, events, opened, closed, missed)
	}
	if len(got.counts) == 0 {
		return Count{}
	}
	return got.counts[0]
}

// unlimited is a budget that nobody spends: whether an opening finds room depends
// on the ring alone.
const unlimited = 1 << 30

// full fills the ring, to the last record.
func full(s *space, p *Probe) {
	for before := p.Stats().CountedOpened; p.Stats().CountedOpened == before; {
		cycle(s)
	}
}

// TestListenerWays: the closing of a listener goes where its opening went, and
// one that listens again is decided anew.
func TestListenerWays(t *testing.T) {
	const number = 61_000 // cycle does not get there
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 64 << 10, budget: unlimited})
	s.do(func() {
		fd := s.socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
		s.bind(fd, inet6(number, "::1"))
		cookie := s.socketCookie(fd)
		see := func() seen { return take(t, p, s).of(number) }
		end := func() { s.check("shutdown", unix.Shutdown(fd, unix.SHUT_RDWR)) }

		full(s, p)
		before := clock.Now()
		s.listen(fd)
		want := s.dumped(number)
		after := clock.Now()
		c := see().check(t, "listen, full", nil, 1, 0, 0)
		if c.Socket != want || c.Cgroup != want.Cgroup || c.Rest || !c.SameProcess {
			t.Errorf("counted %+v, the dump shows %+v", c, want)
		}
		if c.First != c.LastOpened || c.Last != c.LastOpened || c.First.Before(before) || c.First.After(after) || c.LastClosed != 0 {
			t.Errorf("counted %+v, want its times from %d to %d", c, before, after)
		}
		end()
		c = see().check(t, "end of what was counted", nil, 0, 1, 0)
		if c.ClosedCookie != cookie || c.LastClosed == 0 || c.Last != c.LastClosed || c.Socket.Cookie != 0 || c.PID != 0 || c.SameProcess {
			t.Errorf("counted %+v, want a close of cookie %d alone", c, cookie)
		}

		s.listen(fd)
		see().check(t, "listen again", []Kind{Opened}, 0, 0, 0)
		full(s, p)
		end()
		c = see().check(t, "end, full", nil, 0, 0, 1)
		if c.ClosedCookie != cookie || c.LastClosed == 0 {
			t.Errorf("missed %+v, want cookie %d", c, cookie)
		}

		s.listen(fd)
		end()
		see().check(t, "listen and end with room", []Kind{Opened, Closed}, 0, 0, 0)

		full(s, p)
		s.listen(fd)
		end()
		s.listen(fd)
		s.close(fd)
		see().check(t, "twice, full", nil, 2, 2, 0)
	})
}

// TestUDPWays is the same for UDP, where a connect is a closing too.
func TestUDPWays(t *testing.T) {
	const number = 61_001
	peer := &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 64 << 10, budget: unlimited})
	s.do(func() {
		see := func() seen { return take(t, p, s).of(number) }
		open := func() int {
			fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			s.bind(fd, &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}})
			return fd
		}

		full(s, p)
		fd := open()
		want := s.dumped(number)
		if c := see().check(t, "bind, full", nil, 1, 0, 0); c.Socket != want {
			t.Errorf("counted %+v, the dump shows %+v", c, want)
		}
		s.connect(fd, peer)
		if c := see().check(t, "connect of what was counted", nil, 0, 1, 0); c.ClosedCookie != want.Cookie {
			t.Errorf("counted %+v, want cookie %d", c, want.Cookie)
		}
		s.close(fd)
		see().check(t, "close of a client", nil, 0, 0, 0)

		full(s, p)
		fd = open()
		see().check(t, "bind, full", nil, 1, 0, 0)
		s.close(fd)
		see().check(t, "close of what was counted", nil, 0, 1, 0)

		fd = open()
		see().check(t, "bind", []Kind{Opened}, 0, 0, 0)
		full(s, p)
		s.connect(fd, peer)
		see().check(t, "connect, full", nil, 0, 0, 1)
		s.close(fd)
		see().check(t, "close of a client", nil, 0, 0, 0)

		fd = open()
		full(s, p)
		s.close(fd)
		see().check(t, "close, full", []Kind{Opened}, 0, 0, 1)
	})
}

// TestMissedOfOlderSockets: the closing of a socket that was open before the
// probe is missed, not lost, where there is no room.
func TestMissedOfOlderSockets(t *testing.T) {
	s := newSpace(t)
	var tcp, udp int
	var cookie uint64
	s.do(func() {
		tcp = s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.bind(tcp, inet4(61_002))
		s.listen(tcp)
		cookie = s.socketCookie(tcp)
		udp = s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		s.bind(udp, inet6(61_003, "::1"))
	})
	p := mustOpen(t, Options{ringBytes: 1, budget: unlimited})
	s.do(func() {
		full(s, p)
		s.close(tcp)
		s.close(udp)
		got := take(t, p, s)
		c := got.of(61_002).check(t, "TCP", nil, 0, 0, 1)
		if c.ClosedCookie != cookie || c.Cgroup == 0 || c.Socket.Protocol != model.TCP {
			t.Errorf("missed %+v, want cookie %d", c, cookie)
		}
		got.of(61_003).check(t, "UDP", nil, 0, 0, 1)
	})
}

// TestAutoBound: who binds a UDP socket to port 0 is left out, unless he is asked
// for; the setting of the opening decides.
func TestAutoBound(t *testing.T) {
	peer := &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}
	s := newSpace(t)
	p := mustOpen(t, Options{})
	configure := func(udpClients bool) { s.check("configure", p.Configure(0, udpClients)) }
	s.do(func() {
		open := func() int {
			fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			s.bind(fd, inet4(0))
			return fd
		}
		s.close(open())
		fd := open()
		s.connect(fd, peer)
		s.close(fd)
		take(t, p, s).check(t, "left out", nil, 0, 0, 0)

		first, second := open(), open()
		configure(true)
		s.close(first)
		s.connect(second, peer)
		s.close(second)
		got := take(t, p, s)
		got.check(t, "left out, closed when asked for", []Kind{Closed, Closed}, 0, 0, 0)
		if e := got.events; !e[0].Socket.AutoBound || !e[1].Socket.AutoBound || e[0].Connected || !e[1].Connected {
			t.Errorf("got %+v, want them auto-bound, the second connected", e)
		}

		first, second = open(), open()
		configure(false)
		s.close(first)
		s.connect(second, peer)
		s.close(second)
		take(t, p, s).check(t, "asked for, closed when left out", []Kind{Opened, Opened, Closed, Closed}, 0, 0, 0)

		fd = s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.bind(fd, inet4(61_004))
		s.close(fd)
		take(t, p, s).check(t, "a port by number", []Kind{Opened, Closed}, 0, 0, 0)
	})
}

// TestBurstLimit: above it openings are counted though there is room.
func TestBurstLimit(t *testing.T) {
	const limit, rounds = 10, 300
	s := newSpace(t)
	p := mustOpen(t, Options{BurstLimit: limit})
	second := func() int64 { return int64(clock.Now()) / 1e9 }
	s.do(func() {
		first := second()
		for range rounds {
			cycle(s)
		}
		seconds := int(second() - first + 1)
		got := take(t, p, s)
		var counted Count
		for _, c := range got.counts {
			counted.Opened += c.Opened
			counted.Closed += c.Closed
			counted.Missed += c.Missed
		}
		// A record above the limit may be the closing of one below it.
		if len(got.events) > seconds*(limit+1) {
			t.Errorf("%d events in %d seconds, want at most %d a second", len(got.events), seconds, limit)
		}
		if want := uint64(rounds - len(got.events)/2); counted.Opened != want || counted.Closed != want || counted.Missed != 0 {
			t.Errorf("%d opened and %d closed counted, %d missed, want %d and 0", counted.Opened, counted.Closed, counted.Missed, want)
		}

		s.check("configure", p.Configure(0, false))
		for range rounds {
			cycle(s)
		}
		if got := take(t, p, s); len(got.events) != 2*rounds || len(got.counts) != 0 {
			t.Errorf("without limit: %d events and %d counts, want %d and 0", len(got.events), len(got.counts), 2*rounds)
		}
	})
	if err := p.Configure(-1, false); err == nil {
		t.Error("a limit of -1 was taken")
	}
}
