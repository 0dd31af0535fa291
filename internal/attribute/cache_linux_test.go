package attribute

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
)

// cacheOver returns a cache over a folder, with a clock that stands.
func cacheOver(root string) (c *Cache, pass func(time.Duration)) {
	c = NewCache(NewFinder(root))
	now := time.Unix(1000, 0)
	c.now = func() time.Time { return now }
	return c, func(d time.Duration) { now = now.Add(d) }
}

// described makes a process of a user, or changes it.
func described(t *testing.T, root string, pid int, name string, uid int) {
	t.Helper()
	folder := filepath.Join(root, strconv.Itoa(pid))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "Name:\t" + name + "\nUid:\t0\t" + strconv.Itoa(uid) + "\t0\t0\nNStgid:\t" + strconv.Itoa(pid) + "\t1\n"
	if err := os.WriteFile(filepath.Join(folder, "status"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// expectUID compares what the cache returns of process 7; -1 is that nothing but
// pid and name are known.
func expectUID(t *testing.T, what string, c *Cache, name string, want int) []model.Process {
	t.Helper()
	got := c.Describe(7, name)
	if len(got) != 1 || got[0].PID != 7 || got[0].Name != name {
		t.Fatalf("%s: %+v, want process 7 (%s) alone", what, got, name)
	}
	uid := -1
	if got[0].UID != nil {
		uid = int(*got[0].UID)
	}
	if uid != want || (got[0].ContainerPID == 0) != (want < 0) {
		t.Errorf("%s: %+v, user %d; want user %d", what, got[0], uid, want)
	}
	return got
}

func TestCacheOfOneProcess(t *testing.T) {
	root := t.TempDir()
	c, pass := cacheOver(root)
	described(t, root, 7, "nginx", 33)
	first := expectUID(t, "first", c, "nginx", 33)
	described(t, root, 7, "nginx", 34)
	expectUID(t, "within a second", c, "nginx", 33)
	pass(freshFor)
	if again := expectUID(t, "the same process", c, "nginx", 33); &again[0] != &first[0] {
		t.Error("another slice for the same details")
	}
	pass(readFor - freshFor)
	expectUID(t, "read anew", c, "nginx", 34)
	pass(readFor)
	unchanged := expectUID(t, "read anew, nothing has changed", c, "nginx", 34)
	pass(readFor)
	if again := expectUID(t, "and again", c, "nginx", 34); &again[0] != &unchanged[0] {
		t.Error("another slice for the same details")
	}
}

// Within a second there is no system call: nothing needs to be there.
func TestCacheHitReadsNothing(t *testing.T) {
	root := filepath.Join(t.TempDir(), "proc")
	c, pass := cacheOver(root)
	described(t, root, 7, "nginx", 33)
	expectUID(t, "first", c, "nginx", 33)
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	pass(freshFor - 1)
	expectUID(t, "without /proc", c, "nginx", 33)
}

// A pid that is another process's is noticed by the next check.
func TestCacheOfReusedPID(t *testing.T) {
	root := t.TempDir()
	c, pass := cacheOver(root)
	described(t, root, 7, "nginx", 33)
	expectUID(t, "first", c, "nginx", 33)
	// Beside the old one, so that the folder is not the same inode by chance.
	if err := os.Rename(filepath.Join(root, "7"), filepath.Join(root, "old")); err != nil {
		t.Fatal(err)
	}
	described(t, root, 7, "nginx", 34)
	pass(freshFor)
	expectUID(t, "another process of that name", c, "nginx", 34)
	expectUID(t, "another name, which it has not", c, "redis", -1)
}

// A process that has ended keeps its details for a while: its events may come late.
func TestCacheOfEndedProcess(t *testing.T) {
	root := t.TempDir()
	c, pass := cacheOver(root)
	described(t, root, 7, "nginx", 33)
	expectUID(t, "first", c, "nginx", 33)
	if err := os.RemoveAll(filepath.Join(root, "7")); err != nil {
		t.Fatal(err)
	}
	pass(readFor - 1)
	expectUID(t, "it has ended", c, "nginx", 33)
	pass(1)
	pass(freshFor)
	expectUID(t, "long ago", c, "nginx", -1)
	described(t, root, 7, "nginx", 34)
	pass(freshFor)
	expectUID(t, "another of that pid and name", c, "nginx", 34)
}

// A program that replaces another in its process has another name.
func TestCacheOfExec(t *testing.T) {
	root := t.TempDir()
	c, _ := cacheOver(root)
	described(t, root, 7, "sh", 33)
	expectUID(t, "the shell", c, "sh", 33)
	described(t, root, 7, "nginx", 34)
	expectUID(t, "the server", c, "nginx", 34)
	expectUID(t, "the shell's events", c, "sh", 33)
}

// The process that was used least recently is dropped first.
func TestCacheIsBounded(t *testing.T) {
	root := t.TempDir()
	c, _ := cacheOver(root)
	described(t, root, 7, "nginx", 33)
	expectUID(t, "first", c, "nginx", 33)
	described(t, root, 7, "nginx", 34)
	for pid := range 3 * maxCached {
		c.Describe(1000+pid, "many")
		if pid%100 == 0 {
			expectUID(t, "used all the time", c, "nginx", 33)
		}
	}
	if len(c.entries) != maxCached || c.used.Len() != maxCached {
		t.Errorf("%d entries, %d in order; want %d", len(c.entries), c.used.Len(), maxCached)
	}
	for pid := range 3 * maxCached {
		c.Describe(1000+pid, "many")
	}
	expectUID(t, "not used for long", c, "nginx", 34)
}

func TestCacheOfThisProcess(t *testing.T) {
	c, pass := cacheOver("/proc")
	want := procfs.Describe("/proc", os.Getpid())
	for range 3 {
		if got := c.Describe(want.PID, want.Name)[0]; !equal(&got, &want) || got.Executable == "" {
			t.Errorf("%+v, want %+v", got, want)
		}
		pass(freshFor)
	}
	if allocations := testing.AllocsPerRun(100, func() {
		pass(freshFor)
		for _, e := range c.entries {
			e.Value.(*cached).read = c.now()
		}
		c.Describe(want.PID, want.Name)
	}); allocations > 0 {
		t.Errorf("a check takes %v allocations", allocations)
	}
}

func BenchmarkCache(b *testing.B) {
	own := procfs.Describe("/proc", os.Getpid())
	for name, each := range map[string]time.Duration{"hit": 0, "revalidated": freshFor, "miss": readFor} {
		b.Run(name, func(b *testing.B) {
			c := NewCache(NewFinder("/proc"))
			now := time.Now()
			c.now = func() time.Time { return now }
			if name == "hit" {
				c.now = time.Now
			}
			b.ReportAllocs()
			for b.Loop() {
				if name == "revalidated" { // and never read anew
					for _, e := range c.entries {
						e.Value.(*cached).read = now
					}
				}
				now = now.Add(each)
				c.Describe(own.PID, own.Name)
			}
		})
	}
}
