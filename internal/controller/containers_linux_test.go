package controller

import (
	"os"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/kerneltest"
	"portwatcher/internal/netns"
)

// TestHostNamespaceBySight: what shares the host's namespace is told by looking,
// since the engine's description need not say so: network_mode: container:x, and
// x has ended.
func TestHostNamespaceBySight(t *testing.T) {
	own, err := netns.Identify("/proc", os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	first, err := netns.Identify("/proc", 1)
	if err != nil {
		kerneltest.Skip(t, "the host's first process cannot be looked at: "+err.Error())
	}
	r, b := start(t, nil), newBox(t)
	mate, boxed := b.container("mate"), b.container("boxed")
	mate.ID, mate.PID, mate.NetworkMode = "mate", os.Getpid(), "container:x"
	r.tell(engine.Started, mate)
	r.tell(engine.Started, boxed)
	r.tell(engine.Synced, nil)
	kerneltest.Eventually(t, "both are known", func() bool { return len(r.Containers()) == 2 })
	r.Controller.mutex.Lock()
	defer r.Controller.mutex.Unlock()
	if got := r.containers[mate.ID].group.host; got != (own == first) {
		t.Errorf("mate is in the host's namespace: %v, want %v", got, own == first)
	}
	if r.containers[boxed.ID].group.host {
		t.Error("a namespace of its own is taken for the host's")
	}
}
