package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// A usageError is a wrong argument: exit status 2.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// A flagSet parses the flags of one command. Positional arguments are refused,
// and every value that can be out of range is checked by the methods below.
type flagSet struct {
	*flag.FlagSet
	checks []func() error
}

func newFlags(command string) *flagSet {
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	return &flagSet{FlagSet: set}
}

// parse fills the variables of the flags and runs their checks in the order
// in which the flags were defined.
func (s *flagSet) parse(args []string) error {
	if err := s.FlagSet.Parse(args); err == flag.ErrHelp {
		s.SetOutput(os.Stdout)
		s.PrintDefaults()
		return err
	} else if err != nil {
		return usagef("%v", err)
	}
	if s.NArg() > 0 {
		return usagef("unexpected argument %q: every setting is a flag", s.Arg(0))
	}
	for _, check := range s.checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// number is an integer between low and high.
func (s *flagSet) number(name string, value, low, high int, help string) *int {
	p := s.Int(name, value, fmt.Sprintf("%s (%d to %d)", help, low, high))
	s.checks = append(s.checks, func() error {
		if *p < low || *p > high {
			return usagef("--%s %d: want %d to %d", name, *p, low, high)
		}
		return nil
	})
	return p
}

// port is a port number, from low (0 where the kernel may choose) to 65535.
func (s *flagSet) port(name string, value, low int, help string) *int {
	return s.number(name, value, low, 65535, help)
}

// span is a duration that is not negative and at most a day.
func (s *flagSet) span(name string, value time.Duration, help string) *time.Duration {
	p := s.Duration(name, value, help+" (0 to 24h)")
	s.checks = append(s.checks, func() error {
		if *p < 0 || *p > 24*time.Hour {
			return usagef("--%s %v: want 0 to 24h", name, *p)
		}
		return nil
	})
	return p
}

// protocol is "tcp" or "udp".
func (s *flagSet) protocol() *model.Protocol {
	p := new(model.Protocol)
	s.TextVar(p, "protocol", model.TCP, "tcp or udp")
	return p
}

// address is an IP address without a port.
func (s *flagSet) address(value, help string) *netip.Addr {
	p := new(netip.Addr)
	text := s.String("address", value, help)
	s.checks = append(s.checks, func() (err error) {
		if *p, err = netip.ParseAddr(*text); err != nil || p.Zone() != "" {
			return usagef("--address %q: want an IP address such as 127.0.0.1, 0.0.0.0 or ::", *text)
		}
		return nil
	})
	return p
}

// endpoints is a list of ADDRESS:PORT, separated by commas; the flag may be
// repeated. An empty address is the IPv6 wildcard, as in Go's net.Listen.
type endpoints []netip.AddrPort

func (e *endpoints) String() string { return fmt.Sprint(*e) }

func (e *endpoints) Set(text string) error {
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, ":") {
			part = "[::]" + part
		}
		parsed, err := netip.ParseAddrPort(part)
		if err != nil || parsed.Addr().Zone() != "" {
			return fmt.Errorf("%q: want ADDRESS:PORT such as 0.0.0.0:80, [::1]:80 or :80", part)
		}
		*e = append(*e, parsed)
	}
	return nil
}

// pause waits for d, or until ctx ends, and reports whether d has passed.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pauseOrForever waits for d, where 0 means until ctx ends.
func pauseOrForever(ctx context.Context, d time.Duration) {
	if d == 0 {
		<-ctx.Done()
		return
	}
	pause(ctx, d)
}
