package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"portwatcher/integration/internal/harness"
)

// waitRecorded waits until the journal in a folder has an event that matches, and returns
// how many events it has.
func waitRecorded(t *testing.T, folder string, texts ...string) (count int) {
	t.Helper()
	state := filepath.Join(folder, "portwatcher.db")
	harness.Eventually(t, "the journal has an event with "+strings.Join(texts, ", "), func() string {
		if _, err := os.Stat(state); err != nil {
			return err.Error()
		}
		lines := harness.JournalLines(t, state)
		count = len(lines)
		for _, line := range lines {
			found := true
			for _, text := range texts {
				found = found && strings.Contains(line, text)
			}
			if found {
				return ""
			}
		}
		return "so far: " + strings.Join(lines, "\n")
	})
	return count
}

// The engine crashes and makes its socket anew, while its containers live on, portwatcher's
// among them: that has the old socket mounted, and finds the new one.
func TestSocketMadeAnew(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	engine := harness.StartPrivateEngine(t, true)
	stays := engineContainer(t, engine, "stays", "listen", "--tcp", "0.0.0.0:80")
	folder := t.TempDir()
	self := engine.StartSelf(t, strings.TrimPrefix(engine.Host, "unix://"), folder, "--network=none")
	self.WaitLogs(t, 1, "Watching container") // the journal is made
	waitRecorded(t, folder, `"opened"`, stays.Name, `"port":80`)
	for restart := range 2 {
		engine.Kill(t)
		engine.Launch(t)
		later := engineContainer(t, engine, "later"+string(rune('a'+restart)), "listen", "--tcp", "0.0.0.0:81")
		waitRecorded(t, folder, `"opened"`, later.Name, `"port":81`)
		later.Do(t, "kill")
		waitRecorded(t, folder, `"closed"`, later.Name, `"port":81`)
	}
	// The container that lived on is watched as before.
	stays.Exec(t, "listen", "--mptcp=false", "--tcp", "127.0.0.1:1000").Stop(t)
	if count := waitRecorded(t, folder, `"closed"`, stays.Name, `"port":1000`); count != 1+2*2+2 {
		t.Errorf("%d events, want 7: %s", count, strings.Join(harness.JournalLines(t, filepath.Join(folder, "portwatcher.db")), "\n"))
	}
	if open := engine.MustDocker(t, "exec", self.ID, "/portwatcher", "ports", "--format", "json"); !strings.Contains(open, stays.Name) {
		t.Errorf("ports, run beside it: %s", open)
	}
	if logs := self.Logs(t); strings.Count(logs, "made its socket anew") != 1 {
		t.Errorf("the log does not report, one time, which socket is used: %s", logs)
	}
}

// Where the new socket cannot be found, portwatcher ends, so that its restart policy mounts
// it.
func TestSocketOutOfReach(t *testing.T) {
	harness.Require(t)
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "docker.sock")
	// The new socket is there, under the file system of the old one.
	harness.StartProxy(t, "unix://"+path)
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		harness.Unavailable(t, "needs to mount a tmpfs: "+err.Error())
	}
	mounted := true
	unmount := func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); mounted && err != nil {
			t.Error(err)
		}
		mounted = false
	}
	t.Cleanup(unmount)
	old := harness.StartProxy(t, "unix://"+path)
	state := t.TempDir()
	web := start(t, "web", 1, nil, "--tcp", "0.0.0.0:80")
	self := harness.Default.StartSelf(t, path, state, "--restart=unless-stopped")
	self.WaitLogs(t, 1, "Watching container")
	waitRecorded(t, state, `"opened"`, web.Name, `"port":80`)
	old.Close(t)
	unmount()
	self.WaitLogs(t, 1, "made its socket anew")
	self.WaitLogs(t, 2, "Watching container")
	late := start(t, "late", 1, nil, "--tcp", "0.0.0.0:81")
	waitRecorded(t, state, `"opened"`, late.Name, `"port":81`)
	logs := self.Logs(t)
	if !strings.Contains(logs, "restart policy") || !strings.Contains(logs, "its file system is not mounted") {
		t.Errorf("the log does not report why it ended: %s", logs)
	}
}
