package procfs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
)

const (
	sockstat  = "sockets: used 73\nTCP: inuse 7 orphan 0 tw 1 alloc 9 mem 3\nUDP: inuse 2 mem 1\nUDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n"
	sockstat6 = "TCP6: inuse 30\nUDP6: inuse 4\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"
)

func TestParseInUse(t *testing.T) {
	sum := InUse{TCP: 1, UDP: 1}
	if line, err := parseInUse(&sum, []byte(sockstat), "TCP:", "UDP:"); err != nil {
		t.Fatal(line, err)
	}
	if line, err := parseInUse(&sum, []byte(sockstat6), "TCP6:", "UDP6:"); err != nil {
		t.Fatal(line, err)
	}
	if sum != (InUse{TCP: 38, UDP: 7}) {
		t.Errorf("counted %+v, want 1+7+30 of TCP and 1+2+4 of UDP", sum)
	}
	for text, want := range map[string]int{
		"":                              0,
		"\n\n":                          2,
		"TCP: inuse 7":                  1,
		"UDP: inuse 7\n":                1,
		"TCP: inuse\nUDP: inuse 1\n":    1,
		"x\nTCP: inuse -1\nUDP: inuse":  2,
		"TCP: inuse 1\nUDP: used 1\n":   2,
		"TCP: inuse 1 \nUDP: inuse 1x":  2,
		"TCP: inuse 4294967296\n":       1,
		"TCP6: inuse 1\nUDP6: inuse 1":  2,
		"TCPx inuse 1\nUDP: inuse 1\n":  2,
		"TCP:inuse 1\nUDP: inuse 1\n\n": 3,
	} {
		var sum InUse
		if line, err := parseInUse(&sum, []byte(text), "TCP:", "UDP:"); err == nil || line != want {
			t.Errorf("%q: line %d, error %v, want an error of line %d", text, line, err, want)
		}
	}
}

func FuzzParseInUse(f *testing.F) {
	f.Add([]byte(sockstat))
	f.Add([]byte(sockstat6))
	f.Add([]byte("TCP: inuse"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var sum InUse
		if _, err := parseInUse(&sum, text, "TCP:", "UDP:"); err == nil && (sum.TCP < 0 || sum.UDP < 0) {
			t.Errorf("counted %+v in %q", sum, text)
		}
	})
}

// TestCounter counts what the test opens, in a namespace whose first process
// ends meanwhile.
func TestCounter(t *testing.T) {
	inNamespace(t, func(int) {
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			panic(err)
		}
		defer func() { _ = child.Wait() }() // it was killed
		defer func() { _ = child.Process.Kill() }()
		c, err := OpenCounter("/proc", child.Process.Pid)
		if err != nil {
			panic(err)
		}
		expect := func(what string, tcp, udp int) {
			t.Helper()
			if got, err := c.Read(); err != nil || got != (InUse{tcp, udp}) {
				t.Errorf("%s: %+v, %v, want %d and %d", what, got, err, tcp, udp)
			}
		}
		expect("nothing", 0, 0)
		bound := socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
		expect("a TCP socket that is bound", 0, 0)
		if err := unix.Listen(bound, 5); err != nil {
			panic(err)
		}
		expect("it listens", 1, 0)
		mptcp := -1
		if mptcp, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err == nil {
			if err := errors.Join(unix.Bind(mptcp, &unix.SockaddrInet4{}), unix.Listen(mptcp, 5)); err != nil {
				panic(err)
			}
			expect("one of MPTCP too", 2, 0)
			_ = unix.Close(mptcp)
		}
		server := socket(unix.AF_INET, unix.SOCK_DGRAM, 53)
		expect("a UDP server", 1, 1)
		dual := socket(unix.AF_INET6, unix.SOCK_DGRAM, 54)
		expect("one of IPv6", 1, 2)
		client, err := net.Dial("udp", "127.0.0.1:53")
		if err != nil {
			panic(err)
		}
		expect("a UDP client", 1, 3)
		_ = client.Close()
		if err := unix.Shutdown(bound, unix.SHUT_RDWR); err != nil {
			panic(err)
		}
		expect("no listener any more", 0, 2)
		_ = child.Process.Kill()
		_ = child.Wait()
		_ = unix.Close(dual)
		expect("its process has ended", 0, 1)
		_ = errors.Join(unix.Close(bound), unix.Close(server))
		expect("nothing again", 0, 0)
		if allocations := testing.AllocsPerRun(100, func() { _, _ = c.Read() }); allocations > 0 {
			t.Errorf("%v allocations a read", allocations)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: error %v, want os.ErrClosed", err)
		}
	})
}

// socket binds a socket to a port of every address.
func socket(family, kind, number int) int {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: number}
	if family == unix.AF_INET6 {
		address = &unix.SockaddrInet6{Port: number}
	}
	if err := unix.Bind(fd, address); err != nil {
		panic(err)
	}
	return fd
}

// TestCounterErrors names the process or the file.
func TestCounterErrors(t *testing.T) {
	if _, err := OpenCounter("/proc", 1<<30); !errors.Is(err, netns.ErrProcessGone) {
		t.Errorf("no process: error %v, want ErrProcessGone", err)
	}
	root := t.TempDir()
	folder := filepath.Join(root, "1", "net")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{sockstat, "TCP: 5\n"} {
		file := filepath.Join(folder, "sockstat")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCounter(root, 1)
		if err != nil {
			t.Fatal(err) // without sockstat6 too
		}
		got, err := c.Read()
		var damaged *ParseError
		switch {
		case text == sockstat && (err != nil || got != InUse{7, 2}):
			t.Errorf("without IPv6: %+v, %v", got, err)
		case text != sockstat && (!errors.As(err, &damaged) || damaged.File != file || damaged.Line != 1):
			t.Errorf("damaged: error %v, want one of line 1 of %s", err, file)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkCounter is the cost of a read where nothing has changed.
func BenchmarkCounter(b *testing.B) {
	c, err := OpenCounter("/proc", os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Read(); err != nil {
			b.Fatal(fmt.Errorf("read: %w", err))
		}
	}
}
