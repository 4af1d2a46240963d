//! A copy of the log while a broker writes it: all pages as they were at one moment, under one read transaction.
//!
//! SQLite's backup interface copies the pages as they are, so the copy has the same records, triggers, marks and
//! version. The transaction holds no lock that a writer waits for. What is written meanwhile stays in the write-ahead
//! log, which starts over when the copy is done; so a copy costs as much disk there as the broker writes until then.
//!
//! Not here: the name and the place of the copy; the follower's index beside the log, which is rebuilt.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use valetkey_core::{RecordId, Timestamp};

use crate::schema::{self, OpenError};

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The first record and when; absent in an empty log.
    pub first: Option<(RecordId, Timestamp)>,
    /// The last, likewise.
    pub last: Option<(RecordId, Timestamp)>,
    /// The broker's own tokens, those that are over too.
    pub tokens: u64,
    /// Signed checkpoints.
    pub checkpoints: u64,
    /// How many records the newest of them covers.
    pub signed: u64,
}

/// How far a copy is, in pages. When all are copied, the copy is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Copied already.
    pub pages: u64,
    /// In all.
    pub of: u64,
}

/// Why there is no copy. What was written of it is no database.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be opened, or the copy cannot.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Told to stop.
    #[error("the backup was stopped")]
    Stopped,
    /// Reading or writing fails.
    #[error("the audit database cannot be copied")]
    Copy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The copy is not sound, so the log is not, or the disk of the copy.
    #[error("the copy of the audit database is damaged: {0}")]
    Damaged(String),
    /// The copy holds something else than what was copied.
    #[error("the copy of the audit database does not hold what was copied")]
    Differs,
}

/// Copies the log at `from` into `to`, an empty file that the caller has made; checks the copy; and returns what it
/// holds when it is on disk. Blocks. `progress` is told of each step, and can end it.
///
/// # Errors
/// [`BackupError`]; the caller removes `to` then.
pub fn backup(
    from: &Path,
    to: &Path,
    progress: impl FnMut(Copied) -> ControlFlow<()>,
) -> Result<Contents, BackupError> {
    schema::check_place(from)?;
    let contents = copy(from, to, STEP_PAGES, progress)?;
    check(to, &contents)?;
    Ok(contents)
}

fn copy(
    from: &Path,
    to: &Path,
    step_pages: i32,
    mut progress: impl FnMut(Copied) -> ControlFlow<()>,
) -> Result<Contents, BackupError> {
    let source = schema::open_reader(from)?;
    // Steps without a transaction around them would each see another moment, and begin again.
    let snapshot = source.unchecked_transaction().map_err(copying)?;
    let contents = Contents::read(&snapshot).map_err(copying)?;
    let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, access).map_err(copying)?;
    // It is all or nothing, and on disk before anybody is told.
    copy.pragma_update(None, "journal_mode", "OFF").map_err(copying)?;
    copy.pragma_update(None, "synchronous", "OFF").map_err(copying)?;
    let backup = Backup::new(&snapshot, &mut copy).map_err(copying)?;
    loop {
        let step = backup.step(step_pages).map_err(copying)?;
        let done = backup.progress();
        let pages = |count: i32| u64::try_from(count).unwrap_or_default();
        let copied = Copied { pages: pages(done.pagecount - done.remaining), of: pages(done.pagecount) };
        if progress(copied).is_break() {
            return Err(BackupError::Stopped);
        }
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nobody else has the copy open, and readers of the log do not wait.
            _ => return Err(BackupError::Copy("it is in use".into())),
        }
    }
    drop(backup);
    // One file, with nothing beside it; the broker that opens it makes a write-ahead log again.
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(copying)?;
    copy.close().map_err(|(_, error)| copying(error))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| BackupError::Copy(error.into()))?;
    Ok(contents)
}

/// Holds the copy against what was copied, as whoever opens it will read it.
fn check(copy: &Path, contents: &Contents) -> Result<(), BackupError> {
    let connection = schema::open_reader(copy)?;
    let sound = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let sound = sound.map_err(|error| BackupError::Damaged(error.to_string()))?;
    if sound != "ok" {
        return Err(BackupError::Damaged(sound));
    }
    let found = Contents::read(&connection).map_err(|error| BackupError::Damaged(error.to_string()))?;
    if found == *contents { Ok(()) } else { Err(BackupError::Differs) }
}

impl Contents {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let end = |order: &str| {
            let sql = format!("SELECT seq, time_us FROM records ORDER BY seq {order} LIMIT 1");
            let row =
                |row: &rusqlite::Row<'_>| Ok((RecordId(row.get(0)?), Timestamp::from_micros(row.get(1)?)));
            let mut statement = connection.prepare(&sql)?;
            statement.query_map([], row)?.next().transpose()
        };
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
        Ok(Self {
            first: end("ASC")?,
            last: end("DESC")?,
            tokens: number("SELECT count(*) FROM tokens")?,
            checkpoints: number("SELECT count(*) FROM checkpoints")?,
            signed: number("SELECT coalesce(max(size), 0) FROM checkpoints")?,
        })
    }
}

fn copying(error: rusqlite::Error) -> BackupError {
    BackupError::Copy(error.into())
}

/// 4 MiB.
const STEP_PAGES: i32 = 1024;

#[cfg(test)]
mod tests;
