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

// maxEvents is how many of the latest events a [Board] keeps.
const maxEvents = 1000

// Board is the state that a [Source] writes and the view shows. Its methods are safe for
// concurrent use, do not block and do no I/O: whoever emits events may call [Board.Event].
//
// A Board holds what is open and the latest [maxEvents] events.
type Board struct {
	now func() time.Time

	mutex    sync.Mutex
	revision uint64 // rises with each change
	open     model.OpenSet
	known    bool // a list has come
	events   []*model.Event
	journal  uint64 // rises when event ids start over
	status   watchStatus
	link     link
	note     note
	// behind is how far the source's clock is behind this one.
	behind time.Duration
}

type link struct {
	lost  error // nil while it works
	since time.Time
}

// note is a message that is shown for a while.
type note struct {
	text string
	at   time.Time
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	b := &Board{now: time.Now}
	b.link.since = b.now()
	return b
}

// change runs a change under the lock.
func (b *Board) change(do func()) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	do()
	b.revision++
}

// expect marks that a list of what is open is requested now; see [model.OpenSet.Expect].
func (b *Board) expect() { b.change(b.open.Expect) }

// replace makes a list the open endpoints. at is the time of the list by the source's clock.
// It returns false where another list is needed; see [model.OpenSet.Replace].
func (b *Board) replace(list []model.Open, at time.Time) (replaced bool) {
	b.change(func() {
		if replaced = b.open.Replace(list); !replaced {
			return
		}
		b.known = true
		// A smaller difference is the time that the answer took.
		if b.behind = b.now().Sub(at); b.behind.Abs() < 2*time.Second {
			b.behind = 0
		}
	})
	return replaced
}

// Event adds an event. Events come in the order of their ids.
func (b *Board) Event(e *model.Event) {
	b.change(func() {
		b.open.Apply(e)
		if len(b.events) > 0 && e.ID <= b.events[len(b.events)-1].ID {
			return
		}
		b.events = append(b.events, e)
		if len(b.events) >= 2*maxEvents { // move them rarely
			b.events = slices.Clone(b.events[len(b.events)-maxEvents:])
		}
	})
}

// journalNumber returns a number that changes with [Board.forget].
func (b *Board) journalNumber() uint64 {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.journal
}

// past adds older events, in any order. It ignores them if journal is not the present number.
func (b *Board) past(journal uint64, events []*model.Event) {
	b.change(func() {
		if journal == b.journal {
			b.events = merge(b.events, events)
		}
	})
}

// merge returns the latest events of both by rising id, without duplicates.
func merge(a, b []*model.Event) []*model.Event {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y *model.Event) int { return cmp.Compare(x.ID, y.ID) })
	all = slices.CompactFunc(all, func(x, y *model.Event) bool { return x.ID == y.ID })
	return all[max(0, len(all)-maxEvents):]
}

// forget drops the events: the source has another journal, whose ids start over.
func (b *Board) forget() {
	b.change(func() {
		b.events = nil
		b.journal++
	})
}

func (b *Board) setStatus(s watchStatus) { b.change(func() { b.status = s }) }

// lost reports that the connection to the source is lost, and is being made again.
func (b *Board) lost(why error) {
	b.change(func() {
		if b.link.lost == nil {
			b.link.since = b.now()
		}
		b.link.lost = why
	})
}

// connected reports that the source answers.
func (b *Board) connected() {
	b.change(func() {
		if b.link.lost != nil {
			b.link = link{since: b.now()}
		}
	})
}

// Note shows a message for a while.
func (b *Board) Note(format string, arguments ...any) {
	text := output.Printable(fmt.Sprintf(format, arguments...))
	b.change(func() { b.note = note{text: text, at: b.now()} })
}

// history returns the kept events of one port of a container, oldest first.
func (b *Board) history(of *model.Listener) []*model.Event {
	s, _ := b.snapshot(0)
	return concerning(s.events, of)
}

// snapshot is the board at one moment. Its open endpoints and events are shared and immutable.
type snapshot struct {
	revision uint64
	open     []*model.Open // in no order
	known    bool
	events   []*model.Event // oldest first
	status   watchStatus
	link     link
	note     note
	behind   time.Duration
}

// snapshot returns false where nothing has changed since a revision.
func (b *Board) snapshot(since uint64) (s snapshot, changed bool) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.revision == since && since > 0 {
		return snapshot{}, false
	}
	open := make([]*model.Open, 0, b.open.Len())
	for _, o := range b.open.All() {
		open = append(open, o)
	}
	events := b.events[max(0, len(b.events)-maxEvents):]
	return snapshot{
		revision: b.revision, open: open, known: b.known, events: events[:len(events):len(events)],
		status: b.status, link: b.link, note: b.note, behind: b.behind,
	}, true
}
