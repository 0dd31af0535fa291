package procnet

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The main thread stays as it is, for the test's own goroutine: were it to change
// its namespace, the process would seem to have done so.
func init() { runtime.LockOSThread() }

// inNamespace runs f on a thread in a new network namespace. A panic of f is a
// failure of the test.
func inNamespace(t testing.TB, f func(tid int)) {
	t.Helper()
	if os.Geteuid() != 0 {
		const reason = "needs root, to make a network namespace"
		if os.Getenv("PORTWATCHER_REQUIRE") == "1" {
			t.Fatal("PORTWATCHER_REQUIRE=1, but this test " + reason)
		}
		t.Skip("this test " + reason)
	}
	var failure any
	var thread sync.WaitGroup
	thread.Go(func() {
		defer func() { failure = recover() }()
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		loopback, err := unix.NewIfreq("lo")
		if err != nil {
			panic(err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		defer unix.Close(fd)
		loopback.SetUint16(unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
			panic(err)
		}
		f(unix.Gettid())
	})
	thread.Wait()
	if failure != nil {
		t.Fatal(failure)
	}
}
