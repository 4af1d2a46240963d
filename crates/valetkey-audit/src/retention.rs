//! How long records are kept, and how they go: whole blocks, the oldest first.
//!
//! ```text
//! too old, or too much ──> record `retire` ──> a checkpoint covers it ──> row in `retirements` ──> a block with each COMMIT
//! ```
//!
//! So nothing goes that was not signed, and nothing goes without a signed record that says so. The hashes of the blocks
//! stay, and with them the rest can be verified. What goes is never younger than a day, and never the last block; and
//! nothing goes that the index has not taken in, because the counts of reports are kept there.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use valetkey_core::{AuditRecord, Reason, RecordKind, Timestamp};

use crate::blocks;
use crate::index::IndexState;
use crate::tree::BLOCK;

/// How long records are kept; whichever bound is reached first counts. The default keeps them for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Records that are older are deleted; at least a day.
    pub keep_for: Option<Duration>,
    /// The oldest records are deleted while the database has more bytes than this in use.
    pub keep_bytes: Option<u64>,
}

/// The writer's part of it.
pub(crate) struct Retirer {
    retention: Retention,
    /// When to look again, by the clock that never goes back.
    next_look: Duration,
    step: Step,
    counted: Counted,
}

/// How far the index has come, which keeps the counts of what goes.
struct Counted {
    index: Arc<IndexState>,
    /// Records that it takes in at a time.
    chunk: u64,
    /// Where it was when it last moved, and when that was.
    seen: (u64, Duration),
    /// Whether it was said that it is not waited for.
    said: bool,
}

/// How far it is with what goes next.
#[derive(Clone, Copy)]
enum Step {
    /// Nothing goes.
    Idle,
    /// A record says what is to go.
    Announced { record: u64, plan: Plan },
    /// The blocks before `end` go, this one next.
    Deleting { block: u64, end: u64 },
}

/// What is to go.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    first: u64,
    last: u64,
    first_us: i64,
    last_us: i64,
}

/// What a transaction has done, once it is durable.
pub(crate) struct Done(Option<Step>);

impl Retirer {
    /// Goes on where the last run was.
    pub(crate) fn new(
        retention: Retention,
        connection: &Connection,
        (index, chunk): (Arc<IndexState>, u64),
    ) -> rusqlite::Result<Self> {
        let retired = blocks::retired(connection)?;
        let first: Option<u64> =
            connection.query_row("SELECT min(seq) FROM records", [], |row| row.get(0))?;
        let step = match first {
            Some(first) if first <= retired => {
                Step::Deleting { block: (first - 1) / BLOCK, end: retired / BLOCK }
            }
            _ => Step::Idle,
        };
        let counted = Counted { index, chunk, seen: (0, Duration::ZERO), said: false };
        Ok(Self { retention, next_look: Duration::ZERO, step, counted })
    }

    /// Whether it has something to do in a transaction, where checkpoints cover the records up to `signed`.
    pub(crate) fn is_due(&self, signed: u64) -> bool {
        match self.step {
            Step::Idle => false,
            Step::Announced { record, plan: _ } => record <= signed,
            Step::Deleting { .. } => true,
        }
    }

    /// What is to go next, if anything.
    pub(crate) fn plan(
        &mut self,
        connection: &Connection,
        signed: u64,
        (monotonic, now): (Duration, Timestamp),
    ) -> rusqlite::Result<Option<Plan>> {
        let Retention { keep_for, keep_bytes } = self.retention;
        let idle = matches!(self.step, Step::Idle) && monotonic >= self.next_look;
        if !idle || (keep_for.is_none() && keep_bytes.is_none()) {
            return Ok(None);
        }
        self.next_look = monotonic.saturating_add(LOOK_EVERY);
        let too_much = match keep_bytes {
            Some(most) => bytes_in_use(connection)? > most,
            None => false,
        };
        let age = match too_much {
            true => AGE_MIN,
            false => keep_for.unwrap_or(Duration::MAX).max(AGE_MIN),
        };
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.as_micros().saturating_sub(age);
        let begin = blocks::retired(connection)?;
        let last = blocks::last_record(connection)?;
        let counted = self.counted.up_to(last, monotonic);
        let top = signed.min(last.saturating_sub(1)).min(counted) / BLOCK * BLOCK;
        let mut plan = None;
        for last in (begin + BLOCK..=top).step_by(STEP).take(BLOCKS_MAX) {
            let Some(last_us) = time_of(connection, last)?.filter(|time| *time <= oldest) else { break };
            let first_us = time_of(connection, begin + 1)?.unwrap_or(last_us);
            plan = Some(Plan { first: begin + 1, last, first_us, last_us });
        }
        Ok(plan)
    }

    /// Notes that a plan is in the log, as this record.
    pub(crate) fn announced(&mut self, record: u64, plan: Plan) {
        self.step = Step::Announced { record, plan };
    }

    /// Does a little: the row that lets records go, or a block of them.
    pub(crate) fn work(
        &self,
        transaction: &Transaction<'_>,
        signed: u64,
        now: Timestamp,
    ) -> rusqlite::Result<Done> {
        if !self.is_due(signed) {
            return Ok(Done(None));
        }
        Ok(Done(Some(match self.step {
            Step::Idle => Step::Idle,
            Step::Announced { record: _, plan: Plan { first, last, first_us, last_us } } => {
                transaction
                    .prepare_cached(
                        "INSERT INTO retirements (seq, time_us, first_us, last_us) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![last, now.as_micros(), first_us, last_us])?;
                Step::Deleting { block: (first - 1) / BLOCK, end: last / BLOCK }
            }
            Step::Deleting { block, end } => {
                let records = [block * BLOCK, (block + 1) * BLOCK];
                for sql in [
                    "DELETE FROM outcomes WHERE seq > ?1 AND seq <= ?2",
                    "DELETE FROM records WHERE seq > ?1 AND seq <= ?2",
                ] {
                    transaction.prepare_cached(sql)?.execute(records)?;
                }
                transaction.prepare_cached("DELETE FROM tree_leaves WHERE block = ?1")?.execute([block])?;
                if block + 1 < end { Step::Deleting { block: block + 1, end } } else { Step::Idle }
            }
        })))
    }

    /// Notes that it is durable. Where a step is over, looks for the next at once.
    pub(crate) fn done(&mut self, Done(step): Done) {
        if let Some(step) = step {
            if matches!(step, Step::Idle) {
                self.next_look = Duration::ZERO;
            }
            self.step = step;
        }
    }

    /// Gives up until the next start: what the database does not allow must not stop the log.
    pub(crate) fn give_up(&mut self) {
        (self.retention, self.step) = (Retention::default(), Step::Idle);
    }
}

impl Counted {
    /// The last record that may go. An index that has much to do and does not move for long is not waited for: what
    /// should go must not stay for ever.
    fn up_to(&mut self, last: u64, monotonic: Duration) -> u64 {
        let indexed = self.index.indexed();
        let is_behind = last.saturating_sub(indexed) > self.chunk.saturating_mul(2);
        if !is_behind || indexed != self.seen.0 || self.seen.1.is_zero() {
            self.seen = (indexed, monotonic.max(Duration::from_nanos(1)));
            self.said &= is_behind;
        }
        if monotonic.saturating_sub(self.seen.1) < INDEX_WAIT_MAX {
            // The last one stays: the index is recognised by it.
            return indexed.saturating_sub(1);
        }
        if !std::mem::replace(&mut self.said, true) {
            tracing::error!(
                indexed,
                last,
                "the audit log's index does not go on, and old records are deleted all the same: reports lose the \
                 counts of those that it has not taken in"
            );
        }
        u64::MAX
    }
}

impl Plan {
    /// The record that says so.
    pub(crate) fn record(&self, now: Timestamp) -> AuditRecord {
        let Self { first, last, first_us, last_us } = self;
        let [begin, end] = [first_us, last_us].map(|time| Timestamp::from_micros(*time));
        AuditRecord::event(now, RecordKind::Retire, Reason::Done)
            .with_detail(&format!("{}, from {begin} to {end}", announcement(*first, *last)))
    }
}

/// What the record of a retirement begins with.
fn announcement(first: u64, last: u64) -> String {
    format!("records {first} to {last}")
}

/// The last record that says that the records up to `last` were retired.
pub(crate) fn announced(connection: &Connection, last: u64) -> rusqlite::Result<Option<u64>> {
    let words = format!(" to {last}, from ");
    connection
        .query_row(
            "SELECT max(seq) FROM records WHERE kind = ?1 AND instr(detail, ?2) > 0",
            params![crate::code::Code::code(RecordKind::Retire), words],
            |row| row.get(0),
        )
        .optional()
        .map(Option::flatten)
}

fn time_of(connection: &Connection, record: u64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT time_us FROM records WHERE seq = ?1")?
        .query_row([record], |row| row.get(0))
        .optional()
}

/// What the database holds, without what is free for new records.
fn bytes_in_use(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok(pragma("page_count")?.saturating_sub(pragma("freelist_count")?).saturating_mul(pragma("page_size")?))
}

/// Whatever is asked for, records live that long.
const AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// How long retention waits for an index that does not move.
const INDEX_WAIT_MAX: Duration = Duration::from_secs(6 * 3600);
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Blocks that go under one record.
const BLOCKS_MAX: usize = 64;
const STEP: usize = 256;

#[cfg(test)]
mod tests;
