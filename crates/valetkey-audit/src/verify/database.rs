//! The walk over a database: one snapshot, block by block.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::checkpoints::Checkpoints;
use super::finding::{Finding, FindingKind};
use super::walk::{Place, Stored, Walk};
use super::{Against, Verdict, VerifyError};
use crate::blocks::{self, Signed};
use crate::canonical::{self, leaf_hash};
use crate::note::VerifierKey;
use crate::retention;
use crate::schema::{self, OpenError};
use crate::stored::{SELECT_STRICT, StoredRecord};
use crate::tree::{BLOCK, HEAD_BYTES, Hash, Head};

/// Verifies a database as it is at this moment.
pub(crate) fn verify(
    path: &Path,
    against: &Against,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, VerifyError> {
    schema::check_place(path)?;
    let mut connection = schema::open_reader(path)?;
    let failed = |error: rusqlite::Error| OpenError::Database { path: path.to_owned(), source: error.into() };
    let snapshot = connection.transaction().map_err(failed)?;
    let checkpoints = Checkpoints::open(against, Some((&snapshot, path)))?;
    let good = || newest_good(&snapshot, &against.key);
    let mut seen = 0;
    let verdict = walk(&snapshot, checkpoints, good, &mut |done, of| {
        seen = done;
        progress(done, of);
    });
    match verdict {
        Ok(verdict) => Ok(verdict),
        Err(error) if is_damage(&error) => Ok(damaged(seen, &error)),
        Err(error) => Err(failed(error).into()),
    }
}

fn walk(
    connection: &Connection,
    checkpoints: Checkpoints<'_>,
    good: impl FnOnce() -> rusqlite::Result<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> rusqlite::Result<Verdict> {
    let extent = Extent::of(connection, good()?)?;
    let stored = Tables { connection, extent: &extent };
    let mut walk = Walk::new(stored, checkpoints);
    for finding in schema_findings(connection)?.into_iter().chain(extent.findings(connection)?) {
        walk.findings.add(finding);
    }
    for block in 0..extent.first_block {
        walk.pass(block)?;
    }
    let mut block = extent.first_block;
    while block * BLOCK < extent.known.max(extent.last) {
        let begin = block * BLOCK;
        progress(begin, extent.last);
        let end = (begin + BLOCK).min(extent.known.max(extent.last));
        let places = places(connection, begin, end)?;
        if begin >= extent.known && places.iter().all(|place| *place == Place::Empty) {
            // Somebody's record far away; nothing is known of what is between.
            let next = next_record(connection, begin)?.unwrap_or(extent.last);
            let next_block = (next - 1) / BLOCK;
            walk.findings.add_missing(begin + 1, next_block * BLOCK);
            walk.jump();
            block = next_block;
            continue;
        }
        walk.block(block, &places)?;
        block += 1;
    }
    progress(extent.last, extent.last);
    let announced = retention::announced(connection, extent.retired)?;
    let mut verdict = walk.end(extent.first_block * BLOCK + 1, extent.last, extent.known)?;
    let proven = verdict.proven.as_ref().map_or(0, |proven| proven.size);
    let is_signed = announced.is_some_and(|record| record <= proven || !verdict.findings.is_empty());
    if extent.retired > 0 && !is_signed {
        let text = format!(
            "records 1 to {} are gone, and no signed record says that they were retired",
            extent.retired
        );
        verdict.findings.push(Finding::general(FindingKind::Retired, text));
    }
    Ok(verdict)
}

/// Which records there are, and which are known of.
struct Extent {
    /// The first block with records.
    first_block: u64,
    /// The first and the last record.
    first: Option<i64>,
    last: u64,
    /// The last record that may be gone.
    retired: u64,
    /// The last record that a block, or what is kept of the rest, knows of.
    known: u64,
    /// Blocks that there must be.
    blocks: u64,
    /// The leaves after the last whole block.
    tail: (u64, Vec<u8>),
    /// What the tables say of records that there cannot have been.
    claimed: Option<u64>,
}

impl Extent {
    fn of(connection: &Connection, good: u64) -> rusqlite::Result<Self> {
        let first: Option<i64> =
            connection.query_row("SELECT min(seq) FROM records", [], |row| row.get(0))?;
        let last: i64 =
            connection.query_row("SELECT coalesce(max(seq), 0) FROM records", [], |row| row.get(0))?;
        let last = u64::try_from(last).unwrap_or(0);
        let (said_retired, count) = (blocks::retired(connection)?, blocks::count(connection)?);
        // Nobody goes through what a single row makes up: no record is retired that no checkpoint covers.
        let retired = said_retired.min(good / BLOCK * BLOCK);
        let records: u64 = connection.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
        let believed = good.max(retired.saturating_add(records)).saturating_add(UNSIGNED_MAX);
        let tail = connection
            .query_row("SELECT size, heads FROM tree_tail WHERE one = 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?
            .unwrap_or_default();
        let signed = Signed::newest(connection)?.map_or(0, |newest| newest.size);
        // Records are retired in whole blocks from the first on, so it begins with a block, whatever is said.
        let begin = first.and_then(|first| u64::try_from(first - 1).ok()).unwrap_or(0);
        let first_block = match begin <= retired && begin.is_multiple_of(BLOCK) && last > 0 {
            true => begin / BLOCK,
            false => retired / BLOCK,
        };
        let said = count.saturating_mul(BLOCK).max(tail.0);
        let claimed = Some(said.max(said_retired)).filter(|said| *said > believed);
        let (known, blocks) = (said.min(believed), count.max(signed / BLOCK));
        Ok(Self { first_block, first, last, retired, known, blocks, tail, claimed })
    }

    /// Records and outcomes where none can be.
    fn findings(&self, connection: &Connection) -> rusqlite::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        if let Some(claimed) = self.claimed {
            let text = format!("the tree speaks of {claimed} records, and there are {}", self.last);
            findings.push(Finding::general(FindingKind::Tree, text));
        }
        let begin = self.first_block * BLOCK + 1;
        if let Some(first) =
            self.first.filter(|first| u64::try_from(*first).is_ok_and(|first| first < begin) || *first < 1)
        {
            let text = format!("record {first} was inserted where none can be");
            let records = u64::try_from(first).ok().map(|first| (first, first));
            findings.push(Finding { kind: FindingKind::Inserted, records, text });
        }
        let orphan =
            "SELECT o.seq FROM outcomes o WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.seq = o.seq)
            ORDER BY o.seq LIMIT 1";
        if let Some(seq) = connection.query_row(orphan, [], |row| row.get::<_, i64>(0)).optional()? {
            let text = format!("there is an outcome of record {seq}, and no such record");
            let records = u64::try_from(seq).ok().map(|seq| (seq, seq));
            findings.push(Finding { kind: FindingKind::Orphan, records, text });
        }
        Ok(findings)
    }
}

/// How many records the newest checkpoint covers whose signature is good.
fn newest_good(connection: &Connection, key: &VerifierKey) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT size, note FROM checkpoints ORDER BY size DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (size, note): (u64, String) = (row.get(0)?, row.get(1)?);
        if key.open(&note).is_ok_and(|known| known.size == size) {
            return Ok(size);
        }
    }
    Ok(0)
}

/// Records that a tree may know of beyond those that there are, and still be gone through one block after the other.
const UNSIGNED_MAX: u64 = 1 << 16;

/// What the tables of the tree say.
struct Tables<'a> {
    connection: &'a Connection,
    extent: &'a Extent,
}

impl Stored for Tables<'_> {
    fn hash(&mut self, block: u64) -> rusqlite::Result<Option<Hash>> {
        self.connection
            .prepare_cached("SELECT hash FROM tree_blocks WHERE block = ?1")?
            .query_row([block], |row| row.get(0).map(Hash))
            .optional()
    }

    fn heads(&mut self, block: u64) -> rusqlite::Result<Vec<u8>> {
        let heads = self
            .connection
            .prepare_cached("SELECT heads FROM tree_leaves WHERE block = ?1")?
            .query_row([block], |row| row.get(0))
            .optional()?;
        let (size, tail) = &self.extent.tail;
        let of_tail = || if size / BLOCK == block { tail.clone() } else { Vec::new() };
        Ok(heads.unwrap_or_else(of_tail))
    }

    fn leaf(&mut self, index: u64) -> rusqlite::Result<Option<Hash>> {
        let place = places(self.connection, index, index + 1)?.pop();
        Ok(place.and_then(|place| if let Place::Leaf(leaf) = place { Some(leaf) } else { None }))
    }

    fn find(&mut self, head: Head) -> rusqlite::Result<Option<u64>> {
        let place = |heads: &[u8]| heads.as_chunks::<HEAD_BYTES>().0.iter().position(|other| *other == head);
        let mut statement = self
            .connection
            .prepare_cached("SELECT block, heads FROM tree_leaves WHERE instr(heads, ?1) > 0")?;
        let mut rows = statement.query([head.as_slice()])?;
        while let Some(row) = rows.next()? {
            let (block, heads): (u64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if let Some(place) = place(&heads) {
                return Ok(Some(block * BLOCK + place as u64));
            }
        }
        let (size, tail) = &self.extent.tail;
        Ok(place(tail).map(|place| size / BLOCK * BLOCK + place as u64))
    }

    fn expects(&self, block: u64) -> bool {
        block < self.extent.blocks
    }
}

/// What stands in the places of the leaves from `begin` on and before `end`.
fn places(connection: &Connection, begin: u64, end: u64) -> rusqlite::Result<Vec<Place>> {
    let mut statement = connection
        .prepare_cached(&format!("{} WHERE r.seq > ?1 AND r.seq <= ?2 ORDER BY r.seq", *SELECT_STRICT))?;
    let place = |row: &rusqlite::Row<'_>| {
        let place = match StoredRecord::from_row(row) {
            Err(_) => Place::Unreadable,
            Ok(record) => {
                let (record, outcome) = canonical::digest_stored(&record);
                Place::Leaf(leaf_hash(record, outcome))
            }
        };
        Ok((row.get(0)?, place))
    };
    let rows: BTreeMap<u64, Place> =
        statement.query_map([begin, end], place)?.collect::<rusqlite::Result<_>>()?;
    Ok((begin + 1..=end).map(|seq| rows.get(&seq).copied().unwrap_or(Place::Empty)).collect())
}

fn next_record(connection: &Connection, after: u64) -> rusqlite::Result<Option<u64>> {
    connection.query_row("SELECT min(seq) FROM records WHERE seq > ?1", [after], |row| row.get(0))
}

/// Where tables and triggers are not those that a broker makes: what refuses changes may be gone.
fn schema_findings(connection: &Connection) -> rusqlite::Result<Vec<Finding>> {
    let (has, must) = (schema::objects(connection)?, schema::objects(&schema::fresh()?)?);
    let mut findings = Vec::new();
    for name in must.keys().chain(has.keys().filter(|name| !must.contains_key(*name))) {
        let fault = match (has.get(name), must.get(name)) {
            (Some(has), Some(must)) if has == must => continue,
            (Some(_), Some(_)) => "is not as a broker makes it",
            (None, _) => "was removed",
            (_, None) => "is not valetkey's",
        };
        findings.push(Finding::general(FindingKind::Schema, format!("the {name} of the database {fault}")));
    }
    let sound: String = connection.query_row("PRAGMA integrity_check('strings')", [], |row| row.get(0))?;
    if sound != "ok" {
        findings
            .push(Finding::general(FindingKind::Damaged, format!("the table of texts is damaged: {sound}")));
    }
    Ok(findings)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None)
}

fn damaged(seen: u64, error: &rusqlite::Error) -> Verdict {
    let text = format!("the database is damaged after record {seen}: {error}");
    let finding =
        Finding { records: Some((seen + 1, seen + 1)), ..Finding::general(FindingKind::Damaged, text) };
    Verdict {
        first: 1,
        last: seen,
        proven: None,
        checkpoints: 0,
        checkpoints_passed_over: 0,
        beyond: None,
        findings: vec![finding],
        more: true,
    }
}
