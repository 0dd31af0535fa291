package probe

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
)

// The maps of counts: one with an entry for each endpoint, one with an entry for
// the rest of each cgroup. The order is that of ENDPOINTS and RESTS in
// bpf/account.h.
var countEntries = [2]uint32{2048, 1024}

// batchSize is how many entries are taken in one system call. It has to be more
// than the entries of one of the kernel's hash buckets.
const batchSize = 256

// ledger takes the programs' counts. Of each map there are two: the programs write to
// one, the other is empty.
type ledger struct {
	mu     sync.Mutex // held by take: one at a time, and none after close
	closed bool
	outer  *ebpf.Map    // where the programs find the maps
	active [2]*ebpf.Map // in outer
	spare  [2]*ebpf.Map

	keys   [batchSize][countKeySize]byte
	values [batchSize][countValueSize]byte
	names  names
}

func (l *ledger) open(inner *ebpf.MapSpec, outer *ebpf.Map) error {
	l.outer = outer
	l.names = names{}
	for i, entries := range countEntries {
		spec := inner.Copy()
		spec.MaxEntries = entries
		for _, into := range []**ebpf.Map{&l.active[i], &l.spare[i]} {
			made, err := ebpf.NewMap(spec)
			if err != nil {
				return unsupported("map of counts", err)
			}
			*into = made
		}
		if err := outer.Put(uint32(i), l.active[i]); err != nil {
			return unsupported("map of counts in a map", err)
		}
	}
	return nil
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for i := range l.active {
		errs = append(errs, l.active[i].Close(), l.spare[i].Close())
	}
	return errors.Join(errs...)
}

// Counts appends the counts since the last call to dst. Every opening and closing that
// [Stats] had as counted or missed before the call is in the result of this call or an
// earlier one, and none is in two. Where nothing was counted it costs two system calls;
// otherwise it waits, up to tens of milliseconds, until no program uses the maps that it
// takes. An error loses only the counts of a *[MalformedError]. After Close it returns
// os.ErrClosed.
func (p *Probe) Counts(dst []Count) ([]Count, error) {
	l := &p.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return dst, os.ErrClosed
	}
	for i := range l.active {
		var err error
		if dst, err = l.take(i, dst); err != nil {
			return dst, fmt.Errorf("take the eBPF counts: %w", err)
		}
	}
	return dst, nil
}

// take replaces the active map by the spare one and empties it.
func (l *ledger) take(i int, dst []Count) ([]Count, error) {
	var first [countKeySize]byte
	switch err := l.active[i].NextKey(nil, &first); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return dst, nil
	case err != nil:
		return dst, err
	}
	// The kernel returns from this when every running program has ended: no program
	// writes to the old map any more. After an error the programs continue to count in
	// a filled map, which the next call takes.
	if err := l.outer.Put(uint32(i), l.spare[i]); err != nil {
		return dst, err
	}
	l.active[i], l.spare[i] = l.spare[i], l.active[i]
	return l.empty(l.spare[i], dst)
}

// empty moves the entries of a map that no program writes to.
func (l *ledger) empty(m *ebpf.Map, dst []Count) ([]Count, error) {
	var malformed error
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookupAndDelete(&cursor, l.keys[:], l.values[:], nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return dst, errors.Join(malformed, err)
		}
		for i := range n {
			var count Count
			if err := parseCount(l.keys[i][:], l.values[i][:], &count, l.names); err != nil {
				malformed = errors.Join(malformed, err)
				continue
			}
			dst = append(dst, count)
		}
		if err != nil { // that was the last
			return dst, malformed
		}
	}
}
