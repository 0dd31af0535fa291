package probe

import (
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// TestTransients opens and closes sockets as fast as one thread can: none may be
// missed, and each must open before it closes.
func TestTransients(t *testing.T) {
	const count = 20_000
	s := newSpace(t)
	for _, test := range []struct {
		name     string
		kind     int
		protocol model.Protocol
	}{
		{"TCP", unix.SOCK_STREAM, model.TCP},
		{"UDP", unix.SOCK_DGRAM, model.UDP},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := collect(t, s, Options{budget: unlimited})
			s.do(func() {
				for i := range count {
					fd := s.socket(unix.AF_INET, test.kind, 0)
					s.bind(fd, inet4(1+i%60_000))
					if test.kind == unix.SOCK_STREAM {
						s.listen(fd)
					}
					s.close(fd)
				}
			})
			// Not always one after the other: a reader of this process's files
			// (such as another test) delays a close.
			open := map[uint64]Event{}
			for i, e := range c.next(2 * count) {
				opened, isOpen := open[e.Socket.Cookie]
				switch {
				case e.Kind == Opened && !isOpen && e.Socket.Protocol == test.protocol && e.PID != 0 && e.Name != "":
					open[e.Socket.Cookie] = e
				case e.Kind == Closed && e.Socket == opened.Socket && opened.Time.Before(e.Time):
					delete(open, e.Socket.Cookie)
				default:
					t.Fatalf("event %d: %+v, after %+v", i, e, opened)
				}
			}
			if len(open) != 0 {
				t.Errorf("%d sockets left open", len(open))
			}
			c.quiet(s)
			if stats := c.probe.Stats(); stats.Missed != 0 || stats.Lost != 0 {
				t.Errorf("records missed or lost: %+v", stats)
			}
		})
	}
}

// TestOrder: the processors of the machine open and close at once; the ring
// buffer keeps the order of each socket, and what is read never goes back by
// more than the time between taking the stamp and the place in the queue.
func TestOrder(t *testing.T) {
	const threads, rounds, each = 4, 20, 250
	const count = threads * rounds * each
	s := newSpace(t)
	c := collect(t, s, Options{budget: unlimited})
	s.do(func() {
		for range rounds {
			// The sockets are made here, in the namespace.
			done := make(chan error, threads)
			for n := range threads {
				fds := make([]int, each)
				for i := range fds {
					fds[i] = s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
					s.option(fds[i], unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
					s.bind(fds[i], inet4(2000+n))
				}
				go func() { done <- listenAndClose(fds) }()
			}
			for range threads {
				s.check("listen and close", <-done)
			}
		}
	})
	open := map[uint64]Event{}
	var back, worst int64
	var last Event
	for i, e := range c.next(2 * count) {
		if i > 0 && e.Time.Before(last.Time) {
			back++
			worst = max(worst, last.Time.Sub(e.Time).Nanoseconds())
		}
		last = e
		before, isOpen := open[e.Socket.Cookie]
		switch {
		case e.Kind == Opened && !isOpen:
			open[e.Socket.Cookie] = e
		case e.Kind == Closed && isOpen && before.Time.Before(e.Time):
			delete(open, e.Socket.Cookie)
		default:
			t.Fatalf("event %d out of order: %+v, open before: %v %+v", i, e, isOpen, before)
		}
	}
	if len(open) != 0 {
		t.Errorf("%d sockets left open", len(open))
	}
	t.Logf("%d of %d events of different sockets were read after a later one, by at most %d ns", back, 2*count, worst)
}

func listenAndClose(fds []int) error {
	for _, fd := range fds {
		if err := unix.Listen(fd, 1); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// TestConnections: connections are no events, on either side.
func TestConnections(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		server := newServer(s, 9300)
		c.one(Opened, 9300)
		for range 10_000 {
			server.connection()
		}
		c.quietHere(s)
		server.close()
		c.one(Closed, 9300)
	})
	c.quiet(s)
}

// TestRefusedConnects: an attempt that fails was never a listener.
func TestRefusedConnects(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		for i := range 2_000 {
			fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if i%2 == 0 {
				s.bind(fd, inet4(10_000+i))
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != unix.ECONNREFUSED {
				s.check("connect to a closed port: want it refused, got", err)
			}
			s.close(fd)
		}
	})
	c.quiet(s)
}

// server accepts connections by bare system calls, on the thread it is used on.
type server struct {
	s       *space
	fd      int
	address unix.Sockaddr
}

func newServer(s *space, number int) *server {
	fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	s.bind(fd, inet4(number))
	s.listen(fd)
	return &server{s, fd, &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}}
}

// connection connects, accepts and closes. The client resets, so that its port
// is free again at once.
func (v *server) connection() {
	client := v.s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	v.s.check("linger", unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	v.s.connect(client, v.address)
	accepted, _, err := unix.Accept4(v.fd, unix.SOCK_CLOEXEC)
	v.s.check("accept", err)
	v.s.close(client)
	v.s.close(accepted)
}

func (v *server) close() { v.s.close(v.fd) }
