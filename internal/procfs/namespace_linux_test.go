package procfs

import (
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

// The main thread stays as it is, for the test's own goroutine: were it to change
// its namespace, the process would seem to have done so.
func init() { runtime.LockOSThread() }

// inNamespace runs f on a thread in a new network namespace. A panic of f is a
// failure of the test.
func inNamespace(t testing.TB, f func(tid int)) {
	t.Helper()
	kernel.RequireRoot(t, "make a network namespace")
	var failure any
	var thread sync.WaitGroup
	thread.Go(func() {
		defer func() { failure = recover() }()
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := kernel.EnterNew(); err != nil {
			panic(err)
		}
		f(unix.Gettid())
	})
	thread.Wait()
	if failure != nil {
		t.Fatal(failure)
	}
}
