package journal

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
)

var cursorName = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)

// Cursor returns the id up to which a consumer has worked, and whether it has
// one. The error says that the name is no name: 1 to 64 of a-z, 0-9 and ". _ -".
func (j *Journal) Cursor(name string) (id uint64, found bool, err error) {
	if err := checkCursor(name); err != nil {
		return 0, false, err
	}
	j.cursorMutex.Lock()
	defer j.cursorMutex.Unlock()
	id, found = j.cursors[name]
	return id, found, nil
}

// SetCursor notes that a consumer has worked up to an id. On return it is in
// the journal: a crash of the program does not lose it, a power cut may.
func (j *Journal) SetCursor(name string, id uint64) error {
	if err := checkCursor(name); err != nil {
		return err
	}
	if id > maxID {
		return fmt.Errorf("cursor %s: %d is not an id: the largest is %d", name, id, uint64(maxID))
	}
	j.swap.RLock()
	defer j.swap.RUnlock()
	j.cursorMutex.Lock()
	defer j.cursorMutex.Unlock()
	if j.store == nil {
		return fmt.Errorf("cursor %s: %w", name, errClosed)
	}
	if err := writeCursor(j.store.db, name, id); err != nil {
		return fmt.Errorf("cursor %s: write it to the journal %s: %w", name, j.place, err)
	}
	j.cursors[name] = id
	return nil
}

func checkCursor(name string) error {
	if !cursorName.MatchString(name) {
		return fmt.Errorf("cursor %q: a name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen", name)
	}
	return nil
}

// executer is a database or a transaction.
type executer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func writeCursor(to executer, name string, id uint64) error {
	_, err := to.ExecContext(context.Background(), "INSERT INTO cursors (name, id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id", name, int64(id))
	return err
}

// writeCursors writes all to a database that is new. The caller holds
// cursorMutex.
func (j *Journal) writeCursors(to executer) error {
	for name, id := range j.cursors {
		if err := writeCursor(to, name, id); err != nil {
			return fmt.Errorf("write cursor %s: %w", name, err)
		}
	}
	return nil
}
