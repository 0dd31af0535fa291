package probe

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/sockdiag"
	"portwatcher/internal/testutil/kernel"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// requireRoot skips the test unless the kernel can be asked.
func requireRoot(t testing.TB) {
	t.Helper()
	kernel.RequireRoot(t, "load eBPF programs and make network namespaces")
}

// space is a network namespace of the test's own: other processes of the machine
// do not disturb what is counted in it.
type space struct {
	t      testing.TB
	run    chan func()
	cookie uint64
	cycles int // listeners opened by cycle
}

func newSpace(t testing.TB) *space {
	t.Helper()
	requireRoot(t)
	s := &space{t: t, run: make(chan func())}
	started := make(chan error)
	var thread sync.WaitGroup
	thread.Go(func() {
		// Never unlocked: the thread ends with the goroutine, and its namespace
		// with the thread.
		runtime.LockOSThread()
		err := kernel.EnterNew()
		started <- err
		if err != nil {
			return
		}
		for f := range s.run {
			f()
		}
	})
	if err := <-started; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(s.run); thread.Wait() })
	s.do(func() {
		fd := s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		var err error
		if s.cookie, err = NetnsCookie(fd); err != nil {
			t.Error(err)
		}
		s.close(fd)
	})
	return s
}

// do runs f on the thread that is in the namespace.
func (s *space) do(f func()) {
	s.t.Helper()
	done := make(chan any)
	s.run <- func() {
		defer func() { done <- recover() }()
		f()
	}
	if failure := <-done; failure != nil {
		s.t.Fatal(failure)
	}
}

// The methods below are for functions that do runs. They panic on failure, which
// do turns into a failure of the test.

func (s *space) check(what string, err error) {
	if err != nil {
		panic(fmt.Sprintf("%s: %v", what, err))
	}
}

// dump returns what sock_diag shows.
func (s *space) dump() []model.Socket {
	ns, err := os.Open("/proc/thread-self/ns/net")
	s.check("open namespace", err)
	defer ns.Close()
	conn, err := sockdiag.Dial(int(ns.Fd()), sockdiag.Options{UDPClients: true})
	s.check("dial sock_diag", err)
	defer conn.Close()
	sockets, err := conn.Dump(nil)
	s.check("dump", err)
	return sockets
}

// dumped returns the one socket that a dump shows on a port.
func (s *space) dumped(number uint16) model.Socket {
	var found []model.Socket
	for _, socket := range s.dump() {
		if socket.Port == number {
			found = append(found, socket)
		}
	}
	if len(found) != 1 {
		panic(fmt.Sprintf("a dump shows %d sockets on port %d, want 1: %+v", len(found), number, found))
	}
	return found[0]
}

func (s *space) socket(family, kind, protocol int) int {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	s.check("socket", err)
	return fd
}

func (s *space) close(fd int) { s.check("close", unix.Close(fd)) }

func (s *space) bind(fd int, address unix.Sockaddr) { s.check("bind", unix.Bind(fd, address)) }

func (s *space) listen(fd int) { s.check("listen", unix.Listen(fd, 128)) }

func (s *space) connect(fd int, address unix.Sockaddr) {
	s.check("connect", unix.Connect(fd, address))
}

func (s *space) option(fd, level, name, value int) {
	s.check("setsockopt", unix.SetsockoptInt(fd, level, name, value))
}

func (s *space) port(fd int) uint16 {
	address, err := unix.Getsockname(fd)
	s.check("getsockname", err)
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port)
	case *unix.SockaddrInet6:
		return uint16(a.Port)
	}
	return 0
}

func (s *space) socketCookie(fd int) uint64 {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	s.check("SO_COOKIE", err)
	return cookie
}

// spawn starts this test binary as a helper (see TestMain) in the namespace and
// returns when it is ready. The test kills it in the end.
func (s *space) spawn(mode string, configure func(*exec.Cmd)) *exec.Cmd {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), helperVariable+"="+mode)
	command.Stderr = os.Stderr
	if configure != nil {
		configure(command)
	}
	output, err := command.StdoutPipe()
	s.check("pipe", err)
	s.check("start helper", command.Start())
	s.t.Cleanup(func() {
		if command.ProcessState == nil {
			_ = command.Process.Kill()
			_ = command.Wait()
		}
	})
	_, err = output.Read(make([]byte, 1))
	s.check("wait for helper", err)
	return command
}

// rawConnect is unix.Connect for an address of any family.
func rawConnect(fd int, address *unix.RawSockaddr) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(address)), unsafe.Sizeof(*address))
	if errno != 0 {
		return errno
	}
	return nil
}

const helperVariable = "PROBE_TEST_HELPER"

// The main thread stays as it is, for the test's own goroutine: its name and its
// namespace are what others see as the process's.
func init() { runtime.LockOSThread() }

// TestMain makes the test binary a helper where the environment asks for it: it
// opens something, prints a line, and waits to be killed.
func TestMain(m *testing.M) {
	mode := os.Getenv(helperVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := help(mode); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", mode, err)
		os.Exit(1)
	}
}

func help(mode string) error {
	fd := 3
	var err error
	switch mode {
	case "unsupported": // without any capability
		_, err := Open(Options{})
		fmt.Printf("%T %v\n", err, err)
		return nil
	case "listen":
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 7001}); err != nil {
			return err
		}
		udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(udp, &unix.SockaddrInet4{Port: 7002}); err != nil {
			return err
		}
	case "listen-inherited":
	case "storm", "storm-held", "quiet":
		return helpCycles(mode)
	default:
		return errors.New("unknown mode")
	}
	if err := unix.Listen(fd, 16); err != nil {
		return err
	}
	fmt.Print("+")
	return pause()
}

// pause waits to be killed.
func pause() error {
	for {
		if err := unix.Pause(); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
