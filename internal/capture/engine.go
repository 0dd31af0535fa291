package capture

import (
	"errors"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/procfs"
	"portwatcher/internal/source"
)

// errNoHostPIDNamespace means that no container's process is visible.
var errNoHostPIDNamespace = errors.New("no container's process is visible here: portwatcher needs the host's pid namespace (docker run --pid host; in Compose, pid: host)")

// takeContainer applies a change that the engine reported. An error ends the program.
func (c *Capture) takeContainer(o *source.ContainerChange) error {
	c.reportAway()
	switch o.Kind {
	case engine.Started, engine.Failed:
		c.add(o)
	case engine.Stopped, engine.Passed:
		c.finishContainer(o)
	case engine.Updated:
		c.update(o)
	case engine.Lost:
		c.link.lose(o.Change.Err)
		c.changed()
	case engine.Missed:
		c.takeMissed()
	case engine.Synced:
		return c.takeSynced()
	}
	return nil
}

// takeMissed applies that the engine may have reported the start and the end of containers
// that are not known. Where eBPF reports what they did, prunePending counts it.
func (c *Capture) takeMissed() {
	c.engineMissed = c.now
	if c.reader == nil {
		c.gap(nil, "the Docker Engine has forgotten some of its events, or was restarted: containers may have started and ended unseen", 0)
	}
}

func (c *Capture) takeSynced() error {
	if c.link.lost != nil {
		c.engineBack = c.now
	}
	c.link.connect()
	first := !c.synced
	c.synced = true
	c.changed()
	c.reportUnmatched()
	c.env.SearchInner()
	if first {
		if err := c.blind(); err != nil {
			return err
		}
		c.closeEnded()
		c.computeReachAgain()
		c.startJudging()
	}
	return nil
}

// blind returns an error where there are containers and the namespace of none could be
// identified. A missing process alone is no such error, because it may have just ended,
// unless the visible processes are not the host's.
func (c *Capture) blind() error {
	var why error
	for _, m := range c.containers {
		if m.IsHost() {
			continue
		}
		if m.namespace != nil {
			return nil
		}
		if m.unreachable == nil { // the engine does not describe it
			continue
		}
		if why == nil || errors.Is(why, errNoHostPIDNamespace) { // another reason explains more
			why = m.unreachable
		}
	}
	if errors.Is(why, errNoHostPIDNamespace) && procfs.HostProcesses(c.options.ProcRoot) {
		return nil
	}
	return why
}

// reportUnmatched logs each entry of the selection that matches no container, one time.
func (c *Capture) reportUnmatched() {
	if c.tuning.Selection.Empty() {
		return
	}
	all := make([]*model.ContainerRef, 0, len(c.containers))
	for _, m := range c.containers {
		if !m.IsHost() {
			all = append(all, m.Ref())
		}
	}
	for _, entry := range c.tuning.Selection.Unmatched(all) {
		switch {
		case !c.env.Notices.First("unmatched " + entry):
		case c.single:
			c.log.Warnf("No running container matches %q.", entry)
		default:
			c.log.Warnf("No running container matches %q yet; portwatcher waits for it.", entry)
		}
	}
}

// takeEngineInfo applies the engine's information about itself.
func (c *Capture) takeEngineInfo(o source.EngineInfo) {
	c.link.name, c.link.version = o.Name, o.Version
	if c.hostName == "" {
		c.hostName = o.Name
	}
	c.changed()
}

// link is the connection to the engine.
type link struct {
	lost       error // why the engine cannot be reached, nil while it can
	since      time.Time
	connected  bool // it was connected before
	reconnects uint64
	name       string
	version    string
}

func (l *link) lose(why error) {
	if l.lost == nil {
		l.since = time.Now()
	}
	l.lost = why
}

func (l *link) connect() {
	if l.lost == nil {
		return
	}
	if l.connected {
		l.reconnects++
	}
	l.lost, l.connected, l.since = nil, true, time.Now()
}
