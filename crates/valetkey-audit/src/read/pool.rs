//! The readers' connections, and what a query sees through one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};
use tokio::sync::Semaphore;

use super::ReadError;
use crate::blocks;
use crate::index::{self, Extent, IndexState};
use crate::schema::{self, OpenError};
use crate::vaults::Known;

/// The connections, and the bounds of what runs on them.
pub(super) struct Pool {
    path: PathBuf,
    /// Not in use. Never more than there are permits.
    idle: Mutex<Vec<Reading>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) vaults: Known,
    pub(super) index: Arc<IndexState>,
    /// How long a query waits for its turn, and how long it may then take.
    pub(super) time_max: Duration,
}

/// A connection, with the index beside it where there is one.
pub(super) struct Reading {
    connection: Connection,
    indexed: bool,
    /// Of the index, when it was opened.
    generation: u64,
}

/// The log and its index as they stand in one transaction.
pub(crate) struct Snapshot<'a> {
    connection: Transaction<'a>,
    extent: Option<Extent>,
    first: u64,
    last: u64,
    end: Instant,
}

impl Pool {
    pub(super) fn new(path: &Path, permits: Arc<Semaphore>, time_max: Duration) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::default(),
            permits,
            vaults: Known::default(),
            index: Arc::default(),
            time_max,
        }
    }

    pub(super) fn keep(&self, reading: Reading) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
    }

    /// Runs a query within the time. Where the index fails it, it runs again without.
    pub(super) fn run<T>(
        &self,
        query: &impl Fn(&Snapshot<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut reading = self.take()?;
        let end = Instant::now() + self.time_max;
        let overdue = move || Instant::now() >= end;
        reading.connection.progress_handler(CHECK_EVERY, Some(overdue))?;
        let mut result = reading.run(query, end);
        if let (Err(ReadError::Unavailable(source)), true) = (&result, reading.indexed) {
            reading.indexed = false;
            let without = reading.run(query, end);
            // What fails without the index too is not its fault.
            if !matches!(without, Err(ReadError::Unavailable(_))) && self.index.report_damage() {
                tracing::error!(%source, "the index of the audit log fails; the log is read without it");
            }
            result = without;
        }
        if let Ok(_) | Err(ReadError::TooLong) = result {
            self.keep(reading);
        }
        result
    }

    /// A connection to the log, and to the index that there is now.
    fn take(&self) -> Result<Reading, ReadError> {
        let generation = self.index.generation();
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(reading) if reading.generation == generation => return Ok(reading),
                Some(_) => {}
                None => break,
            }
        }
        Reading::open(self).map_err(|error| ReadError::Unavailable(error.into()))
    }
}

impl Reading {
    pub(super) fn open(pool: &Pool) -> Result<Self, OpenError> {
        let generation = pool.index.generation();
        let connection = schema::open_reader(&pool.path)?;
        let indexed = index::attach(&connection, &pool.path).unwrap_or_else(|error| {
            if pool.index.report_damage() {
                tracing::warn!(%error, "the index of the audit log cannot be used; the log is read without it");
            }
            false
        });
        Ok(Self { connection, indexed, generation })
    }

    fn run<T>(
        &mut self,
        query: impl Fn(&Snapshot<'_>) -> Result<T, ReadError>,
        end: Instant,
    ) -> Result<T, ReadError> {
        query(&Snapshot::take(&mut self.connection, self.indexed, end)?)
    }
}

impl<'a> Snapshot<'a> {
    /// Begins a transaction. The index first: it then knows nothing that the log does not.
    pub(crate) fn take(
        connection: &'a mut Connection,
        indexed: bool,
        end: Instant,
    ) -> Result<Self, ReadError> {
        let connection = connection.transaction()?;
        let extent = if indexed { Some(index::extent(&connection)?) } else { None };
        let last = blocks::last_record(&connection)?;
        let first = connection
            .query_row("SELECT min(seq) FROM records", [], |row| row.get::<_, Option<u64>>(0))?
            .unwrap_or(1);
        Ok(Self { connection, extent, first, last, end })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How far the index goes; `None` where there is none.
    pub(crate) fn extent(&self) -> Option<Extent> {
        self.extent
    }

    /// The last record that the index covers; 0 for none.
    pub(crate) fn covered(&self) -> u64 {
        self.extent.map_or(0, |extent| extent.covered().min(self.last))
    }

    /// The first record of the log: not 1 where old ones were deleted.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The last record of the log; 0 while it is empty.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Ends a query that takes too long, between two steps of its own.
    pub(crate) fn check_time(&self) -> Result<(), ReadError> {
        if Instant::now() >= self.end { Err(ReadError::TooLong) } else { Ok(()) }
    }
}

/// Instructions of SQLite's machine between looks at the time.
const CHECK_EVERY: i32 = 10_000;
