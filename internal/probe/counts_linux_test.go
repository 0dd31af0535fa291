package probe

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// sum adds up what was seen of a key.
type sum struct{ opened, closed, missed uint64 }

func (a sum) plus(b sum) sum {
	return sum{a.opened + b.opened, a.closed + b.closed, a.missed + b.missed}
}

// addEvents and addCounts add to the sums of the keys that key gives.
func addEvents[K comparable](sums map[K]sum, events []Event, key func(model.Socket, uint64) K) {
	for _, e := range events {
		k := key(e.Socket, e.NetnsCookie)
		if e.Kind == Opened {
			sums[k] = sums[k].plus(sum{opened: 1})
		} else {
			sums[k] = sums[k].plus(sum{closed: 1})
		}
	}
}

func addCounts[K comparable](sums map[K]sum, counts []Count, key func(model.Socket, uint64) K) {
	for _, c := range counts {
		k := key(c.Socket, c.NetnsCookie)
		sums[k] = sums[k].plus(sum{c.Opened, c.Closed, c.Missed})
	}
}

// TestCountsOfEachKey: beyond the budget half of the ring is left free, and what
// finds no room is counted for its endpoint, exactly.
func TestCountsOfEachKey(t *testing.T) {
	const ports, rounds = 7, 50
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 1, budget: 1})
	before := p.Stats()
	s.do(func() {
		for range rounds {
			for n := range ports {
				tcp := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
				s.bind(tcp, inet4(3000+n))
				s.listen(tcp)
				udp := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
				s.bind(udp, inet6(3000+n, "::1"))
				s.close(tcp)
				s.close(udp)
			}
		}
	})
	after := p.Stats()
	if counted := after.CountedOpened - before.CountedOpened; counted < 2*ports*rounds-uint64(os.Getpagesize()/recordSize) {
		t.Errorf("%d openings counted of %d: more than the ring holds are events", counted, 2*ports*rounds)
	}
	got := take(t, p, s)
	type key struct {
		protocol model.Protocol
		port     uint16
	}
	sums := map[key]sum{}
	of := func(s model.Socket, _ uint64) key { return key{s.Protocol, s.Port} }
	addEvents(sums, got.events, of)
	addCounts(sums, got.counts, of)
	for n := range ports {
		for _, protocol := range []model.Protocol{model.TCP, model.UDP} {
			// A closing that was missed is counted as that alone.
			if have := sums[key{protocol, uint16(3000 + n)}]; have.opened != rounds || have.closed+have.missed != rounds {
				t.Errorf("%s %d: %+v, want %d each", protocol, 3000+n, have, rounds)
			}
		}
	}
	if len(sums) != 2*ports {
		t.Errorf("%d keys, want %d: %v", len(sums), 2*ports, sums)
	}
	for _, c := range got.counts {
		if c.Opened > 0 && (c.PID != os.Getpid() || c.Name == "" || !c.SameProcess || c.TaskCgroup == 0 || c.First > c.LastOpened ||
			c.LastOpened >= c.LastClosed || c.LastClosed != c.Last || c.Socket.Inode == 0 || c.Socket.Cookie != c.ClosedCookie) {
			t.Errorf("counted %+v", c)
		}
	}
	again, err := p.Counts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again {
		if c.NetnsCookie == s.cookie {
			t.Errorf("%+v was handed over twice", c)
		}
	}
}

// TestSeveralProcesses: an entry has whether one process opened all.
func TestSeveralProcesses(t *testing.T) {
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 1, budget: unlimited})
	s.do(func() {
		full(s, p)
		udp := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.bind(udp, inet4(7002))
		s.close(udp)
		helper := s.spawn("listen", nil)
		udps, tcps := take(t, p, s), seen{}
		tcps.counts = udps.of(7001).counts
		c := tcps.check(t, "one process", nil, 1, 0, 0)
		if c.PID != helper.Process.Pid || !c.SameProcess {
			t.Errorf("counted %+v, want process %d alone", c, helper.Process.Pid)
		}
		c = udps.of(7002).check(t, "two processes", nil, 2, 1, 0)
		if c.PID != helper.Process.Pid || c.SameProcess {
			t.Errorf("counted %+v, want process %d, and another", c, helper.Process.Pid)
		}
	})
}

// withEntries has the maps of counts made with other sizes.
func withEntries(t *testing.T, endpoints, rests uint32) {
	before := countEntries
	countEntries = [2]uint32{endpoints, rests}
	t.Cleanup(func() { countEntries = before })
}

// TestRest: what finds no entry is counted for the rest of its cgroup.
func TestRest(t *testing.T) {
	const endpoints, opened = 16, 100
	withEntries(t, endpoints, 1024)
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 1, budget: unlimited})
	s.do(func() {
		full(s, p)
		take := func() seen { // leaves the ring full
			t.Helper()
			counts, err := p.Counts(nil)
			s.check("take the counts", err)
			got := seen{}
			for _, c := range counts {
				if c.NetnsCookie == s.cookie {
					got.counts = append(got.counts, c)
				}
			}
			return got
		}
		take()
		var fds []int
		for n := range opened {
			fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			s.bind(fd, inet4(4000+n))
			s.listen(fd)
			fds = append(fds, fd)
		}
		check := func(what string, counts []Count, count func(Count) uint64) {
			t.Helper()
			var total uint64
			rests := 0
			for _, c := range counts {
				total += count(c)
				if c.Rest {
					rests++
					if c.Socket.Port != 0 || c.Socket.Address.IsValid() || c.Socket.Protocol != model.TCP || c.Cgroup == 0 {
						t.Errorf("%s: the rest is %+v", what, c)
					}
				}
			}
			if total != opened || rests != 1 || len(counts) > endpoints+1 {
				t.Errorf("%s: %d counted in %d entries, %d of them for the rest; want %d, at most %d, 1", what, total, len(counts), rests, opened, endpoints+1)
			}
		}
		openings := take().counts
		check("opened", openings, func(c Count) uint64 { return c.Opened })
		for _, fd := range fds {
			s.close(fd)
		}
		closings := take().counts
		check("closed", closings, func(c Count) uint64 { return c.Closed })
		// The closings went where the openings went.
		sums := map[uint16]sum{}
		of := func(s model.Socket, _ uint64) uint16 { return s.Port }
		addCounts(sums, openings, of)
		addCounts(sums, closings, of)
		for number, have := range sums {
			if have.opened != have.closed {
				t.Errorf("port %d: %+v", number, have)
			}
		}
	})
}

// TestLost: where the maps of counts are full too, a number is left.
func TestLost(t *testing.T) {
	const opened = 100
	withEntries(t, 1, 1)
	s := newSpace(t)
	p := mustOpen(t, Options{ringBytes: 1, budget: unlimited})
	s.do(func() {
		full(s, p)
		cycle(s) // takes the entry of the rest, for TCP
		before := p.Stats()
		for n := range opened {
			fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			s.bind(fd, inet4(4000+n))
			s.close(fd)
		}
		// Sockets of other processes of the machine may be lost too.
		if lost := p.Stats().Lost - before.Lost; lost < 2*opened {
			t.Errorf("%d openings and closings lost, want %d", lost, 2*opened)
		}
	})
}

// TestHandOver: two processors count while the counts are taken again and again.
// Nothing is lost, nothing doubled.
func TestHandOver(t *testing.T) {
	const rounds = 30_000
	spaces := []*space{newSpace(t), newSpace(t)}
	p := mustOpen(t, Options{ringBytes: 16 << 10, budget: 1})
	var working sync.WaitGroup
	var left atomic.Int32
	for _, s := range spaces {
		left.Add(1)
		working.Go(func() {
			defer left.Add(-1)
			s.do(func() {
				// Few keys: what is taken is in use.
				for i := range rounds {
					fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
					s.option(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
					s.bind(fd, inet4(3000+i%2))
					s.listen(fd)
					s.close(fd)
				}
			})
		})
	}
	sums := map[uint64]sum{}
	of := func(_ model.Socket, netns uint64) uint64 { return netns }
	var events, counted sum
	handOvers := 0 // calls of Counts that brought some
	takeAll := func() {
		read := drain(t, p)
		addEvents(sums, read, of)
		counts, err := p.Counts(nil)
		if err != nil {
			t.Fatal(err)
		}
		addCounts(sums, counts, of)
		all := map[bool]sum{}
		addEvents(all, read, func(model.Socket, uint64) bool { return false })
		addCounts(all, counts, func(model.Socket, uint64) bool { return true })
		events, counted = events.plus(all[false]), counted.plus(all[true])
		if len(counts) != 0 {
			handOvers++
		}
	}
	for left.Load() > 0 {
		takeAll()
	}
	working.Wait()
	takeAll()
	for i, s := range spaces {
		if have := sums[s.cookie]; have.opened != rounds || have.closed+have.missed != rounds {
			t.Errorf("space %d: %+v, want %d opened and closed", i, have, rounds)
		}
	}
	// Others of the machine may open between the taking and the reading.
	kernel.Await(t, "Stats agree with what was taken", func() string {
		takeAll()
		stats := p.Stats()
		want := Stats{events.opened, events.closed, counted.opened, counted.closed, counted.missed, 0}
		if stats != want {
			return "not yet"
		}
		return ""
	})
	// How much is counted, and how much fits the ring, is up to the scheduler.
	if handOvers < 3 {
		t.Errorf("Counts brought something %d times: too few to try the hand-over", handOvers)
	}
	t.Logf("Counts brought something %d times; events %+v, counted %+v", handOvers, events, counted)
}

// TestNeighbours: a cgroup within its budget has its events, also where others
// storm and nobody reads the ring. One storm opens and closes, the other opens
// many sockets before it closes them.
func TestNeighbours(t *testing.T) {
	const cycles = 12
	stormy, quiet := newSpace(t), newSpace(t)
	p := mustOpen(t, Options{ringBytes: 1 << 20, budget: 3 * cycles})
	var storms []*exec.Cmd
	storm := func(mode string) {
		dir, _ := newCgroup(t, mode)
		stormy.do(func() { storms = append(storms, stormy.spawn(mode, inCgroup(dir))) })
	}
	storm("storm-held")
	kernel.Eventually(t, "closings fill the ring", func() bool { return p.Stats().Missed > 500 })
	storm("storm")
	kernel.Eventually(t, "the storms go on", func() bool { return p.Stats().CountedOpened > 10_000 })
	dir, _ := newCgroup(t, "quiet")
	quiet.do(func() {
		// It opens the ports 8000 to 8011, closes them, and prints a line.
		kernel.End(t, quiet.spawn("quiet", inCgroup(dir)))
	})
	for _, storm := range storms {
		kernel.End(t, storm)
	}
	got := take(t, p, quiet)
	sums := map[uint16]sum{}
	addEvents(sums, got.events, func(s model.Socket, _ uint64) uint16 { return s.Port })
	for n := range cycles {
		if have := sums[uint16(8000+n)]; have != (sum{opened: 1, closed: 1}) {
			t.Errorf("port %d: events %+v, want one of each", 8000+n, have)
		}
	}
	if len(got.counts) != 0 {
		t.Errorf("counted %+v of the quiet one", got.counts)
	}
	t.Logf("%+v", p.Stats())
}

// inCgroup has a command start in a cgroup.
func inCgroup(dir *os.File) func(*exec.Cmd) {
	return func(command *exec.Cmd) {
		command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
}

// helpCycles opens and closes sockets: for ever in a storm.
func helpCycles(mode string) error {
	open := func(number int) (int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		return fd, errors.Join(unix.Bind(fd, inet4(number)), unix.Listen(fd, 1))
	}
	first, together := 1000, 1
	switch mode {
	case "storm-held":
		// Half of the ring has room for these openings, the whole not for their closings.
		first, together = 20_000, 5000
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 8192, Max: 8192}); err != nil {
			return err
		}
	case "quiet":
		first, together = 8000, 12
	}
	for round := 0; ; round++ {
		fds := make([]int, together)
		for i := range fds {
			var err error
			if fds[i], err = open(first + i); err != nil {
				return err
			}
		}
		for _, fd := range fds {
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
		if round == 0 {
			os.Stdout.WriteString("+")
		}
		if mode == "quiet" {
			return pause()
		}
	}
}
