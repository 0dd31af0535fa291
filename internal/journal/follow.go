package journal

import (
	"context"
	"fmt"
	"iter"
	"os"
	"time"

	"portwatcher/internal/model"
)

// Follow returns what [Reader.Events] does, and then goes on with what comes,
// until ctx ends; then it ends without an error. The limit is that of what is
// already there; with FromStart, of all. A consumer that is slow misses nothing
// that retention does not delete.
func (r *Reader) Follow(ctx context.Context, q Query) iter.Seq2[*model.Event, error] {
	return func(yield func(*model.Event, error) bool) {
		if err := q.Check(); err != nil {
			yield(nil, err)
			return
		}
		f := follower{r: r, q: q, left: -1}
		if q.Limit > 0 && q.FromStart {
			f.left = q.Limit
		}
		f.run(ctx, func(e *model.Event, err error) bool {
			return ctx.Err() == nil && yield(e, err)
		})
	}
}

type follower struct {
	r    *Reader
	q    Query
	left int // how many events may still come; below 0: any number
}

func (f *follower) run(ctx context.Context, yield func(*model.Event, error) bool) {
	for {
		more := f.r.wait(ctx)
		_, last, err := f.r.Bounds(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		if last > f.q.AfterID && !f.step(ctx, last, yield) {
			return
		}
		f.q.Limit = max(f.left, 0) // what comes is not the last of it
		if f.left == 0 || f.q.BeforeID > 0 && last >= f.q.BeforeID-1 {
			return
		}
		more()
		if ctx.Err() != nil {
			return
		}
	}
}

// step reads up to the id last, which is in the journal.
func (f *follower) step(ctx context.Context, last uint64, yield func(*model.Event, error) bool) bool {
	q := f.q
	if q.BeforeID == 0 || q.BeforeID > last {
		q.BeforeID = last + 1
	}
	if !f.r.read(ctx, &q, func(e *model.Event, err error) bool {
		if f.left > 0 {
			f.left--
		}
		return yield(e, err)
	}) {
		return false
	}
	f.q.AfterID = last
	return true
}

// wait returns a function that waits until there may be more than there is now.
func (r *Reader) wait(ctx context.Context) func() {
	if r.j != nil {
		committed := r.j.Committed()
		return func() {
			select {
			case <-committed:
			case <-ctx.Done():
			}
		}
	}
	return func() {
		select {
		case <-time.After(pollTime):
		case <-ctx.Done():
		}
	}
}

// reopen opens the file anew if another one took its place, as happens when it
// proved corrupt, or if a frozen one is written now.
func (r *Reader) reopen(ctx context.Context) error {
	if r.j != nil {
		return nil
	}
	info, err := os.Stat(r.path)
	if err != nil {
		return nil // perhaps for a moment: what was opened can still be read
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.db == nil || os.SameFile(info, r.file) && !(r.frozen && exists(r.path+"-wal")) {
		return nil
	}
	old := r.db
	if err := r.open(ctx); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		return fmt.Errorf("journal %s: close the file that was there before: %w", r.path, err)
	}
	return nil
}
