package tracker

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// TestAnyOrder lets sockets open and close, observes them by facts, counts,
// snapshots and destroy notifications, and gives the observations to a tracker in
// an order that keeps each socket's own, the counts of an endpoint in order, and
// the snapshots of a namespace in order. Then:
//
//   - The changes of an endpoint alternate between opened and closed.
//   - After a snapshot that began long after all of them, exactly what it shows is
//     open, by exactly its sockets, and nothing that was counted is left over.
//   - Before that snapshot already, an endpoint is open if one of its sockets is,
//     where all sockets were observed by facts and counts and there were no
//     snapshots. This does not hold where sockets were missed while others of the
//     same endpoint were open, or not known to be closed, and the count does not
//     have which.
//   - Without a close grace, openings and closings add up: the changes, less those
//     that Counted made, plus what was counted, are as many as really happened.
//     This holds for endpoints whose sockets do not overlap, none of which was shown
//     by a snapshot before its fact or count, or found gone by one before that, and
//     whose openings, closings and counts are given in the order in which they
//     happened; a fact's close may come after the opening that follows it. It
//     cannot hold for a socket of which only the close is known and whose endpoint
//     is open by another.
func TestAnyOrder(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	balanced := 0
	for number := range 4000 {
		data := make([]byte, 8)
		binary.NativeEndian.PutUint64(data, random.Uint64())
		balanced += anyOrder(t, data)
		if t.Failed() {
			t.Fatalf("history %d: %x", number, data)
		}
	}
	if balanced < 2500 {
		t.Errorf("only %d endpoints were balanced; want the histories to have more that can be", balanced)
	}
}

func FuzzAnyOrder(f *testing.F) {
	random := rand.New(rand.NewChaCha8([32]byte{2}))
	for _, length := range []int{8, 30, 100, 300} {
		data := make([]byte, length)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { anyOrder(t, data) })
}

// anyOrder returns how many endpoints could be balanced.
func anyOrder(t *testing.T, data []byte) (balanced int) {
	c := choose(data)
	r := &run{
		t: t, sites: map[model.Endpoint]*siteRun{},
		grace:  []time.Duration{0, 0, 0, 2 * time.Second}[c.below(4)],
		inTurn: c.below(2) == 0, silent: c.below(2) == 0,
	}
	lag := []time.Duration{0, 300 * time.Millisecond, time.Second, 10 * time.Second}[c.below(4)]
	unattributed := c.below(4) == 0
	all := history(c)
	var observations []observation
	for _, s := range all {
		r.sites[s.endpoint()] = &siteRun{site: s}
		for _, o := range s.observations(c) {
			if r.inTurn {
				o.after = append(o.after, s)
			}
			observations = append(observations, o)
		}
	}
	if !r.silent {
		observations = append(observations, snapshots(c, ns1, all)...)
		observations = append(observations, snapshots(c, ns2, all)...)
	}
	order(c, observations, lag)
	r.tracker = tracking(r.grace)
	for _, o := range observations {
		r.unattributed = unattributed && c.below(4) == 0
		o.give(r)
		r.take(r.tracker.Expire(nil, o.given))
	}
	r.unattributed = false
	r.checkFacts()
	balanced = r.checkBalance()
	r.checkEnd(all)
	return balanced
}

// run gives observations to a tracker, and records what it makes of them.
type run struct {
	t            *testing.T
	tracker      *Tracker
	grace        time.Duration
	inTurn       bool // each endpoint's facts and counts are given in order
	silent       bool // no snapshots
	unattributed bool // the owners of what is new are not found
	sites        map[model.Endpoint]*siteRun
	log          []string
}

// siteRun is what was given and made of one endpoint.
type siteRun struct {
	*site
	isOpen                 bool
	opened, closed         int // changes, less those of counts, plus what was counted
	shown                  bool
	ambiguous              bool
	lastOpened, lastClosed clock.Instant // facts
	outOfTurn              bool
}

func (r *run) note(format string, args ...any) { r.log = append(r.log, fmt.Sprintf(format, args...)) }

func (r *run) fail(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s", fmt.Sprintf(format, args...))
	for _, line := range r.log {
		r.t.Log(line)
	}
}

// take records changes. It returns how many endpoints opened and closed.
func (r *run) take(changes []Change) (opened, closed int) {
	for i, line := range describe(changes) {
		r.note("      %s", line)
		c := &changes[i]
		s := r.sites[c.Endpoint]
		if c.Source == model.SourceSockDiag {
			s.shown = true
		}
		if c.Type == model.Changed {
			continue
		}
		if (c.Type == model.Opened) == s.isOpen {
			r.fail("%s: it was open before: %v", line, s.isOpen)
		}
		if s.isOpen = c.Type == model.Opened; s.isOpen {
			s.opened++
			opened++
		} else {
			s.closed++
			closed++
		}
	}
	return opened, closed
}

func (r *run) opened(l *life) {
	r.note("opened %d at %d, %v", l.Cookie, l.Port, l.opened.Sub(start))
	s := r.sites[l.site.endpoint()]
	s.outOfTurn = s.outOfTurn || l.opened.Before(s.lastOpened)
	s.lastOpened = l.opened
	r.take(r.tracker.Opened(nil, l.site.namespace, l.Socket, Owner{Container: l.site.container}, l.opened, model.SourceEBPF))
}

func (r *run) closed(l *life) {
	r.note("closed %d at %d, %v", l.Cookie, l.Port, l.closed.Sub(start))
	s := r.sites[l.site.endpoint()]
	s.outOfTurn = s.outOfTurn || l.closed.Before(s.lastClosed)
	s.lastClosed = l.closed
	changes, known := r.tracker.Closed(nil, l.site.namespace, l.Cookie, l.closed, model.SourceDestroy)
	r.take(changes)
	if l.kind == byDestroy && !known {
		r.note("transient")
		changes, _ = r.tracker.Transient(nil, l.site.namespace, l.Socket, Owner{Container: l.site.container}, l.closed, model.SourceDestroy)
		r.take(changes)
	}
}

func (r *run) counted(site *site, c Counted) {
	r.note("counted at %d: last %d, +%d -%d missed %d, opened %v, closed %v (%d)", c.Socket.Port, c.Socket.Cookie,
		c.Opened, c.Closed, c.Missed, c.LastOpened.Sub(start), c.LastClosed.Sub(start), c.ClosedCookie)
	s := r.sites[site.endpoint()]
	s.ambiguous = s.ambiguous || c.Missed > 1 || c.Missed > 0 && c.Closed > 0
	opened, closed := r.take(r.tracker.Counted(nil, site.namespace, c))
	if opened+closed > 1 || uint64(opened) > c.Opened || uint64(closed) > c.Closed+c.Missed {
		r.fail("the count led to %d opened and %d closed changes", opened, closed)
	}
	s.opened += int(c.Opened) - opened
	s.closed += int(c.Closed+c.Missed) - closed
}

func (r *run) snapshot(id model.Namespace, s Snapshot) {
	r.note("snapshot of %d, %v to %v: %v", id.Inode, s.Began.Sub(start), s.Time.Sub(start), cookiesOf(s.Sockets))
	s.New = map[int]Owner{}
	for _, i := range r.tracker.Unknown(nil, id, s.Sockets) {
		for _, one := range r.sites {
			if one.namespace == id && one.number == s.Sockets[i].Port {
				one.shown = true
				if !r.unattributed {
					s.New[i] = Owner{Container: one.container}
				}
			}
		}
	}
	before := map[*siteRun][]uint64{}
	for key, one := range r.sites {
		before[one] = r.cookies(key)
	}
	r.take(r.tracker.Snapshot(nil, id, s))
	for key, one := range r.sites {
		now := r.cookies(key)
		one.shown = one.shown || slices.ContainsFunc(before[one], func(cookie uint64) bool { return !slices.Contains(now, cookie) })
	}
}

// cookies returns the sockets by which the tracker has an endpoint open.
func (r *run) cookies(key model.Endpoint) []uint64 {
	sockets := r.tracker.Sockets(key)
	if sockets == nil {
		return nil
	}
	return slices.Sorted(slices.Values(sockets.Cookies))
}

func cookiesOf(sockets []model.Socket) []uint64 {
	var cookies []uint64
	for i := range sockets {
		cookies = append(cookies, sockets[i].Cookie)
	}
	slices.Sort(cookies)
	return slices.Compact(cookies)
}

func (s *siteRun) all(kinds ...kind) bool {
	return !slices.ContainsFunc(s.lives, func(l *life) bool { return !slices.Contains(kinds, l.kind) })
}
