//! Faults for tests: the real log on a real file, made to fail the way disks do. Behind the feature
//! `test-util`, which only dev-dependencies enable.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::schema::{self, OpenError};

/// What goes wrong from the next transaction on, until [`crate::AuditStore::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The database cannot be written at all.
    ReadOnly,
    /// The file cannot grow. What fits into pages that are there is still written, as on a real disk.
    DiskFull,
    /// The disk does not answer.
    Stall,
    /// The writer panics. Nothing heals this.
    Panic,
}

/// SQLite's own verdict on a database as it lies there: `ok`, or its first fault.
///
/// # Errors
/// [`OpenError`] where it is none of ours, or cannot be read.
pub fn integrity(path: &Path) -> Result<String, OpenError> {
    let connection = schema::open_reader(path)?;
    let verdict = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    verdict.map_err(|error| OpenError::Database { path: path.to_owned(), source: error.into() })
}

/// Where a test sets what the writer meets.
#[derive(Default)]
pub(crate) struct FaultSwitch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: Option<Fault>,
    /// What the connection was told last. Telling it is not for nothing: it forgets its prepared statements.
    in_effect: Option<Fault>,
}

impl FaultSwitch {
    pub(crate) fn set(&self, fault: Option<Fault>) {
        self.lock().wanted = fault;
        self.changed.notify_all();
    }

    /// Lets a stalled writer end: a test that fails must not hang instead.
    pub(crate) fn end_stall(&self) {
        if self.lock().wanted == Some(Fault::Stall) {
            self.set(None);
        }
    }

    /// Puts the fault into effect for the transaction to come.
    pub(crate) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut state = self.lock();
        while state.wanted == Some(Fault::Stall) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = state.wanted;
        #[expect(clippy::panic, reason = "this is the fault that was asked for")]
        if fault == Some(Fault::Panic) {
            drop(state);
            panic!("the writer was told to panic");
        }
        if fault == state.in_effect {
            return Ok(());
        }
        let pages_max = match fault {
            Some(Fault::DiskFull) => connection.pragma_query_value(None, "page_count", |row| row.get(0))?,
            _ => i64::from(u32::MAX - 1),
        };
        // This pragma answers with the new value, so it cannot go through `pragma_update`.
        connection.query_row(&format!("PRAGMA max_page_count = {pages_max}"), [], |_| Ok(()))?;
        connection.pragma_update(None, "query_only", fault == Some(Fault::ReadOnly))?;
        state.in_effect = fault;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
