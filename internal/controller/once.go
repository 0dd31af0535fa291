package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"portwatcher/internal/port"
)

// parallelScans bounds how many namespaces Once reads at a time.
const parallelScans = 8

// Once looks one time and returns what is open now. Where a part could not be
// read, it returns the rest together with an error that names it.
func (c *Controller) Once(ctx context.Context) ([]port.Open, error) {
	containers, listError := c.Engine.List(ctx)
	if listError != nil && len(containers) == 0 {
		return nil, listError
	}
	c.learnHostName(ctx)
	watchers := c.addAll(containers)
	if err := c.blind(); err != nil {
		return nil, err
	}
	if err := c.tellAbsent(ctx); err != nil {
		return nil, err
	}
	failures := make([]error, len(watchers))
	var scans errgroup.Group
	scans.SetLimit(parallelScans)
	for i, w := range watchers {
		scans.Go(func() error {
			if err := w.look(); err != nil {
				failures[i] = fmt.Errorf("ports of %s: %w", w.group.names(), err)
			}
			return ctx.Err()
		})
	}
	if err := scans.Wait(); err != nil {
		return nil, err
	}
	return c.Open(), errors.Join(append(append(failures, c.strangers()...), listError)...)
}

// strangers returns, for each monitored container whose process cannot be
// watched, why. One that has ended is none of them.
func (c *Controller) strangers() []error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	var all []error
	for _, m := range c.containers {
		if m.unreachable != nil && !errors.Is(m.unreachable, ErrNoHostPIDNamespace) && c.Monitored(m.Container) {
			all = append(all, fmt.Errorf("ports of %s: %w", m.Name, m.unreachable))
		}
	}
	slices.SortFunc(all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return all
}

// addAll takes containers in, with a watcher that is not running for each
// namespace that has a monitored one.
func (c *Controller) addAll(containers []*port.Container) []*watcher {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.still = true
	for _, container := range containers {
		c.add(context.Background(), container)
	}
	c.tellUnmatched()
	var watchers []*watcher
	for _, g := range c.groups {
		if g.watcher != nil {
			watchers = append(watchers, g.watcher)
		}
	}
	return watchers
}

// look scans one time.
func (w *watcher) look() (err error) {
	for range 2 { // once more through /proc where sock_diag fails
		if w.session, err = w.open(context.Background(), false, w.c.Tuning); err == nil {
			err = w.scan()
			w.session.close()
		}
		if err == nil || !w.fallBack(err) {
			break
		}
	}
	return err
}

func compareListeners(a, b *port.Listener) int {
	return cmp.Or(
		cmp.Compare(a.Container.Name, b.Container.Name),
		cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Protocol, b.Protocol),
		a.Address.Compare(b.Address),
	)
}
