//! The tree as the database has it: hashes of whole blocks from their table, leaves from the records themselves.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Row, params};
use valetkey_core::{RecordId, Timestamp};

use crate::canonical::{self, PartDigest, leaf_hash};
use crate::row::one;
use crate::stored::{SELECT_STRICT, StoredRecord};
use crate::tree::{BLOCK, Block, Frontier, HEAD_BYTES, Hash, around, inclusion};

/// A row of `checkpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// How many leaves it covers.
    pub(crate) size: u64,
    /// When it was made.
    pub(crate) time: Timestamp,
    /// The signed note.
    pub(crate) note: String,
}

impl Signed {
    /// The newest.
    pub(crate) fn newest(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT size, time_us, note FROM checkpoints ORDER BY size DESC LIMIT 1";
        connection.query_row(sql, [], Self::from_row).optional()
    }

    /// The first that covers more than `size` leaves.
    pub(crate) fn after(connection: &Connection, size: u64) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT size, time_us, note FROM checkpoints WHERE size > ?1 ORDER BY size LIMIT 1";
        connection.prepare_cached(sql)?.query_row([size], Self::from_row).optional()
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { size: row.get(0)?, time: Timestamp::from_micros(row.get(1)?), note: row.get(2)? })
    }
}

/// Adds a block, at the end.
pub(crate) fn insert(connection: &Connection, block: &Block) -> rusqlite::Result<()> {
    let Block { number, heads, hash } = block;
    let rows = connection
        .prepare_cached("INSERT INTO tree_blocks (block, hash) VALUES (?1, ?2)")?
        .execute(params![number, hash.0])?;
    one(rows)?;
    let rows = connection
        .prepare_cached("INSERT INTO tree_leaves (block, heads) VALUES (?1, ?2)")?
        .execute(params![number, heads])?;
    one(rows)
}

/// How many blocks there are.
pub(crate) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<u64> =
        connection.query_row("SELECT max(block) FROM tree_blocks", [], |row| row.get(0))?;
    Ok(last.map_or(0, |last| last + 1))
}

/// The last record; 0 where there is none.
pub(crate) fn last_record(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<u64> = connection.query_row("SELECT max(seq) FROM records", [], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

/// The last record that may be gone.
pub(crate) fn retired(connection: &Connection) -> rusqlite::Result<u64> {
    let last: Option<u64> = connection.query_row("SELECT max(seq) FROM retirements", [], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

/// Whether a tree of so many leaves ends inside of a block whose records may be gone: its root is not known any more.
pub(crate) fn is_cut(connection: &Connection, size: u64) -> rusqlite::Result<bool> {
    Ok(!size.is_multiple_of(BLOCK) && size < retired(connection)?)
}

/// What the outcome of a record is made of, where it has one.
pub(crate) fn outcome_part(connection: &Connection, seq: u64) -> rusqlite::Result<Option<PartDigest>> {
    Ok(parts(connection, seq - 1..seq)?.pop().and_then(|(_, outcome)| outcome))
}

/// The blocks of a range, which must all be there.
pub(crate) fn frontier(connection: &Connection, blocks: Range<u64>) -> rusqlite::Result<Frontier> {
    let mut frontier = Frontier::default();
    let mut statement = connection
        .prepare_cached("SELECT hash FROM tree_blocks WHERE block >= ?1 AND block < ?2 ORDER BY block")?;
    let hashes = statement.query_map([blocks.start, blocks.end], |row| row.get(0).map(Hash))?;
    for hash in hashes {
        frontier.push(BLOCK, hash?);
    }
    whole(frontier.size() == (blocks.end - blocks.start).saturating_mul(BLOCK))?;
    Ok(frontier)
}

/// What the leaves of a range are made of, from the records; all of them must be there. A leaf's index is its
/// record's number less 1.
pub(crate) fn parts(
    connection: &Connection,
    leaves: Range<u64>,
) -> rusqlite::Result<Vec<(PartDigest, Option<PartDigest>)>> {
    let mut statement = connection
        .prepare_cached(&format!("{} WHERE r.seq > ?1 AND r.seq <= ?2 ORDER BY r.seq", *SELECT_STRICT))?;
    let records = statement.query_map([leaves.start, leaves.end], StoredRecord::from_row)?;
    let mut parts = Vec::new();
    for record in records {
        parts.push(canonical::digest_stored(&record?));
    }
    whole(parts.len() as u64 == leaves.end - leaves.start)?;
    Ok(parts)
}

/// The hash of a subtree. Blocks that lie in it whole are taken from their table.
pub(crate) fn subtree(connection: &Connection, leaves: Range<u64>) -> rusqlite::Result<Hash> {
    let blocks = leaves.start.div_ceil(BLOCK)..leaves.end / BLOCK;
    let (mut subtree, rest) = match blocks.is_empty() {
        true => (Frontier::default(), leaves),
        false => (frontier(connection, blocks.clone())?, blocks.end * BLOCK..leaves.end),
    };
    if !rest.is_empty() {
        for (record, outcome) in parts(connection, rest)? {
            subtree.push(1, leaf_hash(record, outcome));
        }
    }
    Ok(subtree.root())
}

/// The inclusion proof of a record in a tree of `size` leaves.
pub(crate) fn prove(connection: &Connection, record: RecordId, size: u64) -> rusqlite::Result<Vec<Hash>> {
    inclusion(record.0 - 1, size, |leaves| subtree(connection, leaves))
}

/// What is around the records of a range of leaves in a tree of `size` leaves.
pub(crate) fn prove_range(
    connection: &Connection,
    leaves: &Range<u64>,
    size: u64,
) -> rusqlite::Result<Vec<Hash>> {
    around(leaves, size).into_iter().map(|part| subtree(connection, part)).collect()
}

/// The heads of a range of leaves within one block: as they are kept, or else from the records.
pub(crate) fn heads(connection: &Connection, leaves: Range<u64>) -> rusqlite::Result<Vec<u8>> {
    let kept: Option<Vec<u8>> = connection
        .prepare_cached("SELECT heads FROM tree_leaves WHERE block = ?1")?
        .query_row([leaves.start / BLOCK], |row| row.get(0))
        .optional()?;
    if let Some(kept) = kept {
        let (skip, take) = (leaves.start % BLOCK, leaves.end - leaves.start);
        let byte = |leaves: u64| usize::try_from(leaves).unwrap_or(usize::MAX).saturating_mul(HEAD_BYTES);
        return Ok(kept.into_iter().skip(byte(skip)).take(byte(take)).collect());
    }
    let parts = parts(connection, leaves)?;
    Ok(parts.into_iter().flat_map(|(record, outcome)| leaf_hash(record, outcome).head()).collect())
}

/// A hole in the tree is an error like a row that is not there.
fn whole(is_whole: bool) -> rusqlite::Result<()> {
    if is_whole { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}
