package config

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
)

// deadline is for what comes within a second or two.
const deadline = 20 * time.Second

// watch watches a file until the test ends.
func watch(t *testing.T, name string) (<-chan struct{}, *logtest.Hook, context.CancelFunc) {
	t.Helper()
	log, hook := logtest.NewNullLogger()
	log.SetOutput(io.Discard)
	log.SetLevel(logrus.DebugLevel)
	ctx, cancel := context.WithCancel(context.Background())
	changes, err := watchNow(ctx, name, log)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		awaitEnd(t, changes)
	})
	return changes, hook, cancel
}

func awaitEnd(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	late := time.After(deadline)
	for {
		select {
		case _, more := <-changes:
			if !more {
				return
			}
		case <-late:
			t.Fatal("watching did not end")
		}
	}
}

func awaitChange(t *testing.T, changes <-chan struct{}, what string) {
	t.Helper()
	select {
	case _, more := <-changes:
		if !more {
			t.Fatalf("%s: watching ended", what)
		}
	case <-time.After(deadline):
		t.Fatalf("%s: no change was told", what)
	}
}

func awaitLog(t *testing.T, hook *logtest.Hook, text string) {
	t.Helper()
	for late := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		for _, entry := range hook.AllEntries() {
			if strings.Contains(entry.Message, text) {
				return
			}
		}
		if time.Now().After(late) {
			t.Fatalf("%q was not logged", text)
		}
	}
}

// must stops the test for an error of what prepares it.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.WriteFile(name, []byte(content), 0o600))
}

func TestWatch(t *testing.T) {
	folder := t.TempDir()
	name, temporary := filepath.Join(folder, "config.yaml"), filepath.Join(folder, ".config.yaml.swp")
	put(t, name, "format: text\n")
	changes, _, _ := watch(t, name)

	put(t, name, "format: json\n")
	awaitChange(t, changes, "written in place")

	put(t, temporary, "retain: 2d\n")
	must(t, os.Rename(temporary, name))
	awaitChange(t, changes, "replaced by renaming")

	put(t, name, "retain: 3d\n")
	awaitChange(t, changes, "written in place after it was replaced")

	must(t, os.Remove(name))
	awaitChange(t, changes, "deleted")

	put(t, name, "retain: 4d\n")
	awaitChange(t, changes, "created")

	must(t, os.Rename(name, name+"~"))
	put(t, name, "retain: 5d\n")
	awaitChange(t, changes, "moved away and created")
}

// What leaves the content as it was is no change.
func TestWatchSameContent(t *testing.T) {
	folder := t.TempDir()
	name := filepath.Join(folder, "config.yaml")
	put(t, name, "format: text\n")
	changes, hook, _ := watch(t, name)
	put(t, filepath.Join(folder, "other.yaml"), "x")
	put(t, name, "format: text\n")
	must(t, os.Chtimes(name, time.Now(), time.Now()))
	must(t, os.Remove(name)) // gone for a moment
	put(t, name, "format: text\n")
	awaitLog(t, hook, unchanged)
	select {
	case <-changes:
		t.Error("a change was told and there was none")
	default:
	}
	put(t, name, "format: json\n")
	awaitChange(t, changes, "written")
}

// A folder that is never quiet delays a change, and does not hide it.
func TestWatchBusyFolder(t *testing.T) {
	folder := t.TempDir()
	name := filepath.Join(folder, "config.yaml")
	put(t, name, "format: text\n")
	changes, _, _ := watch(t, name)
	put(t, name, "format: json\n")
	late := time.After(deadline)
	for ticks := time.Tick(settle / 10); ; {
		select {
		case <-changes:
			return
		case <-ticks:
			put(t, filepath.Join(folder, "other"), "x")
			must(t, os.Remove(filepath.Join(folder, "other")))
		case <-late:
			t.Fatal("no change was told")
		}
	}
}

// Kubernetes mounts a ConfigMap as links by way of a folder "..data", and
// replaces that link.
func TestWatchConfigMap(t *testing.T) {
	folder := t.TempDir()
	for _, version := range []string{"1", "2"} {
		must(t, os.Mkdir(filepath.Join(folder, "..v"+version), 0o700))
		put(t, filepath.Join(folder, "..v"+version, "config.yaml"), "retain: "+version+"d\n")
	}
	data, name := filepath.Join(folder, "..data"), filepath.Join(folder, "config.yaml")
	must(t, os.Symlink("..v1", data))
	must(t, os.Symlink("..data/config.yaml", name))
	changes, _, _ := watch(t, name)
	must(t, os.Symlink("..v2", data+"_tmp"))
	must(t, os.Rename(data+"_tmp", data))
	must(t, os.RemoveAll(filepath.Join(folder, "..v1")))
	awaitChange(t, changes, "link replaced")
}

// A file that is linked from elsewhere is written there, as one is that a
// container mounts by itself.
func TestWatchTarget(t *testing.T) {
	target := write(t, "format: text\n")
	name := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.Symlink(target, name))
	changes, _, _ := watch(t, name)
	put(t, target, "format: json\n")
	awaitChange(t, changes, "target written")
}

func TestWatchRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	changes, _, _ := watch(t, "config.yaml")
	put(t, "config.yaml", "format: json\n")
	awaitChange(t, changes, "created")
}

// What changes between loading and watching is not lost.
func TestWatchSinceLoaded(t *testing.T) {
	name := write(t, "format: text\n")
	settings, err := load(t, []string{"--config", name}, nil)
	must(t, err)
	put(t, name, "format: json\n")
	ctx, cancel := context.WithCancel(context.Background())
	changes, err := settings.Watch(ctx, logrus.New())
	t.Cleanup(cancel)
	must(t, err)
	awaitChange(t, changes, "written before")
	cancel()
	awaitEnd(t, changes)
}

func TestWatchNoFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "none")
	changes, hook, cancel := watch(t, filepath.Join(folder, "config.yaml"))
	if entry := hook.LastEntry(); entry == nil || !strings.Contains(entry.Message, folder) || !strings.Contains(entry.Message, "SIGHUP") {
		t.Errorf("logged %v", entry)
	}
	select {
	case <-changes:
		t.Error("something was told before the end")
	default:
	}
	cancel()
	awaitEnd(t, changes)
}

func TestWatchFolderGoes(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	must(t, os.Mkdir(folder, 0o700))
	changes, hook, cancel := watch(t, filepath.Join(folder, "config.yaml"))
	must(t, os.Rename(folder, folder+"-old"))
	awaitLog(t, hook, folder+" went away: settings are reloaded by SIGHUP")
	cancel()
	awaitEnd(t, changes)
}

// watchNow watches for settings that were loaded just now.
func watchNow(ctx context.Context, name string, log logrus.FieldLogger) (<-chan struct{}, error) {
	content, err := readFile(name, true)
	return (&Settings{ConfigFile: name, loaded: stateOf(content, err)}).Watch(ctx, log)
}
