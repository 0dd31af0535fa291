package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portwatcher/internal/port"
	"portwatcher/internal/process"
	"portwatcher/internal/tracker"
)

// attribute asks for the owners of the sockets that the tracker does not know.
// It does I/O, so the caller must not hold the lock.
func (w *watcher) attribute(sockets []port.Socket, members process.Members) map[int]tracker.Owner {
	fresh := make([]port.Socket, len(w.unknown))
	for i, index := range w.unknown {
		fresh[i] = sockets[index]
	}
	owners, denied, err := w.c.Attributor.Attribute(fresh, members)
	w.c.tellTrouble(denied, err)
	result := make(map[int]tracker.Owner, len(owners))
	for i, owner := range owners {
		result[w.unknown[i]] = tracker.Owner{Container: owner.Container, Processes: owner.Processes}
	}
	return result
}

// tellTrouble says once what stands in the way of naming processes.
func (c *Controller) tellTrouble(denied int, err error) {
	if denied == 0 && err == nil {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if denied > 0 {
		c.once("denied", func() {
			processes := "a process"
			if denied > 1 {
				processes = fmt.Sprintf("%d processes", denied)
			}
			c.log.Infof("The open files of %s cannot be listed, so a port that is held there is reported without its process. It takes the capabilities SYS_PTRACE and DAC_READ_SEARCH; where these are there, AppArmor (security_opt apparmor=unconfined) or the system itself keeps them closed.", processes)
		})
	}
	if err != nil {
		c.once("attribution", func() {
			c.log.WithError(err).Warn("Owners of sockets could not be read completely; this is told once.")
		})
	}
}

// settleOwners brings owners up to date under the lock: what was asked without
// it may have changed since. Owners that must be asked for again are removed.
func (w *watcher) settleOwners(owners map[int]tracker.Owner, epoch uint64) {
	for i, owner := range owners {
		if owner.Container == nil {
			if w.group.epoch != epoch {
				delete(owners, i)
			}
			continue
		}
		m := w.c.containers[owner.Container.ID]
		switch {
		case m == nil || m.PID != owner.Container.PID: // it has ended
			delete(owners, i)
		case !m.monitored || !w.c.reported(m.Container, w.sockets[i].Protocol, w.sockets[i].Port):
			owners[i] = tracker.Owner{}
		default:
			owners[i] = tracker.Owner{Container: m.Container, Processes: owner.Processes}
		}
	}
}

// lookAgain looks up once more who holds the sockets that opened lately, since
// servers fork their workers after they listen, and warns of published ports
// that lead nowhere. What becomes of them later, refreshHolders finds.
func (w *watcher) lookAgain() {
	c, id := w.c, w.group.id
	c.mutex.Lock()
	w.armed = false
	// Reading the link of an open file holds it for a moment, so that a close at
	// that moment takes effect a little later than its process believes: what
	// opens and closes a port in a loop must be left alone.
	fresh, more := c.tracker.Fresh(nil, id, time.Now().Add(-secondLook))
	if more {
		w.arm()
	}
	c.mutex.Unlock()

	done := w.busy()
	look, err := c.look(fresh)
	done()

	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err == nil {
		c.publish(c.tracker.Held(c.changes[:0], look))
	}
	c.tellLeadsNowhere(w.group)
	w.tellDoubts()
}

// tellLeadsNowhere warns once of each published port whose only listeners are
// on loopback: the engine forwards to the container's network address.
func (c *Controller) tellLeadsNowhere(g *group) {
	if g.host || !slices.ContainsFunc(g.containers(), func(c *port.Container) bool { return len(c.Ports) > 0 }) {
		return
	}
	type key struct {
		protocol port.Protocol
		port     uint16
	}
	onLoopback := map[key]*port.Container{}
	elsewhere := map[key]bool{}
	for _, open := range c.tracker.OpenIn(g.id) {
		k := key{open.Endpoint.Protocol, open.Endpoint.Port}
		if open.Endpoint.Address.IsLoopback() {
			onLoopback[k] = open.Container
		} else {
			elsewhere[k] = true
		}
	}
	for k, container := range onLoopback {
		published := publishedAt(k.protocol, k.port, g.containers(), func(netip.AddrPort) bool { return true })
		if elsewhere[k] || len(published) == 0 {
			continue
		}
		c.once(fmt.Sprint("nowhere ", container.ID, k), func() {
			c.log.WithField("container", container.Name).Warnf(
				"Port %d/%s is published at %s, but only loopback listens inside the container: the published port leads nowhere. Let the server listen on 0.0.0.0 or [::].",
				k.port, k.protocol, strings.Join(published, ", "))
		})
	}
}
