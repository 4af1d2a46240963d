-- The index of an audit log; crates/valetkey-audit/src/index.rs says what it is. It is never migrated: it is made anew.
-- Numbers of strings are those of the log. 0 stands for what is absent.

CREATE TABLE meta (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    version     INTEGER NOT NULL,
    chunk_size  INTEGER NOT NULL,
    chunks      INTEGER NOT NULL,       -- how many there are
    fingerprint BLOB    NOT NULL        -- of the last record
) STRICT;

CREATE TABLE chunks (
    chunk  INTEGER PRIMARY KEY,         -- from 0
    min_us INTEGER NOT NULL,            -- of the records' times
    max_us INTEGER NOT NULL
) STRICT;

-- In which records of a chunk a value stands. Appended to, never changed.
CREATE TABLE postings (
    chunk     INTEGER NOT NULL,
    dimension INTEGER NOT NULL,
    value     INTEGER NOT NULL,
    offsets   BLOB    NOT NULL,         -- index/bits.rs
    PRIMARY KEY (chunk, dimension, value)
) STRICT, WITHOUT ROWID;

-- 24 bits of what is different in nearly every record. Appended to, never changed.
CREATE TABLE marks (
    row     INTEGER PRIMARY KEY,        -- 8 * chunk + the sort of mark
    entries BLOB NOT NULL               -- index/bits.rs
) STRICT;

-- The values of the dimensions in which names are looked for.
CREATE TABLE vocabulary (
    dimension INTEGER NOT NULL,
    value     INTEGER NOT NULL,
    PRIMARY KEY (dimension, value)
) STRICT, WITHOUT ROWID;

-- Vaults and items: an id with a name that it had.
CREATE TABLE things (
    thing     INTEGER PRIMARY KEY,
    dimension INTEGER NOT NULL,
    id        INTEGER NOT NULL,         -- string
    name      INTEGER NOT NULL,         -- string
    id_text   TEXT    NOT NULL,         -- in lower case
    name_text TEXT    NOT NULL,         -- likewise
    UNIQUE (dimension, id, name)
) STRICT;
CREATE INDEX things_by_id ON things (dimension, id_text);
CREATE INDEX things_by_name ON things (dimension, name_text);

-- Who asked for what, and what came of it; counted by day.
CREATE TABLE groups (
    grp    INTEGER PRIMARY KEY,
    agent  INTEGER NOT NULL,
    tool   INTEGER NOT NULL,
    vault  INTEGER NOT NULL,            -- thing
    item   INTEGER NOT NULL,            -- thing
    kind   INTEGER NOT NULL,
    reason INTEGER NOT NULL,            -- of a refusal
    result INTEGER NOT NULL,            -- of what was allowed
    UNIQUE (agent, tool, vault, item, kind, reason, result)
) STRICT;
CREATE TABLE days (
    day     INTEGER NOT NULL,           -- UTC, from 1970-01-01
    grp     INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    last    INTEGER NOT NULL,           -- the last record
    last_us INTEGER NOT NULL,
    PRIMARY KEY (day, grp)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_days (
    day      INTEGER NOT NULL,
    policies INTEGER NOT NULL,          -- string: the ids, one a line
    vault    INTEGER NOT NULL,          -- thing
    count    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    last_us  INTEGER NOT NULL,
    PRIMARY KEY (day, policies, vault)
) STRICT, WITHOUT ROWID;

-- The first handle for an item that an agent had with a tool, and its last use of it.
CREATE TABLE first_uses (
    agent   INTEGER NOT NULL,
    tool    INTEGER NOT NULL,
    vault   INTEGER NOT NULL,           -- thing
    item    INTEGER NOT NULL,           -- thing
    seq     INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (agent, tool, vault, item)
) STRICT, WITHOUT ROWID;
CREATE TABLE last_uses (
    agent   INTEGER NOT NULL,
    vault   INTEGER NOT NULL,           -- thing
    item    INTEGER NOT NULL,           -- thing
    seq     INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (agent, vault, item)
) STRICT, WITHOUT ROWID;
