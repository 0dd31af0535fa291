package controller

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestServersStay: /proc cannot tell a UDP server in the range of clients' ports
// from a client, but one that is known from before stays, as long as it is there.
func TestServersStay(t *testing.T) {
	b := newBox(t)
	bind := func() (close func()) {
		const number = 51820 // WireGuard's, in the kernel's default range
		_, close = b.socket(unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: number}) })
		return close
	}
	closeIt := bind()
	w, r := manual(t, b)
	want := []string{"opened web 51820/udp loopback sock_diag"}
	look := func(more ...string) {
		t.Helper()
		if err := w.scan(); err != nil {
			t.Fatal(err)
		}
		want = append(want, more...)
		r.wait(want...)
	}
	look()
	reopen := func(until time.Time) {
		t.Helper()
		w.session.close()
		w.procUntil = until
		s, err := w.open(t.Context(), false, w.c.Tuning)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		w.session = s
	}
	reopen(time.Now().Add(time.Hour)) // through /proc
	look()
	b.listen(80)
	look("opened web 80/tcp loopback proc")
	reopen(time.Time{}) // sock_diag is back
	look()
	reopen(time.Now().Add(time.Hour))
	closeIt()
	look("closed web 51820/udp loopback proc")
	bind() // for all that /proc tells, a client
	look()
	reopen(time.Time{})
	look("opened web 51820/udp loopback sock_diag")
}
