package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// gate accepts connections, and bounds how many there are: in all, and from one address. Where
// there are too many it closes the connection that has gone longest without a request in a
// handler: one that is idle, or sends its headers slowly.
//
// A connection for which nothing can be closed goes into the reserve, where only the reserved
// paths are served (see [reservedPath]), so that monitoring and health checks always succeed.
// Where the reserve is full of requests too, the gate closes the new connection.
type gate struct {
	net.Listener
	sendBuffer int // bytes that the kernel keeps for each connection
	most       int // connections, without the reserve
	perAddress int // of most
	reserve    int

	mutex sync.Mutex
	open  map[*conn]struct{}
	// ordinary are the connections outside the reserve, by address.
	ordinary map[netip.Addr]int
	count    int // of ordinary
}

// conn is a connection of a [gate].
type conn struct {
	net.Conn
	gate     *gate
	address  netip.Addr
	reserved bool
	closing  sync.Once

	// Guarded by gate.mutex.
	busy int       // requests in handlers; HTTP/2 has several
	idle time.Time // since when busy is 0
}

func newGate(l net.Listener, limits limits) *gate {
	return &gate{
		Listener: l, sendBuffer: limits.sendBuffer,
		most: limits.connections - limits.reserve, perAddress: limits.perAddress, reserve: limits.reserve,
		open: map[*conn]struct{}{}, ordinary: map[netip.Addr]int{},
	}
}

// Accept implements [net.Listener].
func (g *gate) Accept() (net.Conn, error) {
	for {
		accepted, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if tcp, ok := accepted.(*net.TCPConn); ok {
			// Without it a thousand slow readers could hold gigabytes in the kernel. A
			// connection that is closed by now fails at its first use.
			_ = tcp.SetWriteBuffer(g.sendBuffer)
		}
		c := &conn{Conn: accepted, gate: g, address: addressOf(accepted)}
		admitted, victim := g.admit(c)
		if victim != nil {
			victim.abort()
		}
		if admitted {
			return c, nil
		}
		accepted.Close()
	}
}

func addressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// admit counts a connection, or returns false. victim is a connection that has to be closed for
// it, or nil.
func (g *gate) admit(c *conn) (admitted bool, victim *conn) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	full, share := g.count >= g.most, g.ordinary[c.address] >= g.perAddress
	if full || share {
		victim = g.longestIdle(func(other *conn) bool {
			return !other.reserved && (!share || other.address == c.address)
		})
	}
	switch {
	case victim != nil || !full && !share:
	case len(g.open)-g.count < g.reserve:
		c.reserved = true
	default:
		victim = g.longestIdle(func(other *conn) bool { return other.reserved })
		if victim == nil {
			return false, nil
		}
		c.reserved = true
	}
	if victim != nil {
		g.remove(victim)
	}
	g.open[c] = struct{}{}
	if !c.reserved {
		g.count++
		g.ordinary[c.address]++
	}
	c.idle = time.Now()
	return true, victim
}

// longestIdle searches all connections, which happens only while there are too many.
func (g *gate) longestIdle(suits func(*conn) bool) (longest *conn) {
	for c := range g.open {
		if c.busy == 0 && suits(c) && (longest == nil || c.idle.Before(longest.idle)) {
			longest = c
		}
	}
	return longest
}

// remove uncounts a connection, unless it is already. The caller holds g.mutex.
func (g *gate) remove(c *conn) {
	if _, open := g.open[c]; !open {
		return
	}
	delete(g.open, c)
	if c.reserved {
		return
	}
	g.count--
	if g.ordinary[c.address]--; g.ordinary[c.address] == 0 {
		delete(g.ordinary, c.address)
	}
}

// Close implements [net.Conn].
func (c *conn) Close() (err error) {
	c.gate.mutex.Lock()
	c.gate.remove(c)
	c.gate.mutex.Unlock()
	c.closing.Do(func() { err = c.Conn.Close() })
	return err
}

// abort closes a connection without waiting for its request.
func (c *conn) abort() { _ = c.Close() } // the handler's next write fails

// enter marks the begin of a handler, leave its end.
func (c *conn) enter() {
	c.gate.mutex.Lock()
	defer c.gate.mutex.Unlock()
	c.busy++
}

func (c *conn) leave() {
	c.gate.mutex.Lock()
	defer c.gate.mutex.Unlock()
	c.busy--
	c.idle = time.Now()
}

type connKey struct{}

// withConn adds the connection to the context of its requests, as http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request; nil where it came through no gate.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// reservedPath reports whether a path has connections, slots and memory of its own.
func reservedPath(path string) bool {
	return path == "/metrics" || path == "/healthz" || path == "/readyz"
}
