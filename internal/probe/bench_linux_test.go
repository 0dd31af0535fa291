package probe

import (
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// cycle opens and closes a listener: two events. The port is another each time,
// because a reader of a process's files (ss, lsof) holds them meanwhile,
// and so delays the close.
func cycle(s *space) {
	s.cycles++
	fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	s.bind(fd, inet4(1+s.cycles%60_000))
	s.listen(fd)
	s.close(fd)
}

// fill leaves n events unread.
func fill(s *space, n int) {
	s.do(func() {
		for range n / 2 {
			cycle(s)
		}
	})
}

func TestReadAllocatesNothing(t *testing.T) {
	const count = 2000
	s := newSpace(t)
	p := mustOpen(t, Options{})
	fill(s, count+2)
	var e Event
	if err := p.Read(&e); err != nil { // makes the record's buffer and the name
		t.Fatal(err)
	}
	allocations := testing.AllocsPerRun(count, func() {
		if err := p.Read(&e); err != nil {
			t.Fatal(err)
		}
		if p.Stats().Lost != 0 {
			t.Fatal("lost records")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations per Read and Stats, want 0", allocations)
	}
}

// BenchmarkRead reads events that are there: what one costs the reader. An
// operation is a portion of them, with the making.
func BenchmarkRead(b *testing.B) {
	const portion = 10_000
	s := newSpace(b)
	p := mustOpen(b, Options{})
	var reading time.Duration
	var e Event
	for b.Loop() {
		fill(s, portion)
		start := time.Now()
		for range portion {
			if err := p.Read(&e); err != nil {
				b.Fatal(err)
			}
		}
		reading += time.Since(start)
	}
	events := float64(b.N * portion)
	b.ReportMetric(float64(reading.Nanoseconds())/events, "ns/event")
	b.ReportMetric(events/reading.Seconds(), "events/s")
}

// BenchmarkOpen loads, attaches, detaches.
func BenchmarkOpen(b *testing.B) {
	requireRoot(b)
	for b.Loop() {
		p, err := Open(Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCost compares the same work with the probe and without it, turn by
// turn in one run, and reports the least of each and their ratio. It takes the
// thread's CPU time, in which the kernel's work for both ends of a connection
// is: what else the machine does counts for little. Best with -benchtime 20x.
func BenchmarkCost(b *testing.B) {
	for _, test := range []struct {
		name    string
		options Options
		setup   func(*space) (work, done func())
	}{
		{"connection", Options{}, func(s *space) (func(), func()) {
			server := newServer(s, 9301)
			return server.connection, server.close
		}},
		{"listener", Options{budget: unlimited}, listeners(60_000)},
		{"listener-counted", Options{BurstLimit: 1}, listeners(1000)},
		{"listener-rest", Options{BurstLimit: 1}, listeners(60_000)}, // the entries are used up
		{"udp-client", Options{}, func(s *space) (func(), func()) {
			return func() {
				fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
				s.connect(fd, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}})
				s.close(fd)
			}, func() {}
		}},
	} {
		b.Run(test.name, func(b *testing.B) {
			s := newSpace(b)
			var with, without []time.Duration
			for b.Loop() {
				without = append(without, turn(s, test.setup))
				p, err := Open(test.options)
				if err != nil {
					b.Fatal(err)
				}
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					var e Event
					for p.Read(&e) == nil {
					}
				}()
				with = append(with, turn(s, test.setup))
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
				<-drained
			}
			bare, probed := slices.Min(without), slices.Min(with)
			b.ReportMetric(float64(bare.Nanoseconds()), "ns/without")
			b.ReportMetric(float64(probed.Nanoseconds()), "ns/with")
			b.ReportMetric(float64(probed)/float64(bare), "ratio")
		})
	}
}

// listeners opens and closes a listener on one port after the other.
func listeners(ports int) func(*space) (work, done func()) {
	return func(s *space) (work, done func()) {
		return func() {
			s.cycles %= ports
			cycle(s)
		}, func() {}
	}
}

// turn returns what one piece of work takes.
func turn(s *space, setup func(*space) (work, done func())) (each time.Duration) {
	const count = 5000
	s.do(func() {
		work, done := setup(s)
		defer done()
		for range count / 10 {
			work()
		}
		start := threadTime(s)
		for range count {
			work()
		}
		each = (threadTime(s) - start) / count
	})
	return each
}

func threadTime(s *space) time.Duration {
	var now unix.Timespec
	s.check("read CPU time", unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now))
	return time.Duration(now.Nano())
}

// BenchmarkPrograms reports what the kernel itself measures: the time in each
// program for one connection, and how often it ran.
func BenchmarkPrograms(b *testing.B) {
	s := newSpace(b)
	p := mustOpen(b, Options{})
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	programs := p.objects.Programs
	read := func(program *ebpf.Program) (time.Duration, uint64) {
		info, err := program.Stats()
		if err != nil {
			b.Fatal(err)
		}
		return info.Runtime, info.RunCount
	}
	before := map[string][2]uint64{}
	for name, program := range programs {
		spent, runs := read(program)
		before[name] = [2]uint64{uint64(spent), runs}
	}
	s.do(func() {
		server := newServer(s, 9302)
		for b.Loop() {
			server.connection()
		}
		server.close()
	})
	for name, program := range programs {
		spent, runs := read(program)
		b.ReportMetric(float64(uint64(spent)-before[name][0])/float64(b.N), name+"-ns/op")
		b.ReportMetric(float64(runs-before[name][1])/float64(b.N), name+"-runs/op")
	}
}
