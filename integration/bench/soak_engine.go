package main

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

const (
	// engineDown is how long the engine is away in a restart.
	engineDown = 2 * time.Second
	// enginePatience bounds the wait until it answers, and until it ends.
	enginePatience = time.Minute
)

// privateEngine is a Docker engine of the bench's own, whose containers live on while
// it is away. It has no bridge: its containers have the network "none".
type privateEngine struct {
	folder              string
	containerd, dockerd *daemon
}

// A daemon is a process that runs until it is ended. Its log is a file.
type daemon struct {
	process *exec.Cmd
	ended   chan struct{} // closed when it is reaped
	log     string
}

// startPrivateEngine returns an engine that answers. The caller discards it.
//
// It has a containerd of its own, as a service manager would start it, so that killing
// the engine ends nothing else.
func startPrivateEngine(ctx context.Context) (*privateEngine, error) {
	for _, binary := range []string{"dockerd", "containerd", "unshare"} {
		if _, err := exec.LookPath(binary); err != nil {
			return nil, fmt.Errorf("start an engine: %w", err)
		}
	}
	folder, err := os.MkdirTemp("", "pwb") // the path of a socket has 107 bytes at most
	if err != nil {
		return nil, err
	}
	e := &privateEngine{folder: folder}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, e.discard())
	}
	return e, nil
}

func (e *privateEngine) start(ctx context.Context) (err error) {
	for name, content := range map[string]string{"docker.json": "{}", "containerd.toml": "version = 2\n"} {
		if err := os.WriteFile(e.path(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	e.containerd, err = e.startDaemon("containerd", "containerd", "--config", e.path("containerd.toml"), "--root", e.path("containerd"),
		"--state", e.path("containerd-state"), "--address", e.path("containerd.sock"))
	if err != nil {
		return err
	}
	err = until(ctx, enginePatience, func() error {
		_, err := os.Stat(e.path("containerd.sock"))
		return errors.Join(err, e.containerd.failed())
	})
	if err != nil {
		return err
	}
	return e.launch(ctx)
}

func (e *privateEngine) path(name string) string { return filepath.Join(e.folder, name) }

func (e *privateEngine) host() string { return "unix://" + e.path("docker.sock") }

// docker is [docker] with this engine.
func (e *privateEngine) docker(ctx context.Context, input []byte, arguments ...string) (string, error) {
	return docker(ctx, input, append([]string{"--host", e.host()}, arguments...)...)
}

func (e *privateEngine) startDaemon(name string, arguments ...string) (*daemon, error) {
	d := &daemon{process: exec.Command(arguments[0], arguments[1:]...), ended: make(chan struct{}), log: e.path(name + ".log")}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	d.process.Stdout, d.process.Stderr = log, log
	// The bench, not the terminal, ends it.
	d.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = d.process.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = d.process.Wait() // ended by a signal: its status says nothing
		close(d.ended)
	}()
	return d, nil
}

// failed returns an error with the end of the log if the daemon has ended.
func (d *daemon) failed() error {
	select {
	case <-d.ended:
		log, err := os.ReadFile(d.log)
		return errors.Join(fmt.Errorf("%s has ended: %s", d.process.Path, log[max(0, len(log)-2000):]), err)
	default:
		return nil
	}
}

// launch starts the engine's daemon and waits until it answers. It is in a network
// namespace of its own: with no bridge it would remove the docker0 of the host's engine.
func (e *privateEngine) launch(ctx context.Context) (err error) {
	e.dockerd, err = e.startDaemon("dockerd", "unshare", "--net", "dockerd", "--data-root", e.path("data"), "--exec-root", e.path("exec"),
		"--pidfile", e.path("pid"), "--host", e.host(), "--config-file", e.path("docker.json"), "--containerd", e.path("containerd.sock"),
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--live-restore")
	if err != nil {
		return err
	}
	return untilEach(ctx, slowly, enginePatience, func() error {
		if err := e.dockerd.failed(); err != nil {
			return err
		}
		_, err := e.docker(ctx, nil, "version")
		return err
	})
}

// restart ends the engine by a signal, and starts it again after engineDown.
func (e *privateEngine) restart(ctx context.Context, signal syscall.Signal) error {
	if err := e.dockerd.end(signal); err != nil {
		return err
	}
	// Also after an interrupt: an engine is needed to remove the containers.
	return errors.Join(wait(ctx, engineDown), e.launch(context.WithoutCancel(ctx)))
}

func (d *daemon) end(signal syscall.Signal) error {
	if err := d.process.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		return nil
	case <-time.After(enginePatience):
		_ = d.process.Process.Kill()
		<-d.ended
		return fmt.Errorf("%s has not ended %v after the signal %v, and was killed", d.process.Path, enginePatience, signal)
	}
}

// discard removes the containers, ends the daemons and removes their folder. It does
// its work whatever has happened before.
func (e *privateEngine) discard() (err error) {
	if e.dockerd != nil && e.dockerd.failed() == nil {
		list, listErr := e.docker(context.Background(), nil, "ps", "--all", "--quiet")
		if err = listErr; list != "" {
			_, removeErr := e.docker(context.Background(), nil, append([]string{"rm", "--force"}, strings.Fields(list)...)...)
			err = errors.Join(err, removeErr)
		}
	}
	for _, d := range []*daemon{e.dockerd, e.containerd} {
		if d != nil {
			err = errors.Join(err, d.end(syscall.SIGTERM))
		}
	}
	return errors.Join(err, e.unmount(), os.RemoveAll(e.folder))
}

// unmount unmounts what a killed engine leaves mounted below its folder. The last
// mount goes first.
func (e *privateEngine) unmount() error {
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
