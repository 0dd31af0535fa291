package sockdiag

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/testutil/kernel"
)

// lastPort is where a storm binds its last socket.
const lastPort = 5000

// storm binds and closes so many sockets in a namespace, one after the other; those of
// TCP listen between.
func storm(ns *kernel.Namespace, t testing.TB, count int, kind int) {
	t.Helper()
	ns.Do(t, func() error {
		for range count {
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			// Storms may run beside each other.
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrInet4{Port: 7000})
			}
			if err == nil && kind == unix.SOCK_STREAM {
				err = unix.Listen(fd, 1)
			}
			if err = errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
		}
		return nil
	})
}

// tally receives until received and dropped together are count, and then makes sure
// that there is no more. It returns how often ENOBUFS came.
func tally(t testing.TB, l *Listener, dst []Destroyed, count int) (received int, dropped uint64, overruns int) {
	t.Helper()
	for received+int(dropped) < count {
		n, err := receiveBatch(t, l, dst)
		received += n
		switch {
		case errors.Is(err, unix.ENOBUFS):
			overruns++
			var dropErr error
			if dropped, dropErr = l.Dropped(); dropErr != nil {
				t.Fatal(dropErr)
			}
		case err != nil:
			dropped, _ = l.Dropped()
			t.Fatalf("%d received, %d dropped, %d expected: %v", received, dropped, count, err)
		}
	}
	return received, dropped, overruns
}

// Each socket that goes away is received or counted as dropped, whatever the size of
// the buffer: an overrun has a number.
func TestStormIsAccountedFor(t *testing.T) {
	for _, test := range []struct {
		name         string
		kind, buffer int
		overrun      bool
	}{
		{"TCP", unix.SOCK_STREAM, 0, false},
		{"UDP", unix.SOCK_DGRAM, 0, false},
		{"TCP with a tiny buffer", unix.SOCK_STREAM, 1, true},
		{"UDP with a tiny buffer", unix.SOCK_DGRAM, 1, true},
		{"UDP with a small buffer", unix.SOCK_DGRAM, 256 << 10, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := kernel.NewNamespace(t)
			l, err := Listen(ns.FD(), test.buffer)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			const count = 5000
			dst := make([]Destroyed, 100)
			var storming sync.WaitGroup
			defer storming.Wait()
			if !test.overrun { // received while it lasts
				storming.Go(func() { storm(ns, t, count, test.kind) })
			} else {
				storm(ns, t, count, test.kind)
				kernel.Eventually(t, "messages are dropped", func() bool {
					dropped, err := l.Dropped()
					return dropped > 0 || err != nil
				})
			}
			received, dropped, overruns := tally(t, l, dst, count)
			if received+int(dropped) != count || (dropped > 0) != test.overrun || (overruns > 0) != test.overrun || received == 0 {
				t.Errorf("%d received, %d dropped, %d overruns; want %d together", received, dropped, overruns, count)
			}
			// One more comes through, and nothing before it.
			open(t, ns, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: lastPort}).close()
			if n, err := receiveBatch(t, l, dst); n != 1 || err != nil || dst[0].Socket.Port != lastPort {
				t.Errorf("%d messages, the first %+v, error %v; want that of port %d alone", n, dst[0], err, lastPort)
			}
			if after, err := l.Dropped(); after != dropped || err != nil {
				t.Errorf("%d dropped, error %v; want %d as before", after, err, dropped)
			}
		})
	}
}

// Each message of a storm comes before the last one of a fence that is made after it,
// also where the reader is so slow that the kernel delays them.
func TestFence(t *testing.T) {
	for range 2 {
		busy := exec.Command("sh", "-c", "while :; do :; done")
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { kernel.End(t, busy) })
	}
	ns := kernel.NewNamespace(t)
	const storms, each = 4, 1000
	// Room for all, of which more than half is used.
	l, err := Listen(ns.FD(), storms*each*1280*4/3)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var storming sync.WaitGroup
	for range storms {
		storming.Go(func() { storm(ns, t, each, unix.SOCK_DGRAM) })
	}
	storming.Wait() // nothing is read meanwhile
	cookies, err := Fence(func(f func() error) (err error) {
		ns.Do(t, func() error {
			err = f()
			return nil
		})
		return err
	})
	if err != nil || len(cookies) == 0 {
		t.Fatalf("%d cookies, error %v", len(cookies), err)
	}
	dst, received, marks := make([]Destroyed, 64), 0, 0
	for received+marks < storms*each+len(cookies) {
		n, err := receiveBatch(t, l, dst)
		for _, d := range dst[:n] {
			if slices.Contains(cookies, d.Socket.Cookie) {
				marks++
			} else {
				received++
			}
		}
		if err != nil {
			t.Fatalf("%d received, and %d of the fence: %v", received, marks, err)
		}
		if marks == len(cookies) && received < storms*each {
			t.Errorf("all of the fence is received after %d messages of %d", received, storms*each)
		}
	}
}

// A buffer can be made smaller and larger at any time.
func TestSetBuffer(t *testing.T) {
	ns := kernel.NewNamespace(t)
	l, err := Listen(ns.FD(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect := func(want int) {
		t.Helper()
		if got, err := l.memory(); int(got[unix.SK_MEMINFO_RCVBUF]) != want || err != nil {
			t.Errorf("the buffer is %d, error %v; want %d", got[unix.SK_MEMINFO_RCVBUF], err, want)
		}
	}
	expect(1 << 20)
	if queued, err := l.Queued(); queued != 0 || err != nil || !l.Empty() && l.empty.Load() {
		t.Errorf("%d bytes are queued, error %v; want none", queued, err)
	}
	const count = 100
	storm(ns, t, count, unix.SOCK_DGRAM)
	each := 0
	kernel.Eventually(t, "all messages are queued", func() bool {
		queued, err := l.Queued()
		if err != nil {
			t.Fatal(err)
		}
		each = queued / count
		return queued >= count*512 && queued%count == 0
	})
	t.Logf("a message takes %d bytes", each)
	if l.Empty() {
		t.Error("the queue counts as empty")
	}
	if err := l.SetBuffer(10 * each); err != nil {
		t.Fatal(err)
	}
	expect(10 * each)
	storm(ns, t, count, unix.SOCK_DGRAM)
	kernel.Eventually(t, "the second storm is dropped, the first one waits", func() bool {
		dropped, err := l.Dropped()
		queued, queuedErr := l.Queued()
		if err = errors.Join(err, queuedErr); err != nil {
			t.Fatal(err)
		}
		return dropped == count && queued == count*each
	})
	if err := l.SetBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	storm(ns, t, count, unix.SOCK_DGRAM)
	if received, dropped, _ := tally(t, l, make([]Destroyed, 7), 3*count); received != 2*count || dropped != count {
		t.Errorf("%d received, %d dropped; want %d and %d", received, dropped, 2*count, count)
	}
}

func TestReceiveAllocatesNothing(t *testing.T) {
	ns := kernel.NewNamespace(t)
	l := listenIn(t, ns)
	const count = 2000
	storm(ns, t, count, unix.SOCK_DGRAM)
	dst := make([]Destroyed, 10)
	if allocations := testing.AllocsPerRun(count/10-1, func() {
		for n := 0; n < len(dst); {
			more, err := l.ReceiveWaiting(dst[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
	}); allocations > 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestLoadModules(t *testing.T) {
	if err := LoadModules(); err != nil {
		kernel.Skip(t, err.Error())
	}
}

// BenchmarkReceive is the cost of a message in batches of several sizes.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ns := kernel.NewNamespace(b)
			l := listenIn(b, ns)
			dst := make([]Destroyed, size)
			const count = 4096
			var taken time.Duration
			b.ReportAllocs()
			for b.Loop() {
				storm(ns, b, count, unix.SOCK_DGRAM)
				kernel.Eventually(b, "all messages are queued", func() bool {
					queued, _ := l.Queued()
					return queued >= count*512 && queued%count == 0
				})
				begin := time.Now()
				for n := 0; n < count; {
					more, err := l.ReceiveWaiting(dst)
					if err != nil {
						b.Fatal(err)
					}
					n += more
				}
				taken += time.Since(begin)
			}
			b.ReportMetric(float64(taken.Nanoseconds())/float64(b.N*count), "ns/message")
		})
	}
}
