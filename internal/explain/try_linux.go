package explain

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/netns"
)

const (
	// connectTime is how long a try waits for an answer.
	connectTime = 2 * time.Second
	// holdTime is how long an established connection is watched: one that ends sooner was
	// not wanted.
	holdTime = 300 * time.Millisecond
)

// try connects from a namespace to each address, one after another. The error is that of
// entering the namespace.
func try(ctx context.Context, from *netns.Handle, to []netip.AddrPort) (tries []Try, err error) {
	for _, address := range to {
		one := Try{To: address}
		err := from.Do(func() error {
			one.Result = connect(ctx, address)
			return nil
		})
		if err != nil {
			return tries, err
		}
		tries = append(tries, one)
	}
	return tries, nil
}

// connect connects from the namespace of the calling thread. It sends nothing.
func connect(ctx context.Context, to netip.AddrPort) Result {
	dialer := net.Dialer{Timeout: connectTime}
	connection, err := dialer.DialContext(ctx, "tcp", to.String())
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return Refused
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EADDRNOTAVAIL):
		return NoRoute
	case err != nil: // EHOSTUNREACH too: the neighbour does not answer
		return NoAnswer
	}
	defer connection.Close()
	if err := connection.SetReadDeadline(time.Now().Add(holdTime)); err != nil {
		return NoAnswer
	}
	_, err = connection.Read(make([]byte, 1))
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return Accepted
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return Dropped
	}
	return NoAnswer
}
