package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/internal/attribute"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
	"portwatcher/internal/source"
	"portwatcher/internal/testutil/kernel"
)

// inCgroup puts a box into the cgroup of its container.
func inCgroup(t *testing.T, b *kernel.Box) *kernel.Box {
	t.Helper()
	root, err := procfs.CgroupRoot("")
	if err != nil {
		kernel.Skip(t, err.Error())
	}
	folder, _ := kernel.Cgroup(t, root, "portwatcher-test-"+boxed(b, "").ID)
	t.Cleanup(b.End) // before the cgroup
	if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Append(nil, b.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// The engine's pid is believed only where the process is the container's. A box is
// not, until it is in the container's cgroup.
func TestStranger(t *testing.T) {
	b := kernel.NewBox(t)
	b.Listen(80)
	web := boxed(b, "web")
	strangers := func(o *Options) { o.Prove, o.EngineAddress = nil, "tcp://far:2375" }
	l := start(t, strangers)
	l.report(engine.Started, web)
	l.report(engine.Synced, nil)
	<-l.done
	err := l.stop()
	if _, stranger := errors.AsType[*attribute.StrangerError](err); !stranger || !strings.Contains(err.Error(), fmt.Sprintf(
		"the engine at tcp://far:2375 reports process %d as container web's, but it is not: is that engine on this machine?", web.PID)) {
		t.Errorf("error %v, want one that names engine, process and container", err)
	}
	l.await()

	// Beside another, it is reported and not watched.
	l = start(t, strangers)
	own := inCgroup(t, kernel.NewBox(t))
	own.Listen(81)
	l.report(engine.Started, boxed(own, "own"))
	l.report(engine.Started, web)
	l.report(engine.Synced, nil)
	l.await("opened own 81/tcp loopback sock_diag")
	kernel.Eventually(t, "it is in the log", func() bool { return l.logged("The container cannot be watched.") == 1 })
	for _, c := range l.Containers() {
		if c.Name == "web" && c.Namespace != (model.Namespace{}) {
			t.Errorf("%+v is taken for the namespace of a container that is elsewhere", c.Namespace)
		}
	}
}

func TestList(t *testing.T) {
	b := kernel.NewBox(t)
	b.Listen(81)
	b.Listen(80)
	l := prepare(t, nil)
	web := boxed(b, "web")
	hidden := boxed(kernel.NewBox(t), "hidden")
	hidden.Labels = map[string]string{"watch": "no"}
	l.engine.lists = [][]*model.Container{{web, hidden}}
	open, err := l.List(t.Context())
	if err != nil || len(open) != 2 || open[0].Port != 80 || open[1].Port != 81 || open[0].Container.ID != web.ID || open[0].Host != "node1" ||
		len(open[0].Processes) != 1 || open[0].Processes[0].PID != os.Getpid() {
		t.Errorf("open are %+v, error %v", open, err)
	}
	if got := l.Containers(); len(got) != 2 {
		t.Errorf("containers %+v", got)
	}
}

// List does not wait for containers to start.
func TestListDoesNotWaitForContainers(t *testing.T) {
	l := prepare(t, func(o *Options) {
		o.Tuning.Selection = selection(t, "nosuch")
	})
	if open, err := l.List(t.Context()); err != nil || len(open) != 0 {
		t.Fatalf("open %v, error %v", open, err)
	}
	last := l.logs.LastEntry()
	if last == nil || !strings.Contains(last.Message, `"nosuch"`) || strings.Contains(last.Message, "wait") {
		t.Errorf("logged %+v, want that nothing matches, and not that it is waited for", last)
	}
}

// A container whose process is not there may have just ended; where the engine does not
// notice that by and by, the log warns of it.
func TestListWithAbsent(t *testing.T) {
	const none = 1 << 29 // no such process
	far, brief, own := boxed(kernel.NewBox(t), "far"), boxed(kernel.NewBox(t), "brief"), boxed(kernel.NewBox(t), "own")
	far.PID, brief.PID = none, none
	l := prepare(t, nil)
	l.engine.lists = [][]*model.Container{{far, brief, own}, {far, brief, own}, {far, own}}
	open, err := l.List(t.Context())
	if len(open) != 0 || err != nil {
		t.Errorf("open are %+v, error %v", open, err)
	}
	var warned []string
	for _, entry := range l.logs.AllEntries() {
		if strings.Contains(entry.Message, "is not visible here: it has just ended, or that engine is not on this machine") {
			warned = append(warned, fmt.Sprint(entry.Data["container"]))
		}
	}
	if len(warned) != 1 || warned[0] != "far" {
		t.Errorf("warned of %q, want far alone", warned)
	}
}

// A list with a stranger has the others, and fails.
func TestListWithStranger(t *testing.T) {
	far, own := kernel.NewBox(t), inCgroup(t, kernel.NewBox(t))
	far.Listen(80)
	own.Listen(81)
	l := prepare(t, func(o *Options) { o.Prove = nil })
	l.engine.lists = [][]*model.Container{{boxed(far, "far"), boxed(own, "own")}}
	open, err := l.List(t.Context())
	if len(open) != 1 || open[0].Port != 81 {
		t.Errorf("open are %+v, want 81 alone", open)
	}
	if err == nil || !strings.Contains(err.Error(), "ports of far: the engine at") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line about far", err)
	}
	if l.logged("cannot be watched") != 0 {
		t.Error("it is reported twice")
	}
}

// Through /proc, where that is asked for.
func TestListWithProc(t *testing.T) {
	b := kernel.NewBox(t)
	b.Listen(80)
	l := prepare(t, func(o *Options) { o.Mode = source.Proc })
	l.engine.lists = [][]*model.Container{{boxed(b, "web")}}
	if open, err := l.List(t.Context()); err != nil || len(open) != 1 || open[0].Source != model.SourceProc {
		t.Errorf("open are %+v, error %v", open, err)
	}
}
