package preflight

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
)

type fakeEngine struct {
	containers []*port.Container
	err        error
}

func (e fakeEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{Name: "node1", Version: "20.10"}, e.err
}

func (e fakeEngine) List(context.Context) ([]*port.Container, error) { return e.containers, e.err }

var options = Options{ProcRoot: "/proc", CgroupRoot: "/sys/fs/cgroup", Source: "auto"}

func find(t *testing.T, results []Result, name string) Result {
	t.Helper()
	for _, r := range results {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no check %q in %+v", name, results)
	return Result{}
}

func TestEveryProblemHasARemedy(t *testing.T) {
	for _, e := range []fakeEngine{{}, {err: errors.New("connection refused")}, {containers: []*port.Container{{PID: 1 << 30}}}} {
		for _, r := range All(t.Context(), e, Options{ProcRoot: "/proc", CgroupRoot: t.TempDir(), Source: "auto"}) {
			if (r.State == OK) != (r.Remedy == "") || r.Detail == "" {
				t.Errorf("%+v: a detail always, a remedy where it is not ok", r)
			}
		}
	}
}

func TestEngineIsAway(t *testing.T) {
	results := All(t.Context(), fakeEngine{err: errors.New("connection refused")}, options)
	if r := find(t, results, "engine"); r.State != Failed || !strings.Contains(r.Detail, "connection refused") {
		t.Errorf("%+v", r)
	}
	if err := Failure(results); err == nil || !strings.Contains(err.Error(), "docker.sock") {
		t.Errorf("failure %v, want the engine's with its remedy", err)
	}
}

func TestNoProcessCanBeSeen(t *testing.T) {
	elsewhere := Options{ProcRoot: t.TempDir(), CgroupRoot: "/sys/fs/cgroup", Source: "auto"}
	r := find(t, All(t.Context(), fakeEngine{containers: []*port.Container{{Name: "a", PID: 1 << 30}}}, elsewhere), "pid namespace")
	if r.State != Failed || !strings.Contains(r.Remedy, "pid: host") {
		t.Errorf("%+v, want the remedy pid: host", r)
	}
}

func TestContainersCanBeEntered(t *testing.T) {
	child := kerneltest.Isolated(t)
	e := fakeEngine{containers: []*port.Container{{Name: "a", PID: child.Process.Pid}, {Name: "just ended", PID: 1 << 30}}}
	results := All(t.Context(), e, options)
	if err := Failure(results); err != nil {
		t.Error(err)
	}
	if r := find(t, results, "containers"); r.State != OK || !strings.Contains(r.Detail, "all 1 running") {
		t.Errorf("%+v", r)
	}
}

// The same program without capabilities tells each of them, and what to do.
func TestWithoutCapabilities(t *testing.T) {
	if os.Getenv("PORTWATCHER_TEST_UNPRIVILEGED") == "1" {
		r := capabilities(options)
		if r.State != Failed || !strings.Contains(r.Remedy, "cap_add: [SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH, NET_ADMIN]") {
			t.Errorf("capabilities: %+v", r)
		}
		if r := namespaces(); r.State != Failed || !strings.Contains(r.Detail, "CAP_SYS_ADMIN") {
			t.Errorf("namespaces: %+v", r)
		}
		return
	}
	child := kerneltest.Unprivileged(t, "-test.run", "^TestWithoutCapabilities$")
	child.Env = []string{"PORTWATCHER_TEST_UNPRIVILEGED=1"}
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
