package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"portwatcher/internal/netns"
	"portwatcher/internal/port"
	"portwatcher/internal/probe"
	"portwatcher/internal/procnet"
	"portwatcher/internal/sockdiag"
)

// Source says which sources are used.
type Source string

const (
	// Auto uses the best that works.
	Auto Source = "auto"
	// EBPF insists on eBPF.
	EBPF Source = "ebpf"
	// Netlink uses sock_diag and its notifications alone.
	Netlink Source = "netlink"
	// Proc uses /proc/<pid>/net alone.
	Proc Source = "proc"
)

// session is an open way into a namespace.
type session struct {
	source   port.Source // of its snapshots
	dump     func([]port.Socket) ([]port.Socket, error)
	receiver *receiver // the watcher's; nil where destroy notifications are not used
	quiet    quiet
	// netnsCookie is the namespace's in eBPF events; 0 where it is not known.
	netnsCookie uint64
	tuning      Tuning // of its beginning: another begins a session
	close       func()
}

// open opens the way that the settings and the host allow.
func (w *watcher) open(ctx context.Context, exact bool, tuning Tuning) (*session, error) {
	defer w.busy()()
	if w.usesProc() {
		w.endReceiver(ctx)
		return w.openProc(tuning)
	}
	return w.openNetlink(ctx, exact, tuning)
}

// openNetlink opens sock_diag in the namespace, through the first member that
// leads there. Without eBPF it listens for closes too.
func (w *watcher) openNetlink(ctx context.Context, exact bool, tuning Tuning) (*session, error) {
	handle, pid, err := w.c.openNamespace(w.group)
	if err != nil {
		return nil, err
	}
	s := &session{source: port.SourceSockDiag, tuning: tuning}
	switch {
	case exact:
		w.endReceiver(ctx)
	case w.receiver == nil && !w.c.still:
		// Before the first dump, so that no close falls between them.
		w.receiver = w.startReceiver(handle, pid)
	}
	s.receiver = w.receiver
	if exact || s.receiver != nil {
		s.quiet.counter, s.quiet.longest = w.c.count(w.group.id, pid), fullScan
	}
	if exact {
		s.quiet.longest = fullScanExact
	}
	counter := s.quiet.counter
	conn, err := sockdiag.Dial(handle.FD(), sockdiag.Options{UDPClients: tuning.UDPClients})
	err = errors.Join(err, handle.Close())
	if err == nil && exact {
		s.netnsCookie, err = netnsCookie(conn)
	}
	s.close = sync.OnceFunc(func() {
		var errs []error
		if conn != nil {
			errs = append(errs, conn.Close())
		}
		if counter != nil {
			errs = append(errs, counter.Close())
		}
		if err := errors.Join(errs...); err != nil {
			w.c.log.WithError(err).Warn("A network namespace could not be let go completely.")
		}
	})
	if err != nil {
		s.close()
		return nil, err
	}
	s.dump = conn.Dump
	return s, nil
}

func netnsCookie(conn *sockdiag.Conn) (cookie uint64, err error) {
	controlError := conn.FD(func(fd int) { cookie, err = probe.NetnsCookie(fd) })
	return cookie, errors.Join(controlError, err)
}

// openNamespace opens a group's namespace through the first member that leads
// there, and returns that member's pid too.
func (c *Controller) openNamespace(g *group) (*netns.Handle, int, error) {
	c.mutex.Lock()
	pids := g.pids()
	c.mutex.Unlock()
	err := error(netns.ErrProcessGone)
	for _, pid := range pids {
		var handle *netns.Handle
		if handle, err = netns.Open(c.ProcRoot, pid); err != nil {
			continue
		}
		if handle.ID() == g.id {
			return handle, pid, nil
		}
		// The process has moved, or the pid is another's by now.
		err = errors.Join(fmt.Errorf("process %d is in network namespace %s, not %s", pid, handle.ID(), g.id), handle.Close())
	}
	return nil, 0, err
}

// openProc reads /proc/<pid>/net of a member.
func (w *watcher) openProc(tuning Tuning) (*session, error) {
	w.c.mutex.Lock()
	pids := w.group.pids()
	w.c.mutex.Unlock()
	if len(pids) == 0 {
		return nil, netns.ErrProcessGone
	}
	ephemeral := w.c.ephemeralPorts(pids[0])
	servers := w.servers()
	return &session{
		source: port.SourceProc, tuning: tuning, close: func() {},
		dump: func(dst []port.Socket) ([]port.Socket, error) {
			dst, err := w.readProc(dst, ephemeral)
			if err == nil && !tuning.UDPClients {
				dst = servers.withoutClients(dst)
			}
			return dst, err
		},
	}, nil
}

// servers are the UDP ports at which another source has seen a server. /proc
// cannot tell one in the range of clients' ports from a client: what was open
// stays open while it is there.
type servers map[netip.AddrPort]bool

func (w *watcher) servers() servers {
	w.c.mutex.Lock()
	defer w.c.mutex.Unlock()
	s := servers{}
	for _, open := range w.c.tracker.OpenIn(w.group.id) {
		if open.Endpoint.Protocol == port.UDP {
			s[netip.AddrPortFrom(open.Endpoint.Address, open.Endpoint.Port)] = true
		}
	}
	return s
}

// withoutClients leaves out what may be a client and was never seen as a server.
func (s servers) withoutClients(sockets []port.Socket) []port.Socket {
	kept, there := sockets[:0], servers{}
	for _, socket := range sockets {
		at := netip.AddrPortFrom(socket.Address, socket.Port)
		if socket.Protocol == port.UDP && socket.AutoBound && !s[at] {
			continue
		}
		if socket.Protocol == port.UDP && s[at] {
			there[at] = true
		}
		kept = append(kept, socket)
	}
	for at := range s { // the next there may be a client
		if !there[at] {
			delete(s, at)
		}
	}
	return kept
}

// readProc reads through the first member that is still there.
func (w *watcher) readProc(dst []port.Socket, ephemeral procnet.Range) ([]port.Socket, error) {
	w.c.mutex.Lock()
	pids := w.group.pids()
	w.c.mutex.Unlock()
	err := error(netns.ErrProcessGone)
	for _, pid := range pids {
		var sockets []port.Socket
		sockets, err = procnet.Read(dst, w.c.ProcRoot, pid, ephemeral)
		switch {
		case err == nil:
			return sockets, nil
		case !errors.Is(err, netns.ErrProcessGone):
			return dst, err
		}
	}
	return dst, err
}

// ephemeralPorts reads from which ports the kernel serves clients, in the
// namespace of a process. Where it cannot be read, the usual range is assumed.
func (c *Controller) ephemeralPorts(pid int) procnet.Range {
	ports, err := procnet.EphemeralPorts(c.ProcRoot, pid)
	if err == nil {
		return ports
	}
	if !errors.Is(err, netns.ErrProcessGone) {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.once("ephemeral", func() {
			c.log.WithError(err).Warnf("The range of UDP clients' ports cannot be read; assuming %d to %d.", defaultEphemeral.First, defaultEphemeral.Last)
		})
	}
	return defaultEphemeral
}

// defaultEphemeral is the kernel's default of ip_local_port_range. Source:
// Documentation/networking/ip-sysctl.rst.
var defaultEphemeral = procnet.Range{First: 32768, Last: 60999}
