package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portwatcher/internal/testutil/kernel"
)

// requireEngine skips a test where no engine answers.
func requireEngine(t *testing.T) *Engine {
	t.Helper()
	e := newEngine(t, "")
	_, err := e.Info(t.Context())
	if err == nil {
		_, err = exec.LookPath("docker")
	}
	if err != nil {
		kernel.Skip(t, "needs an engine and the docker command: "+err.Error())
	}
	return e
}

// docker runs the docker command and returns what it prints.
func docker(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := exec.Command("docker", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(arguments, " "), err, output)
	}
	return strings.TrimSpace(string(output))
}

// buildImage makes an image of one static program that waits, offline.
func buildImage(t *testing.T, tag string) {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"main.go":    "package main\n\nimport \"time\"\n\nfunc main() { time.Sleep(time.Hour) }\n",
		"Dockerfile": "FROM scratch\nCOPY wait /wait\nCMD [\"/wait\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(folder, "wait"), filepath.Join(folder, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, output)
	}
	docker(t, "build", "--quiet", "--tag", tag, folder)
	t.Cleanup(func() { docker(t, "image", "rm", "--force", tag) })
}

func TestRealEngine(t *testing.T) {
	e := requireEngine(t)
	name := fmt.Sprintf("portwatcher-engine-test-%d", os.Getpid())
	buildImage(t, name)
	t.Cleanup(func() { docker(t, "rm", "--force", "--volumes", name) })

	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan Change)
	done := make(chan error, 1)
	go func() { done <- e.Follow(ctx, changes) }()
	// Other containers of the engine are none of the test's business.
	next := func(kind Kind, matches func(Change) bool) Change {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			select {
			case change := <-changes:
				if change.Kind == kind && matches(change) {
					return change
				}
			case <-deadline:
				t.Fatalf("no %s in thirty seconds", kind)
			}
		}
	}
	next(Synced, func(Change) bool { return true })
	began := time.Now()
	id := docker(t, "run", "--detach", "--name", name, "--network", "none", "--label", "a=b", name)
	mine := func(change Change) bool { return change.Container.ID == id }
	first := next(Started, mine)
	if first.Container.Name != name || first.Container.PID == 0 || first.Container.NetworkMode != "none" || first.Container.Labels["a"] != "b" {
		t.Errorf("started: got %+v", first.Container)
	}
	if first.Time.Before(began) || first.Time.After(time.Now()) {
		t.Errorf("started at %v, not between %v and now", first.Time, began)
	}
	docker(t, "pause", name)
	next(Updated, func(c Change) bool { return mine(c) && c.Container.Paused })
	docker(t, "unpause", name)
	next(Updated, func(c Change) bool { return mine(c) && !c.Container.Paused })
	docker(t, "rename", name, name+"-renamed")
	next(Updated, func(c Change) bool { return mine(c) && c.Container.Name == name+"-renamed" })
	docker(t, "rename", name+"-renamed", name)
	next(Updated, func(c Change) bool { return mine(c) && c.Container.Name == name })
	docker(t, "restart", "--time", "0", name)
	if stopped := next(Stopped, mine); stopped.Container.PID != first.Container.PID {
		t.Errorf("stopped pid %d, want %d", stopped.Container.PID, first.Container.PID)
	}
	if second := next(Started, mine); second.Container.PID == first.Container.PID {
		t.Errorf("pid %d twice", second.Container.PID)
	}
	docker(t, "kill", name)
	next(Stopped, mine)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("follow: got %v", err)
	}
}
