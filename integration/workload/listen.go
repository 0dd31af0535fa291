package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/model"
)

// listenConfig are the flags of `workload listen`.
type listenConfig struct {
	tcp, udp  endpoints
	hold      time.Duration // 0: until the context ends
	options   options
	reuseport int           // sockets for each endpoint
	leave     time.Duration // when one socket of each group is closed; 0: never
	children  int
	uid       int // of the children; -1: unchanged
	handover  bool
	forkAfter time.Duration // until the children are started
	orphan    bool          // the children outlive the parent
	dismiss   bool          // each connection is closed at once
	name      string        // of the process; "": unchanged
}

func parseListen(args []string) (*listenConfig, error) {
	c := &listenConfig{}
	set := newFlags("listen")
	set.Var(&c.tcp, "tcp", "TCP `ADDRESS:PORT[,...]` to listen on; port 0 lets the kernel choose")
	set.Var(&c.udp, "udp", "UDP `ADDRESS:PORT[,...]` to bind")
	hold := set.span("for", 0, "how long to hold the ports; 0 is until SIGTERM")
	set.BoolVar(&c.options.v6only, "v6only", false, "IPv6 sockets take no IPv4 traffic")
	set.BoolVar(&c.options.mptcp, "mptcp", true, "open TCP ports as MPTCP where the kernel can, as Go does")
	set.BoolVar(&c.options.unbound, "listen-without-bind", false, "TCP: do not bind; the kernel chooses the port, which must be given as 0")
	backlog := set.number("backlog", 0, 0, unix.SOMAXCONN, "TCP connections that may wait, as nothing accepts them; 0 is as many as the kernel allows")
	set.BoolVar(&c.dismiss, "dismiss", false, "accept each TCP connection and close it at once")
	reuseport := set.number("reuseport", 1, 1, 1000, "sockets of each port, by SO_REUSEPORT")
	leave := set.span("leave-after", 0, "close one socket of each SO_REUSEPORT group after this time; 0 is never")
	children := set.number("children", 0, 0, 1000, "child processes that inherit the sockets")
	uid := set.number("uid", -1, -1, 1<<31-1, "user id of the children, at least one of which is started; -1 keeps the user")
	set.BoolVar(&c.handover, "handover", false, "close the sockets in the parent once the children hold them")
	forkAfter := set.span("fork-after", 0, "start the children this long after the last port is open")
	set.BoolVar(&c.orphan, "orphan", false, "end once the children hold the sockets; they do until SIGTERM")
	set.StringVar(&c.name, "name", "", "give the process this name before it listens")
	set.String("password", "", "has no effect: an argument for tests")
	set.Bool(exitMainThread, false, "the main thread exits at the start; others listen")
	if err := set.parse(args); err != nil {
		return nil, err
	}
	c.forkAfter = *forkAfter
	c.hold, c.reuseport, c.leave, c.children, c.uid = *hold, *reuseport, *leave, *children, *uid
	c.options.reuseport, c.options.backlog = c.reuseport > 1, *backlog
	if c.uid >= 0 && c.children == 0 {
		c.children = 1
	}
	return c, c.check()
}

func (c *listenConfig) check() error {
	if len(c.tcp)+len(c.udp) == 0 {
		return usagef("nothing to listen on: give --tcp ADDRESS:PORT or --udp ADDRESS:PORT")
	}
	if c.leave > 0 && c.reuseport < 2 {
		return usagef("--leave-after %v: needs --reuseport 2 or more", c.leave)
	}
	if c.leave > 0 && c.children > 0 {
		return usagef("--leave-after %v: cannot be combined with --children, which hold every socket", c.leave)
	}
	if c.handover && c.children == 0 {
		return usagef("--handover: needs --children 1 or more")
	}
	if c.orphan && (c.children == 0 || c.handover || c.hold > 0) {
		return usagef("--orphan: needs --children 1 or more, and neither --handover nor --for")
	}
	if c.forkAfter > 0 && c.children == 0 {
		return usagef("--fork-after %v: needs --children 1 or more", c.forkAfter)
	}
	for _, at := range c.tcp {
		if c.options.unbound && at.Port() != 0 {
			return usagef("--tcp %s: with --listen-without-bind the port must be 0", at)
		}
	}
	if c.options.unbound && len(c.udp) > 0 {
		return usagef("--listen-without-bind: applies to TCP only, but --udp is given")
	}
	if c.reuseport > 1 {
		for _, at := range append(append(endpoints{}, c.tcp...), c.udp...) {
			if at.Port() == 0 {
				return usagef("%s: with --reuseport the port must be named", at)
			}
		}
	}
	return nil
}

func runListen(ctx context.Context, args []string, facts *recorder) (err error) {
	c, err := parseListen(args)
	if err != nil {
		return err
	}
	if c.name != "" {
		if err := os.WriteFile("/proc/self/comm", []byte(c.name), 0); err != nil {
			return fmt.Errorf("name the process %q: %w", c.name, err)
		}
	}
	var held []*socket
	defer func() {
		for _, s := range held {
			err = errors.Join(err, s.closeAndRecord(facts))
		}
	}()
	for _, group := range []struct {
		protocol model.Protocol
		at       endpoints
	}{{model.TCP, c.tcp}, {model.UDP, c.udp}} {
		o := c.options
		o.protocol = group.protocol
		for _, at := range group.at {
			opened, err := openGroup(at, o, c.reuseport, facts)
			held = append(held, opened...)
			if err != nil {
				return err
			}
		}
	}
	if c.dismiss {
		for _, s := range held {
			go s.dismiss()
		}
	}
	if c.children > 0 && pause(ctx, c.forkAfter) {
		family, err := startChildren(c, held, facts)
		if err != nil {
			return err
		}
		if c.orphan {
			held = nil // they are open as long as the children live
			return nil
		}
		if c.handover {
			// The family closes its copies last and records the closing.
			sockets := held
			held = nil
			return family.handOver(ctx, c.hold, sockets, facts)
		}
		pauseOrForever(ctx, c.hold)
		return family.stop()
	}
	if c.leave > 0 && pause(ctx, c.leave) {
		if held, err = leaveGroups(held, c.reuseport, facts); err != nil {
			return err
		}
	}
	pauseOrForever(ctx, c.hold)
	return nil
}

// openGroup opens count sockets on one endpoint. Those that were opened before
// an error are returned with it.
func openGroup(at netip.AddrPort, o options, count int, facts *recorder) ([]*socket, error) {
	var opened []*socket
	for range count {
		s, err := openAndRecord(at, o, facts)
		if s != nil {
			opened = append(opened, s)
		}
		if err != nil {
			return opened, err
		}
	}
	return opened, nil
}

// leaveGroups closes the first socket of each group of size and returns the
// rest.
func leaveGroups(held []*socket, size int, facts *recorder) ([]*socket, error) {
	var kept []*socket
	var err error
	for i, s := range held {
		if i%size == 0 {
			err = errors.Join(err, s.closeAndRecord(facts))
			continue
		}
		kept = append(kept, s)
	}
	return kept, err
}
