package harness

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PrivateEngine is a Docker engine of the test's own, which it may kill. It
// has no bridge: its containers have the network "none".
type PrivateEngine struct {
	Engine
	directory   string
	liveRestore bool
	containerd  *daemon
	dockerd     *daemon
}

// daemon is a process that runs until it is ended.
type daemon struct {
	command *exec.Cmd
	ended   chan struct{} // closed when it is reaped
	log     *bytes.Buffer // complete when ended is closed
}

// StartPrivateEngine starts an engine, with its containers living on without
// it or not. It is stopped and its files are removed when the test ends.
//
// It has a containerd of its own beside it, as a service manager would start
// it, so that killing the engine ends nothing else.
func StartPrivateEngine(t testing.TB, liveRestore bool) *PrivateEngine {
	t.Helper()
	for _, binary := range []string{"dockerd", "containerd"} {
		if _, err := exec.LookPath(binary); err != nil {
			Unavailable(t, "needs dockerd and containerd, to start an engine of its own")
		}
	}
	// The paths of sockets below it may have 107 bytes: t.TempDir is too long.
	directory, err := os.MkdirTemp("", "pwd")
	if err != nil {
		t.Fatal(err)
	}
	e := &PrivateEngine{
		Engine:    Engine{Host: "unix://" + directory + "/docker.sock"},
		directory: directory, liveRestore: liveRestore,
	}
	t.Cleanup(func() { e.discard(t) })
	for _, name := range []string{"docker.json", "containerd.toml"} {
		content := map[string]string{"docker.json": "{}", "containerd.toml": "version = 2\n"}[name]
		if err := os.WriteFile(e.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.containerd = startDaemon(t, "containerd", "--config", e.path("containerd.toml"), "--root", e.path("containerd"),
		"--state", e.path("containerd-state"), "--address", e.path("containerd.sock"))
	Eventually(t, "the private containerd listens", func() string {
		if _, err := os.Stat(e.path("containerd.sock")); err != nil {
			return err.Error()
		}
		return ""
	})
	e.Launch(t)
	e.WaitReady(t)
	return e
}

func (e *PrivateEngine) path(name string) string { return filepath.Join(e.directory, name) }

func startDaemon(t testing.TB, name string, arguments ...string) *daemon {
	t.Helper()
	d := &daemon{command: exec.Command(name, arguments...), ended: make(chan struct{}), log: &bytes.Buffer{}}
	d.command.Stdout, d.command.Stderr = d.log, d.log
	// What it started inherits the log: do not wait for that to end.
	d.command.WaitDelay = time.Second
	if err := d.command.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = d.command.Wait() // ended by a signal: its status tells nothing
		close(d.ended)
	}()
	return d
}

// Launch starts the daemon and does not wait until it answers.
func (e *PrivateEngine) Launch(t testing.TB) {
	t.Helper()
	arguments := []string{"--data-root", e.path("data"), "--exec-root", e.path("exec"), "--pidfile", e.path("pid"),
		"--host", e.Host, "--config-file", e.path("docker.json"), "--containerd", e.path("containerd.sock"),
		"--bridge=none", "--iptables=false", "--ip6tables=false"}
	if e.liveRestore {
		arguments = append(arguments, "--live-restore")
	}
	// In a network namespace of its own: with no bridge it would remove the
	// docker0 of the host's engine.
	e.dockerd = startDaemon(t, "unshare", append([]string{"--net", "dockerd"}, arguments...)...)
}

// WaitReady waits until the daemon answers.
func (e *PrivateEngine) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, "the private engine answers", func() string {
		select {
		case <-e.dockerd.ended:
			t.Fatalf("dockerd has ended: %s", tail(e.dockerd.log.String(), 3000))
		default:
		}
		if _, err := e.Docker("version"); err != nil {
			return err.Error()
		}
		return ""
	})
}

// Kill kills the daemon with SIGKILL, as a crash would.
func (e *PrivateEngine) Kill(t testing.TB) {
	t.Helper()
	if err := e.dockerd.command.Process.Kill(); err != nil {
		t.Fatalf("kill dockerd: %v", err)
	}
	<-e.dockerd.ended
}

// discard removes the containers, stops the daemons and removes their folder.
func (e *PrivateEngine) discard(t testing.TB) {
	t.Helper()
	if found, err := e.Docker("ps", "--all", "--quiet"); err == nil && found != "" {
		if err := e.Remove(strings.Fields(found)...); err != nil {
			t.Error(err)
		}
	}
	for _, d := range []*daemon{e.dockerd, e.containerd} {
		if d != nil {
			d.end(t)
		}
	}
	if err := e.unmount(); err != nil {
		t.Errorf("unmount the private engine's folder: %v", err)
	}
	if err := os.RemoveAll(e.directory); err != nil {
		t.Error(err)
	}
}

// end ends the daemon with SIGTERM and waits for it.
func (d *daemon) end(t testing.TB) {
	t.Helper()
	_ = d.command.Process.Signal(syscall.SIGTERM) // ended already: nothing to do
	select {
	case <-d.ended:
	case <-time.After(Patience):
		t.Errorf("%s has not ended %v after SIGTERM", d.command.Path, Patience)
		_ = d.command.Process.Kill()
		<-d.ended
	}
	if t.Failed() {
		t.Logf("end of the log of %s:\n%s", d.command.Path, tail(d.log.String(), 3000))
	}
}

// unmount unmounts what a killed daemon leaves mounted below its folder. The
// last mount goes first.
func (e *PrivateEngine) unmount() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var failures error
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if target := strings.Fields(lines[i])[1]; strings.HasPrefix(target, e.directory+"/") {
			failures = errors.Join(failures, syscall.Unmount(target, syscall.MNT_DETACH))
		}
	}
	return failures
}

func tail(text string, length int) string { return text[max(0, len(text)-length):] }
