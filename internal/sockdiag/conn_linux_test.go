package sockdiag

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

func dial(t testing.TB, ns *kernel.Namespace, options Options) *Conn {
	t.Helper()
	c, err := Dial(ns.FD(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testSocket is closed by close, or when the test ends: never twice, since the
// number may be another file's by then.
type testSocket struct {
	fd    int
	close func()
}

// open makes a socket in the namespace; it is listening if it is TCP.
func open(t testing.TB, ns *kernel.Namespace, family, kind int, address unix.Sockaddr, options ...int) *testSocket {
	t.Helper()
	fd := -1
	ns.Do(t, func() (err error) {
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for _, option := range options {
			level := unix.SOL_SOCKET
			if option == unix.IPV6_V6ONLY {
				level = unix.IPPROTO_IPV6
			}
			if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
				return err
			}
		}
		if address != nil {
			if err := unix.Bind(fd, address); err != nil {
				return err
			}
		}
		if kind == unix.SOCK_STREAM {
			return unix.Listen(fd, 16)
		}
		return nil
	})
	s := &testSocket{fd: fd, close: sync.OnceFunc(func() { unix.Close(fd) })}
	t.Cleanup(s.close)
	return s
}

// identity asks the kernel for a socket's cookie and inode.
func identity(t testing.TB, s *testSocket) (cookie uint64, inode uint32) {
	t.Helper()
	fd := s.fd
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return cookie, uint32(st.Ino)
}

func dump(t testing.TB, c *Conn) map[uint64]model.Socket {
	t.Helper()
	sockets, err := c.Dump(nil)
	if err != nil {
		t.Fatal(err)
	}
	byCookie := map[uint64]model.Socket{}
	for _, s := range sockets {
		if other, ok := byCookie[s.Cookie]; ok {
			t.Errorf("%+v and %+v have the same cookie", other, s)
		}
		byCookie[s.Cookie] = s
	}
	return byCookie
}

func TestDump(t *testing.T) {
	ns := kernel.NewNamespace(t)
	loopback4 := [4]byte{127, 0, 0, 1}
	for _, test := range []struct {
		name    string
		family  int
		kind    int
		address unix.Sockaddr
		options []int
		want    model.Socket
		absent  bool // unless clients are asked for
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: loopback4}, nil,
			model.Socket{Protocol: model.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 80}, false},
		{"port 1", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 1}, nil,
			model.Socket{Protocol: model.TCP, Address: netip.IPv4Unspecified(), Port: 1}, false},
		{"port 65535", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 65535}, nil,
			model.Socket{Protocol: model.UDP, Address: netip.IPv4Unspecified(), Port: 65535}, false},
		{"dual stack", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 81}, nil,
			model.Socket{Protocol: model.TCP, Address: netip.IPv6Unspecified(), Port: 81}, false},
		{"IPv6 only", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 82}, []int{unix.IPV6_V6ONLY},
			model.Socket{Protocol: model.TCP, Address: netip.IPv6Unspecified(), Port: 82, IPv6Only: true}, false},
		{"listen without bind", unix.AF_INET, unix.SOCK_STREAM, nil, nil,
			model.Socket{Protocol: model.TCP, Address: netip.IPv4Unspecified(), AutoBound: true}, false},
		{"bind to port 0", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{}, nil,
			model.Socket{Protocol: model.TCP, Address: netip.IPv6Unspecified(), AutoBound: true}, false},
		{"UDP on a high port", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 51820}, nil,
			model.Socket{Protocol: model.UDP, Address: netip.IPv4Unspecified(), Port: 51820}, false},
		{"UDP client", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{}, nil,
			model.Socket{Protocol: model.UDP, Address: netip.IPv4Unspecified(), AutoBound: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fd := open(t, ns, test.family, test.kind, test.address, test.options...)
			cookie, inode := identity(t, fd)
			if _, there := dump(t, dial(t, ns, Options{}))[cookie]; there == test.absent {
				t.Errorf("there without clients: %v, want %v", there, !test.absent)
			}
			got, there := dump(t, dial(t, ns, Options{UDPClients: true}))[cookie]
			if !there {
				t.Fatal("the socket is not in the dump")
			}
			if got.Port == 0 || got.Cgroup == 0 {
				t.Errorf("port %d, cgroup %d; want both", got.Port, got.Cgroup)
			}
			want := test.want
			want.Cookie, want.Inode, want.Cgroup = cookie, inode, got.Cgroup
			if want.AutoBound {
				want.Port = got.Port
			}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestDumpLeavesOutConnections(t *testing.T) {
	ns := kernel.NewNamespace(t)
	server := open(t, ns, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}})
	open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, nil) // never bound
	connected := open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 53})
	if err := unix.Connect(connected.fd, &unix.SockaddrInet4{Port: 54, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	var client int
	ns.Do(t, func() (err error) {
		if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err == nil {
			err = unix.Connect(client, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}})
		}
		return err
	})
	defer unix.Close(client)
	cookie, _ := identity(t, server)
	if sockets := dump(t, dial(t, ns, Options{UDPClients: true})); len(sockets) != 1 || sockets[cookie].Port != 80 {
		t.Errorf("%v; want the listener alone", sockets)
	}
}

// A listener that comes after the first dump is asked about once more, one that
// goes is forgotten.
func TestDumpAutoBoundOverTime(t *testing.T) {
	ns := kernel.NewNamespace(t)
	c := dial(t, ns, Options{})
	chosen := open(t, ns, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80})
	dump(t, c)
	auto := open(t, ns, unix.AF_INET, unix.SOCK_STREAM, nil)
	first, _ := identity(t, chosen)
	second, _ := identity(t, auto)
	for range 2 { // asked, and remembered
		if sockets := dump(t, c); sockets[first].AutoBound || !sockets[second].AutoBound {
			t.Errorf("%v; want AutoBound for %d alone", sockets, second)
		}
	}
	chosen.close()
	dump(t, c)
	if len(c.auto) != 1 || !c.auto[second] {
		t.Errorf("remembered are %v; want %d alone", c.auto, second)
	}
}

func TestDumpOfManySockets(t *testing.T) {
	ns := kernel.NewNamespace(t)
	const count = 2000 // far more than one datagram holds
	want := map[uint64]bool{}
	for i := range count {
		cookie, _ := identity(t, open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 10000 + i}))
		want[cookie] = true
	}
	got := dump(t, dial(t, ns, Options{}))
	for cookie := range got {
		delete(want, cookie)
	}
	if len(got) != count || len(want) != 0 {
		t.Errorf("%d sockets, %d of them missing; want %d", len(got), len(want), count)
	}
}

func TestDumpAllocatesNothing(t *testing.T) {
	ns := kernel.NewNamespace(t)
	for i := range 20 {
		open(t, ns, unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 8000 + i})
		open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 8000 + i})
	}
	c := dial(t, ns, Options{})
	sockets, err := c.Dump(nil)
	allocations := testing.AllocsPerRun(100, func() {
		if err == nil {
			sockets, err = c.Dump(sockets[:0])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if allocations >= 1 {
		t.Errorf("a steady dump of %d sockets allocates %v times; want 0", len(sockets), allocations)
	}
}

func TestCloseEndsDump(t *testing.T) {
	ns := kernel.NewNamespace(t)
	c := dial(t, ns, Options{})
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := c.Dump(nil); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("error %v; want os.ErrClosed", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Dump did not end")
	}
}

func BenchmarkDump(b *testing.B) {
	ns := kernel.NewNamespace(b)
	for i := range 20 {
		open(b, ns, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 8000 + i})
	}
	for i := range 10 {
		open(b, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 8000 + i})
	}
	c := dial(b, ns, Options{})
	var sockets []model.Socket
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if sockets, err = c.Dump(sockets[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
