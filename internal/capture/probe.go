package capture

import (
	"fmt"

	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// startProbe opens the probe before anything is watched, so that no opening is missed. It
// returns an error in mode [source.EBPF] only.
func (c *Capture) startProbe() (source.Probe, error) {
	mode := c.options.Mode
	if c.options.OpenProbe == nil || mode != source.Auto && mode != source.EBPF {
		c.log.WithField("source", mode).Info("eBPF is not used.")
		return nil, nil
	}
	p, err := c.options.OpenProbe()
	if err != nil && mode == source.EBPF {
		return nil, fmt.Errorf("--source ebpf: %w", err)
	}
	if err != nil {
		c.log.WithError(err).Info("eBPF is not used; sock_diag and its notifications are: the processes of short-lived ports stay unknown.")
		return nil, nil
	}
	c.log.Info("eBPF reports each opening and closing; a scan by sock_diag reconciles from time to time.")
	return p, nil
}

// takeLoss reports what eBPF could neither record nor count, and requests scans of all
// namespaces.
func (c *Capture) takeLoss(o source.Loss) {
	c.lossAt = c.now
	c.counts.overruns++
	c.gap(nil, "socket events were lost: there was no room left to record or to count them; all namespaces are scanned again", o.Count)
	c.scanAll()
}

// takeProbeState begins or ends the use of eBPF.
func (c *Capture) takeProbeState(o source.ProbeState) {
	if o.Reader == nil {
		c.endReader()
		c.log.WithError(o.Err).Warn("eBPF has stopped working; portwatcher uses sock_diag until it is back.")
		c.gap(nil, "eBPF has stopped working; portwatcher uses sock_diag", 0)
	} else if c.counts.probes++; c.counts.probes > 1 {
		c.log.Info("eBPF works again.")
	}
	c.reader, c.hostCookie = o.Reader, o.HostCookie
	c.pending.dropAll() // no namespace's number is known without eBPF
	c.applySettings()
	c.retuneAll()
	c.changed()
}

// kernelStats returns the sums of all eBPF readers.
func (c *Capture) kernelStats() probe.Stats {
	k := c.counts.kernel
	if c.reader != nil {
		s := c.reader.Stats()
		k.Opened += s.Opened
		k.Closed += s.Closed
		k.CountedOpened += s.CountedOpened
		k.CountedClosed += s.CountedClosed
		k.Missed += s.Missed
		k.Lost += s.Lost
	}
	return k
}

// endReader keeps the sums of the reader, which has ended.
func (c *Capture) endReader() { c.counts.kernel, c.reader = c.kernelStats(), nil }
