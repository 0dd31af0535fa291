package journal

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The index has, for each event, what a query compares except the time. A block is a
// row of it, for the events of consecutive ids: so a query reads a few bytes for an event,
// for any combination of conditions, and an event costs a few bytes and no page of its own.
// The writer makes a block when all its events are there. The newest events, and those of
// a file of an older schema until they are indexed, are in none.

const (
	// blockLength is how many ids a block has at most.
	blockLength = 4096
	// entryBytes is what an event takes in a block: two numbers of 16 bits, of which the
	// first is that of its kind in the block from 1 on, or 0 where there is no event
	// with the id, and the second is its port.
	entryBytes = 4
)

// kindColumn is the kind of an event: all that a query compares except its time and port.
// See [parseKind].
const kindColumn = "origin || '|' || type || '|' || transient || '|' || protocol || '|' || exposure || '|' || " + outsideColumn + " || '|' || ifnull(json_extract(detail, '$.drift'), '')"

// outsideColumn is Listener.Outside as 0 or 1, or nothing where that is not known; see
// [model.Listener.SetReach]. Published addresses that are no loopback addresses are those
// that are not like "127.…" and "[::1]:…".
const outsideColumn = "CASE exposure WHEN '' THEN '' WHEN 'lan' THEN 1 WHEN 'host' THEN 1 WHEN 'published' THEN " +
	"json_extract(detail, '$.published') IS NULL OR EXISTS (SELECT 1 FROM json_each(detail, '$.published') WHERE value NOT LIKE '127.%' AND value NOT LIKE '[::1]:%' AND value NOT LIKE '[::ffff:127.%') ELSE 0 END"

// block is a block that is being made.
type block struct {
	first   int64
	kinds   []string
	numbers map[string]int // of kinds
	entries []byte
}

func newBlock(first int64) *block { return &block{first: first, numbers: map[string]int{}} }

// add adds an event, whose id is above the last one's.
func (b *block) add(id, port int64, kind []byte) {
	number, known := b.numbers[string(kind)]
	if !known {
		text := strings.ReplaceAll(string(kind), "\n", " ") // of a damaged row
		b.kinds = append(b.kinds, text)
		number = len(b.kinds)
		b.numbers[string(kind)] = number
	}
	for missing := id - b.first - int64(len(b.entries)/entryBytes); missing > 0; missing-- {
		b.entries = append(b.entries, make([]byte, entryBytes)...)
	}
	b.entries = binary.LittleEndian.AppendUint16(b.entries, uint16(number))
	b.entries = binary.LittleEndian.AppendUint16(b.entries, uint16(port))
}

// indexed returns the id up to which the index has the events.
func indexed(t transaction) (last int64, err error) {
	err = t.get([]any{&last}, fmt.Sprintf("SELECT ifnull((SELECT first + length(entries) / %d - 1 FROM filter_blocks ORDER BY first DESC LIMIT 1), 0)", entryBytes))
	return last, err
}

// addBlock adds the next block, if all its events are there, and reports whether it has.
func addBlock(t transaction, length int64) (added bool, err error) {
	last, err := indexed(t)
	if err != nil {
		return false, err
	}
	var first, newest int64
	err = t.get([]any{&first, &newest}, "SELECT ifnull((SELECT min(id) FROM events WHERE id > ?), 0), ifnull((SELECT max(id) FROM events), 0)", last)
	if err != nil || first == 0 || newest < first+length-1 {
		return false, err
	}
	b := newBlock(first)
	err = eachKind(t, first, first+length-1, "ASC", func(id, port int64, kind []byte) error {
		b.add(id, port, kind)
		return nil
	})
	if err != nil {
		return false, err
	}
	return true, t.exec("INSERT INTO filter_blocks (first, kinds, entries) VALUES (?, ?, ?)", b.first, strings.Join(b.kinds, "\n"), b.entries)
}

// dropBlocks deletes the blocks whose last event has an id up to last.
func dropBlocks(t transaction, last int64) error {
	return t.exec(fmt.Sprintf("DELETE FROM filter_blocks WHERE first <= ?1 AND first + length(entries) / %d - 1 <= ?1", entryBytes), last)
}

// usedOrigins returns the origins of all events. It is incomplete, and there is no result,
// while there is more than a block of events that are not indexed.
func usedOrigins(t transaction) (used []int64, complete bool, err error) {
	var end, count int64
	if end, err = indexed(t); err != nil {
		return nil, false, err
	}
	err = t.get([]any{&count}, "SELECT count(*) FROM (SELECT 1 FROM events WHERE id > ? LIMIT ?)", end, 2*blockLength)
	if err != nil || count == 2*blockLength {
		return nil, false, err
	}
	set := map[string]bool{}
	add := func(kind []byte) {
		origin, _, _ := bytes.Cut(kind, []byte{'|'})
		if !set[string(origin)] {
			set[string(origin)] = true
		}
	}
	var kinds sql.RawBytes
	err = t.each(func(scan func(...any) error) error {
		err := scan(&kinds)
		for kind := range bytes.SplitSeq(kinds, []byte{'\n'}) {
			add(kind)
		}
		return err
	}, "SELECT kinds FROM filter_blocks")
	if err == nil {
		err = eachKind(t, end+1, maxID, "ASC", func(_, _ int64, kind []byte) error { add(kind); return nil })
	}
	for text := range set {
		if origin, err := strconv.ParseInt(text, 10, 64); err == nil {
			used = append(used, origin)
		}
	}
	return used, true, err
}

// eachKind calls f for the events of a range of ids. The kind is valid until f returns.
func eachKind(t transaction, first, last int64, order string, f func(id, port int64, kind []byte) error) error {
	var id, port int64
	var kind sql.RawBytes
	return t.each(func(scan func(...any) error) error {
		if err := scan(&id, &port, &kind); err != nil {
			return err
		}
		return f(id, port, kind)
	}, "SELECT id, port, "+kindColumn+" FROM events NOT INDEXED WHERE id BETWEEN ? AND ? ORDER BY id "+order, first, last)
}

// eachBlock calls f for the blocks that have ids of a range. What it receives is valid
// until f returns.
func eachBlock(t transaction, first, last int64, order string, f func(first int64, kinds, entries []byte) error) error {
	var at int64
	var kinds, entries sql.RawBytes
	return t.each(func(scan func(...any) error) error {
		if err := scan(&at, &kinds, &entries); err != nil {
			return err
		}
		return f(at, kinds, entries)
	}, "SELECT first, kinds, entries FROM filter_blocks WHERE first BETWEEN ifnull((SELECT max(first) FROM filter_blocks WHERE first <= ?1), 0) AND ?2 ORDER BY first "+order,
		first, last)
}

// errEnough ends a loop over rows.
var errEnough = errors.New("there are enough")

// search finds events by the index.
type search struct {
	matching
	limit int
	ids   []int64 // those found
	kinds []*portMap
}

// find returns the ids of the first events of a range that match, or with descending
// the last ones, in that order; limit of them at most.
func (m matching) find(t transaction, first, last int64, limit int, descending bool) ([]int64, error) {
	end, err := indexed(t)
	if err != nil {
		return nil, err
	}
	s := &search{matching: m, limit: limit}
	inBlocks := func(order string) error {
		return eachBlock(t, first, min(last, end), order, func(at int64, kinds, entries []byte) error {
			return s.block(at, first, last, kinds, entries, descending)
		})
	}
	others := func(order string) error {
		return eachKind(t, max(first, end+1), last, order, s.event)
	}
	if descending {
		if err = others("DESC"); err == nil {
			err = inBlocks("DESC")
		}
	} else if err = inBlocks("ASC"); err == nil {
		err = others("ASC")
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	return s.ids, err
}

func (s *search) event(id, port int64, kind []byte) error {
	if ports := s.ports(kind); ports == nil || !ports[uint16(port)] {
		return nil
	}
	return s.found(id)
}

func (s *search) found(id int64) error {
	s.ids = append(s.ids, id)
	if len(s.ids) >= s.limit {
		return errEnough
	}
	return nil
}

// block finds the events of a block from first to last.
func (s *search) block(at, first, last int64, kinds, entries []byte, descending bool) error {
	matches := false
	s.kinds = append(s.kinds[:0], nil) // there is no kind 0
	for kind := range bytes.SplitSeq(kinds, []byte{'\n'}) {
		ports := s.ports(kind)
		matches = matches || ports != nil
		s.kinds = append(s.kinds, ports)
	}
	if !matches {
		return nil
	}
	low, high := max(first-at, 0), min(last-at, int64(len(entries)/entryBytes)-1)
	for i := low; i <= high; i++ {
		position := i
		if descending {
			position = high - (i - low)
		}
		entry := entries[position*entryBytes:][:entryBytes]
		kind := int(binary.LittleEndian.Uint16(entry))
		if kind >= len(s.kinds) {
			return damage{fmt.Errorf("the block %d of the index has the kind %d of %d", at, kind, len(s.kinds)-1)}
		}
		if ports := s.kinds[kind]; ports != nil && ports[binary.LittleEndian.Uint16(entry[2:])] {
			if err := s.found(at + position); err != nil {
				return err
			}
		}
	}
	return nil
}
