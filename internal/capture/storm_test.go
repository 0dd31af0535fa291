package capture

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// storming plays what the eBPF programs make of the openings and closings of one container,
// and a reader that is behind them: the facts arrive late, and the counts at once.
type storming struct {
	*rig
	random         *rand.Rand
	web            *model.Container
	time           clock.Instant // in the kernel
	size           int           // records that the ring holds
	records        []source.Fact // not read yet
	counts         map[uint16]*source.Count
	open           *stormSocket // nil where the port is closed
	dump           *stormDump   // nil where no scan is under way
	opened, closed uint64
}

type stormSocket struct {
	model.Socket
	counted bool
}

// stormDump is a scan under way: it waits until what was recorded before is read.
type stormDump struct {
	began, ended clock.Instant
	sockets      []model.Socket
	left         int // records to read before
	question     *source.Scan
}

func (s *storming) pass() clock.Instant {
	s.time = s.time.Add(time.Duration(1+s.random.IntN(20)) * time.Microsecond)
	return s.time
}

func (s *storming) event(kind probe.Kind, socket model.Socket) source.Fact {
	f := source.Fact{Event: probe.Event{Kind: kind, Time: s.pass(), NetnsCookie: netnsCookie(1), Socket: socket}}
	if kind == probe.Opened {
		f.PID, f.Name, f.Processes = 4711, "server", []model.Process{{PID: 4711, Name: "server"}}
	}
	return s.of(s.web, f)
}

func (s *storming) count(number uint16) *source.Count {
	c := s.counts[number]
	if c == nil {
		c = &source.Count{Count: probe.Count{
			NetnsCookie: netnsCookie(1), Cgroup: s.cgroup(s.web), First: s.pass(),
			Socket: model.Socket{Protocol: model.TCP, Address: s.socket(number).Address, Port: number},
		}}
		s.counts[number] = c
	}
	c.Last = s.pass()
	return c
}

// storm opens or closes the port so often.
func (s *storming) storm(steps int) {
	for range steps {
		if s.open == nil {
			s.openPort()
		} else {
			s.closePort()
		}
	}
	if s.random.IntN(3) == 0 {
		s.time = s.time.Add(time.Duration(s.random.IntN(20)) * time.Millisecond)
	}
}

func (s *storming) openPort() {
	one := &stormSocket{Socket: s.socket(80)}
	s.open = one
	s.opened++
	if len(s.records) < s.size/2 {
		s.records = append(s.records, s.event(probe.Opened, one.Socket))
		return
	}
	one.counted = true
	c := s.count(one.Port)
	c.Opened++
	c.LastOpened = c.Last
	c.Socket.Cookie, c.Socket.Inode, c.PID, c.Name, c.SameProcess = one.Cookie, one.Inode, 4711, "server", true
	c.Processes = []model.Process{{PID: 4711, Name: "server"}}
}

func (s *storming) closePort() {
	one := s.open
	s.open = nil
	s.closed++
	if !one.counted {
		s.records = append(s.records, s.event(probe.Closed, one.Socket))
		return
	}
	c := s.count(one.Port)
	c.Closed++
	c.LastClosed, c.ClosedCookie = c.Last, one.Cookie
}

// end closes the port, and hands over all that is left.
func (s *storming) end() {
	if s.open != nil {
		s.closePort()
	}
	s.read(len(s.records))
	s.readCounts()
	s.out.set(false, false)
	s.flushBursts()
	s.keepState()
}

// read hands over some of the records.
func (s *storming) read(n int) {
	for n = min(n, len(s.records)); n > 0; {
		some := min(n, 256)
		s.catchUp()
		s.facts(s.records[:some]...)
		s.records = s.records[some:]
		n -= some
		if s.dump != nil {
			s.dump.left -= some
		}
	}
}

// catchUp lets the capture's time be no earlier than the kernel's.
func (s *storming) catchUp() { s.now = max(s.now, s.time) }

func (s *storming) readCounts() {
	var list []source.Count
	for _, c := range s.counts {
		list = append(list, *c)
	}
	s.counts = map[uint16]*source.Count{}
	if len(list) > 0 {
		s.catchUp()
		s.counted(list...)
	}
}

// scan begins a scan, or takes its next step.
func (s *storming) scan() {
	d := s.dump
	switch {
	case d == nil:
		d = &stormDump{began: s.pass(), left: len(s.records)}
		if s.open != nil {
			d.sockets = append(d.sockets, s.open.Socket)
		}
		d.ended = s.pass()
		s.dump = d
	case d.left > 0:
	case d.question == nil:
		s.readCounts()
		s.catchUp()
		q := &source.Scan{Watcher: s.watcher(1), Epoch: s.namespaces[model.Namespace{Inode: 1}].epoch}
		q.Snapshot.Began, q.Snapshot.Time, q.Snapshot.Source, q.Snapshot.Sockets = d.began, d.ended, model.SourceSockDiag, d.sockets
		s.do(q)
		if d.question = q; len(q.Unknown) == 0 {
			s.dump = nil
		}
	default:
		s.resolve(d.question, s.web)
		s.dump = nil
	}
}

// TestStormWithALateReader plays storms at one port: openings and closings are in the ring
// or counted, as its fill decides, and the reader, the scans and the sinks are late in any
// way. Each is accounted for, and nothing is left open.
func TestStormWithALateReader(t *testing.T) {
	for run := range uint64(40) {
		seed := uint64(time.Now().UnixNano()) + run
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := newRig(t, nil)
			random := rand.New(rand.NewPCG(seed, 0))
			s := &storming{
				rig: r, random: random, web: r.run("web", 1), time: r.now,
				size: 64 << random.IntN(4), counts: map[uint16]*source.Count{},
			}
			r.synced()
			scans, rate := random.IntN(2) == 0, 1+random.IntN(40)
			for range 2000 {
				s.storm(1 + random.IntN(30))
				switch random.IntN(60) {
				case 0:
					s.read(len(s.records))
				case 1, 2:
					s.readCounts()
				case 3, 4, 5:
					if scans && (s.dump != nil || random.IntN(8) == 0) {
						s.scan()
					}
				case 6:
					s.flushReadyBursts()
				case 7:
					s.out.set(random.IntN(6) == 0, random.IntN(2) == 0)
				case 8:
					s.keepState()
				case 9:
					s.tracker.Prune(s.now)
				default:
					s.read(random.IntN(rate))
				}
			}
			s.end()
			got := r.out.sumsOf(s.web.ID)
			if sum := got.opened + got.closed + got.lost; sum != s.opened+s.closed {
				t.Errorf("reported %+v, and %d opened and %d closed", got, s.opened, s.closed)
			}
			if open := r.tracker.Open(); len(open) > 0 {
				t.Errorf("left open: %+v", open)
			}
		})
	}
}
