package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"portwatcher/internal/model"
)

// schemaDrift is new in schema 4: the periods of drifts. The drift of an event is in its detail:
// SQLite examines each row of a table to which a column is added, half a minute for 2 million.
const schemaDrift = `
CREATE TABLE drifts (
	target   TEXT NOT NULL,
	port     INTEGER NOT NULL,
	protocol INTEGER NOT NULL,
	kind     TEXT NOT NULL,
	exposure TEXT NOT NULL,
	began    INTEGER NOT NULL,
	ended    INTEGER,         -- NULL: it lasts
	drift    TEXT NOT NULL,   -- JSON: model.OpenDrift
	PRIMARY KEY (target, port, protocol, kind, exposure, began)
) STRICT;
CREATE INDEX drifts_ended ON drifts (ended) WHERE ended IS NOT NULL;
`

// periodKey is the identity of a period.
type periodKey struct {
	model.DriftKey
	began int64 // as nanos returns it
}

func keyOfPeriod(p *model.DriftPeriod) periodKey { return periodKey{p.Key(), nanos(p.Since)} }

// drifts are the periods that last by the records, and those by which the database differs.
type drifts struct {
	lasting, changed map[periodKey]model.DriftPeriod
}

func newDrifts(lasting []model.DriftPeriod) drifts {
	d := drifts{map[periodKey]model.DriftPeriod{}, map[periodKey]model.DriftPeriod{}}
	for i := range lasting {
		d.lasting[keyOfPeriod(&lasting[i])] = lasting[i]
	}
	return d
}

// apply applies a record, which was offered at now: what Full leaves out ends then.
func (d *drifts) apply(r *Record, now time.Time) {
	kept := map[periodKey]bool{}
	for i := range r.Drifts {
		p := r.Drifts[i]
		key := keyOfPeriod(&p)
		kept[key] = true
		if _, known := d.lasting[key]; r.Full && known {
			continue
		}
		d.changed[key] = p
		if p.Ended.IsZero() {
			d.lasting[key] = p
		} else {
			delete(d.lasting, key)
		}
	}
	if !r.Full {
		return
	}
	for key, p := range d.lasting {
		if !kept[key] {
			p.Ended = now
			d.changed[key] = p
			delete(d.lasting, key)
		}
	}
}

// rebase makes everything a difference: the database is a new one.
func (d *drifts) rebase() {
	for key, p := range d.lasting {
		d.changed[key] = p
	}
}

// write writes the differences.
func (d *drifts) write(t transaction) error {
	for key, p := range d.changed {
		text, err := encodeJSON(&p.OpenDrift, false)
		if err != nil {
			return err
		}
		var ended any
		if !p.Ended.IsZero() {
			ended = nanos(p.Ended)
		}
		err = t.exec(`INSERT OR REPLACE INTO drifts (target, port, protocol, kind, exposure, began, ended, drift) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			key.Target, int64(key.Port), int64(key.Protocol), string(key.Drift), string(key.Exposure), key.began, ended, text)
		if err != nil {
			return err
		}
	}
	return nil
}

// DriftQuery selects periods of drifts. What is zero or empty selects all.
type DriftQuery struct {
	// Since and Until select the periods that lasted at some time from Since on (inclusive) to
	// Until (exclusive).
	Since, Until time.Time
	// Filter compares what is known of a drift. A container is compared as it was then, and by
	// its newest labels nowhere.
	model.Filter
	// Limit is how many there are at most, the last that began; 0: all.
	Limit int
}

// Drifts returns the periods that q selects, those that began last first.
func (r *queries) Drifts(ctx context.Context, q DriftQuery) (periods []model.DriftPeriod, err error) {
	conditions := "(ended IS NULL OR ended >= ?1) AND began < ?2"
	since, until := int64(0), int64(maxID)
	if !q.Since.IsZero() {
		since = nanos(q.Since)
	}
	if !q.Until.IsZero() {
		until = nanos(q.Until)
	}
	err = r.transact(ctx, func(t transaction) error {
		all, err := readDrifts(t, conditions+" ORDER BY began DESC, target, port, protocol, kind, exposure", since, until)
		if err != nil {
			return err
		}
		var refs []*model.ContainerRef
		for i := range all {
			if all[i].Container != nil {
				refs = append(refs, all[i].Container)
			}
		}
		matcher := q.Filter.Matcher(model.NamesOf(refs))
		periods = make([]model.DriftPeriod, 0, min(len(all), 1000))
		for i := range all {
			if q.Limit > 0 && len(periods) == q.Limit {
				break
			}
			if matcher.Drift(&all[i].OpenDrift) {
				periods = append(periods, all[i])
			}
		}
		return nil
	})
	return periods, err
}

// readDrifts returns the periods of a condition.
func readDrifts(t transaction, condition string, args ...any) (periods []model.DriftPeriod, err error) {
	err = t.each(func(scan func(...any) error) error {
		var ended sql.NullInt64
		var text sql.RawBytes
		if err := scan(&ended, &text); err != nil {
			return err
		}
		var p model.DriftPeriod
		if err := json.Unmarshal(text, &p.OpenDrift); err != nil {
			return fmt.Errorf("a drift of the journal is damaged: %w", err)
		}
		p.SetReach(p.Exposure, p.Published)
		if ended.Valid {
			p.Ended = timeOf(ended.Int64)
		}
		periods = append(periods, p)
		return nil
	}, "SELECT ended, drift FROM drifts WHERE "+condition, args...)
	return periods, err
}
