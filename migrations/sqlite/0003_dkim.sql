-- Keys that mail is signed with. The letter remembers which of them sign its broadcast, so that every attempt of a message
-- has the same bytes, whatever becomes of the keys meanwhile.
CREATE TABLE dkim_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    domain         TEXT    NOT NULL,             -- lower case, A-labels; signs for its subdomains as well
    selector       TEXT    NOT NULL,
    algorithm      TEXT    NOT NULL CHECK (algorithm IN ('rsa', 'ed25519')),
    private_key    TEXT    NOT NULL,             -- PKCS#8, PEM
    public_key     TEXT    NOT NULL,             -- base64, as in the DNS record
    created_at     INTEGER NOT NULL,
    enabled_at     INTEGER,                      -- new broadcasts are signed with it; NULL: its record is not published yet
    UNIQUE (domain, selector)
) STRICT, WITHOUT ROWID;

ALTER TABLE letters ADD COLUMN dkim_keys TEXT NOT NULL DEFAULT '[]'; -- JSON array of ids
