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

const parallelScans = 8

// infoTime is how long List waits for the engine's information about itself.
const infoTime = 2 * time.Second

// noticeTime is how long an engine may list a container whose process has ended.
const noticeTime = 2 * time.Second

// List reads every selected namespace one time, and returns what is open now. Where a part
// could not be read, it returns the rest and an error that names the part. No goroutine
// of the capture runs when it returns.
func (c *Capture) List(ctx context.Context) ([]model.Open, error) {
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
	if c.options.Host {
		host, err := c.engine.InspectHost()
		if err != nil {
			return nil, err
		}
		c.add(host)
	}
	c.reportUnmatched()
	if err := c.blind(); err != nil {
		return nil, err
	}
	if err := c.reportAbsent(ctx); err != nil {
		return nil, err
	}
	if inner, err := c.env.FindInner(); err == nil {
		c.now = clock.Now()
		c.takeInner(inner)
	} else {
		c.log.WithError(err).Warn("Network namespaces that containers make themselves cannot be found.")
	}
	failures, err := c.scanNamespaces(ctx)
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

// scanNamespaces reads every namespace that has a monitored container. The errors are those
// of the namespaces, and that of ctx.
func (c *Capture) scanNamespaces(ctx context.Context) ([]error, error) {
	var monitored []*namespace
	for _, n := range c.namespaces {
		if n.monitored() {
			monitored = append(monitored, n)
		}
	}
	snapshots, failures := make([]source.Scan, len(monitored)), make([]error, len(monitored))
	var scans errgroup.Group
	scans.SetLimit(parallelScans)
	for i, n := range monitored {
		scans.Go(func() error {
			var err error
			if snapshots[i], err = source.ScanNamespace(c.env, n.id); err != nil {
				failures[i] = fmt.Errorf("ports of %s: %w", n.names(), err)
			}
			return ctx.Err()
		})
	}
	if err := scans.Wait(); err != nil {
		return nil, err
	}
	c.now = clock.Now()
	for i, n := range monitored {
		if failures[i] == nil {
			c.settleOwners(&snapshots[i], n)
			c.publish(c.tracker.Snapshot(c.changes[:0], n.id, snapshots[i].Snapshot))
		}
	}
	return failures, nil
}

// strangers returns an error for each selected container whose process cannot be watched,
// unless that has ended.
func (c *Capture) strangers() []error {
	var all []error
	for _, m := range c.containers {
		if m.unreachable != nil && !errors.Is(m.unreachable, errNoHostPIDNamespace) && c.selected(m.Container) {
			all = append(all, fmt.Errorf("ports of %s: %w", m.Name, m.unreachable))
		}
	}
	slices.SortFunc(all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return all
}

// reportAbsent warns of the selected containers that the engine lists for noticeTime
// although their process is not visible.
func (c *Capture) reportAbsent(ctx context.Context) error {
	absent := map[string]*member{}
	for id, m := range c.containers {
		if errors.Is(m.unreachable, errNoHostPIDNamespace) && c.selected(m.Container) {
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
		c.log.WithField("container", m.Name).Warnf("The engine at %s lists the container, but its process %d is not visible here: it has just ended, or that engine is not on this machine.",
			c.options.EngineAddress, m.PID)
	}
	return nil
}
