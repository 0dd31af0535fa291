package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
)

// blockedProc is a /proc whose table of TCP sockets of one process cannot be
// read: its opening blocks until release.
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

// A watcher that waits for ever is replaced, a bounded number of times, and does
// not hold up the end.
func TestStuckWatcher(t *testing.T) {
	b := newBox(t)
	root, release := blockedProc(t, b.Process.Pid)
	r := start(t, func(o *Options) { o.ProcRoot, o.Source = root, Proc })
	t.Cleanup(release)
	r.locked(func() { r.stuckAfter = 20 * time.Millisecond })
	r.tell(engine.Started, b.container("web"))
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "as many watchers are abandoned as may be", func() bool {
		r.restartStuck(t.Context())
		r.Controller.mutex.Lock()
		defer r.Controller.mutex.Unlock()
		return r.onlyGroup() != nil && r.onlyGroup().abandoned == maxAbandoned
	})
	r.eventually("the last of them is stuck too", func() bool {
		return r.onlyGroup().watcher.stuckFor(time.Now()) > r.stuckAfter
	})
	r.restartStuck(t.Context())
	gaps := r.seen()
	if len(gaps) != maxAbandoned || slices.ContainsFunc(gaps, func(s string) bool { return !strings.Contains(s, "stuck") }) {
		t.Errorf("events %q, want %d gaps", gaps, maxAbandoned)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if r.logged("does not stop") != 1 {
		t.Error("the log does not tell that a watcher was left behind")
	}
	release()
	r.eventually("the watchers have ended", func() bool { return r.onlyGroup().abandoned == 0 })
}
