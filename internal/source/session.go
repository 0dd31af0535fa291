package source

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
	"portwatcher/internal/netns"
	"portwatcher/internal/probe"
	"portwatcher/internal/procfs"
	"portwatcher/internal/sockdiag"
)

// session is the open access to a namespace.
type session struct {
	source   model.Source // of its snapshots
	dump     func([]model.Socket) ([]model.Socket, error)
	notified bool // by destroy notifications
	exact    bool // by eBPF
	quiet    quiet
	// interfaces is nil where changes of the interfaces are not observed.
	interfaces *interfaceChanges
	// netnsCookie is the namespace's in eBPF events; 0 where it is not known.
	netnsCookie uint64
	settings    *Settings // others begin another session
	close       func()
}

// open begins a session, as the settings and the host allow.
func (w *Watcher) open(settings *Settings) (*session, error) {
	w.busy()
	defer w.idle()
	if w.usesProc() {
		w.endReceiver()
		return w.openProc(settings)
	}
	return w.openNetlink(settings)
}

// openNetlink opens sock_diag in the namespace. Without eBPF it receives destroy
// notifications, too.
func (w *Watcher) openNetlink(settings *Settings) (*session, error) {
	handle, pid, err := w.env.openNamespace(w.id)
	if err != nil {
		return nil, err
	}
	s := &session{source: model.SourceSockDiag, settings: settings}
	switch {
	case settings.Exact, w.busyness.without:
		w.endReceiver()
	case w.receiver == nil && w.runs:
		// Before the first dump, so that no close falls between them.
		w.startReceiver(handle, pid, settings)
	case w.receiver != nil:
		w.receiver.resize(settings.Buffer, w.env.Logger)
	}
	s.notified = w.receiver != nil
	if settings.Exact || s.notified {
		s.quiet.counter, s.quiet.longest = w.env.count(w.id, pid), fullScan
	}
	if settings.Exact {
		s.quiet.longest = fullScanExact
	}
	s.interfaces = w.listenInterfaces(handle)
	counter := s.quiet.counter
	conn, err := sockdiag.Dial(handle.FD(), sockdiag.Options{UDPClients: settings.UDPClients})
	err = errors.Join(err, handle.Close())
	if err == nil && settings.Exact {
		if s.netnsCookie, err = netnsCookie(conn); err == nil {
			s.exact = true
		}
	}
	s.close = sync.OnceFunc(func() {
		var errs []error
		if conn != nil {
			errs = append(errs, conn.Close())
		}
		if counter != nil {
			errs = append(errs, counter.Close())
		}
		errs = append(errs, s.interfaces.close())
		w.env.reportUnclosed(errs...)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	s.dump = conn.Dump
	return s, nil
}

func (e *Env) reportUnclosed(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		e.Logger.WithError(err).Warn("A network namespace could not be closed completely.")
	}
}

func netnsCookie(conn *sockdiag.Conn) (cookie uint64, err error) {
	controlError := conn.FD(func(fd int) { cookie, err = probe.NetnsCookie(fd) })
	return cookie, errors.Join(controlError, err)
}

// openNamespace opens a namespace through the first member that leads there, and
// returns that member's pid too.
func (e *Env) openNamespace(id model.Namespace) (*netns.Handle, int, error) {
	err := error(netns.ErrProcessGone)
	for _, pid := range e.members(id).pids() {
		var handle *netns.Handle
		if handle, err = netns.Open(e.ProcRoot, pid); err != nil {
			continue
		}
		if handle.ID() == id {
			return handle, pid, nil
		}
		// The process has moved, or the pid is another's by now.
		err = errors.Join(fmt.Errorf("process %d is in network namespace %s, not %s", pid, handle.ID(), id), handle.Close())
	}
	return nil, 0, err
}

// openProc reads /proc/<pid>/net of a member, beside eBPF where that works.
func (w *Watcher) openProc(settings *Settings) (*session, error) {
	pids := w.env.members(w.id).pids()
	if len(pids) == 0 {
		return nil, netns.ErrProcessGone
	}
	ephemeral := w.env.ephemeralPorts(pids[0])
	known := w.servers()
	s := &session{
		source: model.SourceProc, settings: settings, close: func() {},
		dump: func(dst []model.Socket) ([]model.Socket, error) {
			dst, err := w.readProc(dst, ephemeral)
			if err == nil && !settings.UDPClients {
				dst = known.withoutClients(dst)
			}
			return dst, err
		},
	}
	if settings.Exact {
		var err error
		if s.netnsCookie, err = w.env.cookieOf(w.id); err != nil {
			return nil, err
		}
		s.exact = true
	}
	return s, nil
}

// cookieOf returns the cookie of a namespace, by means of a socket that it opens there.
func (e *Env) cookieOf(id model.Namespace) (cookie uint64, err error) {
	handle, _, err := e.openNamespace(id)
	if err != nil {
		return 0, err
	}
	return cookieIn(handle)
}

// hostCookie returns the cookie of the host's namespace.
func (e *Env) hostCookie() (cookie uint64, err error) {
	handle, err := netns.Open(e.ProcRoot, procfs.FirstProcess(e.ProcRoot))
	if err != nil {
		return 0, err
	}
	return cookieIn(handle)
}

// cookieIn returns the cookie of an open namespace, and closes that.
func cookieIn(handle *netns.Handle) (cookie uint64, err error) {
	err = handle.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a socket in network namespace %s: %w", handle.ID(), err)
		}
		cookie, err = probe.NetnsCookie(fd)
		return errors.Join(err, unix.Close(fd))
	})
	return cookie, errors.Join(err, handle.Close())
}

// servers are the UDP ports of servers that another source has found. /proc cannot
// distinguish a server in the range of clients' ports from a client: a port that was open
// stays open while it is there.
type servers map[netip.AddrPort]bool

func (w *Watcher) servers() servers {
	s := servers{}
	for i := range w.sockets {
		if socket := &w.sockets[i]; socket.Protocol == model.UDP {
			s[netip.AddrPortFrom(socket.Address, socket.Port)] = true
		}
	}
	return s
}

// withoutClients removes the sockets that may be clients and were never servers.
func (s servers) withoutClients(sockets []model.Socket) []model.Socket {
	kept, there := sockets[:0], servers{}
	for _, socket := range sockets {
		at := netip.AddrPortFrom(socket.Address, socket.Port)
		if socket.Protocol == model.UDP && socket.AutoBound && !s[at] {
			continue
		}
		if socket.Protocol == model.UDP && s[at] {
			there[at] = true
		}
		kept = append(kept, socket)
	}
	maps.DeleteFunc(s, func(at netip.AddrPort, _ bool) bool { return !there[at] }) // the next socket there may be a client
	return kept
}

// readProc reads /proc of the first member that has not ended.
func (w *Watcher) readProc(dst []model.Socket, ephemeral procfs.Range) ([]model.Socket, error) {
	err := error(netns.ErrProcessGone)
	for _, pid := range w.env.members(w.id).pids() {
		var sockets []model.Socket
		sockets, err = procfs.Read(dst, w.env.ProcRoot, pid, ephemeral)
		switch {
		case err == nil:
			return sockets, nil
		case !errors.Is(err, netns.ErrProcessGone):
			return dst, err
		}
	}
	return dst, err
}

// ephemeralPorts returns the range of the ports that the kernel gives to clients in the
// namespace of a process; where it cannot be read, the default.
func (e *Env) ephemeralPorts(pid int) procfs.Range {
	ports, err := procfs.EphemeralPorts(e.ProcRoot, pid)
	if err == nil {
		return ports
	}
	if !errors.Is(err, netns.ErrProcessGone) && e.Notices.First("ephemeral") {
		e.Logger.WithError(err).Warnf("The range of UDP clients' ports cannot be read; portwatcher assumes %d to %d.", defaultEphemeral.First, defaultEphemeral.Last)
	}
	return defaultEphemeral
}

// defaultEphemeral is the kernel's default of ip_local_port_range. Source:
// Documentation/networking/ip-sysctl.rst.
var defaultEphemeral = procfs.Range{First: 32768, Last: 60999}
