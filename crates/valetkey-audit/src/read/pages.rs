//! Pages of records: from the index as far as it goes, and from the log itself behind it.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use valetkey_core::RecordId;

use super::{Page, Query, ReadError, Snapshot, Tail};
use crate::index::{Order, Walk};
use crate::query::{Condition, Seqs, only_record};
use crate::stored::{SELECT, StoredRecord};

/// The records before `before`, newest first.
pub(super) fn list(
    snapshot: &Snapshot<'_>,
    query: &Query,
    before: Option<RecordId>,
    limit: usize,
    scan_max: u64,
) -> Result<Page, ReadError> {
    let first = snapshot.first();
    let top = before.map_or(snapshot.last(), |before| before.0.saturating_sub(1).min(snapshot.last()));
    if let Some(seq) = only_record(&query.filter) {
        let only = Seqs::Span(seq, seq.min(top));
        let records = select(snapshot.connection(), query, &only, Order::NewestFirst, limit)?;
        return Ok(Page { records, next: None });
    }
    let end = |records, seen: u64| {
        let more = seen > first && top >= first;
        Page { records, next: more.then_some(RecordId(seen)) }
    };

    let mut records = Vec::new();
    let indexed = snapshot.covered().max(first.saturating_sub(1));
    if top > indexed {
        let bottom = top.saturating_sub(scan_max - 1).max(indexed + 1);
        let span = Seqs::Span(bottom, top);
        records = select(snapshot.connection(), query, &span, Order::NewestFirst, limit)?;
        match records.last() {
            Some(&StoredRecord { id, .. }) if records.len() == limit => return Ok(end(records, id.0)),
            _ if bottom > indexed + 1 => return Ok(end(records, bottom)),
            _ => {}
        }
    }
    let top = top.min(indexed);
    let Some(extent) = snapshot.extent().filter(|_| top >= first) else { return Ok(end(records, first)) };
    let walk = Walk::new(snapshot.connection(), extent, query, scan_max)?;
    let found = walk.run(Order::NewestFirst, (first, top), limit - records.len())?;
    records.extend(found.records);
    Ok(end(records, found.seen))
}

/// The records after `after` up to `until`, oldest first.
pub(super) fn tail(
    snapshot: &Snapshot<'_>,
    query: &Query,
    (after, until): (RecordId, RecordId),
    limit: usize,
    scan_max: u64,
) -> Result<Tail, ReadError> {
    let end = snapshot.last().min(until.0);
    // What was deleted needs no looking at.
    let mut seen = after.0.max(end.min(snapshot.first().saturating_sub(1)));
    let mut records = Vec::new();
    if let Some(extent) = snapshot.extent()
        && seen < end.min(snapshot.covered())
    {
        let top = end.min(snapshot.covered());
        let walk = Walk::new(snapshot.connection(), extent, query, scan_max)?;
        let found = walk.run(Order::OldestFirst, (seen + 1, top), limit)?;
        (records, seen) = (found.records, found.seen);
        if seen < top || records.len() == limit {
            return Ok(Tail { records, seen: RecordId(seen) });
        }
    }
    let top = seen.saturating_add(scan_max).min(end);
    if seen < top {
        let (span, wanted) = (Seqs::Span(seen + 1, top), limit - records.len());
        let more = select(snapshot.connection(), query, &span, Order::OldestFirst, wanted)?;
        seen = match more.last() {
            Some(last) if more.len() == wanted => last.id.0,
            _ => top,
        };
        records.extend(more);
    }
    Ok(Tail { records, seen: RecordId(seen) })
}

/// The last record before the first open one. The writer's own mark is behind by a bounded part of the log; what lies
/// between is looked at.
pub(super) fn settled(snapshot: &Snapshot<'_>) -> Result<RecordId, ReadError> {
    let open = snapshot.connection().query_row(
        "SELECT min(r.seq) FROM records r LEFT JOIN outcomes o ON o.seq = r.seq
         WHERE r.seq > (SELECT seq FROM settled) AND r.ruling = 1 AND r.kind BETWEEN 1 AND 3 AND o.seq IS NULL",
        [],
        |row| row.get::<_, Option<u64>>(0),
    )?;
    Ok(RecordId(open.map_or(snapshot.last(), |open| open - 1)))
}

/// Those of these records that match, read from the log; at most `limit`.
pub(crate) fn select(
    connection: &Connection,
    query: &Query,
    seqs: &Seqs,
    order: Order,
    limit: usize,
) -> Result<Vec<StoredRecord>, ReadError> {
    let Condition { sql, mut values } = Condition::whole(&query.filter, &query.scope, seqs);
    let order = match order {
        Order::OldestFirst => "ASC",
        Order::NewestFirst => "DESC",
    };
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut statement =
        connection.prepare(&format!("{SELECT} WHERE {sql} ORDER BY r.seq {order} LIMIT ?"))?;
    let rows = statement.query_map(params_from_iter(values), StoredRecord::from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
