//! The writer: one thread, one transaction for all that is queued, one fsync, then the answers.
//!
//! The order of writes, which everything hangs on:
//!
//! 1. records (and outcomes that wait) go into one transaction;
//! 2. `COMMIT` returns when the write-ahead log is on disk (`synchronous = FULL`);
//! 3. only then are the callers told their records' ids, and only then can a grant exist.
//!
//! A failed transaction is rolled back, its callers get an error, and its numbers are used by the next.
//! Outcomes are kept and written again. The connection is kept too: SQLite then writes the same part of
//! its log once more, whereas a new connection might recover frames that never reached the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{oneshot, watch};
use valetkey_core::{AuditError, AuditOutcome, Clock, OutcomeResult, RecordId, Ruling};

use crate::blocks;
use crate::evidence::Evidence;
use crate::outcomes::{NewOutcome, Outcomes};
use crate::queue::{Queue, Submission, Work};
use crate::retention::Retirer;
use crate::row::{self, breaks_rules};
use crate::schema::sibling;
use crate::strings::Strings;
use crate::wal::WalMover;

/// What the writer and everybody else see.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    /// The last durable record.
    pub(crate) committed: watch::Sender<u64>,
    /// Whether the last attempt to write succeeded.
    pub(crate) available: watch::Sender<bool>,
    /// Transactions so far.
    pub(crate) commits: AtomicU64,
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fault: crate::fault::FaultSwitch,
}

/// What the writer must be given.
pub(crate) struct WriterParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) wal_mover: WalMover,
    pub(crate) evidence: Evidence,
    pub(crate) retirer: Retirer,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long an outcome may take.
    pub(crate) outcome_deadline: Duration,
    /// How many outcomes may be waited for.
    pub(crate) open_max: usize,
    /// How long outcomes wait for records to travel with.
    pub(crate) tick: Duration,
}

/// The writer's own state; lives on its thread.
pub(crate) struct Writer {
    parts: WriterParts,
    /// Which file the connection has open.
    file: (u64, u64),
    /// Which write-ahead log, once there is one.
    log_file: Option<(u64, u64)>,
    strings: Strings,
    /// The last durable record.
    last: u64,
    outcomes: Outcomes,
    /// What stands in `settled`.
    settled: u64,
    /// Pages in the write-ahead log, told by SQLite at each commit.
    log_pages: Arc<AtomicI32>,
    failures: u32,
    retry_at: Instant,
    /// The database is damaged: nothing more is written, everything is answered.
    damaged: bool,
    /// Somebody else has written to the database.
    foreign: bool,
    /// Whether the write-ahead log was taken away, and what it held brought home.
    rescued: bool,
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the database refused")]
    Database(#[from] rusqlite::Error),
    #[error("the database is damaged; restore it from a backup")]
    Damaged,
    #[error("the database file was moved, deleted or replaced")]
    Moved,
    #[error("somebody else writes to the database; find out who, and restart the broker")]
    Foreign,
    #[error("too many grants wait for their outcome")]
    TooManyOpen,
}

impl Writer {
    /// Takes over where the log ends, and closes what the last run left open.
    pub(crate) fn start(mut parts: WriterParts) -> Result<Self, WriteError> {
        let log_pages = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&log_pages);
        parts.connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            told.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let settled =
            parts.connection.query_row("SELECT seq FROM settled WHERE one = 1", [], |row| row.get(0))?;
        let mut writer = Self {
            file: file_of(&parts.path).ok_or(WriteError::Moved)?,
            log_file: None,
            parts,
            strings: Strings::default(),
            last: 0,
            outcomes: Outcomes::default(),
            settled,
            log_pages,
            failures: 0,
            retry_at: Instant::now(),
            damaged: false,
            foreign: false,
            rescued: false,
        };
        writer.settled = writer.settled.max(writer.parts.evidence.settled(&writer.parts.connection)?);
        writer.resync()?;
        let settled = writer.outcomes.settled(0, writer.last);
        let WriterParts { evidence, connection, clock, .. } = &mut writer.parts;
        evidence.load(connection, settled, writer.last)?;
        evidence.begin(clock.monotonic());
        writer.interrupt_all()?;
        writer.sign_rest()?;
        Ok(writer)
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _fuse = Fuse(Arc::clone(&self.parts.shared));
        loop {
            let Work { submissions, outcomes, closed } = self.parts.shared.queue.take(self.parts.tick);
            self.take_outcomes(outcomes);
            self.reap();
            if !submissions.is_empty() || self.is_due() {
                self.write(submissions);
            }
            if closed {
                return self.finish();
            }
            self.retire();
        }
    }

    /// Writes the records of all these calls in one transaction, and answers them.
    fn write(&mut self, submissions: Vec<Submission>) {
        if self.outcomes.open_count() >= self.parts.open_max && !submissions.is_empty() {
            self.refuse(submissions, &WriteError::TooManyOpen);
            return self.write(Vec::new());
        }
        match self.transact(&submissions) {
            Ok(()) => self.answer(submissions),
            Err(WriteError::Database(error)) if breaks_rules(&error) && submissions.len() > 1 => {
                // One call's records must not keep those of the others out of the log.
                submissions.into_iter().for_each(|alone| self.write(vec![alone]));
            }
            Err(error) => self.refuse(submissions, &error),
        }
    }

    /// One transaction with everything that waits. `Ok` means: on disk.
    fn transact(&mut self, submissions: &[Submission]) -> Result<(), WriteError> {
        let result = self.prepare().and_then(|()| self.commit(submissions));
        let result = result.map_err(|error| self.recognise(error));
        match result {
            Ok(()) => self.committed(),
            // What was interned in the transaction is gone with it.
            Err(_) => self.strings.clear(),
        }
        result
    }

    /// A record that is not ours stands where our next one belongs: nobody can say any more what else was
    /// written, so nothing more is.
    fn recognise(&mut self, error: WriteError) -> WriteError {
        match error {
            WriteError::Database(cause) if cause.to_string().contains(GAP) => {
                self.foreign = true;
                WriteError::Foreign
            }
            // Something swallowed a row of ours: only a trigger that is not ours can.
            WriteError::Foreign | WriteError::Database(rusqlite::Error::StatementChangedRows(_)) => {
                self.foreign = true;
                WriteError::Foreign
            }
            error => error,
        }
    }

    /// Makes sure that the next transaction goes where the last one went.
    fn prepare(&mut self) -> Result<(), WriteError> {
        if self.damaged {
            return Err(WriteError::Damaged);
        }
        if self.foreign {
            return Err(WriteError::Foreign);
        }
        #[cfg(any(test, feature = "test-util"))]
        self.parts.shared.fault.apply(&self.parts.connection)?;
        if file_of(&self.parts.path) != Some(self.file) {
            return Err(WriteError::Moved);
        }
        if self.log_file.is_some() && file_of(&log_of(&self.parts.path)) != self.log_file {
            self.rescue();
            return Err(WriteError::Moved);
        }
        if self.failures > 0 { self.resync() } else { Ok(()) }
    }

    /// Somebody took the write-ahead log away. This connection still has it open, and alone: what it holds
    /// goes into the database file while that is possible. Nothing more is written until a restart.
    fn rescue(&mut self) {
        if self.rescued {
            return;
        }
        self.rescued = true;
        match self.parts.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::FULL) {
            Ok(_) => {
                tracing::error!("the write-ahead log was taken away; what it held is in the database file")
            }
            Err(error) => tracing::error!(%error, "the write-ahead log was taken away, and records with it"),
        }
    }

    fn commit(&mut self, submissions: &[Submission]) -> Result<(), WriteError> {
        let outcomes_end = self.outcomes.batch_end();
        let settled = self.outcomes.settled(outcomes_end, self.last);
        let settle = submissions.is_empty() || settled >= self.settled + SETTLE_STEP;
        let WriterParts { evidence, retirer, connection, clock, .. } = &mut self.parts;
        let monotonic = clock.monotonic();
        let checkpoint = evidence.sign(monotonic, clock.now());
        let blocks = evidence.block_count();
        let mut dropped = Vec::new();

        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (seq, NewOutcome { outcome, digest: _ }) in self.outcomes.batch(outcomes_end) {
            if !insert_outcome(&transaction, &mut self.strings, seq, outcome)? {
                dropped.push((seq, blocks::outcome_part(&transaction, seq)?));
            }
        }
        insert_records(&transaction, &mut self.strings, self.last, submissions)?;
        evidence.insert(&transaction, checkpoint.as_ref()).map_err(foreign)?;
        let retired = match retirer.work(&transaction, evidence.signed(), clock.now()) {
            Err(error) if breaks_rules(&error) => {
                tracing::error!(%error, "records cannot be retired; they are kept until the next start");
                None
            }
            retired => Some(retired?),
        };
        if settle {
            // The time makes it a change even where nothing has moved: this is also how an idle log finds
            // out that it can write again.
            let now = clock.now().as_micros();
            transaction
                .prepare_cached("UPDATE settled SET seq = ?1, time_us = ?2 WHERE one = 1")?
                .execute((settled, now))?;
        }
        transaction.commit()?;

        if settle {
            self.settled = settled;
        }
        for (seq, NewOutcome { outcome: _, digest }) in self.outcomes.batch(outcomes_end) {
            evidence.outcome(seq, Some(*digest));
        }
        // What stands there instead counts.
        dropped.into_iter().for_each(|(seq, digest)| evidence.outcome(seq, digest));
        match retired {
            Some(done) => retirer.done(done),
            None => retirer.give_up(),
        }
        evidence.inserted(blocks, checkpoint.map(|checkpoint| (checkpoint, monotonic)));
        self.outcomes.written(outcomes_end);
        Ok(())
    }

    /// Notes a success.
    fn committed(&mut self) {
        self.failures = 0;
        if self.log_file.is_none() {
            self.log_file = file_of(&log_of(&self.parts.path));
        }
        self.parts.shared.commits.fetch_add(1, Ordering::Relaxed);
        if set(&self.parts.shared.available, true) {
            tracing::info!("the audit log can be written again");
        }
        self.parts.wal_mover.note(&self.parts.connection, self.log_pages.load(Ordering::Relaxed));
    }

    /// Gives the callers their ids, and begins to wait for outcomes.
    fn answer(&mut self, submissions: Vec<Submission>) {
        let deadline = self.parts.clock.monotonic() + self.parts.outcome_deadline;
        let mut answers = Vec::with_capacity(submissions.len());
        for Submission { records, reply } in submissions {
            let first = self.last + 1;
            for (record, digest) in records {
                self.last += 1;
                self.parts.evidence.record(digest);
                if record.ruling == Ruling::Allow && record.kind.has_outcome() {
                    self.outcomes.expect(self.last, deadline);
                }
            }
            answers.push((reply, (first..=self.last).map(RecordId).collect()));
        }
        self.fold();
        self.parts
            .shared
            .committed
            .send_if_modified(|committed| std::mem::replace(committed, self.last) != self.last);
        for (reply, ids) in answers {
            // Where nobody is there any more, the record stands all the same, but no grant will ever be.
            if let Err(Ok(ids)) = reply.send(Ok(ids)) {
                self.abandon(ids);
            }
        }
    }

    /// Takes what is settled into the tree.
    fn fold(&mut self) {
        self.parts.evidence.fold(self.outcomes.settled(0, self.last));
    }

    /// Closes records whose caller went before it was answered: what they allow did not happen.
    fn abandon(&mut self, ids: Vec<RecordId>) {
        let now = self.parts.clock.now();
        for RecordId(seq) in ids {
            let outcome = AuditOutcome::because(now, OutcomeResult::Withheld, CALLER_GONE);
            self.outcomes.bring(seq, NewOutcome::new(outcome));
        }
    }

    /// Tells the callers that nothing was written, and the operator why.
    fn refuse(&mut self, submissions: Vec<Submission>, error: &WriteError) {
        match error {
            WriteError::Database(cause) if breaks_rules(cause) => {
                tracing::error!(%cause, "a record breaks the rules of the audit log and was refused");
            }
            WriteError::Database(_)
            | WriteError::Damaged
            | WriteError::Moved
            | WriteError::Foreign
            | WriteError::TooManyOpen => self.failed(error),
        }
        let answer = AuditError("it could not be written; the broker's own log says why".into());
        for submission in submissions {
            let _ = submission.reply.send(Err(answer.clone()));
        }
    }

    /// Notes a failure, says so once, and plans the next try.
    fn failed(&mut self, error: &WriteError) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        if set(&self.parts.shared.available, false) {
            tracing::error!(%error, cause, "the audit log cannot be written: requests are refused");
        } else {
            tracing::debug!(%error, cause, failures = self.failures, "the audit log still cannot be written");
        }
        if let WriteError::Database(cause) = error
            && matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        {
            tracing::error!("the audit database is damaged: stop the broker and restore it from a backup");
            self.damaged = true;
        }
        let backoff = RETRY_FIRST.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Instant::now() + backoff.min(RETRY_LAST);
    }

    /// Whether there is something to write that no request has brought.
    fn is_due(&self) -> bool {
        let waiting = self.outcomes.waiting_count() > 0
            || !*self.parts.shared.available.borrow()
            || self.parts.evidence.is_due(self.parts.clock.monotonic())
            || self.parts.retirer.is_due(self.parts.evidence.signed());
        waiting && (self.failures == 0 || Instant::now() >= self.retry_at)
    }

    fn take_outcomes(&mut self, outcomes: Vec<(RecordId, NewOutcome)>) {
        for (record, new) in outcomes {
            let result = new.outcome.result.as_str();
            if !self.outcomes.bring(record.0, new) {
                tracing::warn!(%record, result, "an outcome came after its record was closed and is dropped");
            }
        }
    }

    /// Gives up on outcomes that are overdue: the server drops its work when a client vanishes. Also on those that too
    /// many records wait behind.
    fn reap(&mut self) {
        let WriterParts { clock, evidence, .. } = &self.parts;
        let until = evidence.overflow().unwrap_or(0);
        let records = self.outcomes.give_up(clock.monotonic(), until, clock.now());
        if records > 0 {
            tracing::warn!(records, "no outcome came in time; the records are closed as interrupted");
        }
    }

    /// Says in the log what is to be retired, where something is.
    fn retire(&mut self) {
        let WriterParts { retirer, evidence, connection, clock, .. } = &mut self.parts;
        if self.failures > 0 {
            return;
        }
        let now = clock.now();
        match retirer.plan(connection, evidence.signed(), (clock.monotonic(), now)) {
            Ok(None) => {}
            Ok(Some(plan)) => {
                let before = self.last;
                self.write(vec![Submission::new(vec![plan.record(now)], oneshot::channel().0)]);
                if self.last == before + 1 {
                    self.parts.retirer.announced(self.last, plan);
                }
            }
            Err(error) => tracing::warn!(%error, "it cannot be found out which records are to be retired"),
        }
    }

    /// Signs what the last run left unsigned, at once: a broker that crashes again and again must sign too.
    fn sign_rest(&mut self) -> Result<(), WriteError> {
        let WriterParts { evidence, connection, .. } = &mut self.parts;
        if !evidence.has_rest(connection, self.last)? {
            return Ok(());
        }
        evidence.hurry();
        self.fold();
        self.transact(&[])?;
        self.parts.evidence.begin(self.parts.clock.monotonic());
        Ok(())
    }

    /// Closes what the last run left open.
    fn interrupt_all(&mut self) -> Result<(), WriteError> {
        let records = self.outcomes.give_up(Duration::MAX, 0, self.parts.clock.now());
        if records > 0 {
            tracing::warn!(records, "the last run left records open; they are closed as interrupted");
        }
        while self.outcomes.waiting_count() > 0 {
            self.transact(&[])?;
            self.fold();
        }
        Ok(())
    }

    /// Reads where the log ends. After a failure: what came of it. Where a transaction is in the log
    /// although its callers were told that it is not, its grants were never given; they run into their
    /// deadline.
    fn resync(&mut self) -> Result<(), WriteError> {
        let connection = &self.parts.connection;
        let last = blocks::last_record(connection)?;
        if last < self.last {
            return Err(WriteError::Moved);
        }
        if self.failures > 0 {
            self.parts.evidence.catch_up(connection, last)?;
        }
        let mut unsettled = connection.prepare(
            "SELECT seq FROM records r WHERE seq > ?1 AND ruling = 1 AND kind BETWEEN 1 AND 3
                 AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.seq = r.seq) ORDER BY seq",
        )?;
        let deadline = self.parts.clock.monotonic() + self.parts.outcome_deadline;
        for seq in unsettled.query_map([self.settled.max(self.last)], |row| row.get(0))? {
            self.outcomes.expect(seq?, deadline);
        }
        self.last = last;
        self.parts.shared.committed.send_replace(self.last);
        Ok(())
    }

    /// Writes what is left, signs all of it, and moves the log into the database file. No outcome can come any more:
    /// what is open is closed now, so that the last checkpoint covers the last record.
    fn finish(mut self) {
        let WriterParts { clock, .. } = &self.parts;
        let records = self.outcomes.give_up(Duration::MAX, 0, clock.now());
        if records > 0 {
            tracing::warn!(
                records,
                "the broker stops before their outcomes; the records are closed as interrupted"
            );
        }
        loop {
            self.fold();
            if self.outcomes.waiting_count() == 0 {
                self.parts.evidence.hurry();
            }
            if !self.is_unfinished() {
                break;
            }
            if let Err(error) = self.transact(&[]) {
                self.failed(&error);
                let outcomes = self.outcomes.waiting_count();
                tracing::error!(outcomes, "outcomes are lost, and the last records are not signed yet");
                break;
            }
        }
        let WriterParts { wal_mover, connection, .. } = self.parts;
        drop(wal_mover);
        if let Err(error) = connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE) {
            tracing::warn!(%error, "the audit log's write-ahead log was not moved into its file; nothing is lost");
        }
    }

    fn is_unfinished(&self) -> bool {
        self.outcomes.waiting_count() > 0
            || self.settled < self.outcomes.settled(0, self.last)
            || self.parts.evidence.is_due(self.parts.clock.monotonic())
    }
}

/// Somebody else's row stands where our next one belongs.
fn foreign(error: rusqlite::Error) -> WriteError {
    if breaks_rules(&error) { WriteError::Foreign } else { WriteError::Database(error) }
}

/// Closes the log however the writer ends: a broker whose writer is gone refuses.
struct Fuse(Arc<Shared>);

impl Drop for Fuse {
    fn drop(&mut self) {
        self.0.queue.abandon();
        set(&self.0.available, false);
        if std::thread::panicking() {
            tracing::error!(
                "the audit log's writer panicked: requests are refused until the broker restarts"
            );
        }
    }
}

fn insert_records(
    transaction: &Transaction<'_>,
    strings: &mut Strings,
    last: u64,
    submissions: &[Submission],
) -> rusqlite::Result<()> {
    let mut statement = row::prepare_record(transaction)?;
    let records = submissions.iter().flat_map(|submission| &submission.records);
    for (seq, (record, _)) in (last + 1..).zip(records) {
        row::insert_record(&mut statement, transaction, strings, seq, record)?;
    }
    Ok(())
}

/// An outcome that the schema refuses is dropped, loudly: kept, it would fail every transaction to come. Whether it was
/// written.
fn insert_outcome(
    transaction: &Transaction<'_>,
    strings: &mut Strings,
    seq: u64,
    outcome: &AuditOutcome,
) -> rusqlite::Result<bool> {
    match row::insert_outcome(transaction, strings, seq, outcome) {
        Err(error) if breaks_rules(&error) => {
            tracing::error!(record = seq, %error, "an outcome breaks the rules of the audit log and is dropped");
            Ok(false)
        }
        result => result.map(|()| true),
    }
}

/// Sets a flag; whether that changed it.
pub(crate) fn set(flag: &watch::Sender<bool>, value: bool) -> bool {
    flag.send_if_modified(|flag| std::mem::replace(flag, value) != value)
}

/// The write-ahead log of a database.
fn log_of(path: &std::path::Path) -> PathBuf {
    sibling(path, "-wal")
}

/// Device and inode: a file that was put in the place of ours is not ours.
pub(crate) fn file_of(path: &std::path::Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// What the schema says to a record out of turn.
const GAP: &str = "records are numbered from 1 without gaps";
const CALLER_GONE: &str = "CALLER_GONE";
/// Records after which `settled` is brought up to date, so that a start has little to look through.
const SETTLE_STEP: u64 = 1024;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(1);
