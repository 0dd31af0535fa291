package tracker

import (
	"cmp"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"time"

	"portwatcher/internal/clock"
	"portwatcher/internal/model"
)

// choices decide what happens in a history, and in which order it is observed: by
// bytes, and where they end, by numbers that follow from them.
type choices struct {
	bytes  []byte
	random *rand.Rand
}

func choose(bytes []byte) *choices {
	return &choices{bytes, rand.New(rand.NewPCG(uint64(crc32.ChecksumIEEE(bytes)), uint64(len(bytes))))}
}

// below returns a number from 0 to n-1.
func (c *choices) below(n int) int {
	if len(c.bytes) == 0 {
		return c.random.IntN(n)
	}
	first := c.bytes[0]
	c.bytes = c.bytes[1:]
	return int(first) % n
}

// within returns a time of up to limit.
func (c *choices) within(limit time.Duration) time.Duration {
	return limit * time.Duration(c.below(256)) / 256
}

// life is a socket from its opening to its close. A socket that listens again has
// two lives.
type life struct {
	model.Socket
	site           *site
	opened, closed clock.Instant // closed is endless where it is open to the end
	enters, leaves clock.Instant // the table that a dump reads
	kind           kind
	missed         bool // the close of a fact's socket was counted
}

// kind is how a life is observed, but for snapshots.
type kind int

const (
	byFact kind = iota
	byCount
	byDestroy // its close alone
	bySnapshot
)

const endless = clock.Instant(1) << 60

// site is a place that a container listens at.
type site struct {
	namespace model.Namespace
	container *model.Container
	number    uint16
	group     bool // SO_REUSEPORT: sockets overlap
	lives     []*life
}

func (s *site) endpoint() model.Endpoint {
	return model.Endpoint{Container: s.container.ID, Protocol: model.TCP, Address: wildcard, Port: s.number}
}

func sites() []*site {
	return []*site{
		{namespace: ns1, container: web, number: 80}, {namespace: ns1, container: web, number: 81, group: true},
		{namespace: ns1, container: db, number: 90}, {namespace: ns1, container: db, number: 91, group: true},
		{namespace: ns2, container: db, number: 80}, {namespace: ns2, container: db, number: 81, group: true},
	}
}

// history lets sockets open and close.
func history(c *choices) []*site {
	all := sites()
	kinds := map[*site][]kind{}
	for _, s := range all {
		kinds[s] = [][]kind{{byFact}, {byFact, byCount}, {byCount}, {byFact, byCount, byDestroy, bySnapshot}}[c.below(4)]
	}
	cookie := uint64(0)
	for c.below(32) > 0 {
		s := all[c.below(len(all))]
		var before *life
		from := at(0)
		if n := len(s.lives); n > 0 && !s.group {
			before = s.lives[n-1]
			if from = before.closed; from == endless {
				continue
			}
		}
		l := &life{site: s, kind: kinds[s][c.below(len(kinds[s]))], closed: endless, leaves: endless}
		l.opened = from.Add(1 + c.within([]time.Duration{100 * time.Millisecond, 5 * time.Second}[c.below(2)]))
		l.enters = l.opened.Add(c.within(100 * time.Millisecond))
		if c.below(8) > 0 {
			l.closed = l.opened.Add(1 + c.within([]time.Duration{100 * time.Millisecond, 5 * time.Second}[c.below(2)]))
			l.enters = min(l.enters, l.closed)
			l.leaves = l.closed.Add(c.within(100 * time.Millisecond))
		}
		l.missed = l.kind == byFact && c.below(4) == 0
		again := before != nil && max(l.kind, before.kind) <= byCount && !before.missed && c.below(3) == 0
		if again { // the same socket listens again
			l.Socket = before.Socket
			before.leaves = min(before.leaves, l.opened)
		} else {
			cookie++
			l.Socket = tcp(cookie, s.number)
		}
		s.lives = append(s.lives, l)
	}
	return all
}

// observation is something that the tracker is given: of a moment, and given
// at or after it.
type observation struct {
	moment, given clock.Instant
	after         []any // of two with one of these in common, the one of the earlier moment is given first
	give          func(*run)
}

// observations returns what is observed of a site by facts and counts. A count is
// taken before each fact, and at moments of its own.
func (s *site) observations(c *choices) []observation {
	type step struct {
		at     clock.Instant
		life   *life // nil: a count is taken
		closes bool
	}
	var steps []step
	for _, l := range s.lives {
		steps = append(steps, step{at: l.opened, life: l})
		if l.closed != endless {
			steps = append(steps, step{at: l.closed, life: l, closes: true})
		}
	}
	for range c.below(8) {
		steps = append(steps, step{at: at(0).Add(c.within(10 * time.Second))})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	steps = append(steps, step{at: at(100)})

	var all []observation
	var counted Counted
	var sockets []any // of the count
	take := func(moment clock.Instant) {
		if len(sockets) == 0 {
			return
		}
		one := counted
		one.Owner, one.Source = Owner{Container: s.container}, model.SourceEBPF
		one.Socket.Protocol, one.Socket.Address, one.Socket.Port = model.TCP, wildcard, s.number
		all = append(all, observation{moment: moment, after: append(sockets, s), give: func(r *run) { r.counted(s, one) }})
		counted, sockets = Counted{}, nil
	}
	for _, step := range steps {
		l := step.life
		switch {
		case l == nil:
			take(step.at)
			continue
		case l.kind == bySnapshot, l.kind == byDestroy && !step.closes:
			continue
		case l.kind == byCount && !step.closes:
			counted.Opened++
			counted.LastOpened, counted.Socket = step.at, l.Socket
		case l.kind == byCount:
			counted.Closed++
			counted.LastClosed, counted.ClosedCookie = step.at, l.Cookie
		case l.missed && step.closes:
			counted.Missed++
			counted.LastClosed, counted.ClosedCookie = step.at, l.Cookie
		default:
			take(step.at)
			give := func(r *run) { r.opened(l) }
			if step.closes {
				give = func(r *run) { r.closed(l) }
			}
			all = append(all, observation{moment: step.at, after: []any{l.Cookie}, give: give})
			continue
		}
		sockets = append(sockets, l.Cookie)
	}
	return all
}

// snapshots dumps a namespace a few times.
func snapshots(c *choices, id model.Namespace, all []*site) []observation {
	var observations []observation
	began := at(0)
	for range c.below(6) {
		began = began.Add(1 + c.within(4*time.Second))
		s := Snapshot{Began: began, Time: began.Add(c.within(500 * time.Millisecond)), Source: model.SourceSockDiag}
		s.Sockets = table(id, all, func() clock.Instant { return began.Add(c.within(s.Time.Sub(began))) })
		observations = append(observations, observation{moment: s.Time, after: []any{id}, give: func(r *run) { r.snapshot(id, s) }})
		began = s.Time
	}
	return observations
}

// table returns the sockets of a namespace; read is when the dump passes one.
func table(id model.Namespace, all []*site, read func() clock.Instant) []model.Socket {
	var sockets []model.Socket
	for _, s := range all {
		for _, l := range s.lives {
			if moment := read(); s.namespace == id && !moment.Before(l.enters) && moment.Before(l.leaves) {
				sockets = append(sockets, l.Socket)
			}
		}
	}
	return sockets
}

// order decides when each observation is given: up to lag late, but not before
// those that it has to follow.
func order(c *choices, all []observation, lag time.Duration) {
	slices.SortStableFunc(all, func(a, b observation) int { return cmp.Compare(a.moment, b.moment) })
	last := map[any]clock.Instant{}
	for i := range all {
		o := &all[i]
		o.given = o.moment.Add(c.within(lag))
		for _, key := range o.after {
			o.given = max(o.given, last[key])
		}
		for _, key := range o.after {
			last[key] = o.given
		}
	}
	slices.SortStableFunc(all, func(a, b observation) int { return cmp.Compare(a.given, b.given) })
}
