package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"portwatcher/internal/journal/journaltest"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// mountTmpfs mounts a small file system that ends with the test.
func mountTmpfs(t *testing.T, size string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size="+size)
	if errors.Is(err, unix.EPERM) {
		kernel.Skip(t, "mounting a file system needs root (CAP_SYS_ADMIN)")
	}
	if err != nil {
		t.Fatalf("mount a tmpfs of %s: %v", size, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return folder
}

// fill takes all space that is left, and returns the file that has it.
func fill(t *testing.T, folder string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(folder, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 4096); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return ballast
}

func TestFullDisk(t *testing.T) {
	folder := mountTmpfs(t, "16M")
	path := filepath.Join(folder, "journal.db")
	log, hook := logtest.NewNullLogger()
	const length = 1 << 13
	j := startWith(t, Options{Path: path, Logger: log}, length)
	all := journaltest.New(5, 1, time.Now(), time.Millisecond)
	var want []*model.Event
	offer := func() bool {
		e := all.Next()
		taken := j.Offer(Record{Event: e})
		if taken {
			want = append(want, e)
		}
		return taken
	}
	for range 1000 {
		offer()
	}
	j.await(1000)
	ballast := fill(t, folder)
	within(t, func() bool { offer(); return j.Err() != nil })
	if err := j.Err().Error(); !strings.Contains(err, path+" cannot be written since 2") || !strings.Contains(err, "full") {
		t.Errorf("error %q: want since when, and that it is full", err)
	}
	refused := 0
	for range 2 * length {
		if !offer() { // and does not wait
			refused++
		}
	}
	if s := j.Stats(); refused < length-batchLength || s.Queued != length-length/16 || s.Dropped != uint64(refused) || s.Lag <= 0 {
		t.Errorf("%d were refused, and %+v", refused, s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	j.await(want[len(want)-1].ID)
	within(t, func() bool { return j.Err() == nil })
	want = append(want, all.Next())
	j.write(want[len(want)-1])
	wantEvents(t, "after the disk was full", events(t, j, Query{}), want)
	if all := messages(hook); len(all) != 2 || !strings.HasPrefix(all[0], "error: ") || !strings.Contains(all[1], "written again") {
		t.Errorf("logged %q: want one error, and that it works again", all)
	}
}

func TestStopOnAFullDisk(t *testing.T) {
	folder := mountTmpfs(t, "4M")
	path := filepath.Join(folder, "journal.db")
	j := start(t, Options{Path: path})
	all := journaltest.New(5, 1, time.Now(), time.Millisecond)
	j.write(all.Next())
	fill(t, folder)
	lost := 0
	within(t, func() bool { j.offer(Record{Event: all.Next()}); lost++; return j.Err() != nil })
	for range 100 {
		j.offer(Record{Event: all.Next()})
	}
	j.once.Do(func() {})
	j.end()
	began := time.Now()
	err := <-j.done
	if err == nil || !strings.Contains(err.Error(), "events at the end") || time.Since(began) > 2*time.Second {
		t.Errorf("stopped after %v: %v; want how many events were lost", time.Since(began), err)
	}
	var count int
	if _, scanned := fmt.Sscanf(err.Error(), "the journal "+path+" lost %d events", &count); scanned != nil || count < 100 || count > 100+lost {
		t.Errorf("%v: want between 100 and %d", err, 100+lost)
	}
	if err := j.Close(); err != nil {
		t.Logf("close: %v", err) // what cannot be written cannot be tidied up
	}
}

func TestFullDiskAtTheStart(t *testing.T) {
	folder := mountTmpfs(t, "1M")
	ballast := fill(t, folder)
	path := filepath.Join(folder, "journal.db")
	wantInMemory(t, path, "")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	j := start(t, Options{Path: path})
	if j.Place().Path != path {
		t.Errorf("with space again, it is in %s", j.Place())
	}
}

func TestReadOnlyFolder(t *testing.T) {
	folder := mountTmpfs(t, "4M")
	path := filepath.Join(folder, "journal.db")
	j := start(t, Options{Path: path})
	all := journaltest.New(5, 1, time.Now(), time.Millisecond)
	want := []*model.Event{all.Next(), all.Next()}
	j.write(want...)
	j.stop()
	readOnly(t, folder)
	wantInMemory(t, path, "read-only file system")
	wantInMemory(t, filepath.Join(folder, "new", "journal.db"), "read-only file system")

	r, err := OpenReader(path)
	if err != nil {
		t.Fatalf("reading where nothing can be written: %v", err)
	}
	defer r.Close()
	wantEvents(t, "in a folder that is read-only", events(t, r, Query{}), want)
}

func readOnly(t *testing.T, folder string) {
	t.Helper()
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

// TestReadingAReadOnlyMount is `portwatcher events` in a container that has the
// volume read-only, while run writes, and after it was killed.
func TestReadingAReadOnlyMount(t *testing.T) {
	folder, view := mountTmpfs(t, "8M"), t.TempDir()
	if err := unix.Mount(folder, view, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(view, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	j := start(t, Options{Path: filepath.Join(folder, "journal.db")})
	all := journaltest.New(5, 1, time.Now(), time.Millisecond)
	want := []*model.Event{all.Next(), all.Next()}
	j.write(want...)
	r, err := OpenReader(filepath.Join(view, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantEvents(t, "while it is written", events(t, r, Query{}), want)
	want = append(want, all.Next())
	j.write(want[2])
	wantEvents(t, "after one more", events(t, r, Query{}), want)

	killed := filepath.Join(folder, "killed.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		content, err := os.ReadFile(filepath.Join(folder, "journal.db"+suffix))
		if err == nil {
			err = os.WriteFile(killed+suffix, content, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	k, err := OpenReader(filepath.Join(view, "killed.db"))
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "after it was killed", events(t, k, Query{}), want)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}

	j.stop()
	s, err := OpenReader(filepath.Join(view, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantEvents(t, "after it was stopped", events(t, s, Query{}), want)
	j = start(t, Options{Path: filepath.Join(folder, "journal.db")})
	want = append(want, all.Next())
	j.write(want[3])
	wantEvents(t, "after it was started again", events(t, s, Query{}), want)

	if err := os.Remove(killed + "-shm"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(filepath.Join(view, "killed.db")); err == nil || !strings.Contains(err.Error(), "writable") {
		t.Errorf("what cannot be read without writing: %v; want an error with the reason", err)
	}
}
