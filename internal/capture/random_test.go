package capture

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// history is a random one: containers come and go, monitored or not, open and close
// ports, and eBPF records, counts or loses that, while the sinks are slow now and then.
type history struct {
	*rig
	random  *rand.Rand
	kernel  *stubProbe
	slow    *consumer
	running map[string]uint64 // inode by name
	open    map[string][]model.Socket
	truth   map[string]uint64 // openings and closings that eBPF has recorded or counted
}

// TestBalance plays random histories and checks that all stages balance, and that no
// container's events are more or less than what happened.
func TestBalance(t *testing.T) {
	for run := range uint64(20) {
		seed := uint64(time.Now().UnixNano()) + run
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			slow := newConsumer("slow")
			r := newRig(t, func(o *Options) {
				o.Sinks = append(o.Sinks, slow.sink())
				o.Tuning.BurstLimit = int(run%3) * 20
				o.Tuning.CloseGrace = time.Duration(run%2) * time.Hour
			})
			h := &history{
				rig: r, random: rand.New(rand.NewPCG(seed, 0)), kernel: r.probed(), slow: slow,
				running: map[string]uint64{}, open: map[string][]model.Socket{}, truth: map[string]uint64{},
			}
			r.synced()
			for range 2000 {
				h.step()
				if h.random.IntN(100) == 0 {
					h.check()
				}
			}
			h.end()
		})
	}
}

func (h *history) step() {
	name := fmt.Sprint("box", h.random.IntN(8))
	c := container(name)
	if name == "box0" {
		c.Labels = map[string]string{"watch": "no"}
	}
	inode, runs := h.running[name]
	if !runs {
		inode = uint64(h.random.IntN(1000)*10) + uint64(name[3]-'0') // its next namespace
	}
	switch h.random.IntN(20) {
	case 0:
		if !runs {
			h.running[name] = inode
			h.change(engine.Started, c, inode)
			if n := h.namespaces[model.Namespace{Inode: inode}]; n.watcher != nil {
				h.rig.open(inode)
			}
		}
	case 1:
		if runs {
			h.stop(name, c)
		}
	case 2:
		h.flushBursts()
	case 3:
		h.out.set(h.random.IntN(6) == 0, h.random.IntN(2) == 0)
		h.slow.set(h.random.IntN(3) == 0, h.random.IntN(2) == 0)
	case 4:
		lost := uint64(h.random.IntN(5) + 1)
		h.kernel.add(func(s *probe.Stats) { s.Lost += lost })
		h.do(source.Loss{Count: lost})
	case 5:
		h.expire()
		h.keepState()
	case 6:
		h.prunePending()
	case 7, 8:
		if runs {
			h.storm(name, c, inode)
		}
	default:
		if runs {
			h.fact(name, c, inode)
		}
	}
}

// stop ends a container, which closes what it has open.
func (h *history) stop(name string, c *model.Container) {
	h.change(engine.Stopped, c, 0)
	h.truth[c.ID] += uint64(len(h.open[name]))
	delete(h.running, name)
	delete(h.open, name)
}

// fact opens a port, or closes one.
func (h *history) fact(name string, c *model.Container, inode uint64) {
	open := h.open[name]
	if len(open) > 0 && h.random.IntN(2) == 0 {
		i := h.random.IntN(len(open))
		h.kernel.add(func(s *probe.Stats) { s.Closed++ })
		h.facts(h.of(c, h.rig.fact(probe.Closed, inode, open[i])))
		h.open[name] = append(open[:i], open[i+1:]...)
	} else {
		s := h.socket(uint16(1000 + h.cookie%50000))
		h.kernel.add(func(s *probe.Stats) { s.Opened++ })
		h.facts(h.of(c, h.rig.fact(probe.Opened, inode, s)))
		h.open[name] = append(open, s)
	}
	h.truth[c.ID]++
}

// storm is counted.
func (h *history) storm(name string, c *model.Container, inode uint64) {
	n := uint64(h.random.IntN(100) + 1)
	h.kernel.add(func(s *probe.Stats) { s.CountedOpened, s.CountedClosed = s.CountedOpened+n, s.CountedClosed+n })
	h.counted(h.countOf(c, inode, uint16(60000+h.random.IntN(10)), n, n))
	h.truth[c.ID] += 2 * n
}

// check compares the stages with each other.
func (h *history) check() {
	h.t.Helper()
	s := h.balance()
	if in := s["facts"].In + s["counts"].In; s["kernel"].Out+s["kernel"].Counted != in {
		h.t.Fatalf("the kernel reported %d, and %d came in", s["kernel"].Out+s["kernel"].Counted, in)
	}
	if changes := s["changes"]; changes.Out > changes.In {
		h.t.Fatalf("changes %+v", changes)
	}
}

// end waits for nothing and checks the sums of each container.
func (h *history) end() {
	h.t.Helper()
	h.out.set(false, false)
	h.slow.set(false, false)
	for name := range h.running { // what is open, its end closes
		h.stop(name, container(name))
	}
	h.now = h.now.Add(2 * time.Hour) // every close grace is over
	h.publish(h.tracker.Expire(nil, h.now))
	h.flushBursts()
	h.keepState()
	h.check()
	for _, k := range []*consumer{h.out, h.slow} {
		ids := map[uint64]bool{}
		for _, e := range k.events() {
			if ids[e.ID] {
				h.t.Fatalf("%s has two events with the id %d", k.name, e.ID)
			}
			ids[e.ID] = true
		}
	}
	hidden := container("box0")
	for _, k := range []*consumer{h.out, h.slow} {
		if got := k.sumsOf(hidden.ID); got != (sums{}) {
			h.t.Errorf("%s has %+v of a container that is not monitored", k.name, got)
		}
	}
	for i := 1; i < 8; i++ {
		c := container(fmt.Sprint("box", i))
		a, b := h.out.sumsOf(c.ID), h.slow.sumsOf(c.ID)
		if x, y := a.opened+a.closed+a.lost, b.opened+b.closed+b.lost; x != h.truth[c.ID] || y != h.truth[c.ID] {
			h.t.Errorf("%s: output accounts for %d, slow for %d; %d happened", c.Name, x, y, h.truth[c.ID])
		}
	}
}
