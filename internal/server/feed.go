package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// feed reads the journal once for all streams: it keeps the last events in
// memory, each with the bytes that go out. While nobody reads, it does not
// either.
type feed struct {
	history History
	log     logrus.FieldLogger
	batch   int // events that are read at once

	mutex   sync.Mutex
	readers int
	// ring holds every event with an id above base and up to last.
	ring []item // a circle; the oldest is at start
	// start and length say which part of the circle is in use.
	start, length int
	base, last    uint64
	changed       chan struct{} // closed when last rises
	wanted        chan struct{} // has room for one: a first reader came
}

// item is an event and its bytes in a stream. Both are immutable.
type item struct {
	event *model.Event
	frame []byte
}

// retryRead is the time after which a journal that could not be read is tried
// again.
const retryRead = time.Second

func newFeed(history History, log logrus.FieldLogger, l limits) *feed {
	return &feed{
		history: history, log: log, batch: max(l.ring/4, 1), ring: make([]item, l.ring),
		changed: make(chan struct{}), wanted: make(chan struct{}, 1),
	}
}

// join makes the feed read, until leave.
func (f *feed) join() (leave func()) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.readers++
	if f.readers == 1 {
		last := f.history.LastID()
		clear(f.ring)
		f.start, f.length, f.base, f.last = 0, 0, last, last
		select {
		case f.wanted <- struct{}{}:
		default:
		}
	}
	return func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		f.readers--
		if f.readers == 0 {
			clear(f.ring)
			f.length = 0
		}
	}
}

// next returns up to most items after position, and a channel that is closed
// when there are more. Known is false where the ring does not go back that far.
// Last is the id up to which the feed has read.
func (f *feed) next(into []item, position uint64, most int) (items []item, more <-chan struct{}, last uint64, known bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if position < f.base {
		return into, f.changed, f.last, false
	}
	// The ids rise: search the first that is above position.
	low, high := 0, f.length
	for low < high {
		middle := (low + high) / 2
		if f.at(middle).event.ID > position {
			high = middle
		} else {
			low = middle + 1
		}
	}
	for i := low; i < f.length && len(into) < most; i++ {
		into = append(into, *f.at(i))
	}
	return into, f.changed, f.last, true
}

func (f *feed) at(i int) *item { return &f.ring[(f.start+i)%len(f.ring)] }

// run reads the journal while there are readers, until ctx ends.
func (f *feed) run(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		committed := f.history.Committed() // before reading: nothing is slept through
		position, wanted := f.position()
		if !wanted {
			select {
			case <-f.wanted:
			case <-ctx.Done():
			}
			continue
		}
		all, err := collect(ctx, f.history, journal.Query{AfterID: position, FromStart: true, Limit: f.batch})
		if err != nil {
			if !failing && ctx.Err() == nil {
				f.log.WithError(err).Error("The journal cannot be read for the event streams; it is tried again every second.")
			}
			failing = true
			f.pause(ctx)
			continue
		}
		if failing {
			f.log.Info("The journal can be read again for the event streams.")
			failing = false
		}
		f.add(position, all)
		if all.count == f.batch {
			continue
		}
		select {
		case <-committed:
		case <-f.wanted:
		case <-ctx.Done():
		}
	}
}

func (f *feed) pause(ctx context.Context) {
	timer := time.NewTimer(retryRead)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *feed) position() (last uint64, wanted bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.last, f.readers > 0
}

// add takes events that come after position. If all readers left meanwhile and
// others came, the position is another, and what was read does not fit.
func (f *feed) add(position uint64, all found) {
	items := make([]item, 0, len(all.events))
	for _, event := range all.events {
		items = append(items, item{event, eventFrame(nil, event)})
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if position != f.last || f.readers == 0 || all.count == 0 {
		return
	}
	for _, one := range items {
		if f.length == len(f.ring) {
			f.base = f.at(0).event.ID
			f.start = (f.start + 1) % len(f.ring)
			f.length--
		}
		*f.at(f.length) = one
		f.length++
	}
	f.last = all.last
	close(f.changed)
	f.changed = make(chan struct{})
}

// eventFrame appends an event as the stream has it.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
func eventFrame(into []byte, e *model.Event) []byte {
	into = strconv.AppendUint(append(into, "id: "...), e.ID, 10)
	into = append(append(into, "\nevent: "...), e.Type...)
	into = output.AppendJSON(append(into, "\ndata: "...), e) // without line breaks
	return append(into, "\n\n"...)
}

// noteFrame appends what is no event of a port: it has no id.
func noteFrame(into *bytes.Buffer, name string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	fmt.Fprintf(into, "event: %s\ndata: %s\n\n", name, data)
}
