package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sirupsen/logrus"

	"portwatcher/internal/clock"
	"portwatcher/internal/journal"
	"portwatcher/internal/model"
	"portwatcher/internal/output"
)

// feed reads the journal once for all streams: it keeps the latest events, each with the bytes
// that a stream sends. While there are no readers, it does not read.
type feed struct {
	history History
	log     logrus.FieldLogger
	most    int // items that are kept, and one batch

	mutex   sync.Mutex
	readers int
	// items are all events with an id above base and up to last.
	items      []item
	base, last uint64
	changed    chan struct{} // closed when last rises
	joined     chan struct{} // has room for one: a first reader came
}

// item is an event and its bytes in a stream. Both are immutable.
type item struct {
	event *model.Event
	frame []byte
}

func newFeed(history History, log logrus.FieldLogger, l limits) *feed {
	return &feed{history: history, log: log, most: l.ring, changed: make(chan struct{}), joined: make(chan struct{}, 1)}
}

// join makes the feed read, until leave.
func (f *feed) join() (leave func()) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.readers++
	if f.readers == 1 {
		last := f.history.LastID()
		f.items, f.base, f.last = nil, last, last
		select {
		case f.joined <- struct{}{}:
		default:
		}
	}
	return func() {
		f.mutex.Lock()
		defer f.mutex.Unlock()
		if f.readers--; f.readers == 0 {
			f.items = nil
		}
	}
}

// next appends up to most items after position, and returns a channel that is closed when there
// are more. known is false where the items do not go back that far. last is the id up to which
// the feed has read.
func (f *feed) next(into []item, position uint64, most int) (items []item, more <-chan struct{}, last uint64, known bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if position < f.base {
		return into, f.changed, f.last, false
	}
	first := sort.Search(len(f.items), func(i int) bool { return f.items[i].event.ID > position })
	return append(into, f.items[first:min(first+most, len(f.items))]...), f.changed, f.last, true
}

// run reads the journal while there are readers, until ctx ends.
func (f *feed) run(ctx context.Context) {
	pauses := backoff.NewExponentialBackOff()
	pauses.MaxInterval = 2 * time.Second
	failing := false
	batch := max(f.most/4, 1)
	for ctx.Err() == nil {
		committed := f.history.Committed() // before reading, so that no commit is missed
		position, read := f.position()
		if !read {
			select {
			case <-f.joined:
			case <-ctx.Done():
			}
			continue
		}
		all, err := collect(ctx, f.history, journal.Query{AfterID: position, FromStart: true, Limit: batch})
		if err != nil {
			if !failing && ctx.Err() == nil {
				f.log.WithError(err).Error("The journal cannot be read for the event streams; reading is tried again.")
			}
			failing = true
			clock.Sleep(ctx, pauses.NextBackOff())
			continue
		}
		if failing {
			f.log.Info("The journal can be read again for the event streams.")
			failing = false
			pauses.Reset()
		}
		f.add(position, all)
		if all.count == batch {
			continue
		}
		select {
		case <-committed:
		case <-f.joined:
		case <-ctx.Done():
		}
	}
}

// position returns where to read on, and whether anybody reads the streams.
func (f *feed) position() (last uint64, read bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.last, f.readers > 0
}

// add adds events that come after position. If all readers have left and others have come in
// the meantime, the position is another one, and the events are ignored.
func (f *feed) add(position uint64, all found) {
	items := make([]item, len(all.events))
	for i, event := range all.events {
		items[i] = item{event, eventFrame(nil, event)}
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if position != f.last || f.readers == 0 || all.count == 0 {
		return
	}
	f.items = append(f.items, items...)
	if len(f.items) > f.most {
		excess := len(f.items) - f.most*3/4 // move the others rarely
		f.base = f.items[excess-1].event.ID
		f.items = slices.Clone(f.items[excess:])
	}
	f.last = all.last
	close(f.changed)
	f.changed = make(chan struct{})
}

// eventFrame appends an event in the form of the stream.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
func eventFrame(into []byte, e *model.Event) []byte {
	into = strconv.AppendUint(append(into, "id: "...), e.ID, 10)
	into = append(append(into, "\nevent: "...), e.Type...)
	into = output.AppendJSON(append(into, "\ndata: "...), e) // without line breaks
	return append(into, "\n\n"...)
}

// noteFrame appends a message that is not an event of a port: it has no id.
func noteFrame(into *bytes.Buffer, name string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	fmt.Fprintf(into, "event: %s\ndata: %s\n\n", name, data)
}
