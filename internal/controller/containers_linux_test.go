package controller

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"portwatcher/internal/engine"
)

// TestHostNamespaceBySight: what shares the host's namespace is told by looking,
// since the engine's description need not say so: network_mode: container:x, and
// x has ended.
func TestHostNamespaceBySight(t *testing.T) {
	host, other := newBox(t), newBox(t)
	// A /proc in which the first process is in the host's namespace.
	root := t.TempDir()
	for name, pid := range map[string]int{
		"1": host.Process.Pid, fmt.Sprint(host.Process.Pid): host.Process.Pid, fmt.Sprint(other.Process.Pid): other.Process.Pid,
	} {
		if err := os.Symlink(fmt.Sprintf("/proc/%d", pid), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, func(o *Options) { o.ProcRoot = root })
	mate, boxed := host.container("mate"), other.container("boxed")
	mate.NetworkMode = "container:x"
	r.tell(engine.Started, mate)
	r.tell(engine.Started, boxed)
	r.eventually("both are known", func() bool { return len(r.containers) == 2 })
	r.locked(func() {
		if !r.containers[mate.ID].group.host {
			t.Error("what is in the host's namespace is not told to be")
		}
		if r.containers[boxed.ID].group.host {
			t.Error("a namespace of its own is taken for the host's")
		}
	})
	// Where the first process cannot be looked at, another tells.
	r = start(t, func(o *Options) { o.ProcRoot = root })
	if err := os.Remove(filepath.Join(root, "1")); err != nil {
		t.Fatal(err)
	}
	says := host.container("says")
	says.ID, says.NetworkMode = "says", "host"
	r.tell(engine.Started, says)
	r.tell(engine.Stopped, says)
	r.tell(engine.Started, mate)
	r.eventually("it is in the host's namespace", func() bool {
		m := r.containers[mate.ID]
		return m != nil && m.group.host && r.containers[says.ID] == nil
	})
}
