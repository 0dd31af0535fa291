package journal

// startedColumn is new in schema 4.
const startedColumn = "ALTER TABLE origins ADD COLUMN started INTEGER;\n"

// schemaAlert is new in schema 4: what the rules of alerts have found, and the outbox.
const schemaAlert = `
-- What the rules have found so far; see [AlertStep].
CREATE TABLE alert_state (
	kind  TEXT NOT NULL,
	key   TEXT NOT NULL,
	value TEXT NOT NULL,       -- JSON
	PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- The outbox, and what has left it.
CREATE TABLE deliveries (
	seq          INTEGER PRIMARY KEY,
	id           TEXT NOT NULL,
	receiver     TEXT NOT NULL,
	state        TEXT NOT NULL,  -- pending, delivered or dead
	made         INTEGER NOT NULL,
	due          INTEGER NOT NULL, -- of the next try
	finished     INTEGER,        -- NULL: pending
	alerts       INTEGER NOT NULL, -- how many it has
	title        TEXT NOT NULL,
	severity     TEXT NOT NULL,
	digest       INTEGER NOT NULL,
	tries        TEXT,           -- JSON, the latest; NULL: none
	tried        INTEGER NOT NULL, -- how many tries there were
	notification TEXT NOT NULL   -- JSON
) STRICT;
CREATE INDEX deliveries_pending ON deliveries (receiver, seq) WHERE state = 'pending';
CREATE INDEX deliveries_state ON deliveries (receiver, state);
`
