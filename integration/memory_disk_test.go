package integration

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/integration/internal/harness"
)

// With a full disk portwatcher goes on printing, reports it, and recovers by itself
// when there is space again. What a storm opens and closes meanwhile is counted, so
// that what waits for the disk has room, and nothing is missing from the journal.
func TestMemoryDiskFull(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	folder := smallDisk(t, "64m")
	state := folder + "/portwatcher.db"
	stormy := idle(t, "stormy")
	web := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:53")
	closes := web.Exec(t, "listen", "--tcp", "0.0.0.0:90")
	recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
	harness.WaitJournal(t, state, listening(t, web, 3))
	harness.WaitHealth(t, recording.HealthSocket, 0)

	filler := fill(t, folder)
	mark(t, recording, web, 1000)
	recording.WaitLog(t, "level=error", state, "cannot be written")
	output := harness.WaitHealth(t, recording.HealthSocket, 1)
	if !strings.Contains(output, state) || !strings.Contains(output, "full") {
		t.Errorf("the health check does not report that the disk is full: %s", output)
	}
	// More than the journal's queue takes, of 262,144.
	raging := inStorm(t, stormy, 10_000)
	for range 3 {
		recording.WaitReported(t, 100_000)
	}
	raging.stop()
	closes.Stop(t)
	web.Exec(t, "listen", "--tcp", "127.0.0.1:91")
	mark(t, recording, web, 1001)
	if count := recording.Logs("level=error"); count != 1 {
		t.Errorf("a full disk is logged %d times, want once", count)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	recording.WaitLog(t, state, "is written again")
	harness.WaitHealth(t, recording.HealthSocket, 0)
	harness.WaitJournal(t, state, listening(t, web, 3))
	mark(t, recording, web, 1002)
	recording.Stop(t)
	printed := recording.Printed(t)
	sameLines(t, "the journal", harness.JournalLines(t, state), printed)
	if !slices.ContainsFunc(printed, func(line string) bool { return strings.Contains(line, `"type":"burst"`) }) {
		t.Error("nothing was counted while the disk was full")
	}
	harness.WaitJournal(t, state, listening(t, web, 3))
}

// smallDisk mounts a file system of this size and returns its folder.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		harness.Unavailable(t, "needs to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", folder, err)
		}
	})
	return folder
}

// fill writes a file that takes all space in the folder, and returns its path.
func fill(t *testing.T, folder string) string {
	t.Helper()
	file, err := os.Create(folder + "/filler")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", folder, err)
	}
	return file.Name()
}
