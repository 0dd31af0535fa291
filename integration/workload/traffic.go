package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/testutil/truth"

	"golang.org/x/sys/unix"
)

func runHTTP(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("http")
	port := set.port("port", 8080, 0, "port to serve; 0 lets the kernel choose")
	host := set.address("::", "local address; :: is every IPv4 and IPv6 address")
	length := set.span("for", 0, "how long; 0 is until SIGTERM")
	if err := set.parse(args); err != nil {
		return err
	}
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	return serveHTTP(ctx, netip.AddrPortFrom(*host, uint16(*port)), facts)
}

// serveHTTP answers every request with 200 until ctx ends. It listens as any
// Go program does, with MPTCP where the kernel has it.
func serveHTTP(ctx context.Context, at netip.AddrPort, facts *recorder) error {
	host := at.Addr().String()
	if at.Addr() == netip.IPv6Unspecified() {
		host = "" // both families, or IPv4 alone where there is no IPv6
	}
	before := time.Now()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(at.Port()))))
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	opened := truth.Fact{
		Action: truth.Opened, Time: before, After: time.Now(),
		Protocol: model.TCP, Address: bound.Addr().Unmap(), Port: bound.Port(),
	}
	if err := facts.record(opened); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(answer),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          log.New(os.Stderr, "workload http: ", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve HTTP on %s: %w", bound, err)
	case <-ctx.Done():
	}
	closed := opened
	closed.Action, closed.Time = truth.Closed, time.Now()
	err = server.Close()
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	closed.After = time.Now()
	return errors.Join(err, facts.record(closed))
}

func answer(w http.ResponseWriter, _ *http.Request) {
	// A client that went away is no fault of the server.
	_, _ = io.WriteString(w, "hello from the portwatcher workload\n")
}

func runUDPClient(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("udp-client")
	count := set.number("count", 100, 1, 10_000_000, "clients, one after another")
	port := set.port("port", 53, 1, "port to send to, on 127.0.0.1; nothing has to listen there")
	hold := set.span("hold", 0, "how long each client keeps its socket")
	interval := set.span("interval", 0, "pause between two clients")
	if err := set.parse(args); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: *port, Addr: [4]byte{127, 0, 0, 1}}
	begin := time.Now()
	done := 0
	for ; done < *count && pause(ctx, *interval); done++ {
		if err := sendUnbound(ctx, to, *hold); err != nil {
			return err
		}
	}
	return facts.summarize(model.UDP, done, begin)
}

// sendUnbound sends one datagram from a socket without bind: the kernel
// chooses the port, as for a DNS query.
func sendUnbound(ctx context.Context, to unix.Sockaddr, hold time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a udp socket: %w", err)
	}
	err = unix.Sendto(fd, []byte("query"), 0, to)
	if err == nil {
		pause(ctx, hold)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("send a datagram to loopback: %w", err)
	}
	return nil
}

func runConnectRefused(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("connect-refused")
	count := set.number("count", 100, 1, 10_000_000, "attempts, one after another")
	port := set.port("port", 1, 1, "port to connect to, on 127.0.0.1; nothing may listen there")
	if err := set.parse(args); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: *port, Addr: [4]byte{127, 0, 0, 1}}
	begin := time.Now()
	done := 0
	for ; done < *count && ctx.Err() == nil; done++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a tcp socket: %w", err)
		}
		connectErr := unix.Connect(fd, to)
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close a tcp socket: %w", err)
		}
		if !errors.Is(connectErr, unix.ECONNREFUSED) {
			return fmt.Errorf("connect to 127.0.0.1:%d: got %v, want it refused; choose a --port where nothing listens", *port, connectErr)
		}
	}
	return facts.summarize(model.TCP, done, begin)
}
