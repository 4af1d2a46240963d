-- The schema of a fresh database. Golden: UPDATE_GOLDEN=1 cargo test -p valetkey-audit schema

CREATE TABLE checkpoints (
    size    INTEGER PRIMARY KEY CHECK (size >= 1),
    time_us INTEGER NOT NULL,
    note    TEXT    NOT NULL
) STRICT;

CREATE TABLE digest_keys (
    number  INTEGER PRIMARY KEY CHECK (number >= 1),
    id      TEXT    NOT NULL,           -- vkd_<id>
    time_us INTEGER NOT NULL
) STRICT;

CREATE TABLE outcomes (
    seq          INTEGER PRIMARY KEY,   -- the record's
    time_us      INTEGER NOT NULL,
    result       INTEGER NOT NULL CHECK (result BETWEEN 1 AND 5), -- issued, released, failed, withheld, interrupted
    reason       INTEGER,               -- string
    source       INTEGER,               -- string
    item_version INTEGER CHECK (item_version >= 0),
    detail       TEXT
, value_age_us INTEGER CHECK (value_age_us >= 0), value_digest BLOB CHECK (length(value_digest) = 16)) STRICT;

CREATE TABLE policy_sets (
    revision TEXT    PRIMARY KEY CHECK (length(revision) = 16),
    time_us  INTEGER NOT NULL,          -- when it first came into force
    text     BLOB    NOT NULL
) STRICT;

CREATE TABLE records (
    seq          INTEGER PRIMARY KEY,   -- from 1, without gaps
    time_us      INTEGER NOT NULL,      -- UTC, microseconds since 1970
    kind         INTEGER NOT NULL CHECK (kind >= 1),
    ruling       INTEGER NOT NULL CHECK (ruling BETWEEN 1 AND 3), -- allow, deny, event
    reason       INTEGER NOT NULL CHECK (reason >= 1),
    request      BLOB    CHECK (length(request) = 10),
    trace        BLOB    CHECK (length(trace) = 16),
    caller       INTEGER,               -- string: agent:…, tool:… or person:…
    client       INTEGER,               -- string
    agent        INTEGER,               -- string
    tool         INTEGER,               -- string
    reference    INTEGER,               -- string: as asked
    vault_id     INTEGER,               -- string
    vault_name   INTEGER,               -- string: in lower case, as it was called then
    item_id      INTEGER,               -- string
    item_name    INTEGER,               -- string: in lower case, as it was called then
    field_id     INTEGER,               -- string, with ?otp and the like for what is made from it
    target_error INTEGER,               -- string: why the reference leads nowhere
    policies     INTEGER,               -- string: the ids, one a line
    revision     INTEGER,               -- string: 16 hexadecimal digits
    session      INTEGER,               -- string
    destination  INTEGER,               -- string
    lease        BLOB    CHECK (length(lease) = 10),
    handle       BLOB    CHECK (length(handle) = 10),
    ttl_us       INTEGER CHECK (ttl_us >= 0),
    uses         INTEGER CHECK (uses >= 0),
    redeemer     INTEGER CHECK (redeemer BETWEEN 1 AND 2), -- tool, agent
    purpose      TEXT,
    detail       TEXT, credential INTEGER, on_behalf_of INTEGER,
    -- Only policies allow, and they are named.
    CHECK (ruling <> 1 OR (reason = 1 AND policies IS NOT NULL AND revision IS NOT NULL)),
    -- Only what is allowed is granted.
    CHECK (ruling = 1 OR (uses IS NULL AND redeemer IS NULL)),
    -- An item is in a vault, a field in an item; each has an id and a name.
    CHECK ((vault_id IS NULL) = (vault_name IS NULL) AND (item_id IS NULL) = (item_name IS NULL)),
    CHECK (item_id IS NULL OR vault_id IS NOT NULL),
    CHECK (field_id IS NULL OR (item_id IS NOT NULL AND target_error IS NULL))
) STRICT;

CREATE TABLE retirements (
    seq     INTEGER PRIMARY KEY CHECK (seq >= 1 AND seq % 256 = 0),
    time_us INTEGER NOT NULL,
    first_us INTEGER NOT NULL,          -- the times of the first and the last record that went
    last_us INTEGER NOT NULL
) STRICT;

CREATE TABLE settled (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    seq     INTEGER NOT NULL CHECK (seq >= 0),
    time_us INTEGER NOT NULL
) STRICT;

CREATE TABLE strings (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE token_revocations (
    id      BLOB    PRIMARY KEY REFERENCES tokens (id),
    revoker TEXT    NOT NULL,
    time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token_uses (
    id      BLOB    PRIMARY KEY REFERENCES tokens (id),
    time_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id        BLOB    PRIMARY KEY CHECK (length(id) = 10),
    digest    BLOB    NOT NULL CHECK (length(digest) = 32),
    identity  TEXT    NOT NULL,     -- agent:…, tool:… or person:…
    creator   TEXT    NOT NULL,     -- likewise
    create_us INTEGER NOT NULL,     -- UTC, microseconds since 1970
    expire_us INTEGER NOT NULL, usage INTEGER NOT NULL DEFAULT 0 CHECK (usage BETWEEN 0 AND 1),
    CHECK (expire_us > create_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE tree_blocks (
    block INTEGER PRIMARY KEY CHECK (block >= 0),
    hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE tree_leaves (
    block INTEGER PRIMARY KEY CHECK (block >= 0),
    heads BLOB NOT NULL CHECK (length(heads) = 1792)
) STRICT;

CREATE TABLE tree_tail (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    size  INTEGER NOT NULL CHECK (size >= 0), -- leaves of the tree
    heads BLOB NOT NULL CHECK (length(heads) < 1792 AND length(heads) % 7 = 0)
) STRICT;

CREATE TRIGGER checkpoints_never_deleted BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are insert-only'); END;

CREATE TRIGGER checkpoints_never_updated BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are insert-only'); END;

CREATE TRIGGER checkpoints_only_forward BEFORE INSERT ON checkpoints
WHEN NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoints)
BEGIN SELECT RAISE(ABORT, 'checkpoints move forward only'); END;

CREATE TRIGGER digest_keys_never_deleted BEFORE DELETE ON digest_keys
BEGIN SELECT RAISE(ABORT, 'digest keys are insert-only'); END;

CREATE TRIGGER digest_keys_never_updated BEFORE UPDATE ON digest_keys
BEGIN SELECT RAISE(ABORT, 'digest keys are insert-only'); END;

CREATE TRIGGER digest_keys_without_gap BEFORE INSERT ON digest_keys
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM digest_keys)
BEGIN SELECT RAISE(ABORT, 'digest keys are numbered from 1 without gaps'); END;

CREATE TRIGGER outcomes_never_deleted BEFORE DELETE ON outcomes
WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'outcomes are insert-only'); END;

CREATE TRIGGER outcomes_never_updated BEFORE UPDATE ON outcomes
BEGIN SELECT RAISE(ABORT, 'outcomes are insert-only'); END;

CREATE TRIGGER outcomes_of_grants BEFORE INSERT ON outcomes
WHEN NOT EXISTS (SELECT 1 FROM records WHERE seq = NEW.seq AND ruling = 1 AND kind BETWEEN 1 AND 3)
BEGIN SELECT RAISE(ABORT, 'only an allowed acquire, renewal or redemption has an outcome'); END;

CREATE TRIGGER outcomes_only_once BEFORE INSERT ON outcomes
WHEN EXISTS (SELECT 1 FROM outcomes WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'a record has one outcome'); END;

CREATE TRIGGER policy_sets_never_deleted BEFORE DELETE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;

CREATE TRIGGER policy_sets_never_updated BEFORE UPDATE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;

CREATE TRIGGER policy_sets_only_once BEFORE INSERT ON policy_sets
WHEN EXISTS (SELECT 1 FROM policy_sets WHERE revision = NEW.revision)
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;

CREATE TRIGGER records_never_deleted BEFORE DELETE ON records
WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'records are insert-only'); END;

CREATE TRIGGER records_never_updated BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'records are insert-only'); END;

CREATE TRIGGER records_without_gap BEFORE INSERT ON records
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM records)
BEGIN SELECT RAISE(ABORT, 'records are numbered from 1 without gaps'); END;

CREATE TRIGGER retirements_covered BEFORE INSERT ON retirements
WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM retirements)
    OR NEW.seq > (SELECT coalesce(max(size), 0) FROM checkpoints)
    OR NEW.seq >= (SELECT coalesce(max(seq), 0) FROM records)
BEGIN SELECT RAISE(ABORT, 'records are retired forward, under a checkpoint, and never all'); END;

CREATE TRIGGER retirements_never_deleted BEFORE DELETE ON retirements
BEGIN SELECT RAISE(ABORT, 'retirements are insert-only'); END;

CREATE TRIGGER retirements_never_updated BEFORE UPDATE ON retirements
BEGIN SELECT RAISE(ABORT, 'retirements are insert-only'); END;

CREATE TRIGGER settled_only_forward BEFORE UPDATE ON settled WHEN NEW.seq < OLD.seq
BEGIN SELECT RAISE(ABORT, 'settled moves forward only'); END;

CREATE TRIGGER strings_never_deleted BEFORE DELETE ON strings
BEGIN SELECT RAISE(ABORT, 'strings are insert-only'); END;

CREATE TRIGGER strings_never_replaced BEFORE INSERT ON strings
WHEN EXISTS (SELECT 1 FROM strings WHERE id = NEW.id OR text = NEW.text)
BEGIN SELECT RAISE(ABORT, 'strings are insert-only'); END;

CREATE TRIGGER strings_never_updated BEFORE UPDATE ON strings
BEGIN SELECT RAISE(ABORT, 'strings are insert-only'); END;

CREATE TRIGGER token_revocations_never_deleted BEFORE DELETE ON token_revocations
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;

CREATE TRIGGER token_revocations_never_updated BEFORE UPDATE ON token_revocations
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;

CREATE TRIGGER token_revocations_only_once BEFORE INSERT ON token_revocations
WHEN EXISTS (SELECT 1 FROM token_revocations WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'token revocations are insert-only'); END;

CREATE TRIGGER tokens_never_deleted BEFORE DELETE ON tokens
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;

CREATE TRIGGER tokens_never_updated BEFORE UPDATE ON tokens
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;

CREATE TRIGGER tokens_only_once BEFORE INSERT ON tokens
WHEN EXISTS (SELECT 1 FROM tokens WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'tokens are insert-only'); END;

CREATE TRIGGER tree_blocks_never_deleted BEFORE DELETE ON tree_blocks
BEGIN SELECT RAISE(ABORT, 'tree blocks are insert-only'); END;

CREATE TRIGGER tree_blocks_never_updated BEFORE UPDATE ON tree_blocks
BEGIN SELECT RAISE(ABORT, 'tree blocks are insert-only'); END;

CREATE TRIGGER tree_blocks_without_gap BEFORE INSERT ON tree_blocks
WHEN NEW.block IS NOT (SELECT coalesce(max(block), -1) + 1 FROM tree_blocks)
BEGIN SELECT RAISE(ABORT, 'tree blocks are numbered from 0 without gaps'); END;

CREATE TRIGGER tree_leaves_never_deleted BEFORE DELETE ON tree_leaves
WHEN (OLD.block + 1) * 256 > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'the leaves of a block are insert-only'); END;

CREATE TRIGGER tree_leaves_never_updated BEFORE UPDATE ON tree_leaves
BEGIN SELECT RAISE(ABORT, 'the leaves of a block are insert-only'); END;

CREATE TRIGGER tree_leaves_without_gap BEFORE INSERT ON tree_leaves
WHEN NEW.block IS NOT (SELECT max(block) FROM tree_blocks)
    OR EXISTS (SELECT 1 FROM tree_leaves WHERE block = NEW.block)
BEGIN SELECT RAISE(ABORT, 'the leaves of a block come with the block'); END;
