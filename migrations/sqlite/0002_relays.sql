-- Relays as operators describe them, the pace of what goes through them, and the relay that a broadcast names.

-- A row without a spec is only a name: the built-in capture relay, or one that was removed and stands in message rows.
ALTER TABLE relays ADD COLUMN spec TEXT;                              -- JSON
ALTER TABLE relays ADD COLUMN paused TEXT;                            -- why nothing goes through it
ALTER TABLE relays ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE relays ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;

-- What all workers together have learnt and used up: one row for a relay (lane ''), and one for each lane of it that has a limit
-- or was slowed down.
CREATE TABLE pace (
    relay_id        INTEGER NOT NULL,
    lane            TEXT    NOT NULL,
    next_us         INTEGER NOT NULL DEFAULT 0,   -- when the next permit falls due, in microseconds since the epoch
    hour            INTEGER NOT NULL DEFAULT 0,   -- the hour (since the epoch) that hour_taken counts
    hour_taken      INTEGER NOT NULL DEFAULT 0,
    day             INTEGER NOT NULL DEFAULT 0,
    day_taken       INTEGER NOT NULL DEFAULT 0,
    permille        INTEGER NOT NULL DEFAULT 1000,-- of the pace, as learnt from refusals and successes
    suspended_until INTEGER,                      -- nothing goes before
    reason          TEXT,                         -- why it is slower, or suspended
    failures        INTEGER NOT NULL DEFAULT 0,   -- in a row, for the length of the next suspension
    probe_worker    INTEGER,                      -- the one worker that may try whether it works again
    probe_until     INTEGER,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (relay_id, lane)
) STRICT, WITHOUT ROWID;

-- The relay that a broadcast names; NULL is any.
ALTER TABLE broadcasts ADD COLUMN relay TEXT;
