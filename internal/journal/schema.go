package journal

import (
	"context"
	"database/sql"
	"fmt"
)

// applicationID marks a database as a journal: "PWJR".
// Source: https://www.sqlite.org/pragma.html#pragma_application_id.
const applicationID = 0x50574a52

// migrations lead from each schema version to the next, beginning with an
// empty file. A migration that was released is never changed.
var migrations = []string{schema1}

// schema1 keeps a row small: an event is a few integers that queries need, and
// one blob (see detail.go). Times are unix nanoseconds.
const schema1 = `
-- What is the same in many events: the host and the container.
CREATE TABLE origins (
	id        INTEGER PRIMARY KEY,
	host      TEXT NOT NULL,
	container TEXT,            -- id; NULL: the event names no container
	name      TEXT NOT NULL,
	image     TEXT NOT NULL,
	project   TEXT NOT NULL,
	service   TEXT NOT NULL
) STRICT;
CREATE INDEX origins_container ON origins (container);

CREATE TABLE events (
	id        INTEGER PRIMARY KEY,
	time      INTEGER NOT NULL,
	origin    INTEGER NOT NULL,
	type      INTEGER NOT NULL,
	transient INTEGER NOT NULL,
	protocol  INTEGER NOT NULL,
	port      INTEGER NOT NULL,
	exposure  INTEGER NOT NULL,
	span      INTEGER,         -- how long it was open, as a power of two; see At
	detail    BLOB NOT NULL
) STRICT;
CREATE INDEX events_origin ON events (origin);
CREATE INDEX events_span ON events (span, time) WHERE span IS NOT NULL;
CREATE INDEX events_changed ON events (time) WHERE type = 3;

-- The earliest and latest time in each block of 1024 ids: what finds a time
-- without an index on it. Ids rise with time, but for clocks that are set.
CREATE TABLE blocks (
	id       INTEGER PRIMARY KEY,
	earliest INTEGER NOT NULL,
	latest   INTEGER NOT NULL
) STRICT;

-- What is open, and what was open when its container was forgotten.
CREATE TABLE states (
	id        INTEGER PRIMARY KEY,
	opened_at INTEGER NOT NULL,
	until     INTEGER,         -- NULL: it is open
	state     TEXT NOT NULL    -- port.State as JSON
) STRICT;
CREATE INDEX states_until ON states (until) WHERE until IS NOT NULL;

CREATE TABLE runs (
	id         INTEGER PRIMARY KEY,
	started    INTEGER NOT NULL,
	last_alive INTEGER NOT NULL,
	stopped    INTEGER,        -- NULL: it runs, or did not stop in order
	boot       TEXT NOT NULL,
	version    TEXT NOT NULL
) STRICT;

CREATE TABLE cursors (
	name TEXT PRIMARY KEY,
	id   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
	reserved INTEGER NOT NULL, -- ids up to this may have been used
	begins   INTEGER           -- the record is complete from here; NULL: from the first run
) STRICT;
INSERT INTO meta (reserved) VALUES (0);
`

// migrate brings a database from a schema version to the newest, one
// transaction a step.
func migrate(ctx context.Context, conn *sql.Conn, path string, version int) error {
	for ; version < len(migrations); version++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
			migrations[version], applicationID, version+1)
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fmt.Errorf("journal %s: migrate from schema version %d: %w", path, version, err)
		}
	}
	return nil
}

// schemaVersion returns the schema version of a database, 0 if it is empty. It
// fails with a [*NewerError] or a [*ForeignError] where nothing may be written.
func schemaVersion(ctx context.Context, conn *sql.Conn, path string) (int, error) {
	var application, version, tables, ours int
	err := conn.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema), (SELECT count(*) FROM sqlite_schema WHERE name IN ('origins', 'blocks', 'states', 'runs'))`).
		Scan(&application, &version, &tables, &ours)
	switch {
	case err != nil:
		return 0, fmt.Errorf("journal %s: read its schema version: %w", path, err)
	case application == applicationID && version > len(migrations):
		return 0, &NewerError{Path: path, Found: version, Largest: len(migrations)}
	case application == applicationID && version > 0 && tables > 0, application == 0 && version == 0 && tables == 0:
		return version, nil
	case application != applicationID && ours == 0:
		return 0, &ForeignError{Path: path}
	}
	return 0, damage{fmt.Errorf("journal %s: application id %#x, schema version %d and %d tables do not go together", path, application, version, tables)}
}
