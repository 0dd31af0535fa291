// Package health lets `portwatcher healthcheck` ask a running instance whether
// it is ready, over a Unix socket: one connection, one line, no request.
//
// A name with a leading "@" is an abstract socket (unix(7)), which needs no
// writable file system and is shared by all that is in the same network
// namespace, as a health check is.
package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	ready   = "ready"
	timeout = 3 * time.Second
)

func answer(conn net.Conn, state error) {
	defer conn.Close()
	line := ready
	if state != nil {
		line = strings.ReplaceAll(state.Error(), "\n", "; ")
	}
	// A peer that does not read loses its answer; nobody else is concerned.
	if conn.SetDeadline(time.Now().Add(timeout)) == nil {
		io.WriteString(conn, line+"\n")
	}
}

// Check asks the instance behind the socket. It returns nil if that is ready;
// otherwise the error names what is not ready, or reports that nobody answers.
// It waits for an answer for 3 s at most.
func Check(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return fmt.Errorf("no running instance answers at %s: %w", address, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("health socket %s: %w", address, err)
	}
	line, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	if err != nil {
		return fmt.Errorf("health socket %s: %w", address, err)
	}
	if answer := strings.TrimSpace(string(line)); answer != ready {
		return fmt.Errorf("not ready: %s", answer)
	}
	return nil
}
