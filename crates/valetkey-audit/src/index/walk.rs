//! Going through the index, chunk by chunk, for the records that match a filter within a scope.
//!
//! A chunk costs a look-up for each term, until one of them is not in it. What is left is read from the log under the
//! whole condition.

use std::time::{Duration, Instant};

use rusqlite::blob::Blob;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::bits::{self, Bits};
use super::terms::{IndexTerm, Terms};
use super::{Dimension, Extent, Mark};
use crate::query::Seqs;
use crate::read::{Query, ReadError, select};
use crate::stored::StoredRecord;

/// In which order records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    OldestFirst,
    NewestFirst,
}

/// A walk through an index.
pub(crate) struct Walk<'a> {
    connection: &'a Connection,
    extent: Extent,
    query: &'a Query,
    /// Absent where nothing can match.
    terms: Option<Terms>,
    postings: CachedStatement<'a>,
    blobs: Vec<(Mark, Blob<'a>)>,
    end: Instant,
    /// Records that may still be read from the log.
    left: u64,
}

/// What a walk found.
pub(crate) struct Found {
    pub(crate) records: Vec<StoredRecord>,
    /// The last record that was looked at, in the order of the walk.
    pub(crate) seen: u64,
}

impl<'a> Walk<'a> {
    /// Looks up what is asked. Reads at most `scan_max` records that then do not match.
    pub(crate) fn new(
        connection: &'a Connection,
        extent: Extent,
        query: &'a Query,
        scan_max: u64,
    ) -> rusqlite::Result<Self> {
        let postings = connection.prepare_cached(
            "SELECT offsets FROM idx.postings WHERE chunk = ?1 AND dimension = ?2 AND value = ?3",
        )?;
        Ok(Self {
            connection,
            extent,
            query,
            terms: Terms::of(connection, &query.filter, &query.scope)?,
            postings,
            blobs: Vec::new(),
            end: Instant::now() + WALK_MAX,
            left: scan_max,
        })
    }

    /// The records from `bottom` to `top`, which the index covers; at most `limit`.
    pub(crate) fn run(
        mut self,
        order: Order,
        (bottom, top): (u64, u64),
        limit: usize,
    ) -> Result<Found, ReadError> {
        let mut found = Found { records: Vec::new(), seen: edge(order, (bottom, top)) };
        let Some(mut terms) = self.terms.take() else { return Ok(found) };
        let (lowest, highest) = (self.extent.chunk_of(bottom), self.extent.chunk_of(top));
        // Read from the log together where they are few: a statement costs as much as some dozen records.
        let (mut waiting, mut all_match) = (Vec::new(), true);
        for step in 0..=highest.saturating_sub(lowest) {
            let chunk = match order {
                Order::OldestFirst => lowest + step,
                Order::NewestFirst => highest - step,
            };
            let base = self.extent.base(chunk);
            let part = (bottom.max(base + 1), top.min(base + self.extent.chunk_size));
            let (mut candidates, exact) = self.candidates(&mut terms, chunk)?;
            candidates.keep_from(part.0 - base - 1);
            candidates.keep_below(part.1 - base);
            if !candidates.is_empty() {
                all_match &= exact;
                waiting.extend(numbers(&candidates, base, order));
            }
            let enough = if all_match { limit - found.records.len() } else { BATCH };
            let ends = chunk == edge(order, (lowest, highest)) || Instant::now() >= self.end;
            if waiting.len() >= enough || ends {
                let going_on = self.read(&mut found, order, &waiting, all_match, limit)?;
                if !going_on {
                    return Ok(found);
                }
                waiting.clear();
                all_match = true;
            }
            found.seen = edge(order, part);
            if ends {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Reads candidates from the log; whether to go on after them.
    fn read(
        &mut self,
        found: &mut Found,
        order: Order,
        seqs: &[u64],
        exact: bool,
        limit: usize,
    ) -> Result<bool, ReadError> {
        let (Some(one), Some(other)) = (seqs.first(), seqs.last()) else { return Ok(true) };
        let (bottom, top) = (*one.min(other), *one.max(other));
        let dense = !exact && seqs.len() as u64 * SPARSE > top - bottom;
        let batch = if dense {
            seqs.len()
        } else if exact {
            limit.min(BATCH)
        } else {
            BATCH
        };
        for batch in seqs.chunks(batch.max(1)) {
            let wanted = limit - found.records.len();
            let asked = if dense { Seqs::Span(bottom, top) } else { Seqs::List(batch.to_vec()) };
            let records = select(self.connection, self.query, &asked, order, wanted)?;
            self.left = self.left.saturating_sub(batch.len() as u64 - records.len() as u64);
            found.records.extend(records);
            if found.records.len() >= limit {
                found.seen = found.records.last().map_or(found.seen, |record| record.id.0);
                return Ok(false);
            }
            found.seen = batch.last().copied().unwrap_or(found.seen);
            if self.left == 0 || Instant::now() >= self.end {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The records of a chunk that may match, and whether all of them do.
    fn candidates(&mut self, terms: &mut Terms, chunk: u64) -> Result<(Bits, bool), ReadError> {
        let size = self.extent.chunk_size;
        let mut exact = terms.exact;
        if !terms.created.is_empty() {
            match self.times(terms, chunk)? {
                Times::Outside => return Ok((Bits::none(size), true)),
                Times::Inside => {}
                Times::Across => exact = false,
            }
        }
        let mut candidates = Bits::all(size);
        for place in 0..terms.terms.len() {
            let Some(term) = terms.terms.get(place) else { break };
            match term {
                IndexTerm::AnyOf { negated, values } => {
                    let bits = self.any_of(chunk, values)?;
                    if *negated { candidates.and_not(&bits) } else { candidates.and(&bits) }
                }
                IndexTerm::Marked { mark, bits } => candidates.and(&self.marked(chunk, *mark, *bits)?),
            }
            if candidates.is_empty() {
                // It is likely to end the next chunk too.
                terms.terms.swap(0, place);
                break;
            }
        }
        Ok((candidates, exact))
    }

    fn any_of(&mut self, chunk: u64, values: &[(Dimension, i64)]) -> Result<Bits, ReadError> {
        let mut bits = Bits::none(self.extent.chunk_size);
        if values.len() > LOOK_UPS_MAX {
            self.any_of_many(chunk, values, &mut bits)?;
            return Ok(bits);
        }
        for (dimension, value) in values {
            let mut rows = self.postings.query(params![chunk, *dimension as i64, value])?;
            if let Some(row) = rows.next()? {
                add(&mut bits, row.get_ref(0)?)?;
            }
        }
        Ok(bits)
    }

    /// Reads through the values of the chunk, which come in order as those that are asked for do.
    fn any_of_many(&self, chunk: u64, values: &[(Dimension, i64)], bits: &mut Bits) -> Result<(), ReadError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT value, offsets FROM idx.postings
             WHERE chunk = ?1 AND dimension = ?2 AND value BETWEEN ?3 AND ?4 ORDER BY value",
        )?;
        for values in values.chunk_by(|(one, _), (other, _)| one == other) {
            let (Some((dimension, first)), Some((_, last))) = (values.first(), values.last()) else {
                continue;
            };
            let mut rows = statement.query(params![chunk, *dimension as i64, first, last])?;
            let mut ahead = values.iter().map(|(_, value)| *value).peekable();
            while let Some(row) = rows.next()? {
                let value = row.get(0)?;
                while ahead.next_if(|asked| *asked < value).is_some() {}
                if ahead.next_if_eq(&value).is_some() {
                    add(bits, row.get_ref(1)?)?;
                }
            }
        }
        Ok(())
    }

    fn marked(&mut self, chunk: u64, mark: Mark, wanted: u32) -> Result<Bits, ReadError> {
        let row = mark.row(chunk);
        let place = match self.blobs.iter().position(|(known, _)| *known == mark) {
            Some(place) => place,
            None => {
                let blob = self.connection.blob_open("idx", "marks", "entries", row, true)?;
                self.blobs.push((mark, blob));
                self.blobs.len() - 1
            }
        };
        let Some((_, blob)) = self.blobs.get_mut(place) else { return Err(ReadError::damaged()) };
        blob.reopen(row)?;
        let mut bits = Bits::none(self.extent.chunk_size);
        let ends = read(blob, bits::ends_of(wanted))?;
        let bucket = bits::bucket(&ends).ok_or_else(ReadError::damaged)?;
        bits::add_marked(&mut bits, &read(blob, bucket)?, wanted);
        Ok(bits)
    }

    fn times(&self, terms: &Terms, chunk: u64) -> Result<Times, ReadError> {
        let times = self
            .connection
            .prepare_cached("SELECT min_us, max_us FROM idx.chunks WHERE chunk = ?1")?
            .query_row([chunk], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        let (min, max) = times.ok_or_else(ReadError::damaged)?;
        let mut all = Times::Inside;
        for (negated, span) in &terms.created {
            let (outside, inside) =
                (max < span.start || min >= span.end, min >= span.start && max < span.end);
            match (outside, inside) {
                (true, _) if !negated => return Ok(Times::Outside),
                (_, true) if *negated => return Ok(Times::Outside),
                (true, _) | (_, true) => {}
                (false, false) => all = Times::Across,
            }
        }
        Ok(all)
    }
}

/// How a chunk lies to the times that are asked for.
enum Times {
    Outside,
    Inside,
    Across,
}

fn add(bits: &mut Bits, offsets: ValueRef<'_>) -> Result<(), ReadError> {
    offsets.as_blob().ok().and_then(|bytes| bits.add_encoded(bytes)).ok_or_else(ReadError::damaged)
}

fn read(blob: &Blob<'_>, (place, length): (usize, usize)) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; length];
    blob.read_at_exact(&mut bytes, place)?;
    Ok(bytes)
}

/// The numbers of the records of a chunk.
fn numbers(candidates: &Bits, base: u64, order: Order) -> Vec<u64> {
    let seqs = candidates.offsets().into_iter().map(|offset| base + 1 + u64::from(offset));
    match order {
        Order::OldestFirst => seqs.collect(),
        Order::NewestFirst => seqs.rev().collect(),
    }
}

/// Where a walk through a part ends.
fn edge(order: Order, (bottom, top): (u64, u64)) -> u64 {
    match order {
        Order::OldestFirst => top,
        Order::NewestFirst => bottom,
    }
}

/// How long a walk takes before it answers with what it has; the next page goes on from there.
const WALK_MAX: Duration = Duration::from_millis(500);
/// Values that are looked up one by one. Few in tests, so that they go both ways.
const LOOK_UPS_MAX: usize = if cfg!(test) { 1 } else { 256 };
/// Where one of so many records may match, reading all of them is faster.
const SPARSE: u64 = 16;
const BATCH: usize = 256;
