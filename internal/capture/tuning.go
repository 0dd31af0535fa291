package capture

import (
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/source"
)

// Tuning are the settings that may change while the capture runs. Its functions are
// called by the capture's goroutine; they must not block.
type Tuning struct {
	// Selection selects the containers that are watched. Entries that match none are logged.
	Selection model.Selection
	// Enabled reports whether a selected container is watched; nil is always.
	Enabled func(*model.Container) bool
	// Reported returns whether a port is reported; nil is all. The container is nil where it
	// is not known.
	Reported     func(*model.Container, model.Protocol, uint16) bool
	ScanInterval time.Duration
	// BurstScans is how many scans make one, BurstDelay the time between them.
	BurstScans int
	BurstDelay time.Duration
	CloseGrace time.Duration
	UDPClients bool
	// BurstLimit is how many openings and closings a second of one container are events of
	// their own; the rest is counted. 0 is no limit.
	BurstLimit int
	// Buffers bounds the sum of the receive buffers of all namespaces' destroy
	// notifications, in bytes; 0 is defaultBuffers.
	Buffers int
}

const (
	// defaultBuffers bounds the receive buffers where Tuning.Buffers is 0.
	defaultBuffers = 256 << 20
	// maxBuffer bounds the receive buffer of one namespace, in bytes.
	maxBuffer = 64 << 20
)

// Tune changes the settings of a running capture, and returns before they take effect. The
// capture forgets what is not reported any more without an event, except a gap for each
// container that is not monitored any more; what is reported from now on is opened.
func (c *Capture) Tune(t Tuning) {
	select {
	case <-c.tunings:
	default:
	}
	c.tunings <- t
}

func (c *Capture) tune(t Tuning) {
	old := c.tuning
	c.tuning = t
	c.tracker.SetGrace(t.CloseGrace)
	c.applySettings()
	c.chooseAll()
	c.drop("", func(e model.Endpoint) bool {
		return !c.reported(c.find(e.Container), e.Protocol, e.Port)
	})
	for _, n := range c.namespaces {
		c.reconsider(n)
	}
	if old.ScanInterval != t.ScanInterval || old.BurstScans != t.BurstScans || old.BurstDelay != t.BurstDelay || old.UDPClients != t.UDPClients {
		c.retuneAll()
	} else {
		c.scanAll()
	}
	c.reportUnmatched()
	c.changed()
	c.needJudging("")
	c.keepState()
}

// applySettings replaces the settings of the sources.
func (c *Capture) applySettings() {
	t := &c.tuning
	c.env.Settings.Store(&source.Settings{
		ScanInterval: t.ScanInterval, BurstScans: t.BurstScans, BurstDelay: t.BurstDelay, UDPClients: t.UDPClients,
		Exact: c.reader != nil, Buffer: c.buffer(),
	})
	if c.reader == nil {
		return
	}
	if err := c.reader.Configure(t.BurstLimit, t.UDPClients); err != nil {
		c.log.WithError(err).Warn("The settings of eBPF cannot be changed.")
	}
}

func (c *Capture) buffer() int {
	total := c.tuning.Buffers
	if total <= 0 {
		total = defaultBuffers
	}
	return min(total/max(c.buffers, 1), maxBuffer)
}

// shareBuffers divides the receive buffers again where the number of namespaces exceeds
// the number for which they were divided, or has fallen to a quarter of it.
func (c *Capture) shareBuffers() {
	watched := 0
	for range c.watchedNamespaces() {
		watched++
	}
	if watched <= c.buffers && watched > c.buffers/4 {
		return
	}
	before := c.buffer()
	c.buffers = 1
	for c.buffers < watched {
		c.buffers *= 2
	}
	if c.buffer() == before {
		return
	}
	c.applySettings()
	if c.reader == nil {
		c.retuneAll()
	}
}

func (c *Capture) retuneAll() {
	for n := range c.watchedNamespaces() {
		n.watcher.Retune()
	}
}

func (c *Capture) selected(container *model.Container) bool {
	return container.IsHost() || c.tuning.Selection.Matches(container.Ref(), c.named) && (c.tuning.Enabled == nil || c.tuning.Enabled(container))
}

func (c *Capture) named(name string) bool {
	for _, m := range c.containers {
		if m.Name == name {
			return true
		}
	}
	return false
}

// chooseAgain applies the selection to all containers where it depends on whether one of
// this name runs.
func (c *Capture) chooseAgain(name string) {
	if c.tuning.Selection.DependsOn(name) {
		c.chooseAll()
	}
}

func (c *Capture) chooseAll() {
	for _, m := range c.containers {
		c.choose(m, m.Container)
	}
}

func (c *Capture) reported(container *model.Container, p model.Protocol, number uint16) bool {
	return c.tuning.Reported == nil || c.tuning.Reported(container, p, number)
}
