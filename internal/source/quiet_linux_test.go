package source

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
	"portwatcher/internal/testutil/kernel"
)

// stopwatch counts scans.
type stopwatch struct{ scans atomic.Int64 }

func (s *stopwatch) ObserveScan(model.Source, time.Duration) { s.scans.Add(1) }

// TestQuietNamespaceIsNotDumped: where nothing opens, only counting goes on, and what
// opens is found all the same.
func TestQuietNamespaceIsNotDumped(t *testing.T) {
	b := kernel.NewBox(t)
	b.Do(kernel.LoopbackUp)
	b.Listen(80)
	r, id := newRig(t, b)
	watch := &stopwatch{}
	r.Observer = watch
	r.Settings.Store(&Settings{ScanInterval: 10 * time.Millisecond})
	w := Start(r.Env, id)
	t.Cleanup(func() {
		w.Stop()
		<-w.ended
	})
	r.await("opened 80/tcp sock_diag")

	// rounds waits until the namespace was read often, and returns how many dumps that
	// took.
	rounds := func() int64 {
		before, last := watch.scans.Load(), w.LastScan()
		for range 100 {
			kernel.Eventually(t, "the namespace is read", func() bool {
				now := w.LastScan()
				read := now.After(last)
				last = now
				return read
			})
		}
		return watch.scans.Load() - before
	}
	// A slow machine may meet a full scan, or the one that settles an opening.
	kernel.Eventually(t, "dumps end", func() bool { return rounds() <= 2 })
	closeIt := b.Listen(81)
	r.await("opened 80/tcp sock_diag", "opened 81/tcp sock_diag")
	kernel.Eventually(t, "dumps end again", func() bool { return rounds() <= 2 })
	closeIt()
	b.Listen(82) // as many as before
	r.await("opened 80/tcp sock_diag", "opened 81/tcp sock_diag", "closed 81/tcp sock_diag", "opened 82/tcp sock_diag")

	// A client without a port that is reported hides how many listen.
	b.Socket(unix.SOCK_DGRAM, func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}})
	})
	kernel.Eventually(t, "each round is a dump", func() bool { return rounds() >= 90 })
}

// TestUnchangedIsTrue does what programs do to sockets, at random, and compares with a
// dump: nothing new may be there when a watcher reports that there is not.
func TestUnchangedIsTrue(t *testing.T) {
	b := kernel.NewBox(t)
	b.Do(kernel.LoopbackUp)
	w, r := manual(t, b)
	if err := w.scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	model := sockets{t: t, b: b, w: w, random: rand.New(rand.NewPCG(seed, 0)), udp: 1000}
	const steps = 400
	skipped := 0
	for step := range steps {
		model.step()
		if !w.unchanged(clock.Now()) {
			if err := w.scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		skipped++
		dumped, err := w.session.dump(nil)
		if err != nil {
			t.Fatal(err)
		}
		r.mutex.Lock()
		unknown := r.tracker.Unknown(nil, w.id, dumped)
		r.mutex.Unlock()
		if len(unknown) > 0 {
			t.Fatalf("step %d: unchanged, but %+v is new", step, dumped[unknown[0]])
		}
	}
	if skipped < steps/10 {
		t.Errorf("%d of %d dumps were spared, want %d at least", skipped, steps, steps/10)
	}
}

// sockets are those of the random test.
type sockets struct {
	t      *testing.T
	b      *kernel.Box
	w      *Watcher
	random *rand.Rand

	ports   []func()              // each is closed with a notification
	others  []func()              // connections and clients
	servers []*unix.SockaddrInet4 // some are gone
	udp     int                   // the last UDP port
}

func (m *sockets) step() {
	loopback := [4]byte{127, 0, 0, 1}
	bind := func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}) }
	switch m.random.IntN(11) {
	case 0:
		fd, closeIt := m.b.Socket(unix.SOCK_STREAM, func(fd int) error { return errors.Join(bind(fd), unix.Listen(fd, 100)) })
		m.ports = append(m.ports, closeIt)
		at, err := unix.Getsockname(fd)
		if err != nil {
			m.t.Fatal(err)
		}
		m.servers = append(m.servers, at.(*unix.SockaddrInet4))
	case 1:
		m.udp++
		_, closeIt := m.b.Socket(unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: m.udp}) })
		m.ports = append(m.ports, closeIt)
	case 2, 3:
		if len(m.servers) > 0 { // refused where the server is gone
			to := m.servers[m.random.IntN(len(m.servers))]
			_, closeIt := m.b.Socket(unix.SOCK_STREAM, func(fd int) error {
				if err := unix.Connect(fd, to); !errors.Is(err, unix.ECONNREFUSED) {
					return err
				}
				return nil
			})
			m.others = append(m.others, closeIt)
		}
	case 4:
		_, closeIt := m.b.Socket(unix.SOCK_DGRAM, func(fd int) error {
			return unix.Sendto(fd, []byte("?"), 0, &unix.SockaddrInet4{Port: 9, Addr: loopback})
		})
		m.others = append(m.others, closeIt)
	case 5, 6, 7:
		m.others = m.end(m.others, false)
	case 8: // with the connections that were not accepted
		for len(m.others) > 0 {
			m.others = m.end(m.others, false)
		}
		for len(m.ports) > 0 {
			m.ports = m.end(m.ports, true)
		}
	default:
		m.ports = m.end(m.ports, true)
	}
}

// end closes one of some sockets, and waits for the notification of that: only what was
// reported is known.
func (m *sockets) end(some []func(), notified bool) []func() {
	if len(some) == 0 {
		return some
	}
	i, before := m.random.IntN(len(some)), m.w.facts.Load()
	some[i]()
	some[i] = some[len(some)-1]
	if notified {
		kernel.Eventually(m.t, "the close is received", func() bool {
			if err := m.w.receive(); err != nil {
				m.t.Fatal(err)
			}
			return m.w.facts.Load() > before
		})
	}
	return some[:len(some)-1]
}

// TestUncountable: where sockets cannot be counted each scan is a dump, which the log
// reports once.
func TestUncountable(t *testing.T) {
	b := kernel.NewBox(t)
	w, r := manual(t, b)
	if counter := r.Env.count(model.Namespace{Inode: 1}, os.Getpid()); counter != nil {
		t.Error("counts another namespace than was asked for")
	}
	folder := filepath.Join(t.TempDir(), "1", "net")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "sockstat"), []byte("what is this?\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	counter := w.session.quiet.counter
	defer func() { w.session.quiet.counter = counter }()
	for range 2 {
		damaged, err := procfs.OpenCounter(filepath.Dir(filepath.Dir(folder)), 1)
		if err != nil {
			t.Fatal(err)
		}
		w.session.quiet.counter = damaged
		for range 2 {
			if err := w.scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			if w.unchanged(clock.Now()) {
				t.Error("unchanged returns true without counting")
			}
		}
		if err := damaged.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := r.logged("cannot be counted"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}
