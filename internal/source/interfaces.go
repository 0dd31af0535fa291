package source

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netif"
	"portwatcher/internal/netns"
)

// interfacesPause is the least time between two readings of a namespace's interfaces: a
// network is connected in several steps.
const interfacesPause = 200 * time.Millisecond

// departureTime is how long the engine may take to remove the interfaces of a container that
// has ended.
const departureTime = time.Second

// Interfaces are the network interfaces of a namespace at one moment.
type Interfaces struct {
	// Read is when the reading began.
	Read clock.Instant
	// List is nil where they are not known; see [exposure.Namespace].
	List []model.Interface
}

// InterfacesRead has the interfaces of a watcher's namespace: at the begin of a session, and
// after each change.
type InterfacesRead struct {
	Watcher *Watcher
	// Changed is when the kernel reported the change; zero where the capture asked for the
	// reading.
	Changed clock.Instant
	Interfaces
}

func (InterfacesRead) observation() {}

// interfaceChanges receives the kernel's reports that interfaces of a namespace changed.
type interfaceChanges struct {
	listener *netif.Listener
	reports  chan clock.Instant // of capacity 1: the oldest that was not handled
	waiting  sync.WaitGroup
}

// listenInterfaces subscribes to changes of the interfaces; nil where nobody needs them, or
// where that fails.
func (w *Watcher) listenInterfaces(handle *netns.Handle) *interfaceChanges {
	if !w.runs || w.env.members(w.id).Host {
		return nil
	}
	l, err := netif.Listen(handle.FD())
	if err != nil {
		w.env.reportInterfaces(err)
		return nil
	}
	c := &interfaceChanges{listener: l, reports: make(chan clock.Instant, 1)}
	c.waiting.Go(func() {
		for l.Wait() == nil {
			select {
			case c.reports <- clock.Now():
			default:
			}
		}
	})
	return c
}

func (c *interfaceChanges) close() error {
	if c == nil {
		return nil
	}
	err := c.listener.Close()
	c.waiting.Wait()
	return err
}

// ReadInterfaces requests the interfaces, which the engine is about to change: after
// departureTime, unless the kernel reports the change before.
func (w *Watcher) ReadInterfaces() { signal(w.departures) }

// interfacesChanged returns a channel that has a value when interfaces have changed; nil
// where that is not observed, and during the pause after a reading.
func (w *Watcher) interfacesChanged() <-chan clock.Instant {
	if c := w.session.interfaces; c != nil && !w.interfacesPaused {
		return c.reports
	}
	return nil
}

// takeInterfacesChanged reads the interfaces after a change, and sends them behind the closes
// that wait. Where there is a new address, it does so after the pause: the engine connects a
// network, and describes it then, which comes with the interfaces, too. The error ends the
// session.
func (w *Watcher) takeInterfacesChanged(at clock.Instant) error {
	if w.receiver != nil {
		if err := w.receive(); err != nil {
			return err
		}
	}
	if o, ok := w.readInterfaces(at); !ok || !gains(w.interfaces, o.List) {
		w.sendInterfaces(o, ok)
	} else {
		w.gained = at
	}
	return nil
}

// endInterfacesPause sends the interfaces of which the pause has held back a new address.
func (w *Watcher) endInterfacesPause() {
	w.interfacesPaused = false
	if at := w.gained; !at.IsZero() {
		w.sendInterfaces(w.readInterfaces(at))
	}
}

// readInterfaces reads the interfaces, and begins the pause. It returns false where the
// namespace ends.
func (w *Watcher) readInterfaces(changed clock.Instant) (o InterfacesRead, ok bool) {
	o = InterfacesRead{Watcher: w, Changed: changed, Interfaces: Interfaces{Read: clock.Now()}}
	w.gained = 0
	if w.session.interfaces == nil {
		return o, true
	}
	w.interfacesPaused = true
	w.interfacesTimer.Reset(interfacesPause)
	w.busy()
	defer w.idle()
	var err error
	o.List, err = w.env.readInterfaces(w.id)
	return o, !errors.Is(err, netns.ErrProcessGone) // the engine will report that its containers have ended
}

func (w *Watcher) sendInterfaces(o InterfacesRead, ok bool) {
	if ok {
		w.interfaces = o.List
		w.env.send(o)
	}
}

// gains reports whether an interface has an address that none had before.
func gains(before, now []model.Interface) bool {
	return slices.ContainsFunc(now, func(i model.Interface) bool {
		return slices.ContainsFunc(i.Addresses, func(a netip.Addr) bool {
			return !slices.ContainsFunc(before, func(i model.Interface) bool { return slices.Contains(i.Addresses, a) })
		})
	})
}

// readInterfaces reads the interfaces of a namespace; nil where that fails.
func (e *Env) readInterfaces(id model.Namespace) ([]model.Interface, error) {
	handle, _, err := e.openNamespace(id)
	if err != nil {
		return nil, err
	}
	return e.readInterfacesIn(handle)
}

// readInterfacesIn reads the interfaces of an open namespace, and closes that.
func (e *Env) readInterfacesIn(handle *netns.Handle) ([]model.Interface, error) {
	list, err := netif.Read(handle.FD())
	if err != nil {
		e.reportInterfaces(err)
	}
	return list, errors.Join(err, handle.Close())
}

// reportInterfaces logs, one time, that interfaces cannot be read.
func (e *Env) reportInterfaces(err error) {
	if e.Notices.First("interfaces") {
		e.Logger.WithError(err).Warn("The network interfaces of a container cannot be read, which needs the capability SYS_ADMIN: who can reach its ports is computed from the engine's description alone.")
	}
}

// interfacesOf reads the interfaces of the namespace of a container's first process. None are
// known where /proc is the only source, and needed in the host's namespace.
func (c *Containers) interfacesOf(change *ContainerChange) Interfaces {
	read := Interfaces{Read: clock.Now()}
	if c.Env.Mode == Proc || change.Host {
		return read
	}
	handle, err := netns.Open(c.Env.ProcRoot, change.Container.PID)
	switch {
	case err == nil && handle.ID() == change.Namespace:
		read.List, _ = c.Env.readInterfacesIn(handle) // an error is logged
	case err == nil:
		c.Env.reportUnclosed(handle.Close())
	}
	return read
}
