package procfs

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestQueued: nobody accepts, and each connection waits.
func TestQueued(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	for want := range uint64(3) {
		if got, err := Queued("/proc", os.Getpid(), uint16(port)); err != nil || got != want {
			t.Fatalf("%d connections wait, error %v; want %d", got, err, want)
		}
		connection, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
	}
	if _, err := Queued("/proc", 1<<30, 80); err == nil {
		t.Error("no error for a process that does not exist")
	}
}
