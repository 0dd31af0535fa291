package sockdiag

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

func listenIn(t testing.TB, ns *kerneltest.Namespace) *Listener {
	t.Helper()
	l, err := Listen(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func receive(t testing.TB, l *Listener) Destroyed {
	t.Helper()
	if err := l.netlink.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var d Destroyed
	if err := l.Receive(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDestroyed(t *testing.T) {
	ns := kerneltest.NewNamespace(t)
	l := listenIn(t, ns)
	for _, test := range []struct {
		name    string
		family  int
		kind    int
		address unix.Sockaddr
		want    port.Socket
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}},
			port.Socket{Protocol: port.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 80}},
		{"TCP of IPv6", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 81},
			port.Socket{Protocol: port.TCP, Address: netip.IPv6Unspecified(), Port: 81}},
		{"UDP", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 53},
			port.Socket{Protocol: port.UDP, Address: netip.IPv4Unspecified(), Port: 53}},
		{"UDP of IPv6", unix.AF_INET6, unix.SOCK_DGRAM, &unix.SockaddrInet6{Port: 54},
			port.Socket{Protocol: port.UDP, Address: netip.IPv6Unspecified(), Port: 54}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fd := open(t, ns, test.family, test.kind, test.address)
			want := test.want
			want.Cookie, _ = identity(t, fd)
			fd.close()
			if got := receive(t, l); got.Socket != want || got.Client || got.IPv6 != (test.family == unix.AF_INET6) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// Nothing but what may have been a listener comes through: connections, refused
// or reset ones too, and sockets without a port are dropped in the kernel.
func TestDestroyedClients(t *testing.T) {
	ns := kerneltest.NewNamespace(t)
	server := open(t, ns, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}})
	l := listenIn(t, ns)
	unbound := open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, nil)
	unbound.close()
	connect := func(number int) error {
		var result error
		ns.Do(t, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			result = unix.Connect(fd, &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}})
			return unix.Close(fd)
		})
		return result
	}
	if err := connect(80); err != nil { // accepted by the backlog, then closed
		t.Fatal(err)
	}
	if err := connect(81); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("error %v, want ECONNREFUSED", err)
	}
	reset := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		return unix.Close(fd)
	}
	ns.Do(t, reset)
	cookie, _ := identity(t, server)
	server.close() // with the connections that were never accepted
	if got := receive(t, l); got.Socket.Cookie != cookie || got.Client {
		t.Errorf("%+v, want the listener of cookie %d alone", got, cookie)
	}
}

// None of many short-lived listeners is lost.
func TestDestroyedStorm(t *testing.T) {
	ns := kerneltest.NewNamespace(t)
	l := listenIn(t, ns)
	const count = 5000
	cookies := make(chan uint64, count)
	go ns.Do(t, func() error {
		defer close(cookies)
		for range count {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
			if err != nil {
				return err
			}
			if err = unix.Bind(fd, &unix.SockaddrInet4{Port: 7000}); err == nil {
				err = unix.Listen(fd, 1)
			}
			if err = errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
			cookies <- cookie
		}
		return nil
	})
	got := map[uint64]bool{}
	for range count {
		got[receive(t, l).Socket.Cookie] = true
	}
	for cookie := range cookies {
		if !got[cookie] {
			t.Errorf("the close of socket %d was not told", cookie)
		}
	}
}

// A buffer that overruns says so, and works again.
func TestDestroyedOverrun(t *testing.T) {
	ns := kerneltest.NewNamespace(t)
	l := listenIn(t, ns)
	var failed error
	if err := l.raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 2048)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	for i := range 200 {
		open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 1000 + i}).close()
	}
	if err := l.netlink.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var d Destroyed
	var err error
	for err == nil {
		err = l.Receive(&d)
	}
	if !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("error %v, want ENOBUFS", err)
	}
	// The kernel tells of closes from a work queue: late ones of the storm may
	// overrun it once more.
	for d.Socket.Port != 5000 {
		open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 5000}).close()
		for err = nil; err == nil && d.Socket.Port != 5000; {
			err = l.Receive(&d)
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsReceive(t *testing.T) {
	ns := kerneltest.NewNamespace(t)
	l := listenIn(t, ns)
	ended := make(chan error, 1)
	go func() {
		var d Destroyed
		ended <- l.Receive(&d)
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want os.ErrClosed", err)
	}
}

func FuzzParseDestroyed(f *testing.F) {
	f.Add(fixture(f, "tcp-ipv4-0.bin"))
	f.Add(fixture(f, "destroyed-tcp.bin"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Destroyed
		if err := parseDestroyed(&d, b); err == nil && (d.Socket.Protocol != port.TCP && d.Socket.Protocol != port.UDP || !d.Socket.Address.IsValid()) {
			t.Errorf("%+v without an error", d)
		}
	})
}

func BenchmarkReceive(b *testing.B) {
	ns := kerneltest.NewNamespace(b)
	l := listenIn(b, ns)
	var d Destroyed
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		open(b, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 1000}).close()
		b.StartTimer()
		if err := l.Receive(&d); err != nil {
			b.Fatal(err)
		}
	}
}
