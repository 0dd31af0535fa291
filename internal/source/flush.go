package source

import "context"

// flushes are the calls of Flush that wait. One flush of the probe is under way at a time:
// its end closes the channels of the calls before its beginning.
type flushes struct {
	next    []chan struct{} // of calls that wait for a flush which has not begun
	current []chan struct{} // of calls that wait for the flush under way
}

// Flush waits, until ctx ends at most, until the capture's inbox has what eBPF recorded
// and counted before this call, and reports whether it has. A snapshot that is sent after
// that opens no socket before eBPF does, and only finds what eBPF missed.
func (r *Reader) Flush(ctx context.Context) (done bool) {
	flushed := make(chan struct{})
	r.mutex.Lock()
	r.flushes.next = append(r.flushes.next, flushed)
	r.startFlush()
	r.mutex.Unlock()
	if !r.await(ctx, flushed) {
		return false
	}
	if !r.counted() {
		return true
	}
	counted := make(chan struct{})
	select {
	case r.counts <- counted:
		return r.await(ctx, counted)
	case <-r.stopped:
		return true
	case <-ctx.Done():
		return false
	}
}

// await waits for done, or for the end of the reader, which sends nothing more then.
func (r *Reader) await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-r.stopped:
		return true
	case <-ctx.Done():
		return false
	}
}

// flushSoon is Flush for flushTime at most.
func (r *Reader) flushSoon(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	return r.Flush(ctx)
}

// startFlush begins the next flush unless one is under way. The caller holds the mutex.
func (r *Reader) startFlush() {
	f := &r.flushes
	if len(f.current) > 0 || len(f.next) == 0 {
		return
	}
	f.current, f.next = f.next, nil
	if err := r.probe.Flush(); err != nil { // the probe is closed: await ends by stopped
		f.current = nil
	}
}

// flushed ends the flush under way, and returns the channels of the calls that wait for it.
func (r *Reader) flushed() []chan struct{} {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	ends := r.flushes.current
	r.flushes.current = nil
	r.startFlush()
	return ends
}
