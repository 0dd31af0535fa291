package sockdiag

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

func listenIn(t testing.TB, ns *kernel.Namespace) *Listener {
	t.Helper()
	l, err := Listen(ns.FD(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func receive(t testing.TB, l *Listener) Destroyed {
	t.Helper()
	var one [1]Destroyed
	if n, err := receiveBatch(t, l, one[:]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return one[0]
}

// receiveBatch waits for 30 s at most.
func receiveBatch(t testing.TB, l *Listener, dst []Destroyed) (int, error) {
	t.Helper()
	if err := l.netlink.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		if n, err := l.ReceiveWaiting(dst); n > 0 || err != nil {
			return n, err
		}
		if err := l.Wait(); err != nil {
			return 0, err
		}
	}
}

func TestDestroyed(t *testing.T) {
	ns := kernel.NewNamespace(t)
	l := listenIn(t, ns)
	for _, test := range []struct {
		name    string
		family  int
		kind    int
		address unix.Sockaddr
		want    model.Socket
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{127, 0, 0, 1}},
			model.Socket{Protocol: model.TCP, Address: netip.MustParseAddr("127.0.0.1"), Port: 80}},
		{"TCP of IPv6", unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Port: 81},
			model.Socket{Protocol: model.TCP, Address: netip.IPv6Unspecified(), Port: 81}},
		{"UDP", unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 53},
			model.Socket{Protocol: model.UDP, Address: netip.IPv4Unspecified(), Port: 53}},
		{"UDP of IPv6", unix.AF_INET6, unix.SOCK_DGRAM, &unix.SockaddrInet6{Port: 54},
			model.Socket{Protocol: model.UDP, Address: netip.IPv6Unspecified(), Port: 54}},
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
	ns := kernel.NewNamespace(t)
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

func TestCloseEndsWait(t *testing.T) {
	ns := kernel.NewNamespace(t)
	l := listenIn(t, ns)
	ended := make(chan error, 1)
	go func() { ended <- l.Wait() }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want os.ErrClosed", err)
	}
	if _, err := l.ReceiveWaiting(make([]Destroyed, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReceiveWaiting: error %v, want os.ErrClosed", err)
	}
	if _, err := l.Dropped(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Dropped: error %v, want os.ErrClosed", err)
	}
	if !l.Empty() {
		t.Error("a closed listener is not empty")
	}
}

func FuzzParseDestroyed(f *testing.F) {
	f.Add(fixture(f, "tcp-ipv4-0.bin"))
	f.Add(fixture(f, "destroyed-tcp.bin"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Destroyed
		if err := parseDestroyed(&d, b); err == nil && (d.Socket.Protocol != model.TCP && d.Socket.Protocol != model.UDP || !d.Socket.Address.IsValid()) {
			t.Errorf("%+v without an error", d)
		}
	})
}
