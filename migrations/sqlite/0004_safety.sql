-- What keeps a broadcast that goes wrong from going on: the canary, the automatic pause, and what was learnt from refusals.

ALTER TABLE broadcasts ADD COLUMN safety TEXT NOT NULL DEFAULT '{}';   -- JSON: the canary and the automatic pause as asked for
ALTER TABLE broadcasts ADD COLUMN canary TEXT;                         -- running, passed, held, released, over; NULL is none
ALTER TABLE broadcasts ADD COLUMN canary_size INTEGER;                 -- recipients that go first, once the fan-out knows
ALTER TABLE broadcasts ADD COLUMN canary_tried_at INTEGER;             -- when each of them had been tried
ALTER TABLE broadcasts ADD COLUMN seen TEXT NOT NULL DEFAULT '{}';     -- JSON: the counts from which failures are reckoned
ALTER TABLE broadcasts ADD COLUMN pause TEXT;                          -- JSON: who paused it, on which evidence
ALTER TABLE broadcasts ADD COLUMN paused_at INTEGER;
CREATE INDEX broadcasts_canary ON broadcasts (id) WHERE canary = 'running';

-- 1: stands behind the canary, and is held until its gate opens, whatever else is resumed.
ALTER TABLE jobs ADD COLUMN gated INTEGER NOT NULL DEFAULT 0;

-- Failed messages of a job by reason, with the latest as an example. The sum over a job is its count of failed ones.
CREATE TABLE failures (
    job_id         INTEGER NOT NULL,
    class          TEXT    NOT NULL,
    broadcast_id   TEXT    NOT NULL,
    n              INTEGER NOT NULL,
    ordinal        INTEGER NOT NULL,             -- the example's place in the chunk
    code           INTEGER,
    enhanced       TEXT,
    reply          TEXT    NOT NULL,
    at             INTEGER NOT NULL,
    PRIMARY KEY (job_id, class)
) STRICT, WITHOUT ROWID;
CREATE INDEX failures_by_broadcast ON failures (broadcast_id, class);

-- Addresses whose mailbox is full or shut: suppressed when that goes on for long enough.
CREATE TABLE bounces (
    address        TEXT    NOT NULL,             -- normalised
    class          TEXT    NOT NULL,
    n              INTEGER NOT NULL,
    first_at       INTEGER NOT NULL,
    last_at        INTEGER NOT NULL,
    PRIMARY KEY (address, class)
) STRICT, WITHOUT ROWID;
CREATE INDEX bounces_by_time ON bounces (last_at);
