package journal

import (
	"context"
	"fmt"
	"regexp"
)

var cursorName = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)

// Cursor returns the id up to which a consumer has worked, and whether it has
// one. The error reports a bad name: allowed are 1 to 64 of a-z, 0-9 and ". _ -".
func (j *Journal) Cursor(name string) (id uint64, found bool, err error) {
	if err := checkCursor(name); err != nil {
		return 0, false, err
	}
	j.cursorMutex.Lock()
	defer j.cursorMutex.Unlock()
	id, found = j.cursors[name]
	return id, found, nil
}

// SetCursor records that a consumer has worked up to an id. On return it is in
// the journal: a crash of the program does not lose it, a power cut may. After an
// error it is not, and [Journal.Cursor] returns it until the program ends.
func (j *Journal) SetCursor(name string, id uint64) error {
	if err := checkCursor(name); err != nil {
		return err
	}
	if id > maxID {
		return fmt.Errorf("cursor %s: %d is not an id: the largest is %d", name, id, uint64(maxID))
	}
	// Before the database has it: a new database receives what is in the map.
	j.cursorMutex.Lock()
	j.cursors[name] = id
	j.cursorMutex.Unlock()
	err := j.use(func(s *store) error {
		return inTransaction(context.Background(), s.db, func(t transaction) error { return writeCursor(t, name, id) })
	})
	if err != nil {
		return fmt.Errorf("cursor %s: write it to the journal %s: %w", name, j.place, err)
	}
	return nil
}

func checkCursor(name string) error {
	if !cursorName.MatchString(name) {
		return fmt.Errorf("cursor %q: a name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen", name)
	}
	return nil
}

func writeCursor(t transaction, name string, id uint64) error {
	return t.exec("INSERT OR REPLACE INTO cursors (name, id) VALUES (?, ?)", name, int64(id))
}
