package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// holderCommand is the argument that makes this program the holder of the
// sockets that are scanned.
const holderCommand = "internal-scan-holder"

// holderReady is written to standard output when all is open.
const holderReady = "ready"

// The ports lie below those that the kernel chooses for clients.
const (
	firstTCP = 8001
	firstUDP = 9001
)

// holdSockets opens the sockets and keeps them until its standard input ends.
func holdSockets(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s is started by the scan benchmark alone", holderCommand)
	}
	connections, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	descriptors := uint64(2*connections + 1000)
	if err := allowDescriptors(descriptors); err != nil {
		return err
	}
	server, err := openSockets()
	if err != nil {
		return err
	}
	if err := connect(server, connections); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString(holderReady); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func allowDescriptors(needed uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur >= needed {
		return nil
	}
	limit.Cur, limit.Max = needed, max(limit.Max, needed)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("allow %d open files: %w", needed, err)
	}
	return nil
}

// openSockets opens listeners and UDP sockets on addresses of all kinds, and
// returns the listener for the connections. They stay open as long as the
// process lives: nothing closes them.
func openSockets() (net.Listener, error) {
	addresses := []string{"127.0.0.1", "0.0.0.0", "[::]", "[::1]"}
	var config net.ListenConfig
	// MPTCP makes a second kernel socket for each listener.
	config.SetMultipathTCP(false)
	var server net.Listener
	for i := range scanTCP {
		listener, err := config.Listen(context.Background(), "tcp", fmt.Sprint(addresses[i%len(addresses)], ":", firstTCP+i))
		if err != nil {
			return nil, err
		}
		held = append(held, listener)
		if i == 0 {
			server = listener
		}
	}
	for i := range scanUDP {
		packets, err := config.ListenPacket(context.Background(), "udp", fmt.Sprint(addresses[i%len(addresses)], ":", firstUDP+i))
		if err != nil {
			return nil, err
		}
		held = append(held, packets)
	}
	return server, nil
}

// held keeps sockets from the garbage collector, which would close them.
var held []io.Closer

// connect establishes connections to the server, and keeps both ends.
func connect(server net.Listener, connections int) error {
	for range connections {
		client, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			return err
		}
		accepted, err := server.Accept()
		if err != nil {
			return err
		}
		held = append(held, client, accepted)
	}
	return nil
}
