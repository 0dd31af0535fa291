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

// ErrTimeout says that nothing matched in time.
var ErrTimeout = errors.New("no open port matched in time")

// waitPause is the time before a server that does not answer is asked again.
const waitPause = 250 * time.Millisecond

// Wait returns the open endpoints that match the query as soon as there is one.
// After timeout it returns [ErrTimeout]; with a timeout of 0 it looks once. A
// server that cannot be reached or is not able to answer is asked again until
// then, since it may be starting; ErrTimeout comes with the reason in that case.
func (c *Client) Wait(ctx context.Context, query url.Values, timeout time.Duration) (*api.Ports, error) {
	deadline := time.Now().Add(timeout)
	query = maps.Clone(query)
	if query == nil {
		query = url.Values{}
	}
	for {
		turn := max(0, min(time.Until(deadline), c.timing.waitTurn))
		query.Set("wait", turn.Round(time.Millisecond).String())
		ports, err := get[api.Ports](ctx, c, api.PathPorts, query, turn+requestTimeout)
		if err == nil {
			return ports, nil
		}
		var problem *api.Problem
		timedOut := errors.As(err, &problem) && problem.Status == http.StatusRequestTimeout
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("wait for a port: %w", ctx.Err())
		case isFinal(err):
			return nil, err
		case time.Until(deadline) > waitPause:
			if !timedOut && !clock.Sleep(ctx, waitPause) {
				return nil, fmt.Errorf("wait for a port: %w", ctx.Err())
			}
		case timedOut:
			return nil, fmt.Errorf("%w: waited %s", ErrTimeout, timeout)
		default:
			return nil, fmt.Errorf("%w: waited %s: %w", ErrTimeout, timeout, err)
		}
	}
}
