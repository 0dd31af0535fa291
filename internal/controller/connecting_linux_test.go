package controller

import (
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
)

// TestConnect: a UDP socket is closed as of its connect if that has taken place,
// and stays open if it has not.
func TestConnect(t *testing.T) {
	r, p, b, cookie := startProbedBox(t)
	w := r.watched()
	b.do(kerneltest.LoopbackUp)
	fd, _ := b.socket(unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: 5000}) })
	about := tell(b, cookie, probe.Opened, r.dumped().Cookie, 5000)
	about.Socket.Protocol = port.UDP
	p.events <- about
	r.wait("opened web 5000/udp loopback ebpf")

	about.Kind, about.Connected = probe.Closed, true
	p.events <- about
	r.eventually("a scan has looked at it", func() bool {
		return w.last.Load() > about.Time.Add(maxConnect).UnixNano() && len(w.connecting.sockets) == 0
	})
	r.wait("opened web 5000/udp loopback ebpf")

	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	p.events <- about
	r.wait("opened web 5000/udp loopback ebpf", "closed web 5000/udp loopback ebpf")
	if closed := r.all()[1]; !closed.Time.Equal(about.Time) {
		t.Errorf("closed at %v, want %v, the moment of the connect", closed.Time, about.Time)
	}
}
