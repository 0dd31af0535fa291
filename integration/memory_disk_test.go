package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"portwatcher/integration/internal/harness"
)

// With a full disk portwatcher goes on printing, says so, and recovers by itself
// when there is space again: what is missing from the journal is told.
func TestMemoryDiskFull(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	folder := smallDisk(t, "64m")
	state := folder + "/portwatcher.db"
	stormy := idle(t, "stormy")
	web := start(t, "web", 2, nil, "--tcp", "0.0.0.0:80", "--udp", "0.0.0.0:53")
	closes := web.Exec(t, "listen", "--tcp", "0.0.0.0:90")
	recording := harness.StartRecordingIn(t, state, harness.Pattern(t))
	harness.WaitJournal(t, state, truth(t, web, 3))
	harness.WaitHealth(t, recording.HealthSocket, 0)

	filler := fill(t, folder)
	mark(t, recording, web, 1000)
	recording.WaitLog(t, "level=error", state, "cannot be written")
	says := harness.WaitHealth(t, recording.HealthSocket, 1)
	if !strings.Contains(says, state) || !strings.Contains(says, "full") {
		t.Errorf("the health check does not say that the disk is full: %s", says)
	}
	// The journal's queue, of 262,144, overflows.
	raging := inStorm(t, stormy, 10_000)
	for range 4 {
		recording.WaitReported(t, 70_000)
	}
	raging.stop()
	closes.Stop(t)
	web.Exec(t, "listen", "--tcp", "127.0.0.1:91")
	mark(t, recording, web, 1001)
	if count := recording.Logs("level=error"); count != 1 {
		t.Errorf("a full disk is told %d times, want once", count)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	recording.WaitLog(t, state, "is written again")
	harness.WaitHealth(t, recording.HealthSocket, 0)
	harness.WaitJournal(t, state, truth(t, web, 3))
	mark(t, recording, web, 1002)
	recording.Stop(t)
	missingTold(t, recording.Printed(t), harness.JournalLines(t, state))
	harness.WaitJournal(t, state, truth(t, web, 3))
}

// missingTold fails the test unless the journal has all that was printed, but
// for as many events as its gaps tell, of which there are some.
func missingTold(t *testing.T, printed, recorded []string) {
	t.Helper()
	journal := make(map[string]bool, len(recorded))
	missing, told := 0, 0
	for _, line := range recorded {
		journal[line] = true
		if strings.Contains(line, `"type":"gap"`) && strings.Contains(line, "missing from the journal") {
			reason, count := harness.ParseEvent(t, line).Reason, 0
			if _, err := fmt.Sscanf(reason, "%d events", &count); err != nil {
				t.Fatalf("the gap does not tell how much is missing: %s", reason)
			}
			told += count
		}
	}
	for _, line := range printed {
		if !journal[line] {
			missing++
		}
	}
	if missing != told || missing == 0 || len(recorded)+missing != len(printed) {
		t.Errorf("%d printed, %d recorded, %d missing; %d are told to be missing, want as many, and some", len(printed), len(recorded), missing, told)
	}
	t.Logf("%d printed, %d recorded, %d told to be missing", len(printed), len(recorded), told)
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
