-- The tables of Hikyaku on SQLite. Times are milliseconds since the Unix epoch, given from outside.
-- The same tables, columns and meanings stand in ../postgres; a test compares them.

-- One accepted send request. What it says is in `letters`, so that lists of broadcasts stay light.
CREATE TABLE broadcasts (
    id             TEXT    NOT NULL PRIMARY KEY,
    status         TEXT    NOT NULL CHECK (status IN ('scheduled', 'accepted', 'fanning_out', 'sending', 'completed', 'canceled', 'failed')),
    paused         INTEGER NOT NULL DEFAULT 0,
    reason         TEXT,                         -- why it is paused, or why it failed
    subject        TEXT    NOT NULL,
    from_email     TEXT    NOT NULL,
    audience       TEXT    NOT NULL,             -- JSON
    template_id    TEXT,
    campaign_id    TEXT,
    campaign_run   INTEGER,                      -- the scheduled time of the run; one broadcast a run
    send_at        INTEGER,
    expires_at     INTEGER,
    on_uncertain   TEXT    NOT NULL CHECK (on_uncertain IN ('resend', 'hold')),
    priority       INTEGER NOT NULL,
    tags           TEXT    NOT NULL,             -- JSON array
    metadata       TEXT    NOT NULL,             -- JSON object
    received       INTEGER NOT NULL DEFAULT 0,
    rejected       INTEGER NOT NULL DEFAULT 0,
    duplicates     INTEGER NOT NULL DEFAULT 0,
    chunked        INTEGER NOT NULL DEFAULT 0,   -- recipients that stand in chunks
    jobs_left      INTEGER NOT NULL DEFAULT 1,   -- the fan_out job and every chunk not yet done
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    finished_at    INTEGER,
    UNIQUE (campaign_id, campaign_run)
) STRICT;

CREATE TABLE letters (
    broadcast_id   TEXT    NOT NULL PRIMARY KEY REFERENCES broadcasts (id) ON DELETE CASCADE,
    letter         TEXT    NOT NULL              -- JSON: sender, sources, headers, shared data
) STRICT;

-- The first answer to a request with an Idempotency-Key, kept as long as its broadcast.
CREATE TABLE idempotency_keys (
    owner          TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    body_hash      TEXT    NOT NULL,
    broadcast_id   TEXT    NOT NULL,
    answer         TEXT    NOT NULL,             -- JSON: the body of the 202
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

-- Recipients as they were received: sorted runs, cut into pages. A fan-out merges the runs.
-- No foreign key: pages are staged before their broadcast is accepted.
CREATE TABLE intake (
    broadcast_id   TEXT    NOT NULL,
    run            INTEGER NOT NULL,
    page           INTEGER NOT NULL,
    last_key       TEXT    NOT NULL,
    payload        BLOB    NOT NULL,
    staged_at      INTEGER NOT NULL,
    PRIMARY KEY (broadcast_id, run, page)
) STRICT;

-- THE queue: the only claimable table.
CREATE TABLE jobs (
    id             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    broadcast_id   TEXT    NOT NULL REFERENCES broadcasts (id) ON DELETE CASCADE,
    kind           TEXT    NOT NULL CHECK (kind IN ('fan_out', 'deliver')),
    seq            INTEGER NOT NULL,             -- the chunk's number in its broadcast
    priority       INTEGER NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('waiting', 'ready', 'running', 'done', 'held', 'canceled', 'quarantined')),
    run_at         INTEGER NOT NULL,
    worker_id      INTEGER,
    epoch          INTEGER NOT NULL DEFAULT 0,   -- the fencing token: +1 at every claim and rescue
    deaths         INTEGER NOT NULL DEFAULT 0,   -- owners that died with it
    commit_no      INTEGER NOT NULL DEFAULT 0,   -- the owner's last group commit: one repeated after a lost answer counts once
    stop           TEXT    CHECK (stop IN ('hold', 'cancel')),
    cursor         TEXT    NOT NULL DEFAULT '',  -- fan_out: the last sort key that stands in a chunk
    inflight       TEXT    NOT NULL DEFAULT '[]',-- deliver: ordinals that may be on the wire
    size           INTEGER NOT NULL DEFAULT 0,
    sent           INTEGER NOT NULL DEFAULT 0,
    failed         INTEGER NOT NULL DEFAULT 0,
    deferred       INTEGER NOT NULL DEFAULT 0,
    suppressed     INTEGER NOT NULL DEFAULT 0,
    uncertain      INTEGER NOT NULL DEFAULT 0,
    expired        INTEGER NOT NULL DEFAULT 0,
    flagged        INTEGER NOT NULL DEFAULT 0,   -- possible duplicates, whatever their status
    last_error     TEXT,
    created_at     INTEGER NOT NULL,
    claimed_at     INTEGER,
    settled_before INTEGER NOT NULL DEFAULT 0,   -- messages that were settled when it was claimed
    touched_at     INTEGER,
    finished_at    INTEGER,
    UNIQUE (broadcast_id, kind, seq)
) STRICT;
-- Only runnable work stands in the claim index; future work waits outside it.
CREATE INDEX jobs_ready   ON jobs (kind, priority, seq, id) WHERE state = 'ready';
CREATE INDEX jobs_waiting ON jobs (run_at)                  WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (worker_id)               WHERE state = 'running';
CREATE INDEX jobs_quarantined ON jobs (id)                  WHERE state = 'quarantined';

-- The immutable payload of a deliver job, apart from it: a progress update must not rewrite it.
CREATE TABLE chunks (
    job_id         INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    broadcast_id   TEXT    NOT NULL,
    first_key      TEXT    NOT NULL,
    last_key       TEXT    NOT NULL,
    payload        BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunks_by_key ON chunks (broadcast_id, first_key);

-- One row per message that has an outcome; a queued message has none.
CREATE TABLE messages (
    job_id         INTEGER NOT NULL,
    ordinal        INTEGER NOT NULL,
    status         TEXT    NOT NULL,
    attempts       INTEGER NOT NULL,             -- tries that reached a relay
    burnt          INTEGER NOT NULL,             -- tries that count against the message
    possible_duplicate INTEGER NOT NULL,
    code           INTEGER,
    enhanced       TEXT,
    reply          TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    relay_id       INTEGER,
    at             INTEGER NOT NULL,
    next_at        INTEGER,
    PRIMARY KEY (job_id, ordinal)
) STRICT, WITHOUT ROWID;

-- Every attempt, except the only one of a message that was sent at once: its row above says it all.
CREATE TABLE attempts (
    job_id         INTEGER NOT NULL,
    ordinal        INTEGER NOT NULL,
    n              INTEGER NOT NULL,
    status         TEXT    NOT NULL,
    code           INTEGER,
    enhanced       TEXT,
    reply          TEXT    NOT NULL,
    class          TEXT    NOT NULL,
    relay_id       INTEGER,
    at             INTEGER NOT NULL,
    PRIMARY KEY (job_id, ordinal, n)
) STRICT, WITHOUT ROWID;

-- One row per process start.
CREATE TABLE workers (
    id             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    host           TEXT    NOT NULL,
    pid            INTEGER NOT NULL,
    version        TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('live', 'draining', 'stopped', 'dead')),
    started_at     INTEGER NOT NULL,
    seen_at        INTEGER NOT NULL,
    lease_until    INTEGER NOT NULL,
    stats          TEXT    NOT NULL DEFAULT '{}' -- JSON
) STRICT;
CREATE INDEX workers_alive ON workers (lease_until) WHERE state IN ('live', 'draining');

CREATE TABLE relays (
    id             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name           TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE templates (
    id             TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    content        TEXT    NOT NULL,             -- JSON: subject, html, text
    version        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE campaigns (
    id             TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    status         TEXT    NOT NULL CHECK (status IN ('active', 'paused', 'finished')),
    draft          TEXT    NOT NULL,             -- JSON: the broadcast that each run starts
    schedule       TEXT    NOT NULL,             -- JSON: once, or cron with a time zone
    next_at        INTEGER,
    last_at        INTEGER,
    last_error     TEXT,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX campaigns_due ON campaigns (next_at) WHERE status = 'active';

CREATE TABLE lists (
    id             TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE contacts (
    sort_key       TEXT    NOT NULL PRIMARY KEY,
    email          TEXT    NOT NULL,
    name           TEXT,
    data           TEXT,                         -- JSON object
    status         TEXT    NOT NULL CHECK (status IN ('subscribed', 'unsubscribed')),
    subscribed_at  INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE list_members (
    list_id        TEXT    NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
    sort_key       TEXT    NOT NULL REFERENCES contacts (sort_key) ON DELETE CASCADE,
    PRIMARY KEY (list_id, sort_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX list_members_by_contact ON list_members (sort_key);

CREATE TABLE suppressions (
    address        TEXT    NOT NULL PRIMARY KEY, -- normalised
    reason         TEXT    NOT NULL CHECK (reason IN ('unsubscribed', 'hard_bounce', 'complaint', 'manual')),
    source         TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX suppressions_by_time ON suppressions (created_at);

CREATE TABLE api_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    secret_hash    TEXT    NOT NULL,
    scopes         TEXT    NOT NULL,             -- JSON array
    created_at     INTEGER NOT NULL,
    last_used_at   INTEGER,
    revoked_at     INTEGER
) STRICT;

CREATE TABLE users (
    id             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    email          TEXT    NOT NULL UNIQUE,
    password_hash  TEXT    NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    token_hash     TEXT    NOT NULL PRIMARY KEY,
    user_id        INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What the whole installation shares: the signing secret, the hash of the set-up token.
CREATE TABLE settings (
    name           TEXT    NOT NULL PRIMARY KEY,
    value          TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
