package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// The hot loop: nothing opened, nothing closed, nothing allocated. That the capture's
// answer allocates nothing either, a test of the capture proves.
func TestSteadyScanAllocatesNothing(t *testing.T) {
	b := kernel.NewBox(t)
	for number := range 20 {
		b.Listen(8000 + number)
	}
	w, r := manual(t, b)
	scan := func() {
		if err := w.scan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	scan()
	if n := len(r.open()); n != 20 {
		t.Fatalf("%d ports are open, want 20", n)
	}
	kernel.Eventually(t, "a scan that allocates nothing", func() bool { return testing.AllocsPerRun(20, scan) < 1 })
}

// started returns a watcher that runs until the test ends.
func started(t *testing.T, r *rig, id model.Namespace) *Watcher {
	t.Helper()
	w := Start(r.Env, id)
	t.Cleanup(func() {
		w.Stop()
		<-w.ended
	})
	return w
}

func isFailure(o Observation) bool { _, is := o.(Failed); return is }

// A watcher that fails is started again, and what is known stays.
func TestWatcherFailure(t *testing.T) {
	b := kernel.NewBox(t)
	b.Listen(80)
	r, id := newRig(t, b)
	r.Settings.Store(&Settings{ScanInterval: 10 * time.Millisecond})
	var once sync.Once
	r.Observer = observer(func() {
		if len(r.lines()) > 0 {
			once.Do(func() { panic("in the middle") })
		}
	})
	w := started(t, r, id)
	r.await("opened 80/tcp sock_diag")
	w.Poke()
	kernel.Eventually(t, "the failure is sent", func() bool { return r.number(isFailure) == 1 })
	b.Listen(81)
	r.await("opened 80/tcp sock_diag", "opened 81/tcp sock_diag")
	if n := r.number(func(o Observation) bool {
		f, is := o.(Failed)
		return is && strings.Contains(f.Err.Error(), "in the middle") && strings.Contains(f.Err.Error(), ".go:")
	}); n != 1 {
		t.Error("the failure does not have the panic and where it was")
	}
}

type observer func()

func (o observer) ObserveScan(model.Source, time.Duration) { o() }

// While a watcher waits to try again, no Drain waits for it.
func TestDrainOfAWatcherThatFails(t *testing.T) {
	b := kernel.NewBox(t)
	r, id := newRig(t, b)
	r.Directory.Store(&Directory{}) // there is no way into the namespace
	w := started(t, r, id)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for failures := 1; failures < 6; failures++ {
		kernel.Eventually(t, "another failure", func() bool { return r.number(isFailure) >= failures })
		w.Drain(ctx)
	}
	if ctx.Err() != nil {
		t.Error("a minute is over")
	}
	w.Stop()
	<-w.ended
	w.Drain(ctx) // ends at once
	kernel.Eventually(t, "its end is sent", func() bool {
		return r.number(func(o Observation) bool { e, is := o.(WatcherEnded); return is && e.Watcher == w }) == 1
	})
}

// Notifications that came before Drain are sent when it returns.
func TestDrain(t *testing.T) {
	b := kernel.NewBox(t)
	r, id := newRig(t, b)
	w := started(t, r, id)
	kernel.Eventually(t, "the first scan", func() bool { return !w.LastScan().IsZero() })
	// The kernel sends a notification some time after the close.
	kernel.Eventually(t, "the close is received", func() bool {
		b.Listen(80)()
		w.Drain(t.Context())
		r.mutex.Lock()
		defer r.mutex.Unlock()
		return r.closes > 0
	})
}

// The watchers of several namespaces do not scan at the same moment, and those of one
// phase do.
func TestPhases(t *testing.T) {
	const interval = 800 * time.Millisecond
	r, _ := newRig(t, nil)
	at := map[time.Duration]int{}
	for inode := range uint64(10 * phases) {
		w := NewWatcher(r.Env, model.Namespace{Inode: 4026531840 + inode})
		before := clock.Now()
		wait := w.untilTick(interval)
		after := clock.Now()
		if wait <= 0 || wait > interval {
			t.Fatalf("the next scan is in %s, want up to %s", wait, interval)
		}
		// The tick is at some moment between those two.
		low := (time.Duration(before) + wait) % interval
		phase := (low + time.Duration(after-before)) / (interval / phases) % phases
		at[phase]++
	}
	if len(at) < phases/2 {
		t.Errorf("the scans of %d namespaces are at %v, want them spread over %d phases", 10*phases, at, phases)
	}
	for phase, n := range at {
		if n > 20 {
			t.Errorf("%d of them in phase %d", n, phase)
		}
	}
	// Where nothing happens, one wake-up serves all.
	for inode := range uint64(phases) {
		w := NewWatcher(r.Env, model.Namespace{Inode: 4026531840 + inode})
		w.quietly = true
		before := clock.Now()
		wait := w.untilTick(interval)
		if after := clock.Now(); (time.Duration(before)+wait)/interval == (time.Duration(after)+wait-1)/interval {
			t.Errorf("the next count in namespace %d is in %s, want it at a multiple of %s", inode, wait, interval)
		}
	}
}

// TestFullScansAreSpread: each namespace is dumped at least once in each period, and not
// all at the same moment.
func TestFullScansAreSpread(t *testing.T) {
	r, _ := newRig(t, nil)
	due := 0
	for inode := range uint64(phases) {
		w := NewWatcher(r.Env, model.Namespace{Inode: 4026531840 + inode})
		w.session = &session{quiet: quiet{longest: fullScan}}
		w.session.quiet.at = clock.Now().Add(-fullScan)
		if !w.fullDue(clock.Now()) {
			t.Errorf("namespace %d: no dump is due after %s", inode, fullScan)
		}
		w.session.quiet.at = clock.Now().Add(-fullScan / 2)
		if w.fullDue(clock.Now()) {
			due++
		}
	}
	if due == 0 || due == phases {
		t.Errorf("after half of the period a dump is due in %d of %d namespaces, want some", due, phases)
	}
}

// TestServersStay: /proc cannot distinguish a UDP server in the range of clients' ports
// from a client, but one that is known from before stays, as long as it is there.
func TestServersStay(t *testing.T) {
	b := kernel.NewBox(t)
	bind := func() (closeIt func()) {
		const number = 51820 // WireGuard's, in the kernel's default range
		_, closeIt = b.Socket(unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: number}) })
		return closeIt
	}
	closeIt := bind()
	w, r := manual(t, b)
	var want []string
	scan := func(more ...string) {
		t.Helper()
		if err := w.scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		want = append(want, more...)
		r.await(want...)
	}
	reopen := func(until time.Time) {
		t.Helper()
		w.session.close()
		w.procUntil = until
		var err error
		if w.session, err = w.open(r.Settings.Load()); err != nil {
			t.Fatal(err)
		}
	}
	scan("opened 51820/udp sock_diag")
	reopen(time.Now().Add(time.Hour)) // through /proc
	scan()
	b.Listen(80)
	scan("opened 80/tcp proc")
	reopen(time.Time{}) // sock_diag is back
	scan()
	reopen(time.Now().Add(time.Hour))
	closeIt()
	scan("closed 51820/udp proc")
	bind() // for all that /proc shows, a client
	scan()
	reopen(time.Time{})
	scan("opened 51820/udp sock_diag")
}

// Where sock_diag fails from the start, /proc takes its place, unless netlink is asked
// for; the log reports it once.
func TestFallBack(t *testing.T) {
	failure := errors.New("not supported")
	for mode, falls := range map[Mode]bool{Auto: true, Netlink: false, Proc: false} {
		r, _ := newRig(t, nil)
		r.Mode = mode
		w := NewWatcher(r.Env, model.Namespace{Inode: 1})
		if got := w.fallBack(failure); got != falls {
			t.Errorf("%s: falls back is %v", mode, got)
		}
		if falls && (!w.usesProc() || w.fallBack(failure) || r.logged("reads /proc instead") != 1) {
			t.Errorf("%s: uses /proc %v, logged %d times", mode, w.usesProc(), r.logged("reads /proc instead"))
		}
	}
}

func TestNoticesAreBounded(t *testing.T) {
	var n Notices
	if !n.First("first") || n.First("first") {
		t.Error("the first key is not new once")
	}
	for i := range 3 * maxNotices {
		key := fmt.Sprint("proc net:", i)
		if !n.First(key) || n.First(key) {
			t.Fatalf("%s is not new once", key)
		}
	}
	if len(n.keys) != maxNotices || len(n.oldest) != maxNotices || cap(n.oldest) > 4*maxNotices {
		t.Errorf("%d keys, %d in order, room for %d; want at most %d", len(n.keys), len(n.oldest), cap(n.oldest), maxNotices)
	}
	if !n.First("first") {
		t.Error("the oldest key is remembered")
	}
}

// Processes whose open files cannot be listed are logged one time, with the remedy.
func TestTroubleIsReported(t *testing.T) {
	for denied, want := range map[int]string{1: "The open files of a process cannot", 2: "The open files of 2 processes cannot"} {
		r, _ := newRig(t, nil)
		r.reportTrouble(denied, nil)
		r.reportTrouble(denied, nil)
		if all := r.logs.AllEntries(); len(all) != 1 || !strings.HasPrefix(all[0].Message, want) || !strings.Contains(all[0].Message, "SYS_PTRACE") {
			t.Errorf("%d denied: logged %v, want once %q with what it takes", denied, all, want)
		}
	}
}

// A storm of notifications is one by their rate.
func TestStorm(t *testing.T) {
	var r receiver
	now := clock.Now()
	for i := range 2 * stormRate { // slow: never a storm
		now = now.Add(stormWindow / (stormRate / 2))
		if r.note(1, now); r.storm(now) {
			t.Fatalf("a storm after %d slow notifications", i+1)
		}
	}
	for range 2 * stormRate {
		now = now.Add(stormWindow / (4 * stormRate))
		r.note(1, now)
	}
	if !r.storm(now) {
		t.Errorf("no storm: %+v", &r)
	}
	if r.storm(now.Add(2 * stormWindow)) {
		t.Error("a storm long after the last notification")
	}
}
