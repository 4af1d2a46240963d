-- What makes the log tamper-evident: each record with its outcome is a leaf of an RFC 6962 Merkle tree, in the order
-- of `seq`. docs/audit.md says what a leaf is made of.

ALTER TABLE outcomes ADD COLUMN value_digest BLOB CHECK (length(value_digest) = 16); -- keyed; of a value that was released

-- The hashes of whole blocks of 256 leaves. Apart from the next table, so that all of them are read in no time.
CREATE TABLE tree_blocks (
    block INTEGER PRIMARY KEY CHECK (block >= 0),
    hash  BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- The first 7 bytes of the hash of each leaf of a block. They prove nothing, and name the record that was changed;
-- with 7, two rows fit on a page.
CREATE TABLE tree_leaves (
    block INTEGER PRIMARY KEY CHECK (block >= 0),
    heads BLOB NOT NULL CHECK (length(heads) = 1792)
) STRICT;

-- The same for the leaves after the last whole block, up to the newest checkpoint. The row changes, and can be lost.
CREATE TABLE tree_tail (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    size  INTEGER NOT NULL CHECK (size >= 0), -- leaves of the tree
    heads BLOB NOT NULL CHECK (length(heads) < 1792 AND length(heads) % 7 = 0)
) STRICT;
INSERT INTO tree_tail (one, size, heads) VALUES (1, 0, x'');

-- The tree's size and root, signed: a C2SP checkpoint (signed note).
CREATE TABLE checkpoints (
    size    INTEGER PRIMARY KEY CHECK (size >= 1),
    time_us INTEGER NOT NULL,
    note    TEXT    NOT NULL
) STRICT;

-- Records up to `seq` may be deleted: whole blocks, under a checkpoint. Their blocks stay, so that the rest can still
-- be verified.
CREATE TABLE retirements (
    seq     INTEGER PRIMARY KEY CHECK (seq >= 1 AND seq % 256 = 0),
    time_us INTEGER NOT NULL,
    first_us INTEGER NOT NULL,          -- the times of the first and the last record that went
    last_us INTEGER NOT NULL
) STRICT;

-- Every policy set that was in force, whole, by the revision that records name: so that a decision can be replayed.
-- The text is what the revision is the digest of: the beginning of its SHA-256.
CREATE TABLE policy_sets (
    revision TEXT    PRIMARY KEY CHECK (length(revision) = 16),
    time_us  INTEGER NOT NULL,          -- when it first came into force
    text     BLOB    NOT NULL
) STRICT;

-- The keys that digests of values were made with, by ids that open nothing. The last one is in use.
CREATE TABLE digest_keys (
    number  INTEGER PRIMARY KEY CHECK (number >= 1),
    id      TEXT    NOT NULL,           -- vkd_<id>
    time_us INTEGER NOT NULL
) STRICT;

-- What a token is for: 0 calls of the API, 1 the Events API.
ALTER TABLE tokens ADD COLUMN usage INTEGER NOT NULL DEFAULT 0 CHECK (usage BETWEEN 0 AND 1);

CREATE TRIGGER tree_blocks_without_gap BEFORE INSERT ON tree_blocks
WHEN NEW.block IS NOT (SELECT coalesce(max(block), -1) + 1 FROM tree_blocks)
BEGIN SELECT RAISE(ABORT, 'tree blocks are numbered from 0 without gaps'); END;
CREATE TRIGGER tree_blocks_never_updated BEFORE UPDATE ON tree_blocks
BEGIN SELECT RAISE(ABORT, 'tree blocks are insert-only'); END;
CREATE TRIGGER tree_blocks_never_deleted BEFORE DELETE ON tree_blocks
BEGIN SELECT RAISE(ABORT, 'tree blocks are insert-only'); END;

CREATE TRIGGER tree_leaves_without_gap BEFORE INSERT ON tree_leaves
WHEN NEW.block IS NOT (SELECT max(block) FROM tree_blocks)
    OR EXISTS (SELECT 1 FROM tree_leaves WHERE block = NEW.block)
BEGIN SELECT RAISE(ABORT, 'the leaves of a block come with the block'); END;
CREATE TRIGGER tree_leaves_never_updated BEFORE UPDATE ON tree_leaves
BEGIN SELECT RAISE(ABORT, 'the leaves of a block are insert-only'); END;
CREATE TRIGGER tree_leaves_never_deleted BEFORE DELETE ON tree_leaves
WHEN (OLD.block + 1) * 256 > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'the leaves of a block are insert-only'); END;

CREATE TRIGGER checkpoints_only_forward BEFORE INSERT ON checkpoints
WHEN NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoints)
BEGIN SELECT RAISE(ABORT, 'checkpoints move forward only'); END;
CREATE TRIGGER checkpoints_never_updated BEFORE UPDATE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are insert-only'); END;
CREATE TRIGGER checkpoints_never_deleted BEFORE DELETE ON checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are insert-only'); END;

-- Retention: never the newest block, and never what no checkpoint covers.
CREATE TRIGGER retirements_covered BEFORE INSERT ON retirements
WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM retirements)
    OR NEW.seq > (SELECT coalesce(max(size), 0) FROM checkpoints)
    OR NEW.seq >= (SELECT coalesce(max(seq), 0) FROM records)
BEGIN SELECT RAISE(ABORT, 'records are retired forward, under a checkpoint, and never all'); END;
CREATE TRIGGER retirements_never_updated BEFORE UPDATE ON retirements
BEGIN SELECT RAISE(ABORT, 'retirements are insert-only'); END;
CREATE TRIGGER retirements_never_deleted BEFORE DELETE ON retirements
BEGIN SELECT RAISE(ABORT, 'retirements are insert-only'); END;

DROP TRIGGER records_never_deleted;
CREATE TRIGGER records_never_deleted BEFORE DELETE ON records
WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'records are insert-only'); END;
DROP TRIGGER outcomes_never_deleted;
CREATE TRIGGER outcomes_never_deleted BEFORE DELETE ON outcomes
WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM retirements)
BEGIN SELECT RAISE(ABORT, 'outcomes are insert-only'); END;

CREATE TRIGGER policy_sets_only_once BEFORE INSERT ON policy_sets
WHEN EXISTS (SELECT 1 FROM policy_sets WHERE revision = NEW.revision)
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;
CREATE TRIGGER policy_sets_never_updated BEFORE UPDATE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;
CREATE TRIGGER policy_sets_never_deleted BEFORE DELETE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policy sets are insert-only'); END;

CREATE TRIGGER digest_keys_without_gap BEFORE INSERT ON digest_keys
WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM digest_keys)
BEGIN SELECT RAISE(ABORT, 'digest keys are numbered from 1 without gaps'); END;
CREATE TRIGGER digest_keys_never_updated BEFORE UPDATE ON digest_keys
BEGIN SELECT RAISE(ABORT, 'digest keys are insert-only'); END;
CREATE TRIGGER digest_keys_never_deleted BEFORE DELETE ON digest_keys
BEGIN SELECT RAISE(ABORT, 'digest keys are insert-only'); END;
