//! One chunk of the log, read and written into the index.

use std::collections::HashMap;

use rusqlite::types::FromSql;
use rusqlite::{Connection, Row, params};
use valetkey_core::{RecordKind, Ruling};

use super::bits::{encode, encode_marks};
use super::tally::{Groups, Tally};
use super::terms::OPEN;
use super::things::Things;
use super::{Dimension, Extent, Mark, fingerprint, mark_of_bytes, mark_of_string};
use crate::code::Code;

/// What is remembered from chunk to chunk.
///
/// INVARIANT: every number in it is committed, or was made in the transaction under way. Whoever rolls back must call
/// [`Memory::clear`].
#[derive(Default)]
pub(super) struct Memory {
    things: Things,
    groups: Groups,
}

impl Memory {
    pub(super) fn clear(&mut self) {
        self.things.clear();
        self.groups.clear();
    }
}

/// A record as the index sees it. Numbers of strings, things and codes; 0 for what is absent.
pub(super) struct Entry {
    pub(super) time_us: i64,
    pub(super) kind: i64,
    pub(super) ruling: i64,
    pub(super) reason: i64,
    pub(super) agent: i64,
    pub(super) tool: i64,
    pub(super) vault: i64,
    pub(super) item: i64,
    pub(super) policies: i64,
    pub(super) result: i64,
    caller: i64,
    person: i64,
    revision: i64,
    reference: i64,
    outcome_reason: i64,
    source: i64,
    /// By [`Mark`].
    marks: [Option<u32>; 8],
}

/// What a chunk holds.
#[derive(Default)]
struct Contents {
    postings: HashMap<(i64, i64), Vec<u16>>,
    marks: [Vec<(u32, u16)>; 8],
    /// The first and the last moment.
    times: Option<(i64, i64)>,
    tally: Tally,
}

/// Reads the next chunk from the log and appends it to the index. All of its records must be settled.
pub(super) fn append(
    index: &Connection,
    log: &Connection,
    extent: Extent,
    memory: &mut Memory,
) -> rusqlite::Result<()> {
    let base = extent.base(extent.chunks);
    let mut contents = Contents::default();
    let mut select = log.prepare_cached(SELECT)?;
    let mut rows = select.query([base + 1, base + extent.chunk_size])?;
    while let Some(row) = rows.next()? {
        let seq: u64 = row.get(0)?;
        let entry = Entry::from_row(row, index, log, &mut memory.things)?;
        contents.add(seq, u16::try_from(seq - base - 1).unwrap_or(u16::MAX), &entry);
    }
    contents.write(index, extent, &mut memory.groups)?;
    let last = fingerprint(log, base + extent.chunk_size)?.unwrap_or_default();
    index
        .prepare_cached("UPDATE meta SET chunks = ?1, fingerprint = ?2 WHERE one = 1")?
        .execute(params![extent.chunks + 1, last])?;
    Ok(())
}

impl Entry {
    /// Reads a row of [`SELECT`], from left to right.
    fn from_row(
        row: &Row<'_>,
        index: &Connection,
        log: &Connection,
        things: &mut Things,
    ) -> rusqlite::Result<Self> {
        let mut columns = Columns { row, next: 1 };
        let columns = &mut columns;
        let (time_us, kind, ruling, reason) =
            (columns.take()?, columns.take()?, columns.take()?, columns.take()?);
        let (agent, tool) = (columns.number()?, columns.number()?);
        let (vault, item) = (columns.pair()?, columns.pair()?);
        let has_outcome =
            ruling == Ruling::Allow.code() && RecordKind::of(kind).is_some_and(RecordKind::has_outcome);
        Ok(Self {
            time_us,
            kind,
            ruling,
            reason,
            agent,
            tool,
            vault: things.number(index, log, Dimension::Vault, vault)?,
            item: things.number(index, log, Dimension::Item, item)?,
            policies: columns.number()?,
            caller: columns.number()?,
            person: columns.number()?,
            revision: columns.number()?,
            reference: columns.number()?,
            result: columns.take::<Option<i64>>()?.unwrap_or(if has_outcome { OPEN } else { 0 }),
            outcome_reason: columns.number()?,
            source: columns.number()?,
            marks: [
                columns.bytes()?,
                columns.bytes()?,
                columns.bytes()?,
                columns.bytes()?,
                columns.string()?,
                columns.string()?,
                columns.string()?,
                columns.string()?,
            ],
        })
    }

    /// What stands in it.
    fn values(&self) -> [(Dimension, i64); 15] {
        [
            (Dimension::Agent, self.agent),
            (Dimension::Tool, self.tool),
            (Dimension::Caller, self.caller),
            (Dimension::Person, self.person),
            (Dimension::Vault, self.vault),
            (Dimension::Item, self.item),
            (Dimension::Policies, self.policies),
            (Dimension::Reason, self.reason),
            (Dimension::OutcomeReason, self.outcome_reason),
            (Dimension::Kind, self.kind),
            (Dimension::Ruling, self.ruling),
            (Dimension::Result, self.result),
            (Dimension::Source, self.source),
            (Dimension::Revision, self.revision),
            (Dimension::Reference, self.reference),
        ]
    }
}

/// The columns of one row, from left to right.
struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl Columns<'_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let column = self.next;
        self.next += 1;
        self.row.get(column)
    }

    fn number(&mut self) -> rusqlite::Result<i64> {
        Ok(self.take::<Option<i64>>()?.unwrap_or(0))
    }

    fn pair(&mut self) -> rusqlite::Result<Option<(i64, i64)>> {
        let (id, name): (Option<i64>, Option<i64>) = (self.take()?, self.take()?);
        Ok(id.zip(name))
    }

    fn bytes(&mut self) -> rusqlite::Result<Option<u32>> {
        Ok(self.take::<Option<Vec<u8>>>()?.as_deref().and_then(mark_of_bytes))
    }

    fn string(&mut self) -> rusqlite::Result<Option<u32>> {
        Ok(self.take::<Option<i64>>()?.map(mark_of_string))
    }
}

impl Contents {
    fn add(&mut self, seq: u64, offset: u16, entry: &Entry) {
        for (dimension, value) in entry.values() {
            if value != 0 {
                self.postings.entry((dimension as i64, value)).or_default().push(offset);
            }
        }
        for (marks, mark) in self.marks.iter_mut().zip(entry.marks) {
            marks.extend(mark.map(|mark| (mark, offset)));
        }
        let (min, max) = self.times.unwrap_or((entry.time_us, entry.time_us));
        self.times = Some((min.min(entry.time_us), max.max(entry.time_us)));
        self.tally.add(seq, entry);
    }

    fn write(self, index: &Connection, extent: Extent, groups: &mut Groups) -> rusqlite::Result<()> {
        let Self { postings, marks, times, tally } = self;
        let chunk = extent.chunks;
        // In a chunk without records no moment lies between the first and the last.
        let (min_us, max_us) = times.unwrap_or((i64::MAX, i64::MIN));
        index.execute(
            "INSERT INTO chunks (chunk, min_us, max_us) VALUES (?1, ?2, ?3)",
            params![chunk, min_us, max_us],
        )?;
        // In the order of the key, so that they are appended.
        let mut postings: Vec<_> = postings.into_iter().collect();
        postings.sort_unstable_by_key(|(key, _)| *key);
        let mut add = index.prepare_cached(
            "INSERT INTO postings (chunk, dimension, value, offsets) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut learn =
            index.prepare_cached("INSERT OR IGNORE INTO vocabulary (dimension, value) VALUES (?1, ?2)")?;
        for ((dimension, value), offsets) in &postings {
            add.execute(params![chunk, dimension, value, encode(offsets, extent.chunk_size)])?;
            if NAMED.iter().any(|named| *named as i64 == *dimension) {
                learn.execute(params![dimension, value])?;
            }
        }
        let mut add = index.prepare_cached("INSERT INTO marks (row, entries) VALUES (?1, ?2)")?;
        for (mark, marks) in Mark::ALL.into_iter().zip(marks) {
            add.execute(params![mark.row(chunk), encode_marks(marks)])?;
        }
        tally.write(index, groups)
    }
}

/// The last record up to which all are settled: their outcomes are there, or will never be.
pub(super) fn settled(log: &Connection) -> rusqlite::Result<u64> {
    log.prepare_cached("SELECT seq FROM settled WHERE one = 1")?.query_row([], |row| row.get(0))
}

/// The numbers alone: no text is read.
const SELECT: &str = "
    SELECT r.seq, r.time_us, r.kind, r.ruling, r.reason, r.agent, r.tool, r.vault_id, r.vault_name, r.item_id,
        r.item_name, r.policies, r.caller, r.on_behalf_of, r.revision, r.reference, o.result, o.reason, o.source,
        r.request, r.lease, r.handle, o.value_digest, r.credential, r.session, r.destination, r.client
    FROM records r LEFT JOIN outcomes o ON o.seq = r.seq WHERE r.seq BETWEEN ?1 AND ?2 ORDER BY r.seq";
/// The dimensions in which strings are looked for by a part of their text.
const NAMED: [Dimension; 9] = [
    Dimension::Agent,
    Dimension::Tool,
    Dimension::Caller,
    Dimension::Person,
    Dimension::Policies,
    Dimension::OutcomeReason,
    Dimension::Source,
    Dimension::Revision,
    Dimension::Reference,
];
