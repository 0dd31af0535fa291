package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

// blockedProc is a /proc whose tables of sockets of one process cannot be read: their
// opening blocks until release.
func blockedProc(t *testing.T, pid int) (root string, release func()) {
	t.Helper()
	root = t.TempDir()
	real, fake := fmt.Sprintf("/proc/%d", pid), filepath.Join(root, fmt.Sprint(pid))
	if err := os.MkdirAll(filepath.Join(fake, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "net" {
			if err := os.Symlink(filepath.Join(real, entry.Name()), filepath.Join(fake, entry.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	var pipes []string
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		pipe := filepath.Join(fake, "net", name)
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		pipes = append(pipes, pipe)
	}
	return root, func() {
		for _, pipe := range pipes { // a reader that waits gets an end of file
			if f, err := os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
				t.Cleanup(func() { f.Close() })
				os.Remove(pipe)
				f.Close()
			}
		}
	}
}

// pump handles what the sources of a rig send until f returns nothing.
func (r *rig) pump(what string, f func() string) {
	r.t.Helper()
	kernel.Await(r.t, what, func() string {
		for {
			select {
			case o := <-r.env.Inbox:
				r.now = clock.Now()
				if err := r.handle(o); err != nil {
					r.t.Fatal(err)
				}
				continue
			default:
			}
			return f()
		}
	})
}

// A watcher that waits for ever is replaced, a bounded number of times, and does not
// hold up the end.
func TestStuckWatcher(t *testing.T) {
	b := kernel.NewBox(t)
	root, release := blockedProc(t, b.Process.Pid)
	r := newRig(t, func(o *Options) { o.ProcRoot, o.Mode = root, source.Proc })
	t.Cleanup(release)
	r.stuckAfter, r.begin = 20*time.Millisecond, source.Start
	web := boxed(b, "web")
	change := r.engine.Inspect(engine.Change{Kind: engine.Started, Container: web, Time: time.Now()})
	if change.Err != nil {
		t.Fatal(change.Err)
	}
	r.do(change)
	n := r.containers[web.ID].namespace
	r.pump("as many watchers are abandoned as may be", func() string {
		r.now = clock.Now()
		r.restartStuck()
		return map[bool]string{false: fmt.Sprint(n.abandoned)}[n.abandoned == maxAbandoned]
	})
	r.pump("the last of them is stuck too", func() string {
		return map[bool]string{false: "not yet"}[n.watcher.StuckFor(clock.Now()) > r.stuckAfter]
	})
	r.restartStuck()
	gaps := r.out.lines()
	if len(gaps) != maxAbandoned || slices.ContainsFunc(gaps, func(s string) bool { return !strings.Contains(s, "stuck") }) {
		t.Errorf("events %q, want %d gaps", gaps, maxAbandoned)
	}
	if len(r.running) != maxAbandoned+1 {
		t.Errorf("%d watchers run, want %d", len(r.running), maxAbandoned+1)
	}
	release()
	r.pump("the abandoned have ended", func() string {
		return map[bool]string{false: fmt.Sprint(n.abandoned, " have not")}[n.abandoned == 0]
	})
	n.watcher.Stop()
	r.pump("all have ended", func() string {
		return map[bool]string{false: fmt.Sprint(len(r.running), " have not")}[len(r.running) == 0]
	})
}

// A watcher that is stuck is left behind when portwatcher stops.
func TestStopWithAStuckWatcher(t *testing.T) {
	b := kernel.NewBox(t)
	root, release := blockedProc(t, b.Process.Pid)
	l := start(t, func(o *Options) { o.ProcRoot, o.Mode = root, source.Proc })
	t.Cleanup(release)
	l.report(engine.Started, boxed(b, "web"))
	kernel.Eventually(t, "it is watched", func() bool {
		w := l.Status().Watchers
		return len(w) == 1 && w[0].Source == model.SourceProc
	})
	if err := l.stop(); err != nil {
		t.Error(err)
	}
	if l.logged("does not stop") != 1 {
		t.Error("the log does not report that a watcher was left behind")
	}
}
