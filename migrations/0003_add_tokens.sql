-- Who was known by what, and on whose behalf; and the broker's own tokens.

ALTER TABLE records ADD COLUMN credential INTEGER;   -- string: vkt_<id> and the like, never what was shown
ALTER TABLE records ADD COLUMN on_behalf_of INTEGER; -- string: the person's name

-- Of a token, only the digest is kept: whoever has this file cannot call by it.
CREATE TABLE tokens (
    id        BLOB    PRIMARY KEY CHECK (length(id) = 10),
    digest    BLOB    NOT NULL CHECK (length(digest) = 32),
    identity  TEXT    NOT NULL,     -- agent:…, tool:… or person:…
    creator   TEXT    NOT NULL,     -- likewise
    create_us INTEGER NOT NULL,     -- UTC, microseconds since 1970
    expire_us INTEGER NOT NULL,
    CHECK (expire_us > create_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE token_revocations (
    id      BLOB    PRIMARY KEY REFERENCES tokens (id),
    revoker TEXT    NOT NULL,
    time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When each was last used, to the minute. Changes, and can be lost: nothing is decided by it.
CREATE TABLE token_uses (
    id      BLOB    PRIMARY KEY REFERENCES tokens (id),
    time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER tokens_only_once BEFORE INSERT ON tokens
WHEN EXISTS (SELECT 1 FROM tokens WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;
CREATE TRIGGER tokens_never_updated BEFORE UPDATE ON tokens
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;
CREATE TRIGGER tokens_never_deleted BEFORE DELETE ON tokens
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;

CREATE TRIGGER token_revocations_only_once BEFORE INSERT ON token_revocations
WHEN EXISTS (SELECT 1 FROM token_revocations WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;
CREATE TRIGGER token_revocations_never_updated BEFORE UPDATE ON token_revocations
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;
CREATE TRIGGER token_revocations_never_deleted BEFORE DELETE ON token_revocations
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;
