package capture

import (
	"testing"
	"time"

	"portwatcher/internal/engine"
	"portwatcher/internal/model"
	"portwatcher/internal/probe"
	"portwatcher/internal/source"
)

// countOf returns what eBPF counted at a port of a container; the last opened socket is
// a new one, and is closed where as many closed as opened.
func (r *rig) countOf(c *model.Container, inode uint64, number uint16, opened, closed uint64) source.Count {
	s := r.socket(number)
	s.Cgroup = r.cgroup(c)
	count := source.Count{Count: probe.Count{
		NetnsCookie: netnsCookie(inode), Cgroup: s.Cgroup, Socket: s, PID: 4711, Name: "server", SameProcess: true,
		Opened: opened, Closed: closed, First: r.tick(), Last: r.tick(),
	}, Processes: []model.Process{{PID: 4711, Name: "server"}}}
	if opened > 0 {
		count.LastOpened = count.Last
	}
	if closed > 0 {
		count.LastClosed = count.Last
		if closed >= opened {
			count.ClosedCookie = s.Cookie
			count.LastOpened = min(count.LastOpened, count.First)
		}
	}
	return count
}

func (r *rig) counted(list ...source.Count) {
	r.t.Helper()
	r.do(&source.Counts{List: list, Cgroups: source.NewCgroupPaths(r.paths)})
}

// missed returns the close of a socket that had room only for its opening.
func (r *rig) missed(c *model.Container, inode uint64, s model.Socket) source.Count {
	count := r.countOf(c, inode, s.Port, 0, 0)
	count.Socket.Cookie, count.PID, count.Name, count.Processes = 0, 0, "", nil
	count.Missed, count.ClosedCookie, count.LastClosed = 1, s.Cookie, count.Last
	return count
}

// TestSums feeds histories of which the numbers are known: opened events, bursts and
// gaps account for each of them.
func TestSums(t *testing.T) {
	for _, test := range []struct {
		name   string
		steps  func(r *rig, web *model.Container)
		opened uint64
		closed uint64
		open   int // endpoints in the end
	}{
		{"facts", func(r *rig, web *model.Container) {
			for range 10 {
				opened, closed := r.openedAndClosed(1, 80)
				r.facts(opened, closed)
			}
		}, 10, 10, 0},
		{"a count", func(r *rig, web *model.Container) { r.counted(r.countOf(web, 1, 80, 100, 100)) }, 100, 100, 0},
		{"a count that stays open", func(r *rig, web *model.Container) { r.counted(r.countOf(web, 1, 80, 100, 99)) }, 100, 99, 1},
		{"counts of one storm", func(r *rig, web *model.Container) {
			r.counted(r.countOf(web, 1, 80, 100, 99))
			r.counted(r.countOf(web, 1, 80, 50, 50))
			r.counted(r.countOf(web, 1, 80, 50, 51))
		}, 200, 200, 0},
		{"facts before and after", func(r *rig, web *model.Container) {
			opened, closed := r.openedAndClosed(1, 80)
			r.facts(opened, closed)
			r.counted(r.countOf(web, 1, 80, 100, 100))
			opened, closed = r.openedAndClosed(1, 80)
			r.facts(opened, closed)
		}, 102, 102, 0},
		{"a fact beside counted sockets", func(r *rig, web *model.Container) {
			r.counted(r.countOf(web, 1, 80, 3, 0))
			opened, closed := r.openedAndClosed(1, 80)
			r.facts(opened, closed)
			r.counted(r.countOf(web, 1, 80, 0, 3))
		}, 4, 4, 0},
		{"a missed close", func(r *rig, web *model.Container) {
			opened, _ := r.openedAndClosed(1, 80)
			r.facts(opened)
			r.counted(r.missed(web, 1, opened.Socket))
		}, 1, 1, 0},
		{"a missed close amid others", func(r *rig, web *model.Container) {
			first, _ := r.openedAndClosed(1, 80)
			r.facts(first)
			count := r.missed(web, 1, first.Socket)
			more := r.countOf(web, 1, 80, 20, 20)
			more.Missed, more.ClosedCookie = 1, count.ClosedCookie
			r.counted(more)
		}, 21, 21, 0},
		{"several ports", func(r *rig, web *model.Container) {
			r.counted(r.countOf(web, 1, 80, 7, 7), r.countOf(web, 1, 81, 8, 7), r.countOf(web, 1, 82, 9, 9))
		}, 24, 23, 1},
		{"the rest", func(r *rig, web *model.Container) {
			rest := r.countOf(web, 1, 0, 1000, 900)
			rest.Rest = true
			r.counted(rest, r.countOf(web, 1, 80, 5, 5))
		}, 1005, 905, 0},
		{"the rest that a scan shows", func(r *rig, web *model.Container) {
			rest := r.countOf(web, 1, 0, 10, 7)
			rest.Rest = true
			r.counted(rest)
			r.now = r.now.Add(time.Minute)
			sockets := []model.Socket{r.socket(80), r.socket(81), r.socket(82)}
			r.scan(1, web, sockets...)
			rest = r.countOf(web, 1, 0, 0, 3)
			rest.Rest = true
			r.counted(rest)
			r.now = r.now.Add(time.Minute)
			r.scan(1, web)
		}, 10, 10, 0},
		{"listening without bind", func(r *rig, web *model.Container) { r.counted(r.countOf(web, 1, 0, 30, 30)) }, 30, 30, 0},
		{"unmonitored beside", func(r *rig, web *model.Container) {
			hidden := container("hidden")
			hidden.Labels = map[string]string{"watch": "no"}
			r.change(engine.Started, hidden, 1)
			r.counted(r.countOf(hidden, 1, 90, 40, 40), r.countOf(web, 1, 80, 4, 4))
			f, _ := r.openedAndClosed(1, 91)
			r.facts(r.of(hidden, f))
		}, 4, 4, 0},
		{"before the container is known", func(r *rig, web *model.Container) {
			r.change(engine.Stopped, web, 0)
			opened, closed := r.openedAndClosed(2, 80)
			r.facts(r.of(web, opened), closed)
			r.counted(r.countOf(web, 2, 80, 100, 99))
			r.change(engine.Started, web, 2)
			r.open(2)
		}, 101, 100, 1},
		{"a scan amid a storm", func(r *rig, web *model.Container) {
			r.counted(r.countOf(web, 1, 80, 100, 99))
			r.scan(1, web)
			r.counted(r.countOf(web, 1, 80, 100, 101))
		}, 200, 200, 0},
		{"an end amid a storm", func(r *rig, web *model.Container) {
			r.counted(r.countOf(web, 1, 80, 100, 100), r.countOf(web, 1, 81, 1, 0))
			r.change(engine.Stopped, web, 0) // which closes what is open
		}, 101, 101, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			web := r.run("web", 1)
			test.steps(r, web)
			r.flushBursts()
			if got := r.out.sumsOf(web.ID); got != (sums{opened: test.opened, closed: test.closed}) {
				t.Errorf("reported %+v, want %d opened and %d closed: %q", got, test.opened, test.closed, r.out.lines())
			}
			if got := r.out.sumsOf(""); got != (sums{}) {
				t.Errorf("of nobody %+v", got)
			}
			if n := len(r.tracker.Open()); n != test.open {
				t.Errorf("%d endpoints are open, want %d", n, test.open)
			}
			r.balance()
		})
	}
}

// A burst of ports that are not known waits for a scan: what that finds open is an event
// of its own, once.
func TestBurstAwaitsScan(t *testing.T) {
	r := newRig(t, nil)
	web := r.run("web", 1)
	rest := r.countOf(web, 1, 0, 10, 8)
	rest.Rest, rest.Socket.Cookie = true, 0
	r.counted(rest)
	r.flushReadyBursts()
	r.wants()
	r.scan(1, web, r.socket(80), r.socket(81))
	r.flushReadyBursts()
	r.wants("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag", "burst web +8 -8")
	// No scan comes: the burst does not wait for ever.
	r.counted(rest)
	r.bursts[web.ID].unknownFirst = r.now.Add(-maxScanWait)
	r.flushReadyBursts()
	r.wants("opened web 80/tcp loopback sock_diag", "opened web 81/tcp loopback sock_diag", "burst web +8 -8", "burst web +10 -8")
	r.balance()
}

// What a port that is not reported does is dropped, whichever way it comes.
func TestCountsThatAreNotReported(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Tuning.Reported = func(_ *model.Container, _ model.Protocol, number uint16) bool { return number == 80 }
	})
	web := r.run("web", 1)
	r.counted(r.countOf(web, 1, 80, 5, 5), r.countOf(web, 1, 81, 7, 7))
	r.flushBursts()
	if got := r.out.sumsOf(web.ID); got != (sums{opened: 5, closed: 5}) {
		t.Errorf("reported %+v, want those of port 80", got)
	}
	if s := r.balance()["counts"]; s.Out != 10 || s.Dropped != 14 {
		t.Errorf("counts %+v, want 10 out and 14 dropped", s)
	}
}
