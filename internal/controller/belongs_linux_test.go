package controller

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/port"
	"portwatcher/internal/process"
)

// left is the gap of a container that lives and is not monitored any more.
const left = "gap: not monitored any more; what it opens and closes is not reported from here on"

// The engine's pid is believed only where the process is the container's. A box is
// not, until it is in the container's cgroup.
func TestStranger(t *testing.T) {
	b := newBox(t)
	b.listen(80)
	web := b.container("web")
	strangers := func(o *Options) { o.Prove, o.EngineAddress = process.Prove, "tcp://far:2375" }
	r := start(t, strangers)
	r.tell(engine.Started, web)
	r.tell(engine.Synced, nil)
	<-r.done
	_, isStranger := errors.AsType[*process.StrangerError](r.stop())
	if err := r.stop(); !isStranger || !strings.Contains(err.Error(), fmt.Sprintf(
		"the engine at tcp://far:2375 says that process %d is container web's, but it is not: is that engine on this machine?", web.PID)) {
		t.Errorf("error %v, want one that names engine, process and container", err)
	}
	r.wait()

	// Beside another, it is told and not watched.
	r = start(t, func(o *Options) {
		strangers(o)
		o.Prove = nil // the same
	})
	own := inCgroup(t, newBox(t))
	own.listen(81)
	r.tell(engine.Started, own.container("own"))
	r.tell(engine.Started, web)
	r.tell(engine.Synced, nil)
	r.wait("opened own 81/tcp loopback sock_diag")
	kerneltest.Eventually(t, "it is told", func() bool { return r.logged("The container cannot be watched.") == 1 })
	r.locked(func() {
		if len(r.groups) != 1 || r.containers[web.ID].group != nil {
			t.Errorf("%d namespaces are known, want the one of the container that is here", len(r.groups))
		}
	})
}

// inCgroup puts a box into the cgroup of its container.
func inCgroup(t *testing.T, b *box) *box {
	t.Helper()
	cgroups, err := process.OpenCgroups("/sys/fs/cgroup")
	if err != nil {
		kerneltest.Skip(t, err.Error())
	}
	folder, _ := kerneltest.Cgroup(t, cgroups.Root(), "portwatcher-test-"+b.container("").ID)
	t.Cleanup(b.end) // before the cgroup
	if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Append(nil, b.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// A container whose process is not there may have just ended; where the engine
// does not notice that by and by, it is warned of.
func TestOnceWithAbsent(t *testing.T) {
	const none = 1 << 29 // no such process
	far, brief, own := newBox(t).container("far"), newBox(t).container("brief"), newBox(t).container("own")
	far.PID, brief.PID = none, none
	r := start(t, nil)
	if err := r.stop(); err != nil { // Once is asked instead
		t.Fatal(err)
	}
	r.engine.lists = [][]*port.Container{{far, brief, own}, {far, brief, own}, {far, own}}
	open, err := r.Once(t.Context())
	if len(open) != 0 {
		t.Errorf("open are %+v", open)
	}
	if err != nil {
		t.Error(err)
	}
	var warned []string
	for _, entry := range r.logs.AllEntries() {
		if strings.Contains(entry.Message, "is not there: it has just ended, or that engine is not on this machine") {
			warned = append(warned, fmt.Sprint(entry.Data["container"]))
		}
	}
	if len(warned) != 1 || warned[0] != "far" {
		t.Errorf("warned of %q, want far alone", warned)
	}
}

// A look at containers of which one is a stranger shows the others, and fails.
func TestOnceWithStranger(t *testing.T) {
	far, own := newBox(t), inCgroup(t, newBox(t))
	far.listen(80)
	own.listen(81)
	r := start(t, func(o *Options) { o.Prove = nil })
	r.engine.lists = [][]*port.Container{{far.container("far"), own.container("own")}}
	if err := r.stop(); err != nil { // Once is asked instead
		t.Fatal(err)
	}
	open, err := r.Once(t.Context())
	if len(open) != 1 || open[0].Port != 81 {
		t.Errorf("open are %+v, want 81 alone", open)
	}
	if err == nil || !strings.Contains(err.Error(), "ports of far: the engine at") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line about far", err)
	}
	if r.logged("cannot be watched") != 0 {
		t.Error("it is told twice")
	}
}
