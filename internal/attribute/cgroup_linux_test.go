package attribute

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
)

func TestCgroupsOfThisHost(t *testing.T) {
	c, err := OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kernel.Skip(t, err.Error())
	}
	name := fmt.Sprintf("portwatcher-test-%d", os.Getpid())
	outer, _ := kernel.Cgroup(t, c.root, name)
	_, id := kernel.Cgroup(t, outer, "inner")
	want := "/" + name + "/inner"
	if path, ok, err := c.byHandle(id); path != want || !ok {
		t.Errorf("by handle: %q, %v, %v; want %s", path, ok, err, want)
	}
	if path, ok, err := c.byHandle(1); path != "/" || !ok {
		t.Errorf("the root by handle: %q, %v, %v", path, ok, err)
	}
	if paths, err := readHierarchy(c.root); err != nil || paths[id] != want || paths[1] != "/" {
		t.Errorf("by walk: %q and %q, error %v", paths[id], paths[1], err)
	}
	if path, ok := c.Known(id); ok {
		t.Errorf("%q is known before it was asked for", path)
	}
	if path, ok, err := c.Path(id); path != want || !ok || err != nil {
		t.Errorf("%q, %v, %v; want %s", path, ok, err, want)
	}
	if path, ok := c.Known(id); path != want || !ok {
		t.Errorf("known: %q, %v; want %s", path, ok, want)
	}
	const none = 1<<63 + 5
	for range 2 {
		if path, ok, err := c.Path(none); ok || err != nil {
			t.Errorf("a cgroup that does not exist: %q, %v, %v", path, ok, err)
		}
	}
	if path, ok := c.Known(none); path != "" || !ok || len(c.unknown) != 1 {
		t.Errorf("a cgroup that does not exist: %q, %v, %d remembered; want that it is known, once", path, ok, len(c.unknown))
	}
}

// withoutHandles returns the cgroups of an ordinary folder, which must be walked,
// with a clock that stands.
func withoutHandles(t *testing.T) (c *Cgroups, add func(name string) uint64, pass func(time.Duration)) {
	t.Helper()
	root := t.TempDir()
	c = newCgroups(root)
	c.noHandles.Store(true)
	var mutex sync.Mutex
	now := time.Unix(1000, 0)
	c.walks.now = func() time.Time {
		mutex.Lock()
		defer mutex.Unlock()
		return now
	}
	pass = func(d time.Duration) {
		mutex.Lock()
		defer mutex.Unlock()
		now = now.Add(d)
	}
	add = func(name string) uint64 {
		t.Helper()
		folder := filepath.Join(root, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(folder)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	return c, add, pass
}

func expectPath(t *testing.T, what string, c *Cgroups, id uint64, want string) {
	t.Helper()
	if path, found, err := c.Path(id); path != want || found != (want != "") || err != nil {
		t.Errorf("%s: %q, %v, %v; want %q", what, path, found, err, want)
	}
}

// Walks do not follow each other without a pause, which grows as long as they find
// nothing that was asked for.
func TestWalksPause(t *testing.T) {
	c, add, pass := withoutHandles(t)
	first := add("a/b")
	expectPath(t, "the first", c, first, "/a/b")
	second := add("a/c")
	expectPath(t, "before the next walk", c, second, "")
	if _, ok := c.Known(second); ok {
		t.Error("a cgroup that was not searched for is remembered as missing")
	}
	expectPath(t, "a known one", c, first, "/a/b")
	pass(shortestPause)
	expectPath(t, "after the pause", c, second, "/a/c")
	expected := time.Duration(shortestPause)
	for id := uint64(1 << 60); id < 1<<60+20; id++ {
		pass(expected - 1)
		expectPath(t, "before the pause has ended", c, id, "")
		if _, ok := c.Known(id); ok {
			t.Fatalf("walked after less than %v", expected)
		}
		pass(1)
		expectPath(t, "a cgroup that does not exist", c, id, "")
		if _, ok := c.Known(id); !ok {
			t.Fatalf("not walked after %v", expected)
		}
		expected = min(2*expected, longestPause)
	}
	third := add("d")
	pass(longestPause)
	expectPath(t, "one that exists", c, third, "/d")
	fourth := add("e")
	pass(shortestPause)
	expectPath(t, "the pause is short again", c, fourth, "/e")
}

// While the hierarchy is read, known cgroups are returned and others wait for the
// walk under way, all for the same.
func TestWalkIsShared(t *testing.T) {
	c, add, _ := withoutHandles(t)
	known, wanted := add("known"), add("wanted")
	c.remember(known, "/known")
	walks, begun, proceed := 0, make(chan struct{}), make(chan struct{})
	stopped := c.walks.now()
	calls := 0
	c.walks.now = func() time.Time { // called with the lock, before the walk and after it
		if calls++; calls == 2 {
			walks++
			close(begun)
			<-proceed
		}
		return stopped
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { expectPath(t, "shared", c, wanted, "/wanted") })
	}
	<-begun
	expectPath(t, "a known cgroup during a walk", c, known, "/known")
	close(proceed)
	callers.Wait()
	if calls > 3+8 || walks != 1 {
		t.Errorf("%d walks, want 1", walks)
	}
}

func TestWalkFails(t *testing.T) {
	c, _, _ := withoutHandles(t)
	c.root = filepath.Join(c.root, "none")
	if _, _, err := c.Path(5); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), c.root) {
		t.Errorf("error %v, want one that names the folder", err)
	}
	if _, ok := c.Known(5); ok {
		t.Error("a cgroup is remembered as missing after a walk that failed")
	}
}

func TestCgroupsAreBounded(t *testing.T) {
	c := newCgroups("")
	for id := range uint64(maxPaths + 10) {
		c.remember(id, "/a")
		c.remember(id|1<<62, "")
	}
	if len(c.paths) > maxPaths || len(c.unknown) > maxUnknown {
		t.Errorf("%d paths and %d missing cgroups are remembered", len(c.paths), len(c.unknown))
	}
}

func TestOpenCgroupsWithout(t *testing.T) {
	if _, err := OpenCgroups(t.TempDir()); err == nil || !strings.Contains(err.Error(), "cgroup v2") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkCgroups(b *testing.B) {
	c, err := OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kernel.Skip(b, err.Error())
	}
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			if _, found, err := c.Path(1); !found {
				b.Fatal(err)
			}
		}
	})
	b.Run("by handle", func(b *testing.B) {
		for b.Loop() {
			if _, found, err := c.byHandle(1); !found {
				b.Fatal(err)
			}
		}
	})
	b.Run("by walk", func(b *testing.B) {
		for b.Loop() {
			if _, err := readHierarchy(c.root); err != nil {
				b.Fatal(err)
			}
		}
	})
}
