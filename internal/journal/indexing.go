package journal

import (
	"cmp"
	"context"
	"time"
)

// indexPause is the time between two steps while old events are indexed.
const indexPause = 10 * time.Millisecond

// indexing has when the index has its next block.
type indexing struct {
	length  int64 // ids of a block
	written int64 // events since the last step that was due
	timer   *time.Timer
	failing bool
}

func newIndexing(length int64) indexing {
	return indexing{length: cmp.Or(length, blockLength), timer: time.NewTimer(0)}
}

// due reports whether there were enough events for a block.
func (x *indexing) due() bool {
	if x.written < x.length {
		return false
	}
	x.written -= x.length
	return true
}

// index adds a block, if there is one to add.
func (w *writer) index(ctx context.Context) {
	added := false
	err := w.transact(func(t transaction) (err error) {
		if added, err = addBlock(t, w.indexing.length); err == nil && !added {
			// All is indexed: the index of schema 2 is not needed any more.
			err = t.exec("DROP INDEX IF EXISTS events_origin")
		}
		return err
	})
	w.aside(ctx, err, &w.indexing.failing, "The index of the journal %s cannot be written: queries become slow. It is tried again with each block.")
	if added && err == nil {
		w.indexing.timer.Reset(indexPause)
	}
}
