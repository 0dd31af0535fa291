package journal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan is what a query selects.
type plan struct {
	first, last uint64    // range of ids
	end         uint64    // last without regard to the times of the query
	times       string    // conditions on the time, as SQL: " AND ..."
	matching    *matching // nil: every event of the range
	// found are the ids of the last events, where they were found and are few; else nil.
	found []int64
}

// newPlan turns a query into a plan. The range of ids ends with the last event that
// is there now: rows of origins that come later are not selected.
func newPlan(t transaction, q *Query) (p *plan, err error) {
	p = &plan{}
	if err := p.setRange(t, q); err != nil {
		return nil, err
	}
	if p.matching, err = newMatching(t, &q.Filter); err != nil {
		return nil, err
	}
	if q.Limit > 0 && !q.FromStart {
		return p, p.skipToLast(t, q.Limit)
	}
	return p, nil
}

// setRange bounds the ids by those of the query, and by its times: the column backward
// of meta bounds how far ids and times are out of order.
func (p *plan) setRange(t transaction, q *Query) error {
	if err := t.get([]any{&p.first, &p.end}, "SELECT (SELECT ifnull(min(id), 0) FROM events), (SELECT ifnull(max(id), 0) FROM events)"); err != nil {
		return err
	}
	p.first = max(p.first, q.AfterID+1)
	if q.BeforeID > 0 {
		p.end = min(p.end, q.BeforeID-1)
	}
	p.last = p.end
	if !q.Since.IsZero() {
		p.times += fmt.Sprintf(" AND time >= %d", nanos(q.Since))
		before, err := boundary(t, "time < ?1 - backward ORDER BY time DESC", q.Since, 0)
		if err != nil {
			return err
		}
		p.first = max(p.first, before+1)
	}
	if !q.Until.IsZero() {
		p.times += fmt.Sprintf(" AND time < %d", nanos(q.Until))
		after, err := boundary(t, "time >= ?1 + backward ORDER BY time", q.Until, maxID)
		if err != nil {
			return err
		}
		p.last = min(p.last, after-1)
	}
	return nil
}

// boundary returns the id of the first event of a condition on times, or otherwise none.
func boundary(t transaction, condition string, at time.Time, none int64) (id uint64, err error) {
	err = t.get([]any{&id}, "SELECT ifnull((SELECT id FROM events INDEXED BY events_time WHERE "+condition+" LIMIT 1), ?2) FROM meta",
		nanos(at), none)
	return id, err
}

// empty reports that nothing is selected.
func (p *plan) empty() bool {
	return p.first > p.last || p.matching != nil && p.matching.none()
}

// page returns the next events that are selected, limit of them at most, and whether
// there may be more.
func (p *plan) page(t transaction, limit int) (page []result, more bool, err error) {
	const query = "SELECT " + eventColumns + " FROM events NOT INDEXED WHERE id "
	var ids []int64
	switch {
	case p.found != nil:
		ids = p.found[:min(limit, len(p.found))]
		p.found = p.found[len(ids):]
		more = len(p.found) > 0
	case p.matching == nil:
		page, err = readEvents(t, fmt.Sprintf("%s BETWEEN %d AND %d%s ORDER BY id LIMIT %d", query, p.first, p.last, p.times, limit))
		if more = len(page) == limit; more {
			p.first = page[limit-1].id + 1
		}
		return page, more, err
	default:
		if ids, err = p.find(t, limit, false); err != nil {
			return nil, false, err
		}
		if more = len(ids) == limit; more {
			p.first = uint64(ids[limit-1]) + 1
		}
	}
	page, err = readEvents(t, query+"IN "+list(ids)+" ORDER BY id")
	return page, more, err
}

// mostFound is up to how many ids of the last events are kept: as many as a page of the API has.
const mostFound = 5000

// candidates is how many events are found at a time before their times are compared.
const candidates = 1000

// find returns the ids of the first events that are selected, or with descending of the
// last ones, in that order; limit of them at most.
func (p *plan) find(t transaction, limit int, descending bool) (ids []int64, err error) {
	if p.matching == nil || p.times == "" {
		return p.findAnyTime(t, int64(p.first), int64(p.last), limit, descending)
	}
	first, last := int64(p.first), int64(p.last)
	for len(ids) < limit && first <= last {
		some, err := p.findAnyTime(t, first, last, candidates, descending)
		if err != nil || len(some) == 0 {
			return ids, err
		}
		if descending {
			last = some[len(some)-1] - 1
		} else {
			first = some[len(some)-1] + 1
		}
		query := "SELECT id FROM events NOT INDEXED WHERE id IN " + list(some) + p.times + " ORDER BY id"
		if ids, err = appendIDs(t, ids, query+direction(descending)); err != nil {
			return nil, err
		}
	}
	return ids[:min(len(ids), limit)], nil
}

// findAnyTime returns what find does, without regard to times where there is a filter.
func (p *plan) findAnyTime(t transaction, first, last int64, limit int, descending bool) ([]int64, error) {
	if p.matching != nil {
		return p.matching.find(t, first, last, limit, descending)
	}
	return appendIDs(t, nil, fmt.Sprintf("SELECT id FROM events NOT INDEXED WHERE id BETWEEN %d AND %d%s ORDER BY id%s LIMIT %d",
		first, last, p.times, direction(descending), limit))
}

func direction(descending bool) string {
	if descending {
		return " DESC"
	}
	return ""
}

func appendIDs(t transaction, ids []int64, query string) ([]int64, error) {
	err := t.each(func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, query)
	return ids, err
}

// skipToLast narrows the range to the last events that are selected.
func (p *plan) skipToLast(t transaction, limit int) error {
	if p.empty() {
		return nil
	}
	ids, err := p.find(t, limit, true)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		p.first = p.last + 1
		return nil
	}
	p.first, p.last = uint64(ids[len(ids)-1]), uint64(ids[0])
	if len(ids) <= mostFound {
		slices.Reverse(ids)
		p.found = ids
	}
	return nil
}

// list returns numbers as SQL has them.
func list(values []int64) string {
	words := make([]string, len(values))
	for i, value := range values {
		words[i] = strconv.FormatInt(value, 10)
	}
	return "(" + strings.Join(words, ",") + ")"
}
