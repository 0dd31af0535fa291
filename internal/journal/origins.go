package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"portwatcher/internal/model"
)

// origin is what is the same in many events.
type origin struct {
	host                              string
	known                             bool // an event may name no container
	id, name, image, project, service string
}

func originOf(l *model.Listener) origin {
	o := origin{host: l.Host}
	if l.Container != nil {
		c := l.Container
		o.known, o.id, o.name, o.image, o.project, o.service = true, c.ID, c.Name, c.Image, c.Project, c.Service
	}
	return o
}

// maxOrigins bounds what origins remembers; what was forgotten is found in the
// database.
const maxOrigins = 1 << 14

// origins numbers origins by the table of that name.
type origins struct {
	rows map[origin]int64
	// added are in the running transaction.
	added []origin
}

// row returns the number of an origin, which it adds if it is new.
func (o *origins) row(ctx context.Context, tx *sql.Tx, of origin) (int64, error) {
	if row, ok := o.rows[of]; ok {
		return row, nil
	}
	id := sql.NullString{String: of.id, Valid: of.known}
	var row int64
	err := tx.QueryRowContext(ctx, "SELECT id FROM origins WHERE container IS ? AND host = ? AND name = ? AND image = ? AND project = ? AND service = ?",
		id, of.host, of.name, of.image, of.project, of.service).Scan(&row)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.QueryRowContext(ctx, "INSERT INTO origins (container, host, name, image, project, service) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
			id, of.host, of.name, of.image, of.project, of.service).Scan(&row)
	}
	if err != nil {
		return 0, fmt.Errorf("find or add its host %q and container %q: %w", of.host, of.name, err)
	}
	if o.rows == nil || len(o.rows) >= maxOrigins {
		o.rows = map[origin]int64{}
	}
	o.rows[of] = row
	o.added = append(o.added, of)
	return row, nil
}

// committed keeps what was added.
func (o *origins) committed() { clear(o.added); o.added = o.added[:0] }

// rolledBack forgets what was added.
func (o *origins) rolledBack() {
	for _, added := range o.added {
		delete(o.rows, added)
	}
	o.committed()
}

// forget forgets everything: rows were deleted.
func (o *origins) forget() { o.rows, o.added = nil, nil }
