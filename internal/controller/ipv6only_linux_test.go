package controller

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

// An IPv6 wildcard says whether it takes IPv4 too; every other address says
// nothing, although the kernel marks a specific IPv6 address as well.
func TestIPv6OnlyIsTold(t *testing.T) {
	r, b := start(t, nil), newBox(t)
	b.do(kerneltest.LoopbackUp)
	listenIPv6(b, netip.IPv6Unspecified(), 80, 0)
	listenIPv6(b, netip.IPv6Unspecified(), 81, 1)
	listenIPv6(b, netip.IPv6Loopback(), 82, 0)
	b.listen(83)
	r.tell(engine.Started, b.container("web"))
	r.wait("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag",
		"opened web 82/tcp loopback sock_diag", "opened web 83/tcp loopback sock_diag")
	var told, listed []uint16
	for _, e := range r.all() {
		told = appendIPv6Only(told, &e.Listener)
	}
	for _, o := range r.Open() {
		listed = appendIPv6Only(listed, &o.Listener)
	}
	if want := []uint16{81}; !slices.Equal(told, want) || !slices.Equal(listed, want) {
		t.Errorf("IPv6 only: events say %v, the list %v; want %v", told, listed, want)
	}
}

func appendIPv6Only(ports []uint16, l *port.Listener) []uint16 {
	if l.IPv6Only {
		ports = append(ports, l.Port)
	}
	return ports
}

// listenIPv6 listens in the box's namespace.
func listenIPv6(b *box, address netip.Addr, number, v6only int) {
	b.t.Helper()
	b.do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { unix.Close(fd) })
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only),
			unix.Bind(fd, &unix.SockaddrInet6{Port: number, Addr: address.As16()}), unix.Listen(fd, 1))
	})
}
