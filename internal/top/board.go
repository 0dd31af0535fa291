package top

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

const (
	// maxEvents is how many events are kept to be looked at.
	maxEvents = 1000
	// maxWaiting bounds the events that come while a list is asked for; 8 bytes
	// each and what the events take.
	maxWaiting = 1 << 16
)

// Board is what a [Source] writes and the view shows. Its methods are safe for
// concurrent use, do not block and do no I/O, so that a source may call them
// from where events are made.
//
// It is bounded by what is open, and [maxEvents].
type Board struct {
	now func() time.Time

	mutex    sync.Mutex
	revision uint64 // rises with each change
	rows     map[model.Endpoint]*row
	known    bool // rows are what is open; false until the first list
	events   []*model.Event
	journal  uint64 // rises when the events' ids begin to mean others
	status   Status
	link     link
	note     note
	// behind is how far the source's clock is behind this one.
	behind time.Duration
	// waiting are the events since Begin; nil while no list is asked for.
	waiting []*model.Event
}

// link is the connection to where the data comes from.
type link struct {
	lost  error // nil while it works
	since time.Time
}

// note is a remark about the watching itself.
type note struct {
	text string
	at   time.Time
}

// NewBoard returns a board that knows nothing yet.
func NewBoard() *Board {
	b := &Board{now: time.Now, rows: map[model.Endpoint]*row{}}
	b.link.since = b.now()
	return b
}

// Begin says that a list of what is open is asked for now. Events that come
// until [Board.Replace] may be newer than the list, and are applied to it again.
func (b *Board) Begin() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.waiting = make([]*model.Event, 0, 64)
}

// Replace takes over a list of what was open at a time of the source's clock. It
// returns false where so much happened since [Board.Begin] that another list is
// needed.
func (b *Board) Replace(open []model.Open, at time.Time) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	waiting := b.waiting
	b.waiting = nil
	if len(waiting) == maxWaiting {
		return false
	}
	now := b.now()
	// Less than that is the time that the answer took.
	if b.behind = now.Sub(at); b.behind.Abs() < 2*time.Second {
		b.behind = 0
	}
	old := b.rows
	b.rows = make(map[model.Endpoint]*row, len(open))
	for i := range open {
		r := newRow(&open[i].Listener, open[i].OpenedAt)
		if before := old[r.key]; before != nil {
			r.shown = before.shown
		} else if b.known {
			r.shown = now
		}
		b.rows[r.key] = r
	}
	b.known = true
	for _, e := range waiting {
		b.apply(e)
	}
	b.revision++
	return true
}

// Event takes over an event. Events come in the order of their ids; one that is
// known already changes nothing.
func (b *Board) Event(e *model.Event) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.waiting != nil && len(b.waiting) < maxWaiting {
		b.waiting = append(b.waiting, e)
	}
	b.apply(e)
	if len(b.events) == 0 || e.ID > b.events[len(b.events)-1].ID {
		b.events = append(b.events, e)
		if len(b.events) >= 2*maxEvents { // moved once in a while, not each time
			b.events = append([]*model.Event(nil), b.events[len(b.events)-maxEvents:]...)
		}
	}
	b.revision++
}

// apply changes the list of what is open. The caller holds the lock.
func (b *Board) apply(e *model.Event) {
	if e.Container == nil || e.Transient {
		return
	}
	key := endpointOf(&e.Listener)
	before := b.rows[key]
	openedAt := e.Time
	switch e.Type {
	case model.Closed:
		// One that opened again since then is known from a newer list.
		if before != nil && (e.OpenedAt.IsZero() || !before.openedAt.After(e.OpenedAt)) {
			delete(b.rows, key)
		}
		return
	case model.Opened:
		if before != nil && before.openedAt.After(e.Time) {
			return
		}
	case model.Changed:
		openedAt = time.Time{} // not known
		if before != nil {
			openedAt = before.openedAt
		}
	default:
		return
	}
	r := newRow(&e.Listener, openedAt)
	r.shown = b.now()
	b.rows[key] = r
}

// Journal tells one journal of the source from the next, see [Board.Forget].
func (b *Board) Journal() uint64 {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.journal
}

// Past adds events from before the board knew, in any order. Those of another
// journal than the present one are passed over.
func (b *Board) Past(journal uint64, events []*model.Event) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if journal != b.journal {
		return
	}
	b.events = merge(b.events, events)
	b.revision++
}

// merge returns the events of both, each once, by rising id.
func merge(a, b []*model.Event) []*model.Event {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y *model.Event) int { return cmp.Compare(x.ID, y.ID) })
	all = slices.CompactFunc(all, func(x, y *model.Event) bool { return x.ID == y.ID })
	return all[max(0, len(all)-maxEvents):]
}

// Forget drops the events: their ids mean nothing any more.
func (b *Board) Forget() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.events = nil
	b.journal++
	b.revision++
}

// SetStatus takes over how the watching goes.
func (b *Board) SetStatus(s Status) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if s != b.status {
		b.status = s
		b.revision++
	}
}

// Lost says that the connection to the source was lost, and is tried again.
func (b *Board) Lost(why error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.link.lost == nil {
		b.link.since = b.now()
	}
	b.link.lost = why
	b.revision++
}

// Connected says that the source answers.
func (b *Board) Connected() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.link.lost != nil {
		b.link = link{since: b.now()}
		b.revision++
	}
}

// Note shows a remark for a while.
func (b *Board) Note(format string, arguments ...any) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note = note{text: output.Printable(fmt.Sprintf(format, arguments...)), at: b.now()}
	b.revision++
}

// history returns the kept events of one port of a container, oldest first.
func (b *Board) history(of *model.Listener) []*model.Event {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var found []*model.Event
	for _, e := range b.events {
		if concerns(e, of) {
			found = append(found, e)
		}
	}
	return found
}

// snapshot is the board at one moment. Its rows and events are shared, and not
// changed any more.
type snapshot struct {
	revision uint64
	rows     []*row // in no order
	known    bool
	events   []*model.Event // oldest first
	status   Status
	link     link
	note     note
	behind   time.Duration
}

// look returns false where nothing has changed since a revision.
func (b *Board) look(since uint64) (s snapshot, changed bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.revision == since {
		return snapshot{}, false
	}
	rows := make([]*row, 0, len(b.rows))
	for _, r := range b.rows {
		rows = append(rows, r)
	}
	events := b.events[max(0, len(b.events)-maxEvents):]
	return snapshot{
		revision: b.revision, rows: rows, known: b.known, events: events[:len(events):len(events)],
		status: b.status, link: b.link, note: b.note, behind: b.behind,
	}, true
}
