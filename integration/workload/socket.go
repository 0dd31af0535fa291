package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"

	"golang.org/x/sys/unix"
)

// options are how a socket is opened.
type options struct {
	protocol  model.Protocol
	v6only    bool // an IPv6 socket takes no IPv4 traffic
	mptcp     bool // TCP is tried as MPTCP first, as Go's net.Listen does
	reuseport bool
	unbound   bool // TCP: listen without bind, the kernel chooses the port
	backlog   int  // TCP: connections that may wait; 0 is as many as the kernel allows
}

// A socket is one open port. The owner closes it once, through close.
type socket struct {
	fd     int
	opened truth.Fact
}

// open makes a socket that can be spoken to at the endpoint, by raw
// system calls, and takes the time around the call that makes it visible:
// listen for TCP, bind for UDP. Port 0 lets the kernel choose.
func open(at netip.AddrPort, o options) (*socket, error) {
	fd, mptcp, err := newSocket(at.Addr(), o)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd}
	s.opened, err = start(fd, at, o)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	s.opened.MPTCP = mptcp
	return s, nil
}

// newSocket returns a descriptor with the options set, and whether it is MPTCP.
func newSocket(address netip.Addr, o options) (fd int, mptcp bool, err error) {
	family := unix.AF_INET
	if address.Is6() {
		family = unix.AF_INET6
	}
	kind := unix.SOCK_STREAM
	if o.protocol == model.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd = -1
	if o.protocol == model.TCP && o.mptcp {
		// A kernel without MPTCP, or with it switched off, refuses: TCP then.
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
		mptcp = err == nil
	}
	if fd < 0 {
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return -1, false, fmt.Errorf("open a %s socket: %w", o.protocol, err)
		}
	}
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	err = nil
	if o.protocol == model.TCP {
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if o.reuseport {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if family == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, boolToInt(o.v6only))
	}
	if err != nil {
		return -1, false, errors.Join(fmt.Errorf("set options of a %s socket: %w", o.protocol, err), unix.Close(fd))
	}
	return fd, mptcp, nil
}

// start binds and listens, and returns the fact with the port that resulted.
func start(fd int, at netip.AddrPort, o options) (truth.Fact, error) {
	f := truth.Fact{Action: truth.Opened, Protocol: o.protocol}
	if !o.unbound {
		f.Time = time.Now()
		if err := unix.Bind(fd, sockaddr(at)); err != nil {
			return f, fmt.Errorf("bind %s %s: %w", o.protocol, at, err)
		}
		f.After = time.Now()
	}
	if o.protocol == model.TCP {
		f.Time = time.Now()
		if err := unix.Listen(fd, cmp.Or(o.backlog, unix.SOMAXCONN)); err != nil {
			return f, fmt.Errorf("listen on tcp %s: %w", at, err)
		}
		f.After = time.Now()
	}
	bound, err := localAddress(fd)
	if err != nil {
		return f, err
	}
	f.Address, f.Port = bound.Addr(), bound.Port()
	if f.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return f, fmt.Errorf("read the cookie of the socket on %s: %w", bound, err)
	}
	return f, nil
}

// close closes the socket and returns the fact.
func (s *socket) close() (truth.Fact, error) {
	f := s.opened
	f.Action = truth.Closed
	f.Time = time.Now()
	err := unix.Close(s.fd)
	f.After = time.Now()
	if err != nil {
		return f, fmt.Errorf("close %s %s port %d: %w", f.Protocol, f.Address, f.Port, err)
	}
	return f, nil
}

// dismiss closes each connection of a TCP socket at once, until the socket is closed.
func (s *socket) dismiss() {
	for {
		connection, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC)
		if err != nil || unix.Close(connection) != nil {
			return
		}
	}
}

// openAndRecord is open with the fact written.
func openAndRecord(at netip.AddrPort, o options, facts *recorder) (*socket, error) {
	s, err := open(at, o)
	if err != nil {
		return nil, err
	}
	return s, facts.record(s.opened)
}

// closeAndRecord is close with the fact written.
func (s *socket) closeAndRecord(facts *recorder) error {
	f, err := s.close()
	if err != nil {
		return err
	}
	return facts.record(f)
}

func sockaddr(at netip.AddrPort) unix.Sockaddr {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

func localAddress(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the local address of a socket: %w", err)
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("local address of a socket: unexpected type %T", name)
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
