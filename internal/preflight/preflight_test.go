package preflight

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

type fakeEngine struct {
	containers []*model.Container
	err        error
}

func (e fakeEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{Name: "node1", Version: "20.10"}, e.err
}

func (e fakeEngine) List(context.Context) ([]*model.Container, error) { return e.containers, e.err }

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
	for _, e := range []fakeEngine{{}, {err: errors.New("connection refused")}, {containers: []*model.Container{{PID: 1 << 30}}}} {
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
	for _, test := range []struct {
		all, gone int
		host      bool
		state     State
		want      string
	}{
		{2, 2, false, Failed, "pid: host"},
		{2, 2, true, Degraded, "another machine"},
		{2, 1, false, OK, "can be seen"},
		{0, 0, true, OK, "the host's processes"},
		{0, 0, false, Unknown, "no container is running"},
	} {
		r := visible(test.all, test.gone, test.host)
		if r.State != test.state || !strings.Contains(r.Detail+r.Remedy, test.want) || (r.State == OK) != (r.Remedy == "") {
			t.Errorf("%+v: got %+v", test, r)
		}
	}
}

// A folder that is no /proc is not reported as a trouble of the pid namespace.
func TestProcRoot(t *testing.T) {
	elsewhere := Options{ProcRoot: t.TempDir(), CgroupRoot: "/sys/fs/cgroup", Source: "auto"}
	for name, results := range map[string][]Result{
		"host": Host(elsewhere), "all": All(t.Context(), fakeEngine{containers: []*model.Container{{Name: "a", PID: 1 << 30}}}, elsewhere),
	} {
		err := Failure(results)
		if err == nil || !strings.Contains(err.Error(), "--proc-root "+elsewhere.ProcRoot) || !strings.Contains(err.Error(), "mount the host's /proc") {
			t.Errorf("%s: failure %v, want the folder and what to do", name, err)
		}
	}
}

// The check of the sources returns what a run would use.
func TestSourcesInUse(t *testing.T) {
	const yes, no = OK, Degraded
	for _, test := range []struct {
		source            string
		sockDiag, destroy State
		ebpf, state       State
		want              string
	}{
		{"auto", yes, yes, yes, OK, "eBPF, with"},
		{"auto", yes, yes, no, OK, "sock_diag scans for openings, destroy"},
		{"auto", yes, no, no, OK, "sock_diag scans"},
		{"auto", no, no, yes, Degraded, "eBPF, with scans of /proc"},
		{"auto", no, no, no, Degraded, "/proc alone"},
		{"netlink", yes, yes, yes, OK, "sock_diag scans for openings, destroy"},
		{"netlink", Failed, no, yes, Failed, "none"},
		{"ebpf", yes, yes, Failed, Failed, "none"},
		{"ebpf", no, no, yes, Degraded, "eBPF, with scans of /proc"},
		{"ebpf", yes, yes, yes, OK, "eBPF, with a sock_diag scan"},
		{"proc", no, no, no, OK, "/proc, by --source"},
	} {
		results := []Result{{Name: nameSockDiag, State: test.sockDiag}, {Name: nameDestroy, State: test.destroy}, {Name: nameEBPF, State: test.ebpf}}
		r := inUse(Options{Source: test.source}, results)
		if r.State != test.state || !strings.HasPrefix(r.Detail, test.want) || (r.State == OK) != (r.Remedy == "") {
			t.Errorf("%+v: got %+v", test, r)
		}
	}
}

func TestRemedyStandsOnce(t *testing.T) {
	r := cgroups(Options{CgroupRoot: t.TempDir()})
	if r.State != Degraded || strings.Count(r.Detail+r.Remedy, "mount") != 1 {
		t.Errorf("%+v: want the remedy once", r)
	}
}

func TestContainersCanBeEntered(t *testing.T) {
	child := kernel.Isolated(t)
	e := fakeEngine{containers: []*model.Container{{Name: "a", PID: child.Process.Pid}, {Name: "just ended", PID: 1 << 30}}}
	results := All(t.Context(), e, options)
	if err := Failure(results); err != nil {
		t.Error(err)
	}
	if r := find(t, results, "containers"); r.State != OK || !strings.Contains(r.Detail, "all 1 running") {
		t.Errorf("%+v", r)
	}
}

// Without capabilities the check names each of them, and what to do.
func TestWithoutCapabilities(t *testing.T) {
	if os.Getenv("PORTWATCHER_TEST_UNPRIVILEGED") == "1" {
		r := capabilities(options)
		if r.State != Failed || !strings.Contains(r.Remedy, "cap_add: [SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH, NET_ADMIN]") {
			t.Errorf("capabilities: %+v", r)
		}
		if strings.Contains(r.Remedy, "root") == (os.Geteuid() == 0) {
			t.Errorf("as user %d: remedy %q", os.Geteuid(), r.Remedy)
		}
		if r := namespaces(); r.State != Failed || !strings.Contains(r.Detail, "CAP_SYS_ADMIN") {
			t.Errorf("namespaces: %+v", r)
		}
		return
	}
	child := kernel.Unprivileged(t, "-test.run", "^TestWithoutCapabilities$")
	child.Env = []string{"PORTWATCHER_TEST_UNPRIVILEGED=1"}
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
