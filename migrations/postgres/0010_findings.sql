-- What sending through a relay has shown about it, for all workers: see domain/finding.rs.

CREATE TABLE findings (
    relay_id       BIGINT  NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,             -- flights, windows, session_messages, connections
    address        TEXT    NOT NULL,             -- host:port that it was found at
    value          BIGINT,                       -- NULL while a worker tries it
    words          TEXT    NOT NULL DEFAULT '',  -- what the relay said or did
    found_at       BIGINT  NOT NULL,
    trial_worker   BIGINT,                       -- the one worker of all that may try it
    PRIMARY KEY (relay_id, kind)
);
