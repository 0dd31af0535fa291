package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/server/api"
)

// ErrTimeout means that nothing matched in time.
var ErrTimeout = errors.New("no open port matched in time")

// maxWaitPause bounds the pause before a server that does not answer is asked again.
const maxWaitPause = time.Second

// Wait returns the open endpoints that match the query as soon as there is one, or as many
// containers have one as its parameter count asks for. After timeout
// it returns [ErrTimeout]; with a timeout of 0 it asks once. A server that cannot be reached or
// cannot answer may be starting: Wait asks it again, and at the timeout the error wraps the
// reason too.
func (c *Client) Wait(ctx context.Context, query url.Values, timeout time.Duration) (*api.Ports, error) {
	deadline := time.Now().Add(timeout)
	query = maps.Clone(query)
	if query == nil {
		query = url.Values{}
	}
	pauses := c.timing.backOff()
	pauses.MaxInterval = maxWaitPause
	for {
		turn := max(0, min(time.Until(deadline), c.timing.waitTurn))
		query.Set("wait", turn.Round(time.Millisecond).String())
		ports, err := get[api.Ports](ctx, c, api.PathPorts, query, turn+requestTimeout)
		if err == nil {
			return ports, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for a port: %w", ctx.Err())
		}
		if isFinal(err) {
			return nil, err
		}
		var problem *api.Problem
		timedOut := errors.As(err, &problem) && problem.Status == http.StatusRequestTimeout
		pause := pauses.NextBackOff()
		if timedOut {
			pause = 0
			pauses.Reset()
		}
		switch {
		case time.Until(deadline) > pause:
			if !clock.Sleep(ctx, pause) {
				return nil, fmt.Errorf("wait for a port: %w", ctx.Err())
			}
		case timedOut:
			return nil, fmt.Errorf("%w: waited %s", ErrTimeout, timeout)
		default:
			return nil, fmt.Errorf("%w: waited %s: %w", ErrTimeout, timeout, err)
		}
	}
}
