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

func runAcceptLoop(ctx context.Context, args []string, facts *recorder) error {
	set := newFlags("accept-loop")
	port := set.port("port", 20000, 0, "port of the server on 127.0.0.1; 0 lets the kernel choose")
	rate := set.number("rate", 1000, 1, 100_000, "connections a second, at most")
	length := set.span("for", 5*time.Second, "how long; 0 is until SIGTERM")
	if err := set.parse(args); err != nil {
		return err
	}
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(*port))
	server, err := openAndRecord(at, options{protocol: model.TCP}, facts)
	if server == nil {
		return err
	}
	if err == nil {
		begin := time.Now()
		var done int
		done, err = connectAndAccept(ctx, server, *rate)
		err = errors.Join(err, facts.summarize(model.TCP, done, begin))
	}
	return errors.Join(err, server.closeAndRecord(facts))
}

// connectAndAccept makes and takes connections at the rate, and returns how
// many. One loop plays both sides: the kernel completes a connection before it
// is accepted, so nothing blocks.
func connectAndAccept(ctx context.Context, server *socket, rate int) (int, error) {
	const step = 2 * time.Millisecond
	to := &unix.SockaddrInet4{Port: int(server.opened.Port), Addr: [4]byte{127, 0, 0, 1}}
	begin := time.Now()
	done := 0
	for pause(ctx, step) {
		due := int(time.Since(begin).Seconds() * float64(rate))
		// A machine that is too slow makes fewer connections.
		for burst := 0; done < due && burst < rate && ctx.Err() == nil; burst++ {
			if err := connectOnce(server.fd, to); err != nil {
				return done, err
			}
			done++
		}
	}
	return done, nil
}

// connectOnce makes one connection to the listener, takes it and drops it. The
// client closes with a reset, so that no TIME_WAIT is left to use ports up.
func connectOnce(listener int, to unix.Sockaddr) (err error) {
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a tcp socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(client)) }()
	if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("set SO_LINGER: %w", err)
	}
	if err := unix.Connect(client, to); err != nil {
		return fmt.Errorf("connect to the accept loop: %w", err)
	}
	accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept a connection: %w", err)
	}
	if err := unix.Close(accepted); err != nil {
		return fmt.Errorf("close an accepted connection: %w", err)
	}
	return nil
}
