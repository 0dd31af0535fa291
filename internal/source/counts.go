package source

import (
	"context"
	"errors"
	"fmt"
	"os"

	"portwatcher/internal/attribute"
	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
)

// counted reports whether the kernel has counted anything since the last reading.
func (r *Reader) counted() bool {
	return sum(r.probe.Stats()) != r.taken.Load()
}

func sum(s probe.Stats) uint64 { return s.CountedOpened + s.CountedClosed + s.Missed + s.Lost }

// open reports whether sockets are open whose opening the kernel counted: it counts their
// closings too, and writes no record of them that would wake the reader.
func (r *Reader) open() bool {
	s := r.probe.Stats()
	return s.CountedOpened > s.CountedClosed+s.Lost
}

// count reads what the kernel counted, until ctx ends: on request, otherwise in intervals
// while the kernel counts, or while sockets are open that it has counted. With a burst limit
// the kernel may begin to count after the last record of a second: a reading follows that
// second.
func (r *Reader) count(ctx context.Context) error {
	c := counter{Reader: r, cgroups: &CgroupPaths{}, processes: attribute.NewCache(r.env.Finder)}
	due := clock.StoppedTimer()
	defer due.Stop()
	set := false
	for {
		var done chan struct{}
		take, recorded := false, false
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
			set, take = false, true
		case done = <-r.counts:
			take, recorded = done != nil, true
		}
		if take {
			if err := c.take(); err != nil {
				return err
			}
		}
		if done != nil {
			close(done)
		}
		switch {
		case set:
		case r.counted():
			set = true
			due.Reset(countInterval)
		case recorded && r.limited.Load(), r.open():
			set = true
			due.Reset(limitInterval)
		}
	}
}

// counter is the state of the counting goroutine.
type counter struct {
	*Reader
	last      probe.Stats // of the last reading
	list      []probe.Count
	cgroups   *CgroupPaths
	processes *attribute.Cache
}

// take sends what was counted and lost since the last reading. A closed probe has nothing
// more.
func (c *counter) take() (err error) {
	s := c.probe.Stats()
	if s.CountedOpened != c.last.CountedOpened || s.CountedClosed != c.last.CountedClosed || s.Missed != c.last.Missed {
		c.list, err = c.probe.Counts(c.list[:0])
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read what eBPF counted: %w", err)
		}
		counts := &Counts{}
		for i := range c.list {
			one := &c.list[i]
			c.cgroups = c.env.addPaths(c.cgroups, one.Cgroup, one.TaskCgroup)
			counts.List = append(counts.List, Count{Count: *one, Processes: countedProcesses(c.processes, one)})
		}
		counts.Cgroups = c.cgroups
		if len(counts.List) > 0 {
			c.env.send(counts)
		}
	}
	if s.Lost != c.last.Lost {
		c.env.send(Loss{s.Lost - c.last.Lost})
	}
	c.last = s
	c.Reader.taken.Store(sum(s))
	return nil
}

func countedProcesses(cache *attribute.Cache, c *probe.Count) []model.Process {
	if c.PID == 0 {
		return nil
	}
	return cache.Describe(c.PID, c.Name)
}
