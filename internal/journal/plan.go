package journal

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"portwatcher/internal/model"
)

// plan is a query as SQL. The text has the values too: they are numbers, and types and
// exposures in quotes.
type plan struct {
	first, last uint64 // range of ids
	end         uint64 // last without regard to the times of the query
	// origins are the rows whose events are selected, by the index on them; nil: those
	// of all, by id.
	origins []int64
	where   string // " AND ..."
}

// fewOrigins is up to how many origins the index is faster than reading all events.
const fewOrigins = 16

// newPlan turns a query into SQL. The range of ids ends with the last event that
// is there now: rows of origins that come later are not selected.
func newPlan(t transaction, q *Query) (*plan, error) {
	p := &plan{}
	if err := p.setRange(t, q); err != nil {
		return nil, err
	}
	if err := p.selectOrigins(t, q); err != nil {
		return nil, err
	}
	p.conditions(q)
	if q.Limit > 0 && !q.FromStart {
		return p, p.skipToLast(t, q.Limit)
	}
	return p, nil
}

func (p *plan) and(format string, values ...any) {
	p.where += " AND " + fmt.Sprintf(format, values...)
}

// setRange bounds the ids by those of the query, and by its times: the column backward
// of meta bounds how far ids and times are out of order.
func (p *plan) setRange(t transaction, q *Query) error {
	p.first = q.AfterID + 1
	if err := t.get([]any{&p.end}, "SELECT ifnull(max(id), 0) FROM events"); err != nil {
		return err
	}
	if q.BeforeID > 0 {
		p.end = min(p.end, q.BeforeID-1)
	}
	p.last = p.end
	if !q.Since.IsZero() {
		p.and("time >= %d", nanos(q.Since))
		before, err := boundary(t, "time < ?1 - backward ORDER BY time DESC", q.Since, 0)
		if err != nil {
			return err
		}
		p.first = max(p.first, before+1)
	}
	if !q.Until.IsZero() {
		p.and("time < %d", nanos(q.Until))
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

func (p *plan) selectOrigins(t transaction, q *Query) error {
	if q.Containers.Empty() && q.Project == "" {
		return nil
	}
	origins, err := readOrigins(t, "container IS NOT NULL")
	if err != nil {
		return err
	}
	var containers []*model.ContainerRef
	for _, o := range origins {
		containers = append(containers, o.container)
	}
	matcher := q.Matcher(model.NamesOf(containers))
	p.origins = []int64{}
	for row, o := range origins {
		if matcher.Container(o.container) {
			p.origins = append(p.origins, row)
		}
	}
	if len(p.origins) > fewOrigins {
		p.and("origin IN %s", list(p.origins))
		p.origins = nil
	}
	return nil
}

// conditions adds what the columns of an event are compared with.
func (p *plan) conditions(q *Query) {
	if len(q.Types) > 0 {
		p.and("type IN %s", texts(q.Types))
	}
	if q.Transient != nil {
		p.and("transient = %t", *q.Transient)
	}
	if len(q.Exposures) > 0 {
		p.and("exposure IN %s", texts(q.Exposures))
	}
	if q.Outside != nil {
		p.and("%s", outside(*q.Outside))
	}
	if len(q.Protocols) > 0 {
		p.and("%s", orUnset("protocol", "protocol IN "+list(q.Protocols)))
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
		p.and("(%s)", strings.Join(alternatives, " OR "))
	}
}

// outside is the condition that Listener.Outside has a value; see [model.Listener.SetReach].
// Published addresses that are no loopback addresses are those that are not like "127.…" and
// "[::1]:…".
func outside(value bool) string {
	reached := fmt.Sprintf("(exposure IN %s OR exposure = '%s' AND (json_extract(detail, '$.published') IS NULL OR EXISTS (SELECT 1 FROM json_each(detail, '$.published') WHERE value NOT LIKE '127.%%' AND value NOT LIKE '[::1]:%%' AND value NOT LIKE '[::ffff:127.%%')))",
		texts([]model.Exposure{model.Lan, model.Host}), model.Published)
	if value {
		return reached
	}
	return "exposure <> '' AND NOT " + reached
}

// orUnset makes a condition on a column true for bursts of several ports or protocols,
// which have 0 there.
func orUnset(column, condition string) string {
	return fmt.Sprintf("(%s OR type = '%s' AND %s = 0)", condition, model.Bursts, column)
}

// texts returns texts as SQL has them.
func texts[T ~string](values []T) string {
	words := make([]string, len(values))
	for i, value := range values {
		words[i] = "'" + strings.ReplaceAll(string(value), "'", "''") + "'"
	}
	return "(" + strings.Join(words, ",") + ")"
}

// list returns numbers as SQL has them.
func list[T ~int64 | ~uint8](values []T) string {
	words := make([]string, len(values))
	for i, value := range values {
		words[i] = strconv.FormatInt(int64(value), 10)
	}
	return "(" + strings.Join(words, ",") + ")"
}

// statement selects columns, of which the first is the id, of at most limit events.
// Each origin's events come in order from the index, and SQLite merges them.
func (p *plan) statement(columns, order string, limit int) string {
	where := fmt.Sprintf(" id BETWEEN %d AND %d%s", p.first, p.last, p.where)
	if p.origins == nil {
		return fmt.Sprintf("SELECT %s FROM events NOT INDEXED WHERE%s ORDER BY id %s LIMIT %d", columns, where, order, limit)
	}
	parts := make([]string, len(p.origins))
	for i, row := range p.origins {
		parts[i] = fmt.Sprintf("SELECT %s FROM events INDEXED BY events_origin WHERE origin = %d AND%s", columns, row, where)
	}
	return fmt.Sprintf("%s ORDER BY id %s LIMIT %d", strings.Join(parts, " UNION ALL "), order, limit)
}

// empty reports that nothing is selected.
func (p *plan) empty() bool { return p.first > p.last || p.origins != nil && len(p.origins) == 0 }

// skipToLast begins the range with the first of the last events that are selected.
func (p *plan) skipToLast(t transaction, limit int) error {
	if p.empty() {
		return nil
	}
	var oldest uint64
	err := t.get([]any{&oldest}, "SELECT ifnull(min(id), 0) FROM ("+p.statement("id", "DESC", limit)+")")
	p.first = max(p.first, oldest)
	return err
}
