-- What sending through a relay has shown about it, for all workers: see domain/finding.rs.

CREATE TABLE findings (
    relay_id       INTEGER NOT NULL,
    kind           TEXT    NOT NULL,             -- flights, windows, session_messages, connections
    address        TEXT    NOT NULL,             -- host:port that it was found at
    value          INTEGER,                      -- NULL while a worker tries it
    words          TEXT    NOT NULL DEFAULT '',  -- what the relay said or did
    found_at       INTEGER NOT NULL,
    trial_worker   INTEGER,                      -- the one worker of all that may try it
    PRIMARY KEY (relay_id, kind)
) STRICT, WITHOUT ROWID;
