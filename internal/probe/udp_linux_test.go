package probe

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

func TestBind(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{UDPClients: true})
	for _, test := range []place{
		{"IPv4", unix.AF_INET, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}, 0},
		{"IPv4, in the ephemeral range", unix.AF_INET, inet4(51820), 0},
		{"IPv4, chosen by the kernel", unix.AF_INET, inet4(0), 0},
		{"IPv6", unix.AF_INET6, inet6(8081, "::1"), 1},
		{"dual stack", unix.AF_INET6, inet6(8082, "::"), 0},
		{"IPv6 only", unix.AF_INET6, inet6(8083, "::"), 1},
		{"IPv6, chosen by the kernel", unix.AF_INET6, inet6(0, "::"), 0},
		{"IPv4-mapped", unix.AF_INET6, inet6(8084, "::ffff:127.0.0.1"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.do(func() {
				fd := s.socketFor(test, unix.SOCK_DGRAM)
				before := clock.Now()
				s.bind(fd, test.address)
				after := clock.Now()
				number := s.port(fd)
				want := s.dumped(number)
				opened := c.one(Opened, number)
				if opened.Socket != want {
					t.Errorf("opened %+v, the dump shows %+v", opened.Socket, want)
				}
				if opened.PID != os.Getpid() {
					t.Errorf("pid %d, want %d", opened.PID, os.Getpid())
				}
				checkTime(t, opened, before, after)
				checkClose(t, s, c, fd, want)
			})
		})
	}
}

// TestUDPClients: a port that the kernel gives a client is no event.
func TestUDPClients(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		for range 1000 {
			sender := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			s.check("sendto", unix.Sendto(sender, []byte("?"), 0,
				&unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}))
			connected := s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
			s.connect(connected, inet6(53, "::1"))
			s.close(sender)
			s.close(connected)
		}
	})
	c.quiet(s)
}

// TestUDPConnect: a bound socket that connects is no server any more, and its
// close is no second event.
func TestUDPConnect(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{UDPClients: true})
	for _, test := range []struct {
		name     string
		family   int
		from, to unix.Sockaddr
		auto     bool
		port     uint16
	}{
		{"IPv4", unix.AF_INET, inet4(5353), &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}, false, 5353},
		{"IPv6", unix.AF_INET6, inet6(5354, "::1"), inet6(1, "::1"), false, 5354},
		{"IPv4-mapped", unix.AF_INET6, inet6(5355, "::"), inet6(1, "::ffff:127.0.0.1"), false, 5355},
		{"chosen by the kernel", unix.AF_INET, inet4(0), &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}}, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.do(func() {
				fd := s.socket(test.family, unix.SOCK_DGRAM, 0)
				s.bind(fd, test.from)
				number := s.port(fd)
				opened := c.one(Opened, number)
				s.connect(fd, test.to)
				closed := c.one(Closed, number)
				want := model.Socket{
					Cookie: opened.Socket.Cookie, Protocol: model.UDP, Address: opened.Socket.Address,
					Port: number, AutoBound: test.auto,
				}
				if closed.Socket != want || !closed.Connected || closed.NetnsCookie != s.cookie {
					t.Errorf("closed %+v, want %+v, connected", closed, want)
				}
				s.connect(fd, test.to) // to the next peer
				s.close(fd)
			})
			c.quiet(s)
		})
	}
}

// TestUDPDissolve: a socket that gave its peer up is a server when it closes.
func TestUDPDissolve(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.bind(fd, inet4(5356))
		c.one(Opened, 5356)
		s.connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
		c.one(Closed, 5356)
		unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		s.check("connect to AF_UNSPEC", rawConnect(fd, &unspecified))
		s.close(fd)
		if closed := c.one(Closed, 5356); closed.Connected {
			t.Errorf("the last close has Connected: %+v", closed)
		}
	})
	c.quiet(s)
}

// TestClosesOfOlderSockets: sockets that were open before the probe close before
// its eyes; their clients do not.
func TestClosesOfOlderSockets(t *testing.T) {
	s := newSpace(t)
	var tcp, udp, client, auto int
	var want [2]model.Socket
	s.do(func() {
		tcp = s.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		s.bind(tcp, inet4(6001))
		s.listen(tcp)
		udp = s.socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		s.bind(udp, inet6(6002, "::"))
		auto = s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.bind(auto, inet4(0))
		client = s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		s.bind(client, inet4(6003))
		s.connect(client, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
		want = [2]model.Socket{s.dumped(6001), s.dumped(6002)}
	})
	c := collect(t, s, Options{})
	s.do(func() {
		for _, fd := range []int{tcp, udp, client, auto} {
			s.close(fd)
		}
	})
	for _, e := range c.next(2) {
		if e.Kind != Closed || !slices.Contains(want[:], e.Socket) {
			t.Errorf("got %+v, want the closes of %+v", e, want)
		}
	}
	c.quiet(s)
}

// TestRebind: the port asked for is that of the bind that worked.
func TestRebind(t *testing.T) {
	s := newSpace(t)
	c := collect(t, s, Options{})
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		elsewhere := &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 1}}
		if err := unix.Bind(fd, elsewhere); err == nil {
			t.Error("a bind to an address of someone else worked")
		}
		s.bind(fd, inet4(6100))
		if opened := c.one(Opened, 6100); opened.Socket.AutoBound {
			t.Errorf("opened %+v, want AutoBound false", opened.Socket)
		}
		s.close(fd)
		c.one(Closed, 6100)
	})
	c.quiet(s)
}
