package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"portwatcher/internal/model"
)

// reference has what a journal should return, in the simplest form.
type reference struct {
	t       *testing.T
	random  *rand.Rand
	clock   *clock
	nextID  uint64
	events  []*model.Event
	open    map[model.Endpoint]*opening
	history []*opening // all that ever were
	runs    []span
}

type span struct{ from, until time.Time }

// opening is an endpoint from when it opened to when it ended.
type opening struct {
	state  model.State
	until  time.Time // zero: it is open
	closed bool      // by an event that has the time at which it opened
	owners []owner   // rising
}

type owner struct {
	from time.Time
	model.Listener
}

// TestModel applies random records, reopens now and then, and compares all that
// can be asked with the model.
func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &reference{t: t, random: newRandom(seed), clock: newClock(), nextID: 1, open: map[model.Endpoint]*opening{}}
			if seed == 3 {
				m.live("", 0)
				return
			}
			path := temporary(t)
			for life := range 3 {
				m.live(path, life)
				m.clock.add(time.Duration(m.random.Int64N(int64(time.Hour))))
			}
		})
	}
}

// live is one run of the journal.
func (m *reference) live(path string, life int) {
	j := start(m.t, Options{Path: path, Now: m.clock.Now, BootID: "boot", block: 8})
	defer j.stop()
	if path == "" {
		m.nextID = j.NextID()
	}
	if j.NextID() != m.nextID {
		m.t.Fatalf("next id %d after a clean stop, want %d", j.NextID(), m.nextID)
	}
	if life > 0 {
		m.checkPrevious(j.Previous())
	}
	m.runs = append(m.runs, span{from: m.clock.Now()})
	for range 10 {
		for range m.random.IntN(60) {
			m.clock.add(1 + time.Duration(m.random.Int64N(int64(time.Second))))
			j.offer(m.record())
		}
		m.clock.add(1)
		j.write(m.add(&model.Event{Type: model.Gap, Reason: "a mark"}))
		for range 3 {
			m.checkQuery(j)
			m.checkAt(j)
		}
	}
	m.runs[life].until = m.clock.Now()
}

// add gives an event its id and time. There are many blocks of ids: few ids are
// used.
func (m *reference) add(e *model.Event) *model.Event {
	if m.random.IntN(20) == 0 {
		m.nextID += m.random.Uint64N(3000) // some were dropped
	}
	e.ID, e.Time = m.nextID, m.clock.Now()
	m.nextID++
	m.events = append(m.events, e)
	return e
}

// record makes the next record, and applies it.
func (m *reference) record() Record {
	endpoint := m.endpoint()
	known := m.open[endpoint]
	switch n := m.random.IntN(100); {
	case n < 3:
		return m.full()
	case n < 6:
		return m.forget(endpoint.Container)
	case n < 9:
		return Record{Event: m.add(&model.Event{Type: model.Gap, Listener: model.Listener{Host: "node1"}, Reason: "a storm"})}
	case n < 12:
		return m.burst(endpoint)
	case known == nil && n < 20:
		return Record{State: []model.State{m.put(endpoint).state}}
	case known == nil || n < 15:
		return m.opened(endpoint)
	case n < 40:
		return m.changed(endpoint)
	}
	return m.closed(endpoint)
}

// burst changes nothing of what is open.
func (m *reference) burst(endpoint model.Endpoint) Record {
	e := &model.Event{Type: model.Bursts, Listener: m.listener(endpoint)}
	e.Burst = &model.Burst{Opened: 500, Closed: 500, First: m.clock.Now(), Last: m.clock.Now(), Ports: []uint16{e.Port}, PortCount: 1}
	if m.random.IntN(2) == 0 {
		e.Port, e.Ports, e.PortCount = 0, []uint16{53, 80}, 2
	}
	if m.random.IntN(2) == 0 {
		e.Protocol = 0
	}
	return Record{Event: m.add(e)}
}

func (m *reference) endpoint() model.Endpoint {
	return model.Endpoint{
		Container: pick(m.random, containerIDs...), Namespace: pick(m.random, "", "", "net:[5]"), Protocol: pick(m.random, model.TCP, model.UDP),
		Address: pick(m.random, netip.IPv4Unspecified(), netip.IPv6Loopback()), Port: pick[uint16](m.random, 53, 80, 8080),
	}
}

var containerIDs = []string{fmt.Sprintf("%064x", 1<<200>>190), fmt.Sprintf("aaaabbbbcccc%052x", 2), fmt.Sprintf("%064x", 3)}

// listener returns the listener of an endpoint, with some processes.
func (m *reference) listener(of model.Endpoint) model.Listener {
	at := slices.Index(containerIDs, of.Container)
	l := model.Listener{
		Host: "node1", Namespace: of.Namespace, Protocol: of.Protocol, Address: of.Address, Port: of.Port,
		Container: &model.ContainerRef{ID: of.Container, Name: []string{"web", "db-1", "db-2"}[at], Project: []string{"", "shop", "shop"}[at], Service: []string{"", "db", "db"}[at]},
		Source:    model.SourceEBPF,
	}
	m.reach(&l)
	for range m.random.IntN(3) {
		l.Processes = append(l.Processes, model.Process{PID: 1 + m.random.IntN(1000), Name: "nginx"})
	}
	return l
}

// reach sets who can reach an endpoint, other than before.
func (m *reference) reach(l *model.Listener) {
	before := model.Listener{Exposure: l.Exposure, Published: l.Published}
	for l.Exposure == before.Exposure && slices.Equal(l.Published, before.Published) {
		switch e := pick(m.random, model.Loopback, model.Network, model.Lan, model.Host, model.Published); e {
		case model.Published:
			l.SetReach(e, []string{pick(m.random, "127.0.0.1:8080", "0.0.0.0:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"), "127.0.0.1:81"})
		default:
			l.SetReach(e, nil)
		}
	}
}

func (m *reference) sockets() *model.Sockets {
	return &model.Sockets{Namespace: model.Namespace{Device: 4, Inode: 5}, Cookies: []uint64{m.random.Uint64()}, Inodes: []uint32{m.random.Uint32()}}
}

// put opens an endpoint now, without an event.
func (m *reference) put(endpoint model.Endpoint) *opening {
	m.end(endpoint)
	now := m.clock.Now()
	o := &opening{state: model.State{Open: model.Open{Time: now, Listener: m.listener(endpoint), OpenedAt: now}, Sockets: m.sockets()}}
	o.owners = []owner{{now, o.state.Listener}}
	m.open[endpoint] = o
	m.history = append(m.history, o)
	return o
}

func (m *reference) end(endpoint model.Endpoint) *opening {
	o := m.open[endpoint]
	if o != nil {
		o.until = m.clock.Now()
		delete(m.open, endpoint)
	}
	return o
}

func (m *reference) opened(endpoint model.Endpoint) Record {
	o := m.put(endpoint)
	return Record{Event: m.add(&model.Event{Type: model.Opened, Listener: o.state.Listener}), Sockets: o.state.Sockets}
}

func (m *reference) changed(endpoint model.Endpoint) Record {
	o := m.open[endpoint]
	e := &model.Event{Type: model.Changed, Change: pick(m.random, model.ChangeProcess, model.ChangeExposure)}
	next := o.state.Listener
	if e.Change == model.ChangeExposure {
		e.PreviousExposure, e.PreviousPublished = next.Exposure, next.Published
		m.reach(&next)
	} else {
		next.Processes = m.listener(endpoint).Processes
	}
	o.state.Time, o.state.Listener, o.state.Sockets = m.clock.Now(), next, m.sockets()
	o.owners = append(o.owners, owner{m.clock.Now(), next})
	e.Listener = next
	if e.Change == model.ChangeExposure {
		e.Source = model.SourceRTNetlink // which is not that of the endpoint
	}
	return Record{Event: m.add(e), Sockets: o.state.Sockets}
}

func (m *reference) closed(endpoint model.Endpoint) Record {
	o := m.end(endpoint)
	e := m.add(&model.Event{Type: model.Closed, Listener: o.state.Listener})
	e.Source = model.SourceDestroy
	if m.random.IntN(8) > 0 {
		seconds := e.Time.Sub(o.state.OpenedAt).Seconds()
		e.OpenedAt, e.OpenSeconds = o.state.OpenedAt, &seconds
		o.closed = true
	}
	return Record{Event: e}
}

func (m *reference) forget(container string) Record {
	for endpoint := range m.open {
		if endpoint.Container == container {
			m.end(endpoint)
		}
	}
	return Record{Forget: container}
}

// full returns the whole state: some of what is open by the journal, and some more.
func (m *reference) full() Record {
	for endpoint := range m.open {
		if m.random.IntN(3) == 0 {
			m.end(endpoint)
		}
	}
	for range m.random.IntN(3) {
		m.put(m.endpoint())
	}
	r := Record{Full: true}
	for _, o := range m.open {
		r.State = append(r.State, o.state)
	}
	return r
}

func (m *reference) checkPrevious(p *Previous) {
	m.t.Helper()
	last := m.runs[len(m.runs)-1]
	if p == nil || !p.Clean || !p.SameBoot || p.Corrupt != "" || !p.LastAlive.Equal(last.until) {
		m.t.Fatalf("previous %+v: want a clean stop at %v in the same boot", p, last.until)
	}
	want := make([]model.State, 0, len(m.open))
	for _, o := range m.open {
		want = append(want, o.state)
	}
	slices.SortFunc(want, func(a, b model.State) int { return a.Endpoint().Compare(b.Endpoint()) })
	if got, want := asJSON(m.t, p.Open), asJSON(m.t, want); got != want {
		m.t.Fatalf("open before\n%s, want\n%s", got, want)
	}
}

// moment is a time of the record, often exactly that of an event, and now and
// then one before it.
func (m *reference) moment() time.Time {
	if m.random.IntN(2) == 0 {
		return pick(m.random, m.events...).Time
	}
	first, last := m.runs[0].from, m.clock.Now()
	return first.Add(time.Duration(m.random.Int64N(int64(last.Sub(first))+2)) - 1)
}

func (m *reference) checkAt(r source) {
	m.t.Helper()
	at := m.moment()
	got, watching, err := r.At(context.Background(), at, model.Filter{})
	if at.Before(m.runs[0].from) {
		if unknown, ok := errors.AsType[*UnknownTimeError](err); !ok || !unknown.From.Equal(m.runs[0].from) {
			m.t.Fatalf("at %v, before the first run at %v: %v", at, m.runs[0].from, err)
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	want := make([]model.Open, 0, len(got))
	for _, o := range m.history {
		if !o.state.OpenedAt.After(at) && (o.until.IsZero() || o.until.After(at)) {
			want = append(want, o.at(at))
		}
	}
	slices.SortFunc(want, func(a, b model.Open) int {
		return cmp.Or(cmp.Compare(a.Container.Name, b.Container.Name), a.Endpoint().Compare(b.Endpoint()))
	})
	if g, w := asJSON(m.t, got), asJSON(m.t, want); g != w {
		m.t.Fatalf("open at %v\n%s, want\n%s", at, g, w)
	}
	if w := m.watching(at); watching != w {
		m.t.Fatalf("watching at %v: %+v, want %+v (runs %v)", at, watching, w, m.runs)
	}
}

// at is the opening as it was at a time.
func (o *opening) at(at time.Time) model.Open {
	open := o.state.Open
	open.Time = at
	if o.closed {
		open.Source = ""
	}
	if o.owners[len(o.owners)-1].from.After(at) {
		for _, owner := range o.owners {
			if !owner.from.After(at) {
				open.Processes = owner.Processes
				open.SetReach(owner.Exposure, owner.Published)
			}
		}
	}
	return open
}

func (m *reference) watching(at time.Time) Watching {
	var w Watching
	for _, run := range m.runs {
		switch {
		case run.from.After(at):
		case run.until.IsZero() || !run.until.Before(at):
			return Watching{Running: true}
		default:
			w.Stopped = run.until
		}
	}
	return w
}
