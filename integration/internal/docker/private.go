package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds the wait until an engine answers, and until it ends.
const patience = time.Minute

// Private is a Docker engine of the caller's own, which it may end. It has no bridge: its
// containers have the network "none".
type Private struct {
	Engine
	folder              string
	liveRestore         bool
	containerd, dockerd *daemon
}

// daemon is a process that runs until it is ended. Its log is a file.
type daemon struct {
	process *exec.Cmd
	ended   chan struct{} // closed when it is reaped
	log     string
}

// ErrNoDaemon is the error of [StartPrivate] where dockerd or containerd is not installed.
var ErrNoDaemon = errors.New("needs dockerd, containerd and unshare, to start an engine of its own")

// StartPrivate starts an engine and waits until it answers. With liveRestore its
// containers live on while it is away. The caller calls [Private.Discard].
//
// It has a containerd of its own beside it, as a service manager starts it, so that ending
// the engine ends nothing else.
func StartPrivate(ctx context.Context, liveRestore bool) (*Private, error) {
	for _, binary := range []string{"dockerd", "containerd", "unshare"} {
		if _, err := exec.LookPath(binary); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
		}
	}
	folder, err := os.MkdirTemp("", "pwd") // the path of a socket has 107 bytes at most
	if err != nil {
		return nil, err
	}
	e := &Private{Engine: Engine{Host: "unix://" + folder + "/docker.sock"}, folder: folder, liveRestore: liveRestore}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, e.Discard())
	}
	return e, nil
}

func (e *Private) start(ctx context.Context) (err error) {
	for name, content := range map[string]string{"docker.json": "{}", "containerd.toml": "version = 2\n"} {
		if err := os.WriteFile(e.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	e.containerd, err = e.startDaemon("containerd", "--config", e.path("containerd.toml"), "--root", e.path("containerd"),
		"--state", e.path("containerd-state"), "--address", e.path("containerd.sock"))
	if err != nil {
		return err
	}
	err = e.containerd.await(ctx, func() error {
		_, err := os.Stat(e.path("containerd.sock"))
		return err
	})
	if err != nil {
		return err
	}
	if err := e.Launch(); err != nil {
		return err
	}
	return e.WaitReady(ctx)
}

func (e *Private) path(name string) string { return filepath.Join(e.folder, name) }

func (e *Private) startDaemon(arguments ...string) (*daemon, error) {
	d := &daemon{process: exec.Command(arguments[0], arguments[1:]...), ended: make(chan struct{}), log: e.path(arguments[0] + ".log")}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	d.process.Stdout, d.process.Stderr = log, log
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal does not interrupt it
	err = d.process.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", arguments[0], err)
	}
	go func() {
		_ = d.process.Wait() // it is ended by a signal: its status means nothing
		close(d.ended)
	}()
	return d, nil
}

// await waits until the condition holds, while the daemon runs.
func (d *daemon) await(ctx context.Context, condition func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-d.ended:
			log, _ := os.ReadFile(d.log) // an empty log tells as much
			return fmt.Errorf("%s has ended: %s", d.process.Path, log[max(0, len(log)-3000):])
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %v: %w", d.process.Path, patience, err)
		}
	}
}

// Launch starts the engine's daemon, and does not wait until it answers. The daemon has a
// network namespace of its own: with no bridge it would remove the docker0 of the host's
// engine.
func (e *Private) Launch() (err error) {
	arguments := []string{"unshare", "--net", "dockerd", "--data-root", e.path("data"), "--exec-root", e.path("exec"), "--pidfile", e.path("pid"),
		"--host", e.Host, "--config-file", e.path("docker.json"), "--containerd", e.path("containerd.sock"),
		"--bridge=none", "--iptables=false", "--ip6tables=false"}
	if e.liveRestore {
		arguments = append(arguments, "--live-restore")
	}
	e.dockerd, err = e.startDaemon(arguments...)
	return err
}

// WaitReady waits until the engine answers.
func (e *Private) WaitReady(ctx context.Context) error {
	return e.dockerd.await(ctx, func() error {
		_, err := e.Run(ctx, "version")
		return err
	})
}

// End ends the engine's daemon by a signal and waits until it has ended.
func (e *Private) End(signal syscall.Signal) error { return e.dockerd.end(signal) }

func (d *daemon) end(signal syscall.Signal) error {
	if err := d.process.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		return nil
	case <-time.After(patience):
		_ = d.process.Process.Kill()
		<-d.ended
		return fmt.Errorf("%s has not ended %v after the signal %v, and was killed", d.process.Path, patience, signal)
	}
}

// Log returns the end of the log of the engine's daemon.
func (e *Private) Log() string {
	log, _ := os.ReadFile(e.dockerd.log) // an empty log tells as much
	return string(log[max(0, len(log)-3000):])
}

// Discard removes the containers, ends the daemons and removes their folder. It does its
// work whatever has happened before.
func (e *Private) Discard() (err error) {
	if found, listErr := e.Run(context.Background(), "ps", "--all", "--quiet"); listErr == nil && found != "" {
		err = e.Remove(strings.Fields(found)...)
	}
	for _, d := range []*daemon{e.dockerd, e.containerd} {
		if d != nil {
			err = errors.Join(err, d.end(syscall.SIGTERM))
		}
	}
	return errors.Join(err, e.unmount(), os.RemoveAll(e.folder))
}

// unmount unmounts what a killed engine leaves mounted below its folder. The last mount
// goes first.
func (e *Private) unmount() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if target := strings.Fields(lines[i])[1]; strings.HasPrefix(target, e.folder+"/") {
			err = errors.Join(err, syscall.Unmount(target, syscall.MNT_DETACH))
		}
	}
	return err
}
