-- What workers learn together about the pace of relays and lanes, and which jobs wait for one.

ALTER TABLE pace ADD COLUMN base_us BIGINT NOT NULL DEFAULT 0;   -- microseconds between two messages when it was first slowed down
ALTER TABLE pace ADD COLUMN slowed_at BIGINT NOT NULL DEFAULT 0; -- the last time the pace was learnt to be slower, or faster

-- A waiting job whose messages wait for a relay or a lane, not for their own time: woken when a relay changes.
ALTER TABLE jobs ADD COLUMN waits_for TEXT;                      -- what keeps it, as JSON
