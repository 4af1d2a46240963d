//! The log as the rest of the broker sees it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use valetkey_core::{AuditError, AuditLog, AuditOutcome, AuditRecord, Clock, Grant, RecordId};

use crate::archive::Archive;
use crate::checkpoint::{CheckpointLimits, Checkpointer};
use crate::queue::{Queue, Rejected, Submission};
use crate::read::AuditReader;
use crate::schema::{self, OpenError};
use crate::tokens::TokenStore;
use crate::writer::{Shared, Writer, WriterParts, set};

/// The audit log in one SQLite file, open for writing; one process at a time.
pub struct AuditStore {
    shared: Arc<Shared>,
    reader: AuditReader,
    tokens: Arc<TokenStore>,
    archive: Arc<Archive>,
    wait_max: Duration,
    writer: Mutex<Option<JoinHandle<()>>>,
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
        }
    }
}

impl AuditStore {
    /// Opens the log: brings the schema up to date, closes records that the last run left open as
    /// `interrupted`, and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was created or changed that was not asked for.
    pub fn open(path: &Path, options: StoreOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let StoreOptions { missing, queue_max, wait_max, outcome_deadline, open_max, tick } = options;
        match missing {
            Missing::Create => schema::create(path)?,
            Missing::Refuse => {}
        }
        schema::check_place(path)?;
        let path = path.canonicalize().map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let lock = lock(&path)?;
        let connection = schema::open_writer(&path)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(queue_max),
            committed: watch::Sender::new(0),
            available: watch::Sender::new(true),
            commits: AtomicU64::new(0),
            #[cfg(any(test, feature = "test-util"))]
            fault: crate::fault::FaultSwitch::default(),
        });
        let checkpointer = Checkpointer::start(&path, CheckpointLimits::default())?;
        let reader = AuditReader::open(&path)?;
        let tokens = Arc::new(TokenStore::open(&path)?);
        let archive = Arc::new(Archive::open(&path)?);
        let parts = WriterParts {
            shared: Arc::clone(&shared),
            path: path.clone(),
            connection,
            checkpointer,
            clock,
            outcome_deadline,
            open_max,
            tick,
        };
        let writer = start(&path, parts)?;
        Ok(Self { shared, reader, tokens, archive, wait_max, writer: Mutex::new(Some(writer)), _lock: lock })
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
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the audit log's writer had panicked");
        }
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
        self.shared.queue.push(Submission { records, reply }).map_err(|rejected| match rejected {
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
        if !self.shared.queue.push_outcome(record, outcome) {
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
    let mut lock = path.as_os_str().to_owned();
    lock.push("-lock");
    let lock = PathBuf::from(lock);
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
