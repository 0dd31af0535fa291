// Package health answers `portwatcher healthcheck` over a Unix socket: one connection,
// one line, no request. It does not decide whether the instance is ready.
//
// A name with a leading "@" is an abstract socket (unix(7)), which needs no writable
// file system and is visible in the whole network namespace. Serve and Check are safe
// for concurrent use.
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
	// A peer that does not read loses its answer.
	if conn.SetDeadline(time.Now().Add(timeout)) == nil {
		io.WriteString(conn, line+"\n")
	}
}

// Check returns nil if the instance behind the socket is ready; otherwise the error
// names what is not ready, or reports that no instance answers. It waits for an answer
// for 3 s at most.
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
