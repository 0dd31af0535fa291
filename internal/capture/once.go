package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"portwatcher/internal/clock"
	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// parallelScans bounds how many namespaces Once reads at a time.
const parallelScans = 8

// infoTime is how long Once waits for what the engine reports about itself.
const infoTime = 2 * time.Second

// noticeTime is how long an engine may take to notice that a container's process has
// ended.
const noticeTime = 2 * time.Second

// Once reads everything one time and returns what is open now. Where a part could not be
// read, it returns the rest together with an error that names it. Nothing runs when it
// returns.
func (c *Capture) Once(ctx context.Context) ([]model.Open, error) {
	defer close(c.over)
	c.single = true
	containers, listError := c.options.Engine.List(ctx)
	if listError != nil && len(containers) == 0 {
		return nil, listError
	}
	c.askInfo(ctx)
	for _, container := range containers {
		c.add(c.engine.Inspect(engine.Change{Kind: engine.Started, Container: container, Time: time.Now()}))
	}
	c.reportUnmatched()
	if err := c.blind(); err != nil {
		return nil, err
	}
	if err := c.reportAbsent(ctx); err != nil {
		return nil, err
	}
	failures, err := c.scanOnce(ctx)
	if err != nil {
		return nil, err
	}
	c.changed()
	c.buildView()
	return c.views.latest.Load().Open, errors.Join(append(append(failures, c.strangers()...), listError)...)
}

func (c *Capture) askInfo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	if info, err := c.options.Engine.Info(ctx); err == nil {
		c.takeEngineInfo(source.EngineInfo{Info: info})
	} else {
		c.log.WithError(err).Debug("The engine does not answer with its host's name.")
	}
}

// scanOnce reads every namespace that has a monitored container. The error is that of
// ctx.
func (c *Capture) scanOnce(ctx context.Context) ([]error, error) {
	var wanted []*namespace
	for _, n := range c.namespaces {
		if n.monitored() {
			wanted = append(wanted, n)
		}
	}
	snapshots, failures := make([]source.Scan, len(wanted)), make([]error, len(wanted))
	var scans errgroup.Group
	scans.SetLimit(parallelScans)
	for i, n := range wanted {
		scans.Go(func() error {
			var err error
			if snapshots[i], err = source.ScanOnce(c.env, n.id); err != nil {
				failures[i] = fmt.Errorf("ports of %s: %w", n.names(), err)
			}
			return ctx.Err()
		})
	}
	if err := scans.Wait(); err != nil {
		return nil, err
	}
	c.now = clock.Now()
	for i, n := range wanted {
		if failures[i] == nil {
			c.settleOwners(&snapshots[i], n)
			c.publish(c.tracker.Snapshot(c.changes[:0], n.id, snapshots[i].Snapshot))
		}
	}
	return failures, nil
}

// strangers returns, for each monitored container whose process cannot be watched, why.
// One that has ended is none of them.
func (c *Capture) strangers() []error {
	var all []error
	for _, m := range c.containers {
		if m.unreachable != nil && !errors.Is(m.unreachable, ErrNoHostPIDNamespace) && c.wanted(m.Container) {
			all = append(all, fmt.Errorf("ports of %s: %w", m.Name, m.unreachable))
		}
	}
	slices.SortFunc(all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return all
}

// reportAbsent warns of the monitored containers whose process is not there, while the
// engine goes on to list them: it has not noticed their end, or is elsewhere.
func (c *Capture) reportAbsent(ctx context.Context) error {
	absent := map[string]*member{}
	for id, m := range c.containers {
		if errors.Is(m.unreachable, ErrNoHostPIDNamespace) && c.wanted(m.Container) {
			absent[id] = m
		}
	}
	for until := time.Now().Add(noticeTime); len(absent) > 0 && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(noticeTime / 20):
		}
		all, err := c.options.Engine.List(ctx)
		if err != nil && len(all) == 0 {
			return err
		}
		listed := map[string]int{}
		for _, container := range all {
			listed[container.ID] = container.PID
		}
		maps.DeleteFunc(absent, func(id string, m *member) bool { return listed[id] != m.PID })
	}
	for _, m := range absent {
		c.log.WithField("container", m.Name).Warnf("The engine at %s goes on to list the container, but its process %d is not there: it has just ended, or that engine is not on this machine.",
			c.options.EngineAddress, m.PID)
	}
	return nil
}
