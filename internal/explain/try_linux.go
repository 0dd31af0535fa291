package explain

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"portwatcher/internal/firewall"
	"portwatcher/internal/model"
	"portwatcher/internal/netns"
)

const (
	// connectTime is how long a try waits for an answer.
	connectTime = 2 * time.Second
	// holdTime is how long an established connection is watched: one that ends sooner was
	// not wanted.
	holdTime = 300 * time.Millisecond
)

// place is a network namespace whose firewall packets may pass.
type place struct {
	name string
	*netns.Handle
}

// try connects from a namespace to each address, one after another, and finds out which rules
// of the firewalls in places drop or reject the packets. The error is that of entering the
// namespace.
func (g *gathering) try(ctx context.Context, from *netns.Handle, to []netip.AddrPort, places ...place) (tries []Try, err error) {
	for _, address := range to {
		before := make([]firewall.Rules, len(places))
		for i, p := range places {
			before[i], _ = firewall.Read(p.FD()) // what cannot be read is not compared
		}
		one := Try{To: address}
		err := from.Do(func() error {
			if g.Protocol == model.UDP {
				one.Result = send(ctx, address)
			} else {
				one.Result = connect(ctx, address)
			}
			return nil
		})
		if err != nil {
			return tries, err
		}
		if one.Result != Accepted {
			one.compare(places, before)
		}
		tries = append(tries, one)
	}
	// Where another address has a route, this namespace does not use that family.
	if slices.ContainsFunc(tries, func(t Try) bool { return t.Result != NoRoute }) {
		tries = slices.DeleteFunc(tries, func(t Try) bool { return t.Result == NoRoute })
	}
	return tries, nil
}

// compare sets the rules that were applied since the places were read.
func (t *Try) compare(places []place, before []firewall.Rules) {
	for i, p := range places {
		now, _ := firewall.Read(p.FD())
		for _, rule := range now.Moved(&before[i]) {
			t.Blocked = append(t.Blocked, Blocked{rule, p.name})
		}
		for _, policy := range now.Policies {
			t.Policies = append(t.Policies, policy.String()+" of "+p.name)
		}
	}
}

// sendTime is how long an answer to a datagram is waited for.
const sendTime = time.Second

// send sends an empty datagram from the namespace of the calling thread.
func send(ctx context.Context, to netip.AddrPort) Result {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "udp", to.String())
	if err != nil {
		return NoRoute
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(sendTime)); err != nil {
		return NoRoute
	}
	if _, err = connection.Write(nil); err == nil {
		_, err = connection.Read(make([]byte, 1))
	}
	switch {
	case err == nil:
		return Accepted
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Silent
	}
	return NoRoute
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
