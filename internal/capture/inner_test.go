package capture

import (
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// search has a search find inner namespaces of a container, all of whose first processes
// live.
func (r *rig) search(c *model.Container, linked bool, inodes ...uint64) {
	r.t.Helper()
	o := &source.Inner{Began: r.tick(), Found: map[model.Namespace]*source.InnerNamespace{}, Alive: map[string]int{}}
	for id, m := range r.containers {
		o.Alive[id] = m.PID
	}
	for _, inode := range inodes {
		o.Found[model.Namespace{Inode: inode}] = &source.InnerNamespace{Containers: map[string]bool{c.ID: true}, PIDs: []int{int(inode)}, Linked: linked}
	}
	r.do(o)
}

func (r *rig) requested() bool {
	select {
	case <-r.env.Search:
		return true
	default:
		return false
	}
}

// Facts of a namespace that is not known wait until it is found and open.
func TestInnerNamespace(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	outer, outerClosed := r.openedAndClosed(1, 80)
	r.facts(r.of(web, outer))
	if r.requested() {
		t.Error("a search is requested for the container's own namespace")
	}
	inner, innerClosed := r.openedAndClosed(2, 80)
	r.facts(r.of(web, inner))
	if !r.requested() {
		t.Error("no search is requested for an unknown namespace")
	}
	r.wants("opened web 80/tcp loopback ebpf")
	r.search(web, true, 2)
	r.open(2)
	r.wants("opened web 80/tcp loopback ebpf", "opened web 80/tcp network ebpf in net:[2]")
	if pids := r.env.Directory.Load().Namespaces[model.Namespace{Inode: 2}].Inner; len(pids) != 1 || pids[0] != 2 {
		t.Errorf("processes %v lead into it, want 2", pids)
	}
	r.facts(outerClosed, innerClosed)
	again, _ := r.openedAndClosed(2, 81)
	r.facts(r.of(web, again))
	r.search(web, true)
	r.wants("opened web 80/tcp loopback ebpf", "opened web 80/tcp network ebpf in net:[2]",
		"closed web 80/tcp loopback ebpf", "closed web 80/tcp network ebpf in net:[2]",
		"opened web 81/tcp network ebpf in net:[2]", "closed web 81/tcp network proc in net:[2]")
	if len(r.namespaces) != 1 || len(r.byCookie) != 1 || len(r.containers[web.ID].inner) != 0 {
		t.Error("something of the namespace is left")
	}
	r.balance()
}

// Inner namespaces end with their container, and are not watched without.
func TestInnerNamespaceOfContainers(t *testing.T) {
	r := newRig(t, nil)
	web, hidden := r.run("web", 1), container("hidden")
	hidden.Labels = map[string]string{"watch": "no"}
	r.change(engine.Started, hidden, 3)
	r.search(web, false, 2)
	r.search(hidden, false, 4)
	if r.namespaces[model.Namespace{Inode: 4}].watcher != nil {
		t.Error("the namespace of a container that is not monitored is watched")
	}
	if r.namespaces[model.Namespace{Inode: 2}] != nil {
		t.Error("a namespace without a process of the container is left")
	}
	r.search(web, false, 2)
	s := r.socket(80)
	r.scan(2, r.find(web.ID), s)
	r.change(engine.Stopped, web, 0)
	r.wants("opened web 80/tcp loopback sock_diag in net:[2]", "closed web 80/tcp loopback engine in net:[2]")
	r.change(engine.Stopped, hidden, 0)
	if len(r.namespaces) != 0 {
		t.Errorf("%d namespaces are left", len(r.namespaces))
	}
}

// A namespace that ends before it is found is reported as eBPF saw it.
func TestInnerNamespaceOfAMoment(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	opened, closed := r.openedAndClosed(2, 80)
	stays, staysClosed := r.openedAndClosed(3, 81)
	r.facts(r.of(web, opened), closed, r.of(web, stays))
	r.counted(r.countOf(web, 2, 90, 5, 5))
	r.search(web, false)
	r.wants() // its watcher may be about to open it
	r.now = r.now.Add(2 * openTime)
	r.search(web, false)
	r.flushBursts()
	of2, of3 := " in net:[cookie 1002]", " in net:[cookie 1003]"
	r.wants("opened web 80/tcp  ebpf"+of2, "closed web 80/tcp  ebpf"+of2, "opened web 81/tcp  ebpf"+of3, "burst web +5 -5")
	r.now = r.now.Add(2 * unseenTime)
	r.search(web, false)
	if r.byCookie[netnsCookie(2)] != nil || r.byCookie[netnsCookie(3)] == nil {
		t.Error("want the namespace with an open port, and not the other")
	}
	r.facts(staysClosed)
	r.change(engine.Stopped, web, 0)
	r.wants("opened web 80/tcp  ebpf"+of2, "closed web 80/tcp  ebpf"+of2, "opened web 81/tcp  ebpf"+of3, "burst web +5 -5", "closed web 81/tcp  ebpf"+of3)
	if len(r.byCookie)+len(r.namespaces) != 0 {
		t.Error("something of the namespaces is left")
	}
	r.balance()
}

// What was open in an inner namespace at the last stop is compared when that is found.
func TestResumeInnerNamespace(t *testing.T) {
	first, journal := newKeeping(t, nil)
	web := first.run("web", 1)
	first.search(web, false, 2, 3)
	stays, gone := first.socket(80), first.socket(80)
	first.scan(2, first.find(web.ID), stays)
	first.scan(3, first.find(web.ID), gone)
	first.synced()
	first.keepState()
	state, _ := journal.states()
	if len(state) != 2 {
		t.Fatalf("the journal keeps %+v, want two endpoints", state)
	}
	r, _ := again(t, state, nil)
	r.run("web", 1)
	r.synced()
	r.wants()
	r.search(web, false, 2)
	r.scan(2, r.find(web.ID), stays)
	r.wants("closed web 80/tcp loopback restart in net:[3]")
	r.scan(2, r.find(web.ID))
	r.wants("closed web 80/tcp loopback restart in net:[3]", "closed web 80/tcp loopback sock_diag in net:[2]")
}

// A search that began before a container was started again finds nothing of its new life.
func TestInnerNamespaceOfAnEarlierLife(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	o := &source.Inner{
		Began: r.tick(), Alive: map[string]int{web.ID: web.PID},
		Found: map[model.Namespace]*source.InnerNamespace{{Inode: 2}: {Containers: map[string]bool{web.ID: true}}},
	}
	r.change(engine.Stopped, web, 0)
	next := *web
	next.PID++
	r.change(engine.Started, &next, 3)
	r.do(o)
	if len(r.namespaces) != 1 {
		t.Errorf("%d namespaces, want the container's own alone", len(r.namespaces))
	}
	// The namespace that was found first is a container's own by now.
	r.search(&next, false, 4)
	r.change(engine.Started, container("db"), 4)
	r.search(&next, false, 4)
	if n := r.namespaces[model.Namespace{Inode: 4}]; n.inner != nil || len(n.members) != 1 {
		t.Errorf("namespace %+v, want that of one container", n)
	}
}

// A namespace that only eBPF had reported is found after all.
func TestUnseenNamespaceIsFound(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	opened, _ := r.openedAndClosed(2, 80)
	r.facts(r.of(web, opened))
	r.now = r.now.Add(2 * openTime)
	r.search(web, false)
	r.search(web, false, 2)
	r.open(2)
	r.scan(2, r.find(web.ID), opened.Socket)
	r.wants("opened web 80/tcp  ebpf in net:[cookie 1002]", "closed web 80/tcp  proc in net:[cookie 1002]",
		"opened web 80/tcp loopback sock_diag in net:[2]")
	if n := r.byCookie[netnsCookie(2)]; n == nil || n.inner.unseen || len(r.namespaces) != 2 {
		t.Errorf("namespace %+v, want the one that was found", n)
	}
	r.balance()
}
