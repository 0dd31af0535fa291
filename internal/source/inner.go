package source

import (
	"context"
	"errors"
	"time"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/procfs"
)

const (
	// innerInterval is the time between two searches for inner namespaces, and
	// innerIntervalExact that with eBPF, whose reports of such a namespace request one.
	innerInterval, innerIntervalExact = holderInterval, time.Minute
	// innerPause times the duration of a search is the least pause until the next.
	innerPause = 20
)

// Inner are the inner namespaces that a search has found: network namespaces that are
// neither the host's nor any container's own, and in which processes of containers run.
type Inner struct {
	// Began is when the search began.
	Began clock.Instant
	Found map[model.Namespace]*InnerNamespace
	// Alive are the containers, by id, whose first process lived at the end of the
	// search, with its pid: what was found is of the container's present life.
	Alive map[string]int
}

// InnerNamespace is one of them.
type InnerNamespace struct {
	// Containers are the ids of the containers that have a process there.
	Containers map[string]bool
	// PIDs are these processes, in rising order.
	PIDs []int
	// Linked means that the namespace has another interface than its loopback.
	Linked bool
}

func (*Inner) observation() {}

// SearchInner requests a search for inner namespaces now.
func (e *Env) SearchInner() { signal(e.Search) }

// RunInner searches for inner namespaces from time to time, and on request, until ctx ends.
func (e *Env) RunInner(ctx context.Context) {
	for {
		interval := innerInterval
		if e.Settings.Load().Exact {
			interval = innerIntervalExact
		}
		due := time.NewTimer(clock.Rest(interval))
		select {
		case <-due.C:
		case <-e.Search:
			due.Stop()
		case <-ctx.Done():
			due.Stop()
			return
		}
		began := time.Now()
		err := protect(func() error {
			o, err := e.FindInner()
			if err == nil {
				e.send(o)
			}
			return err
		})
		if err != nil && e.Notices.First("inner") {
			e.Logger.WithError(err).Warn("Network namespaces that containers make themselves cannot be found; portwatcher tries again. This message is logged one time.")
		}
		if !clock.Sleep(ctx, innerPause*time.Since(began)) {
			return
		}
	}
}

// FindInner searches for inner namespaces. It needs some system calls for each process of
// the host. The error is that of listing the processes, or of the host's namespace.
func (e *Env) FindInner() (*Inner, error) {
	o := &Inner{Began: clock.Now(), Found: map[model.Namespace]*InnerNamespace{}, Alive: map[string]int{}}
	d := e.Directory.Load()
	if d == nil || len(d.Containers) == 0 {
		return o, nil
	}
	host, err := procfs.HostNamespace(e.ProcRoot)
	if err != nil {
		return nil, err
	}
	known := map[model.Namespace]bool{host: true}
	for _, c := range d.Containers {
		known[c.Namespace] = true
	}
	pids, err := procfs.PIDs(e.ProcRoot)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if id, err := netns.Identify(e.ProcRoot, pid); err == nil && !known[id] {
			e.addInner(o, d, pid)
		}
	}
	for _, c := range d.Containers {
		// It may be in another namespace than that in which it was started.
		cgroups, err := procfs.ReadCgroups(e.ProcRoot, c.PID)
		if found, _ := attribute.ContainerIn(d.Forms, d.Lookup, string(cgroups)); err == nil && found == c {
			o.Alive[c.ID] = c.PID
		}
	}
	for id, n := range o.Found {
		for container := range n.Containers {
			if o.Alive[container] == 0 {
				delete(n.Containers, container)
			}
		}
		if len(n.Containers) == 0 {
			delete(o.Found, id)
		}
	}
	return o, nil
}

// addInner adds the namespace of a process, if that is one of a container. A process that
// may not be read, or has ended, is left out.
func (e *Env) addInner(o *Inner, d *Directory, pid int) {
	var id model.Namespace
	var container *model.Container
	var linked bool
	err := netns.Hold(e.ProcRoot, pid, func() (err error) {
		cgroups, err := procfs.ReadCgroups(e.ProcRoot, pid)
		if container, _ = attribute.ContainerIn(d.Forms, d.Lookup, string(cgroups)); err != nil || container == nil {
			return err
		}
		var unread error
		linked, unread = procfs.Linked(e.ProcRoot, pid)
		id, err = netns.Identify(e.ProcRoot, pid)
		return errors.Join(err, unread)
	})
	if err != nil || container == nil {
		return
	}
	n := o.Found[id]
	if n == nil {
		n = &InnerNamespace{Containers: map[string]bool{}}
		o.Found[id] = n
	}
	n.Containers[container.ID] = true
	n.PIDs = append(n.PIDs, pid)
	n.Linked = n.Linked || linked
}
