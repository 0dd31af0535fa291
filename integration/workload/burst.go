package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portwatcher/internal/model"

	"golang.org/x/sys/unix"
)

func runTransient(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("transient")
	protocol := set.protocol()
	port := set.port("port", 20000, 0, "port to open; 0 lets the kernel choose")
	hold := set.span("hold", 0, "how long to hold it")
	address := set.address("0.0.0.0", "local address")
	if err := set.parse(args); err != nil {
		return err
	}
	s, err := openAndRecord(netip.AddrPortFrom(*address, uint16(*port)), options{protocol: *protocol}, facts)
	if s == nil {
		return err
	}
	if err == nil {
		pause(ctx, *hold)
	}
	return errors.Join(err, s.closeAndRecord(facts))
}

// burst are the flags of `workload burst`.
type burst struct {
	protocol       model.Protocol
	count          int
	base           int
	hold, interval time.Duration
	samePort       bool
	address        netip.Addr
}

func parseBurst(args []string) (*burst, error) {
	set := newFlags("burst")
	protocol := set.protocol()
	count := set.number("count", 20, 1, 65535, "ports to open")
	base := set.port("base-port", 20000, 1, "first port")
	hold := set.span("hold", 50*time.Millisecond, "how long each is held")
	interval := set.span("interval", 10*time.Millisecond, "time from one opening to the next")
	samePort := set.Bool("same-port", false, "open the base port again and again; the interval then begins at each closing")
	address := set.address("0.0.0.0", "local address")
	if err := set.parse(args); err != nil {
		return nil, err
	}
	if last := *base + *count - 1; !*samePort && last > 65535 {
		return nil, usagef("--base-port %d --count %d: the last port would be %d, over 65535", *base, *count, last)
	}
	return &burst{*protocol, *count, *base, *hold, *interval, *samePort, *address}, nil
}

func runBurst(ctx context.Context, args []string, facts *recorder) error {
	b, err := parseBurst(args)
	if err != nil {
		return err
	}
	if b.samePort {
		return b.repeat(ctx, facts)
	}
	return b.overlap(ctx, facts)
}

func (b *burst) open(index int, facts *recorder) (*socket, error) {
	port := b.base
	if !b.samePort {
		port += index
	}
	return openAndRecord(netip.AddrPortFrom(b.address, uint16(port)), options{protocol: b.protocol}, facts)
}

// repeat opens and closes one port, never twice at a time.
func (b *burst) repeat(ctx context.Context, facts *recorder) error {
	for i := range b.count {
		s, err := b.open(i, facts)
		if s == nil {
			return err
		}
		if err == nil {
			pause(ctx, b.hold)
		}
		if err = errors.Join(err, s.closeAndRecord(facts)); err != nil {
			return err
		}
		if i < b.count-1 && !pause(ctx, b.interval) {
			return nil
		}
	}
	return nil
}

// overlap opens a port each interval and closes each when its time is over.
// Both happen in the order of the ports, so one loop with one timer is exact.
func (b *burst) overlap(ctx context.Context, facts *recorder) (err error) {
	begin := time.Now()
	var held []*socket // oldest first
	var until []time.Time
	defer func() {
		for _, s := range held {
			err = errors.Join(err, s.closeAndRecord(facts))
		}
	}()
	for opened := 0; opened < b.count || len(held) > 0; {
		nextOpen := begin.Add(time.Duration(opened) * b.interval)
		if len(held) > 0 && (opened == b.count || until[0].Before(nextOpen)) {
			if !pause(ctx, time.Until(until[0])) {
				return nil
			}
			oldest := held[0]
			held, until = held[1:], until[1:]
			if err := oldest.closeAndRecord(facts); err != nil {
				return err
			}
			continue
		}
		if !pause(ctx, time.Until(nextOpen)) {
			return nil
		}
		s, err := b.open(opened, facts)
		if s != nil {
			held, until = append(held, s), append(until, time.Now().Add(b.hold))
		}
		if err != nil {
			return err
		}
		opened++
	}
	return nil
}

func runStorm(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("storm")
	protocol := set.protocol()
	count := set.number("count", 100000, 1, 100_000_000, "times to open and close the port")
	port := set.port("port", 20000, 1, "port to open")
	address := set.address("127.0.0.1", "local address")
	if err := set.parse(args); err != nil {
		return err
	}
	begin := time.Now()
	at := netip.AddrPortFrom(*address, uint16(*port))
	done, err := storm(ctx, at, *protocol, *count)
	return errors.Join(err, facts.summarize(*protocol, done, begin))
}

// inUseLimit is how often in a row a storm finds its port in use before it gives
// up: whoever reads /proc/<pid>/fd holds a socket for a moment longer than the
// process that has closed it.
const inUseLimit = 2000

// storm opens and closes one port count times and returns how often it did.
// The loop takes no time stamps and allocates nothing but the address.
func storm(ctx context.Context, at netip.AddrPort, protocol model.Protocol, count int) (int, error) {
	const betweenChecks = 1024 // of the context: cheap, and prompt enough
	address := sockaddr(at)
	for done, inUse := 0, 0; ; {
		if done == count || (done+inUse)%betweenChecks == 0 && ctx.Err() != nil {
			return done, nil
		}
		err := openAndClose(at, protocol, address)
		switch {
		case err == nil:
			done, inUse = done+1, 0
		case errors.Is(err, unix.EADDRINUSE) && inUse < inUseLimit:
			inUse++
			time.Sleep(time.Millisecond)
		default:
			return done, fmt.Errorf("open and close %s %s: %w", protocol, at, err)
		}
	}
}

func openAndClose(at netip.AddrPort, protocol model.Protocol, address unix.Sockaddr) error {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if protocol == model.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	if err = unix.Bind(fd, address); err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 1)
	}
	if closeErr := unix.Close(fd); err != nil || closeErr != nil {
		return errors.Join(err, closeErr)
	}
	return nil
}
