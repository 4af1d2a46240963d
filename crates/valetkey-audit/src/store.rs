//! The log as the rest of the broker sees it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use valetkey_core::{AuditError, AuditLog, AuditOutcome, AuditRecord, Clock, Grant, RecordId};

use crate::archive::Archive;
use crate::evidence::{Evidence, Signing};
use crate::index::{self, Follower};
use crate::note::VerifierKey;
use crate::outcomes::NewOutcome;
use crate::queue::{Queue, Rejected, Submission};
use crate::read::AuditReader;
use crate::retention::{Retention, Retirer};
use crate::schema::{self, OpenError};
use crate::tokens::TokenStore;
use crate::wal::{WalLimits, WalMover};
use crate::writer::{Shared, Writer, WriterParts, set};

/// The audit log in one SQLite file, open for writing; one process at a time.
pub struct AuditStore {
    shared: Arc<Shared>,
    reader: AuditReader,
    tokens: Arc<TokenStore>,
    archive: Arc<Archive>,
    verifier: VerifierKey,
    wait_max: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Keeps the index; ends before the writer does.
    follower: Mutex<Option<Follower>>,
    /// Held until the writer has ended. The operating system lets go of it however the process ends.
    _lock: File,
}

/// How to open a log. The defaults are meant for production.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What to do where there is no database. Default: refuse.
    pub missing: Missing,
    /// Records that may wait to be written; beyond it, calls are refused at once. Default: 16,384.
    pub queue_max: usize,
    /// How long a call waits for its records to be durable. Default: 5 s.
    pub wait_max: Duration,
    /// How long the outcome of a grant may take before the record becomes `interrupted`. Must be longer
    /// than a source may take. Default: 120 s.
    pub outcome_deadline: Duration,
    /// Grants that may wait for their outcome; beyond it nothing is written, until outcomes come or are
    /// overdue. Default: 262,144.
    pub open_max: usize,
    /// How long outcomes wait for records to share an fsync with. Default: 50 ms.
    pub tick: Duration,
    /// Records that the index takes in at a time; 1 to 65,535. For tests alone. Default: 8,192.
    pub index_chunk: u64,
    /// How the log is signed.
    pub signing: Signing,
    /// How long records are kept. Default: for ever.
    pub retention: Retention,
}

/// What to do where there is no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Refuse: a log that has gone missing is a matter for a person.
    Refuse,
    /// Create one; its directory must exist.
    Create,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            missing: Missing::Refuse,
            queue_max: 16_384,
            wait_max: Duration::from_secs(5),
            outcome_deadline: Duration::from_secs(120),
            open_max: 262_144,
            tick: Duration::from_millis(50),
            index_chunk: index::CHUNK,
            signing: Signing::default(),
            retention: Retention::default(),
        }
    }
}

impl AuditStore {
    /// Opens the log: brings the schema up to date, sees to it that the log is the one that was signed, closes records
    /// that the last run left open as `interrupted`, brings the tree up to date, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was created or changed that was not asked for.
    pub fn open(path: &Path, options: StoreOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let StoreOptions {
            missing,
            queue_max,
            wait_max,
            outcome_deadline,
            open_max,
            tick,
            index_chunk,
            signing,
            retention,
        } = options;
        match missing {
            Missing::Create => schema::create(path)?,
            Missing::Refuse => {}
        }
        schema::check_place(path)?;
        let path = path.canonicalize().map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let lock = lock(&path)?;
        let connection = schema::open_writer(&path)?;
        let evidence = Evidence::open(&path, &connection, &signing, missing)?;
        let verifier = evidence.verifier().clone();
        let shared = Arc::new(Shared {
            queue: Queue::new(queue_max),
            committed: watch::Sender::new(0),
            available: watch::Sender::new(true),
            commits: AtomicU64::new(0),
            #[cfg(any(test, feature = "test-util"))]
            fault: crate::fault::FaultSwitch::default(),
        });
        let wal_mover = WalMover::start(&path, WalLimits::default())?;
        let reader = AuditReader::open(&path)?;
        let (state, chunk) = (Arc::clone(reader.index()), index_chunk.clamp(1, 65_535));
        let retirer = Retirer::new(retention, &connection, (Arc::clone(&state), chunk))
            .map_err(|source| OpenError::Database { path: path.clone(), source: source.into() })?;
        let tokens = Arc::new(TokenStore::open(&path)?);
        let archive = Arc::new(Archive::open(&path)?);
        let parts = WriterParts {
            shared: Arc::clone(&shared),
            path: path.clone(),
            connection,
            wal_mover,
            evidence,
            retirer,
            clock,
            outcome_deadline,
            open_max,
            tick,
        };
        // A few ticks behind is near enough: what is not in the index is read from the log.
        let idle = tick.saturating_mul(4);
        let follower = Follower::start(&path, state, shared.committed.subscribe(), chunk, idle)?;
        let writer = start(&path, parts)?;
        let (writer, follower) = (Mutex::new(Some(writer)), Mutex::new(Some(follower)));
        Ok(Self { shared, reader, tokens, archive, verifier, wait_max, writer, follower, _lock: lock })
    }

    /// Reads the log; its queries never hold up the writer.
    #[must_use]
    pub fn reader(&self) -> &AuditReader {
        &self.reader
    }

    /// The broker's own tokens, which are in the same file.
    #[must_use]
    pub fn tokens(&self) -> &Arc<TokenStore> {
        &self.tokens
    }

    /// What is kept in the same file so that records can be read later.
    #[must_use]
    pub fn archive(&self) -> &Arc<Archive> {
        &self.archive
    }

    /// The public key that the log's checkpoints are signed by.
    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The last durable record, as it moves: wakes whoever watches the log. 0 while it is empty.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.committed.subscribe()
    }

    /// Whether the last attempt to write succeeded. A log that failed tries by itself until it is back.
    #[must_use]
    pub fn is_available(&self) -> bool {
        *self.shared.available.borrow()
    }

    /// The same, as it changes: for the health service.
    #[must_use]
    pub fn availability(&self) -> watch::Receiver<bool> {
        self.shared.available.subscribe()
    }

    /// Transactions so far, for metrics: far fewer than records where many callers share each fsync.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Writes what is queued, outcomes included, and closes the database. Takes nothing more. Blocks until
    /// it is done; a second call does nothing.
    pub fn close(&self) {
        drop(self.follower.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the audit log's writer had panicked");
        }
    }

    /// Every record up to here is in the index, which follows the log.
    #[must_use]
    pub fn indexed(&self) -> RecordId {
        self.reader.indexed()
    }

    /// Makes the log fail from the next transaction on.
    #[cfg(any(test, feature = "test-util"))]
    pub fn inject(&self, fault: crate::Fault) {
        self.shared.fault.set(Some(fault));
    }

    /// Ends the fault.
    #[cfg(any(test, feature = "test-util"))]
    pub fn heal(&self) {
        self.shared.fault.set(None);
    }
}

#[async_trait]
impl AuditLog for AuditStore {
    /// Waits at most [`StoreOptions::wait_max`]. What is queued is written even where the caller has gone
    /// or was told that it took too long: the log may then hold records that were never acknowledged, and
    /// grants of theirs become `interrupted`.
    async fn record(&self, records: Vec<AuditRecord>) -> Result<Vec<RecordId>, AuditError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Submission::new(records, reply)).map_err(|rejected| match rejected {
            Rejected::Full => AuditError("its queue is full".into()),
            Rejected::Closed => AuditError("it is closed".into()),
        })?;
        match tokio::time::timeout(self.wait_max, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(AuditError("it was closed before it could write".into())),
            Err(_) => {
                if set(&self.shared.available, false) {
                    tracing::error!("the audit log does not answer in time: requests are refused");
                }
                Err(AuditError("it did not answer in time".into()))
            }
        }
    }

    fn record_outcome(&self, grant: Grant, outcome: AuditOutcome) {
        let (record, result) = (grant.record(), outcome.result.as_str());
        if !self.shared.queue.push_outcome(record, NewOutcome::new(outcome)) {
            tracing::error!(%record, result, "an outcome came after the audit log was closed; it becomes interrupted");
        }
    }
}

impl Drop for AuditStore {
    fn drop(&mut self) {
        #[cfg(any(test, feature = "test-util"))]
        self.shared.fault.end_stall();
        self.close();
    }
}

fn start(path: &Path, parts: WriterParts) -> Result<JoinHandle<()>, OpenError> {
    let writer = Writer::start(parts)
        .map_err(|error| OpenError::Database { path: path.to_owned(), source: error.into() })?;
    thread::Builder::new()
        .name("audit-writer".into())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// Takes the lock beside the database: a file of its own, because SQLite loses its own locks when another
/// descriptor of the database is closed.
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = schema::sibling(path, "-lock");
    let failed = |source| OpenError::File { path: lock.clone(), source };
    let options = File::options().create(true).truncate(false).write(true).mode(0o600).clone();
    let file = options.open(&lock).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
