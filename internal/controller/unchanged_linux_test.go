package controller

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/procnet"
)

func (s *stopwatch) scansSoFar() int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.scans[port.SourceSockDiag]
}

// TestQuietNamespaceIsNotDumped: where nothing opens, only counting goes on,
// and what opens is found all the same.
func TestQuietNamespaceIsNotDumped(t *testing.T) {
	watch := &stopwatch{}
	r, b := start(t, func(o *Options) { o.Observer, o.Source = watch, Netlink }), newBox(t)
	b.do(kerneltest.LoopbackUp)
	b.listen(80)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag")

	// looks waits until the namespace was looked at often, and returns how many
	// dumps that took.
	looks := func() int {
		before, last := watch.scansSoFar(), time.Time{}
		for seen := 0; seen < 100; {
			kerneltest.Eventually(t, "the namespace is looked at", func() bool {
				s := r.Status()
				now := s.Watchers[0].LastScan
				looked := now.After(last)
				last = now
				return looked
			})
			seen++
		}
		return watch.scansSoFar() - before
	}
	// A slow machine may meet a full scan, or the one that settles an opening.
	kerneltest.Eventually(t, "dumps end", func() bool { return looks() <= 2 })
	closeIt := b.listen(81)
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag")
	kerneltest.Eventually(t, "dumps end again", func() bool { return looks() <= 2 })
	closeIt()
	b.listen(82) // as many as before
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag",
		"closed web 81/tcp loopback sock_diag", "opened web 82/tcp loopback sock_diag")

	// A client without a port that could be told hides how many listen.
	b.socket(unix.SOCK_DGRAM, func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}})
	})
	kerneltest.Eventually(t, "each look is a dump", func() bool { return looks() >= 90 })
}

// manual returns a watcher of a box that does nothing by itself, but for
// receiving closes.
func manual(t *testing.T, b *box) (*watcher, *rig) {
	t.Helper()
	r := start(t, nil)
	if err := r.stop(); err != nil { // it has never known of the box
		t.Fatal(err)
	}
	c := r.Controller
	c.mutex.Lock()
	c.still = true
	c.add(t.Context(), b.container("web"))
	c.still = false
	w := c.onlyGroup().watcher
	c.mutex.Unlock()
	s, err := w.open(t.Context(), false, c.Tuning)
	if err != nil {
		t.Fatal(err)
	}
	w.session = s
	if s.receiver == nil || s.quiet.counter == nil {
		t.Fatal("neither closes are told nor sockets counted")
	}
	t.Cleanup(func() {
		s.close()
		w.endReceiver(context.Background())
	})
	return w, r
}

// TestUnchangedIsTrue does what programs do to sockets, at random, and compares
// with a dump: nothing new may be there when a watcher says that there is not.
func TestUnchangedIsTrue(t *testing.T) {
	b := newBox(t)
	b.do(kerneltest.LoopbackUp)
	w, _ := manual(t, b)
	if err := w.scan(); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	model := sockets{t: t, b: b, w: w, random: rand.New(rand.NewPCG(seed, 0)), udp: 1000}
	const steps = 1000
	skipped := 0
	for step := range steps {
		model.step()
		if !w.unchanged() {
			if err := w.scan(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		skipped++
		dumped, err := w.session.dump(nil)
		if err != nil {
			t.Fatal(err)
		}
		w.c.mutex.Lock()
		unknown := w.c.tracker.Unknown(nil, w.group.id, dumped)
		w.c.mutex.Unlock()
		if len(unknown) > 0 {
			t.Fatalf("step %d: unchanged, but %+v is new", step, dumped[unknown[0]])
		}
	}
	if skipped < 100 {
		t.Errorf("%d of %d dumps were spared, want 100 at least", skipped, steps)
	}
}

// sockets are those of the random test.
type sockets struct {
	t      *testing.T
	b      *box
	w      *watcher
	random *rand.Rand

	ports   []func()              // closes what a notification tells of
	others  []func()              // connections and clients
	servers []*unix.SockaddrInet4 // some are gone
	udp     int                   // the last UDP port
}

func (m *sockets) step() {
	loopback := [4]byte{127, 0, 0, 1}
	bind := func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}) }
	switch m.random.IntN(11) {
	case 0:
		fd, close := m.b.socket(unix.SOCK_STREAM, func(fd int) error { return errors.Join(bind(fd), unix.Listen(fd, 100)) })
		m.ports = append(m.ports, close)
		at, err := unix.Getsockname(fd)
		if err != nil {
			m.t.Fatal(err)
		}
		m.servers = append(m.servers, at.(*unix.SockaddrInet4))
	case 1:
		m.udp++
		_, close := m.b.socket(unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: m.udp}) })
		m.ports = append(m.ports, close)
	case 2, 3:
		if len(m.servers) > 0 { // refused where the server is gone
			to := m.servers[m.random.IntN(len(m.servers))]
			_, close := m.b.socket(unix.SOCK_STREAM, func(fd int) error {
				if err := unix.Connect(fd, to); !errors.Is(err, unix.ECONNREFUSED) {
					return err
				}
				return nil
			})
			m.others = append(m.others, close)
		}
	case 4:
		_, close := m.b.socket(unix.SOCK_DGRAM, func(fd int) error {
			return unix.Sendto(fd, []byte("?"), 0, &unix.SockaddrInet4{Port: 9, Addr: loopback})
		})
		m.others = append(m.others, close)
	case 5, 6, 7:
		m.others = m.end(m.others, nil)
	case 8: // with the connections that nobody has accepted
		for len(m.others) > 0 {
			m.others = m.end(m.others, nil)
		}
		for len(m.ports) > 0 {
			m.ports = m.end(m.ports, m.waitForClose)
		}
	default:
		m.ports = m.end(m.ports, m.waitForClose)
	}
}

// end closes one of some sockets.
func (m *sockets) end(some []func(), wait func(uint64)) []func() {
	if len(some) == 0 {
		return some
	}
	i, before := m.random.IntN(len(some)), m.closes()
	some[i]()
	some[i] = some[len(some)-1]
	if wait != nil {
		wait(before)
	}
	return some[:len(some)-1]
}

// waitForClose waits for a notification: only what has been told of is known.
func (m *sockets) waitForClose(closes uint64) {
	kerneltest.Eventually(m.t, "the close is told", func() bool { return m.closes() > closes })
}

func (m *sockets) closes() uint64 {
	m.w.c.mutex.Lock()
	defer m.w.c.mutex.Unlock()
	return m.w.facts
}

// TestUncountable: where sockets cannot be counted each scan is a dump, which is
// told once.
func TestUncountable(t *testing.T) {
	b := newBox(t)
	w, r := manual(t, b)
	if counter := w.c.count(port.Namespace{Inode: 1}, os.Getpid()); counter != nil {
		t.Error("counts another namespace than was asked for")
	}
	folder := filepath.Join(t.TempDir(), "1", "net")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "sockstat"), []byte("what is this?\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		damaged, err := procnet.OpenCounter(filepath.Dir(filepath.Dir(folder)), 1)
		if err != nil {
			t.Fatal(err)
		}
		w.session.quiet.counter = damaged
		for range 2 {
			if err := w.scan(); err != nil {
				t.Fatal(err)
			}
			if w.unchanged() {
				t.Error("says that nothing changed without counting")
			}
		}
		if err := damaged.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := r.logged("cannot be counted"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
}
