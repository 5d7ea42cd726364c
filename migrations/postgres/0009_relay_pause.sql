-- Since when nothing goes through a relay; NULL while it is in use, and for pauses of before.

ALTER TABLE relays ADD COLUMN paused_at BIGINT;
