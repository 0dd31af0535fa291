package journal

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/sirupsen/logrus"
)

// applicationID marks a database as a journal: "PWJR".
// Source: https://www.sqlite.org/pragma.html#pragma_application_id.
const applicationID = 0x50574a52

// newestSchema is the schema version of the database (PRAGMA user_version) that this
// program writes. It migrates older ones.
const newestSchema = 4

// schemaBase, schemaTables, schemaFilter and schemaIndexes make an empty database of the newest
// schema. Times are unix nanoseconds; see nanos. Text columns that are named so
// are JSON.
const schemaBase = `
-- The host and the container of events and states.
CREATE TABLE origins (
	id        INTEGER PRIMARY KEY,
	host      TEXT NOT NULL,
	container TEXT,            -- id; NULL: the event names no container
	name      TEXT NOT NULL,
	image     TEXT NOT NULL,
	project   TEXT NOT NULL,
	service   TEXT NOT NULL,
	labels    TEXT,            -- JSON object, the newest; NULL: not known
	started   INTEGER          -- when the container was last started, the newest; NULL: not known
) STRICT;

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
	begins   INTEGER,          -- the record is complete from here; NULL: from the first run
	-- The latest time of an event, and by how much the time of an event was at most
	-- before that of an earlier one: ids rise with time, except where a clock was set.
	latest   INTEGER NOT NULL,
	backward INTEGER NOT NULL
) STRICT;
INSERT INTO meta (reserved, latest, backward) VALUES (0, -9223372036854775808, 0);
`

const schemaTables = `
CREATE TABLE events (
	id        INTEGER PRIMARY KEY,
	time      INTEGER NOT NULL,
	origin    INTEGER NOT NULL,
	type      TEXT NOT NULL,
	transient INTEGER NOT NULL,
	protocol  INTEGER NOT NULL, -- IANA number; 0: none
	address   TEXT NOT NULL,
	port      INTEGER NOT NULL,
	ipv6_only INTEGER NOT NULL,
	exposure  TEXT NOT NULL,
	source    TEXT NOT NULL,
	opened_at INTEGER,         -- of closed and changed: when the endpoint opened
	processes TEXT,            -- JSON: [[pid, container pid, uid or null, name, executable, arguments if any], ...]
	before    TEXT,            -- of changed: the processes before
	detail    TEXT             -- JSON: what few events have
) STRICT;

-- What is open, and what was open and ended without an event.
CREATE TABLE states (
	container TEXT NOT NULL,
	protocol  INTEGER NOT NULL,
	address   TEXT NOT NULL,   -- and the namespace, after a blank, where it is not the container's own
	port      INTEGER NOT NULL,
	opened_at INTEGER NOT NULL,
	until     INTEGER,         -- NULL: it is open
	origin    INTEGER NOT NULL,
	state     TEXT NOT NULL,   -- JSON: model.State without host and container
	PRIMARY KEY (container, protocol, address, port, opened_at)
) STRICT;

-- Here NULL is not the same as NULL, and 0 is no container's id, which is a text.
CREATE UNIQUE INDEX origins_same ON origins (ifnull(container, 0), name, host, image, project, service);
`

// schemaFilter is new in schema 3; see block.
const schemaFilter = `
CREATE TABLE filter_blocks (
	first   INTEGER PRIMARY KEY, -- the id of its first event
	kinds   TEXT NOT NULL,       -- a line for each kind of its events
	entries BLOB NOT NULL        -- for each id from first on its kind and its port
) STRICT;
`

// schemaIndexes are created after a migration has copied the rows: that is faster.
const schemaIndexes = `
CREATE INDEX events_time ON events (time, opened_at);
CREATE INDEX states_until ON states (until) WHERE until IS NOT NULL;
`

// migrate brings a database from a schema version to the newest, in one transaction.
func migrate(ctx context.Context, conn *sql.Conn, path string, version int, log logrus.FieldLogger) error {
	if version == newestSchema {
		return nil
	}
	err := inTransaction(ctx, conn, func(t transaction) (err error) {
		switch version {
		case 0:
			err = t.exec(schemaBase + schemaTables + schemaFilter + schemaDrift + schemaIndexes + schemaAlert)
		case 1:
			log.Infof("The journal %s is converted from schema version %d to %d. A million events take about half a minute.",
				path, version, newestSchema)
			err = migrateFrom1(t)
		case 2:
			// The writer fills the index while the program runs, and then drops the one of
			// schema 2.
			log.Infof("The journal %s is converted from schema version %d to %d. Filters of old events are slow until they are indexed, which takes about a minute for 6 million.",
				path, version, newestSchema)
			err = t.exec(schemaFilter + schemaDrift + startedColumn + schemaAlert)
		case 3:
			err = t.exec(schemaDrift + startedColumn + schemaAlert)
		}
		if err == nil {
			err = t.exec(fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, newestSchema))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("journal %s: migrate from schema version %d: %w", path, version, err)
	}
	return nil
}

// schemaVersion returns the schema version of a database, 0 if it is empty. It
// fails with a [*RefusedError] where nothing may be written.
func schemaVersion(ctx context.Context, conn *sql.Conn, path string) (int, error) {
	var application, version, tables, ours int
	err := conn.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema), (SELECT count(*) FROM sqlite_schema WHERE name IN ('origins', 'events', 'states', 'runs'))`).
		Scan(&application, &version, &tables, &ours)
	switch {
	case err != nil:
		return 0, fmt.Errorf("journal %s: read its schema version: %w", path, err)
	case application == applicationID && version > newestSchema:
		return 0, newer(path, version)
	case application == applicationID && version > 0 && tables > 0, application == 0 && version == 0 && tables == 0:
		return version, nil
	case application != applicationID && ours == 0:
		return 0, foreign(path)
	}
	return 0, damage{fmt.Errorf("journal %s: application id %#x, schema version %d and %d tables do not go together",
		path, application, version, tables)}
}
