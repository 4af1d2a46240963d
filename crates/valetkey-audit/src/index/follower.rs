//! The follower: one thread that reads what was acknowledged, chunk by chunk, and writes it into the index.
//!
//! It works at most half of the time, so that beside a writer that never rests half a core at the most is taken from
//! it. Whatever goes wrong is said once and tried again; nobody waits for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::watch;

use super::chunk::{self, Memory};
use super::{Extent, IndexError, IndexState, fits, open};
use crate::schema::{self, OpenError};
use crate::writer::file_of;

/// The thread, as the store sees it.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's own state.
struct Work {
    database: PathBuf,
    state: Arc<IndexState>,
    stop: Arc<AtomicBool>,
    committed: watch::Receiver<u64>,
    chunk_size: u64,
    log: Connection,
    /// Absent until it is opened, and after a failure.
    index: Option<Connection>,
    /// Which file it is.
    file: Option<(u64, u64)>,
    /// Between looks at a log that does not move.
    idle: Duration,
    memory: Memory,
    /// Whether the failure under way was said.
    failing: bool,
    /// How often the index was made anew since it last reached the end of the log. Where it is the log that cannot be
    /// read, that must not go on without a pause.
    discarded: u32,
}

impl Follower {
    /// Starts the thread with connections of its own.
    pub(crate) fn start(
        database: &Path,
        state: Arc<IndexState>,
        committed: watch::Receiver<u64>,
        chunk_size: u64,
        idle: Duration,
    ) -> Result<Self, OpenError> {
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            database: database.to_owned(),
            state,
            stop: Arc::clone(&stop),
            committed,
            chunk_size,
            log: schema::open_reader(database)?,
            index: None,
            file: None,
            idle,
            memory: Memory::default(),
            failing: false,
            discarded: 0,
        };
        let thread = thread::Builder::new()
            .name("audit-index".into())
            .spawn(move || work.run())
            .map_err(|source| OpenError::File { path: database.to_owned(), source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    /// Waits for the chunk under way.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the audit log's index thread panicked; the log is read without it");
            }
        }
    }
}

impl Work {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            let pause = match self.step() {
                Ok(true) => {
                    self.recovered();
                    start.elapsed().min(PAUSE_MAX)
                }
                Ok(false) => {
                    self.recovered();
                    self.discarded = 0;
                    self.idle
                }
                Err(error) => {
                    self.failed(&error);
                    RETRY.saturating_mul(1 << self.discarded.min(10)).min(RETRY_MAX)
                }
            };
            // An early end of the pause does no harm.
            thread::park_timeout(pause);
        }
    }

    /// Adds the next chunk; whether there was one.
    fn step(&mut self) -> Result<bool, IndexError> {
        if self.state.damaged.swap(false, Ordering::Relaxed) {
            self.discard();
        }
        let path = super::path_of(&self.database);
        if self.index.is_none() || file_of(&path) != self.file {
            // Also where somebody took it away: what goes into it then, nobody else would see.
            self.begin()?;
            self.file = file_of(&path);
        }
        let Some(index) = &mut self.index else { return Ok(false) };
        let extent = Extent { chunk_size: self.chunk_size, chunks: self.state.indexed() / self.chunk_size };
        let end = extent.covered() + extent.chunk_size;
        // The one is free to ask, the other is what counts.
        if *self.committed.borrow() < end || chunk::settled(&self.log)? < end {
            return Ok(false);
        }
        let transaction = index.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let snapshot = self.log.unchecked_transaction()?;
        chunk::append(&transaction, &snapshot, extent, &mut self.memory)?;
        snapshot.commit()?;
        transaction.commit()?;
        self.state.indexed.store(end, Ordering::Relaxed);
        Ok(true)
    }

    /// Opens the index, or makes it anew, and tells the readers.
    fn begin(&mut self) -> Result<(), IndexError> {
        self.memory.clear();
        self.index = None;
        let index = open(&self.database, &self.log, self.chunk_size)?;
        let chunks: u64 = index.query_row("SELECT chunks FROM meta WHERE one = 1", [], |row| row.get(0))?;
        self.state.indexed.store(chunks.saturating_mul(self.chunk_size), Ordering::Relaxed);
        self.state.generation.fetch_add(1, Ordering::Release);
        self.index = Some(index);
        Ok(())
    }

    /// Has it made anew.
    fn discard(&mut self) {
        self.index = None;
        self.discarded = self.discarded.saturating_add(1);
        self.state.indexed.store(0, Ordering::Relaxed);
        if let Err(error) = std::fs::remove_file(super::path_of(&self.database)) {
            tracing::debug!(%error, "the index of the audit log cannot be deleted");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("the audit log's index goes on");
        }
    }

    fn failed(&mut self, error: &IndexError) {
        self.memory.clear();
        let cause = std::error::Error::source(error).map(ToString::to_string);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, cause, "the audit log's index does not go on: queries look through the log");
        }
        let IndexError::Database(error) = error else {
            self.index = None;
            return;
        };
        let broken = matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::Unknown
            )
        );
        let fits = self
            .index
            .as_ref()
            .is_some_and(|index| fits(index, "", &self.log, Some(self.chunk_size)).is_ok());
        if broken || !fits {
            self.discard();
        }
    }
}

const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(600);
const PAUSE_MAX: Duration = Duration::from_millis(500);
