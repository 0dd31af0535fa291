package journal

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"math"
	"strings"

	"portwatcher/internal/model"
)

// Events returns the events that q selects, in the order of their ids. An error
// stands in the place of an event: a [*DamagedError] is about that event alone,
// and the consumer may go on; after any other there is nothing more.
func (r *Reader) Events(ctx context.Context, q Query) iter.Seq2[*model.Event, error] {
	return func(yield func(*model.Event, error) bool) {
		if err := q.Check(); err != nil {
			yield(nil, err)
			return
		}
		r.read(ctx, &q, yield)
	}
}

// read yields what q selects. It returns false when the consumer, or an error,
// ended it.
func (r *Reader) read(ctx context.Context, q *Query, yield func(*model.Event, error) bool) bool {
	p, err := r.plan(ctx, q)
	if err == nil && q.Limit > 0 && !q.FromStart {
		err = r.skipToLast(ctx, p, q.Limit)
	}
	if err != nil {
		yield(nil, err)
		return false
	}
	left := math.MaxInt
	if q.Limit > 0 {
		left = q.Limit
	}
	for _, w := range p.windows {
		for w.first <= w.last && left > 0 {
			page, err := r.page(ctx, p, w, min(left, pageLength))
			if err != nil {
				yield(nil, err)
				return false
			}
			for _, result := range page {
				if !yield(result.event, result.err) {
					return false
				}
			}
			left -= len(page)
			if len(page) < pageLength {
				break
			}
			w.first = page[len(page)-1].id + 1
		}
	}
	return true
}

const (
	// pageLength is how many events are read at a time.
	pageLength = 1000
	// windowBlocks is how many blocks are searched at a time: what a page that
	// sorts has to sort at most.
	windowBlocks = 64
)

// window is a range of ids.
type window struct{ first, last uint64 }

// plan is a query prepared: where to look, and what to compare.
type plan struct {
	windows []window // rising
	from    string   // table, and index
	where   string   // " AND ..."
	args    []any
}

// plan finds the blocks of ids whose times are asked for, and turns the rest of
// the query into SQL.
func (r *Reader) plan(ctx context.Context, q *Query) (*plan, error) {
	p := &plan{from: "events"}
	err := r.reading(ctx, func(tx *sql.Tx) error {
		origins, all, err := findOrigins(ctx, tx, q)
		if err != nil || !all && len(origins) == 0 {
			return err
		}
		if !all {
			p.whereOrigin(origins)
		}
		p.conditions(q)
		return p.findWindows(ctx, tx, q)
	})
	return p, err
}

// findOrigins returns the rows of the containers that q selects; all reports that it
// selects every event.
func findOrigins(ctx context.Context, tx *sql.Tx, q *Query) (rows []int64, all bool, err error) {
	if q.Containers.Empty() && q.Project == "" {
		return nil, true, nil
	}
	found, err := tx.QueryContext(ctx, "SELECT id, container, name, project, service FROM origins WHERE container IS NOT NULL")
	if err != nil {
		return nil, false, err
	}
	defer found.Close()
	var numbers []int64
	var containers []*model.ContainerRef
	for found.Next() {
		var row int64
		c := &model.ContainerRef{}
		if err := found.Scan(&row, &c.ID, &c.Name, &c.Project, &c.Service); err != nil {
			return nil, false, err
		}
		numbers, containers = append(numbers, row), append(containers, c)
	}
	matcher := q.Matcher(model.NamesOf(containers))
	for i, c := range containers {
		if matcher.Container(c) {
			rows = append(rows, numbers[i])
		}
	}
	return rows, false, found.Err()
}

// fewOrigins is up to how many containers the index is better than reading all.
const fewOrigins = 16

func (p *plan) whereOrigin(rows []int64) {
	column := "+origin"
	if len(rows) <= fewOrigins {
		p.from, column = "events INDEXED BY events_origin", "origin"
	}
	p.whereIn(column, rows)
}

func (p *plan) whereIn(column string, values []int64) {
	if len(values) == 1 {
		p.where += " AND " + column + " = ?"
		p.args = append(p.args, values[0])
		return
	}
	p.where += " AND " + column + " IN " + listOf(values)
}

// conditions adds what the columns of events say.
func (p *plan) conditions(q *Query) {
	add := func(condition string, args ...any) {
		p.where += " AND " + condition
		p.args = append(p.args, args...)
	}
	if !q.Since.IsZero() {
		add("time >= ?", nanos(q.Since))
	}
	if !q.Until.IsZero() {
		add("time < ?", nanos(q.Until))
	}
	if q.Transient != nil {
		add("transient = ?", *q.Transient)
	}
	if len(q.Types) > 0 {
		p.whereIn("+type", codesOf(types, q.Types))
	}
	if len(q.Exposures) > 0 {
		p.whereIn("exposure", codesOf(exposures, q.Exposures))
	}
	if len(q.Protocols) > 0 {
		numbers := make([]int64, len(q.Protocols))
		for i, protocol := range q.Protocols {
			numbers[i] = int64(protocol)
		}
		add(orUnset("protocol", "protocol IN "+listOf(numbers)))
	}
	if !q.Ports.Empty() {
		var alternatives []string
		q.Ports.Each(func(first, last uint16, protocol model.Protocol) {
			alternative := orUnset("port", fmt.Sprintf("port BETWEEN %d AND %d", first, last))
			if protocol != 0 {
				alternative += " AND " + orUnset("protocol", fmt.Sprintf("protocol = %d", protocol))
			}
			alternatives = append(alternatives, alternative)
		})
		add("type <> 4 AND (" + strings.Join(alternatives, " OR ") + ")") // a gap has no port
	}
}

// orUnset makes a condition on a column true for the bursts that do not have it.
func orUnset(column, condition string) string {
	return "(" + condition + " OR type = 5 AND " + column + " = 0)"
}

func codesOf[T ~string](codes []T, values []T) []int64 {
	found := make([]int64, len(values))
	for i, value := range values {
		found[i] = int64(codeOf(codes, value))
	}
	return found
}

// findWindows finds the blocks, and puts neighbours together.
func (p *plan) findWindows(ctx context.Context, tx *sql.Tx, q *Query) error {
	first, last := q.AfterID+1, uint64(maxID)
	if q.BeforeID > 0 {
		last = q.BeforeID - 1
	}
	since, until := int64(math.MinInt64), int64(math.MaxInt64)
	if !q.Since.IsZero() {
		since = nanos(q.Since)
	}
	if !q.Until.IsZero() {
		until = nanos(q.Until)
	}
	rows, err := tx.QueryContext(ctx, "SELECT id FROM blocks WHERE id BETWEEN ? AND ? AND latest >= ? AND earliest <= ? ORDER BY id",
		int64(first>>blockShift), int64(last>>blockShift), since, until)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var block uint64
		if err := rows.Scan(&block); err != nil {
			return err
		}
		p.addBlock(window{max(first, block<<blockShift), min(last, block<<blockShift|(1<<blockShift-1))})
	}
	return rows.Err()
}

func (p *plan) addBlock(block window) {
	if n := len(p.windows); n > 0 && p.windows[n-1].last+1 == block.first && block.last-p.windows[n-1].first < windowBlocks<<blockShift {
		p.windows[n-1].last = block.last
		return
	}
	p.windows = append(p.windows, block)
}

// page reads at most limit events of a window.
func (r *Reader) page(ctx context.Context, p *plan, w window, limit int) ([]result, error) {
	var page []result
	err := r.reading(ctx, func(tx *sql.Tx) error {
		s := scanner{tx: tx}
		var err error
		page, err = s.events(ctx, "SELECT "+columns+" FROM "+p.from+" WHERE id BETWEEN ? AND ?"+p.where+" ORDER BY id LIMIT ?",
			p.arguments(w, limit)...)
		return err
	})
	return page, err
}

func (p *plan) arguments(w window, limit int) []any {
	return append(append([]any{int64(w.first), int64(w.last)}, p.args...), limit)
}

// skipToLast leaves of the windows those that hold the last events.
func (r *Reader) skipToLast(ctx context.Context, p *plan, limit int) error {
	for i := len(p.windows) - 1; i >= 0; i-- {
		count, oldest, err := r.countLast(ctx, p, p.windows[i], limit)
		if err != nil {
			return err
		}
		if limit -= count; limit == 0 {
			p.windows = p.windows[i:]
			p.windows[0].first = oldest
			return nil
		}
	}
	return nil
}

// countLast counts at most limit events from the end of a window, and returns
// the id of the oldest of them.
func (r *Reader) countLast(ctx context.Context, p *plan, w window, limit int) (count int, oldest uint64, err error) {
	err = r.reading(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT count(*), ifnull(min(id), 0) FROM (SELECT id FROM "+p.from+" WHERE id BETWEEN ? AND ?"+p.where+" ORDER BY id DESC LIMIT ?)",
			p.arguments(w, limit)...).Scan(&count, &oldest)
	})
	return count, oldest, err
}
