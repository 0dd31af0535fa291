package source

import (
	"fmt"
	"testing"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/testutil/kernel"
)

// interfacesNow describes the interfaces that the watcher has sent last, with their number.
func (r *rig) interfacesNow() (text string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, o := range r.received {
		if read, is := o.(InterfacesRead); is {
			if text = fmt.Sprint(read.List); read.List == nil {
				text = "not known"
			}
		}
	}
	return text
}

func (r *rig) awaitInterfaces(want string) {
	r.t.Helper()
	kernel.Await(r.t, "the interfaces "+want, func() string {
		if got := r.interfacesNow(); got != want {
			return "got " + got
		}
		return ""
	})
}

// The interfaces are sent at the begin of a session and after each change.
func TestInterfacesOfANamespace(t *testing.T) {
	b := kernel.NewBox(t)
	r, id := newRig(t, b)
	w := Start(r.Env, id)
	r.awaitInterfaces("[]")
	b.Do(func() error {
		return kernel.IP("link add eth0 type veth peer name other", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up")
	})
	r.awaitInterfaces("[{eth0 veth [10.9.0.2]}]")
	b.Do(func() error { return kernel.IP("addr add 10.9.0.3/24 dev eth0") })
	r.awaitInterfaces("[{eth0 veth [10.9.0.2 10.9.0.3]}]")
	b.Do(func() error { return kernel.IP("link del eth0") })
	r.awaitInterfaces("[]")
	w.Stop()
	<-w.ended
}

// Where the capture asks for the interfaces, they are sent although nothing has changed.
func TestReadInterfaces(t *testing.T) {
	b := kernel.NewBox(t)
	r, id := newRig(t, b)
	w := Start(r.Env, id)
	r.awaitInterfaces("[]")
	w.ReadInterfaces()
	kernel.Eventually(t, "the interfaces that were asked for", func() bool {
		return r.number(func(o Observation) bool {
			read, is := o.(InterfacesRead)
			return is && read.Changed.IsZero() && read.List != nil
		}) == 1
	})
	w.Stop()
	<-w.ended
}

// A watcher that ends leaves no descriptor: one would keep the namespace alive.
func TestInterfacesLeaveNoDescriptor(t *testing.T) {
	b := kernel.NewBox(t)
	r, id := newRig(t, b)
	before := kernel.Descriptors(t)
	for range 3 {
		w := Start(r.Env, id)
		kernel.Eventually(t, "a scan", func() bool { return w.LastScan() != 0 })
		w.Stop()
		<-w.ended
	}
	if after := kernel.Descriptors(t); after > before {
		t.Errorf("%d descriptors are open, and were %d", after, before)
	}
}

// What is read by /proc alone has no interfaces, and the host's are not needed.
func TestInterfacesThatAreNotKnown(t *testing.T) {
	b := kernel.NewBox(t)
	for name, change := range map[string]func(*rig, model.Namespace){
		"/proc": func(r *rig, _ model.Namespace) { r.Mode = Proc },
		"host":  func(r *rig, id model.Namespace) { r.Directory.Load().Namespaces[id].Host = true },
	} {
		t.Run(name, func(t *testing.T) {
			r, id := newRig(t, b)
			change(r, id)
			w := Start(r.Env, id)
			r.awaitInterfaces("not known")
			w.Stop()
			<-w.ended
		})
	}
}

// A container comes with the interfaces of its namespace.
func TestInspectReadsInterfaces(t *testing.T) {
	b := kernel.NewBox(t)
	b.Do(func() error {
		return kernel.IP("link add eth0 type veth peer name other", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up")
	})
	r, _ := newRig(t, b)
	c := &Containers{Env: r.Env, Prove: believe}
	o := c.Inspect(engine.Change{Kind: engine.Started, Container: &model.Container{ID: "x", PID: b.Process.Pid}})
	if got := fmt.Sprint(o.Interfaces.List); got != "[{eth0 veth [10.9.0.2]}]" || o.Interfaces.Read == 0 {
		t.Errorf("%+v, error %v", o.Interfaces, o.Err)
	}
	r.Mode = Proc
	if o = c.Inspect(engine.Change{Kind: engine.Started, Container: o.Container}); o.Interfaces.List != nil {
		t.Errorf("%+v by /proc alone", o.Interfaces)
	}
}
