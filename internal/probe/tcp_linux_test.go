package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

func inet4(number int) *unix.SockaddrInet4 { return &unix.SockaddrInet4{Port: number} }

func inet6(number int, address string) *unix.SockaddrInet6 {
	return &unix.SockaddrInet6{Port: number, Addr: netip.MustParseAddr(address).As16()}
}

// place is where a socket of a family is bound.
type place struct {
	name    string
	family  int
	address unix.Sockaddr
	only    int // IPV6_V6ONLY
}

// socketFor makes a socket that can be bound there.
func (s *space) socketFor(p place, kind int) int {
	fd := s.socket(p.family, kind, 0)
	if p.family == unix.AF_INET6 {
		s.option(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, p.only)
	}
	return fd
}

// TestListen compares each event with the socket, the process and a dump.
func TestListen(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []place{
		{"IPv4", unix.AF_INET, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}, 0},
		{"IPv4 wildcard", unix.AF_INET, inet4(65535), 0},
		{"IPv4, chosen by the kernel", unix.AF_INET, inet4(0), 0},
		{"IPv6", unix.AF_INET6, inet6(8081, "::1"), 1},
		{"dual stack", unix.AF_INET6, inet6(8082, "::"), 0},
		{"IPv6 only", unix.AF_INET6, inet6(8083, "::"), 1},
		{"IPv4-mapped", unix.AF_INET6, inet6(8084, "::ffff:127.0.0.1"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.do(func() {
				fd := s.socketFor(test, unix.SOCK_STREAM)
				s.bind(fd, test.address)
				before := clock.Now()
				s.listen(fd)
				after := clock.Now()
				number := s.port(fd)
				want := s.dumped(number)

				opened := c.one(Opened, number)
				if opened.Socket != want {
					t.Errorf("opened %+v, the dump shows %+v", opened.Socket, want)
				}
				if cookie := s.socketCookie(fd); opened.Socket.Cookie != cookie {
					t.Errorf("cookie %d, SO_COOKIE gives %d", opened.Socket.Cookie, cookie)
				}
				if opened.PID != os.Getpid() || opened.Name != strings.TrimSpace(string(comm)) || opened.TaskCgroup == 0 {
					t.Errorf("process %d %q cgroup %d, want %d %q", opened.PID, opened.Name, opened.TaskCgroup, os.Getpid(), comm)
				}
				checkTime(t, opened, before, after)

				checkClose(t, s, c, fd, want)
			})
		})
	}
}

// checkClose closes a server that a dump showed, and compares its event.
func checkClose(t *testing.T, s *space, c *collector, fd int, want model.Socket) {
	t.Helper()
	before := clock.Now()
	s.close(fd)
	closed := c.one(Closed, want.Port)
	checkTime(t, closed, before, clock.Now())
	if closed.Socket != want {
		t.Errorf("closed %+v, the dump showed %+v", closed.Socket, want)
	}
	if closed.PID != 0 || closed.Name != "" || closed.TaskCgroup != 0 || closed.Connected {
		t.Errorf("a close with the process of an open: %+v", closed)
	}
}

func checkTime(t *testing.T, e Event, before, after clock.Instant) {
	t.Helper()
	if e.Time.Before(before) || e.Time.After(after) {
		t.Errorf("%v at %d, want between %d and %d", e.Kind, e.Time, before, after)
	}
}

func TestListenWithoutBind(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.listen(fd)
		number := s.port(fd)
		opened := c.next(1)[0]
		if p := opened.Socket.Port; opened.Kind != Opened || p != 0 && p != number {
			t.Errorf("opened %+v, want port 0 or %d", opened, number)
		}
		if want := s.dumped(number); opened.Socket.Cookie != want.Cookie || !opened.Socket.AutoBound {
			t.Errorf("opened %+v, the dump shows %+v", opened.Socket, want)
		}
		s.close(fd)
		if closed := c.one(Closed, number); closed.Socket.Cookie != opened.Socket.Cookie {
			t.Errorf("closed cookie %d, opened %d", closed.Socket.Cookie, opened.Socket.Cookie)
		}
	})
}

// TestListenerLife: what does not end a listener is no event; what ends it
// without closing the file is.
func TestListenerLife(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.bind(fd, inet4(9000))
		s.listen(fd)
		opened := c.one(Opened, 9000)

		s.listen(fd) // another backlog
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		s.check("dup", err)
		s.close(fd)
		c.quietHere(s)

		s.check("shutdown", unix.Shutdown(copied, unix.SHUT_RDWR))
		closed := c.one(Closed, 9000)
		s.listen(copied)
		again := c.one(Opened, 9000)
		s.close(copied)
		last := c.one(Closed, 9000)
		for _, e := range []Event{closed, again, last} {
			if e.Socket.Cookie != opened.Socket.Cookie {
				t.Errorf("%v cookie %d, want %d", e.Kind, e.Socket.Cookie, opened.Socket.Cookie)
			}
		}
		if !closed.Time.Before(again.Time) || !again.Time.Before(last.Time) {
			t.Errorf("times out of order: %v, %v, %v", closed.Time, again.Time, last.Time)
		}
	})
	c.quiet(s)
}

// TestReuseport: one listener is one socket, also where they share a port.
func TestReuseport(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	cookies := map[uint64]bool{}
	s.do(func() {
		var fds []int
		for range 8 {
			fd := s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			s.option(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			s.bind(fd, inet4(9100))
			s.listen(fd)
			cookies[s.socketCookie(fd)] = true
			fds = append(fds, fd)
		}
		for _, fd := range fds {
			s.close(fd)
		}
	})
	counts := map[uint64]int{}
	for i, e := range c.next(16) {
		if want := Opened + Kind(i/8); e.Kind != want || !cookies[e.Socket.Cookie] {
			t.Errorf("event %d: %+v, want %v of a known cookie", i, e, want)
		}
		counts[e.Socket.Cookie]++
	}
	if len(counts) != 8 {
		t.Errorf("%d cookies, want 8", len(counts))
	}
}

// TestMPTCP: one listener, one open, one close, and the dump's cookie.
func TestMPTCP(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	for _, address := range []string{"127.0.0.1:9200", "[::]:9201", "127.0.0.1:0"} {
		s.do(func() {
			config := net.ListenConfig{}
			config.SetMultipathTCP(true)
			listener, err := config.Listen(context.Background(), "tcp", address)
			s.check("listen", err)
			want := s.dumped(uint16(listener.Addr().(*net.TCPAddr).Port))
			opened := c.one(Opened, want.Port)
			if opened.Socket != want {
				t.Errorf("%s: opened %+v, the dump shows %+v", address, opened.Socket, want)
			}
			raw, err := listener.(*net.TCPListener).SyscallConn()
			s.check("raw connection", err)
			s.check("control", raw.Control(func(fd uintptr) {
				protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
				s.check("SO_PROTOCOL", err)
				if protocol != unix.IPPROTO_MPTCP {
					t.Logf("%s: no MPTCP on this kernel, protocol %d", address, protocol)
				}
			}))
			s.check("close", listener.Close())
			if closed := c.one(Closed, want.Port); closed.Socket != want {
				t.Errorf("%s: closed %+v, the dump showed %+v", address, closed.Socket, want)
			}
		})
	}
	c.quiet(s)
}

func TestProcessDeath(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	var helper *exec.Cmd
	s.do(func() { helper = s.spawn("listen", nil) })
	for _, e := range c.next(2) {
		if e.Kind != Opened || e.PID != helper.Process.Pid {
			t.Errorf("got %+v, want an open by %d", e, helper.Process.Pid)
		}
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	protocols := map[model.Protocol]uint16{}
	for _, e := range c.next(2) {
		if e.Kind != Closed {
			t.Errorf("got %+v, want a close", e)
		}
		protocols[e.Socket.Protocol] = e.Socket.Port
	}
	if protocols[model.TCP] != 7001 || protocols[model.UDP] != 7002 {
		t.Errorf("closed %v, want TCP 7001 and UDP 7002", protocols)
	}
	if err := helper.Wait(); err == nil {
		t.Error("the helper was not killed")
	}
}
