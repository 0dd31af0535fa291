package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
	"portwatcher/internal/testutil/kernel"
)

// A search finds the namespaces of a container's processes by their cgroup, but for its
// own and the host's.
func TestFindInner(t *testing.T) {
	root, err := procfs.CgroupRoot("")
	if err != nil {
		kernel.Skip(t, err.Error())
	}
	first, inner, stranger := kernel.NewBox(t), kernel.NewBox(t), kernel.NewBox(t)
	r, _ := newRig(t, first)
	directory := *r.Directory.Load()
	web := *directory.Containers[onlyContainer(r)]
	web.Namespace = identify(t, first)
	directory.Containers = map[string]*model.Container{web.ID: &web}
	r.Directory.Store(&directory)

	folder, _ := kernel.Cgroup(t, root, "portwatcher-test-"+web.ID)
	for _, b := range []*kernel.Box{first, inner} {
		t.Cleanup(b.End) // before the cgroup
		if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), fmt.Append(nil, b.Process.Pid), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := clock.Now()
	o, err := r.FindInner()
	if err != nil {
		t.Fatal(err)
	}
	found := o.Found[identify(t, inner)]
	if len(o.Found) != 1 || found == nil || !found.Containers[web.ID] || !slices.Equal(found.PIDs, []int{inner.Process.Pid}) || found.Linked {
		t.Errorf("found %+v, want the namespace of process %d, and not that of %d", o.Found, inner.Process.Pid, stranger.Process.Pid)
	}
	if o.Alive[web.ID] != web.PID || o.Began.Before(before) {
		t.Errorf("%+v, want the container's first process", o)
	}
	// What is left when the first process has ended may be of the next life.
	first.End()
	if o, err = r.FindInner(); err != nil || len(o.Found)+len(o.Alive) != 0 {
		t.Errorf("found %+v, error %v; want nothing of a container whose first process has ended", o, err)
	}
}

func onlyContainer(r *rig) string {
	for id := range r.Directory.Load().Containers {
		return id
	}
	return ""
}

func identify(t *testing.T, b *kernel.Box) model.Namespace {
	t.Helper()
	id, err := netns.Identify("/proc", b.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// BenchmarkFindInner is a search on this host.
func BenchmarkFindInner(b *testing.B) {
	e := &Env{ProcRoot: "/proc"}
	c := &model.Container{ID: "web", PID: os.Getpid()}
	e.Directory.Store(&Directory{Containers: map[string]*model.Container{c.ID: c}})
	pids, err := procfs.PIDs("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := e.FindInner(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(pids)), "ns/process")
}
