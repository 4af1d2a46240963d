//! The index of the log: a file beside it that says in which records a word stands, and how often.
//!
//! ```text
//! log ──> follower thread: 8,192 settled records at a time, one transaction ──> audit.db-index
//!                                                                                   │
//! list(), after(), usage() … : index as far as it goes, the log itself behind it <──┘
//! ```
//!
//! Not here: anything that the log does not say. The index is made from the log alone and made anew where it does not
//! fit, so it may be deleted at any time.
//!
//! Invariants:
//! - It holds whole chunks of records that are settled: nothing in it changes any more.
//! - It never answers by itself: what it finds is read from the log under the whole condition, filter and scope. A
//!   fault in it can hide a record, and cannot show one.
//! - It never holds up the writer: the follower has its own connection and transactions, and pauses as long as it
//!   works.

mod bits;
mod chunk;
mod counts;
mod follower;
mod tally;
mod terms;
mod things;
mod walk;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use sha2::{Digest, Sha256};

pub(crate) use self::counts::{first_uses, last_uses, policy_uses, refusals, usage};
pub(crate) use self::follower::Follower;
pub(crate) use self::things::vaults;
pub(crate) use self::walk::{Order, Walk};

/// What the follower and the readers tell each other.
#[derive(Default)]
pub(crate) struct IndexState {
    /// Grows whenever the file is another one: readers then open theirs anew.
    generation: AtomicU64,
    /// A reader found it damaged.
    damaged: AtomicBool,
    /// Every record up to here is in it.
    indexed: AtomicU64,
}

/// An index beside a log, as a reader sees it in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Records in a chunk.
    pub(crate) chunk_size: u64,
    /// Chunks; the first is 0.
    pub(crate) chunks: u64,
}

/// What a posting says of a record. The numbers are those in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Dimension {
    /// A string.
    Agent = 1,
    /// A string.
    Tool = 2,
    /// A string.
    Caller = 3,
    /// A string.
    Person = 4,
    /// A thing: id and name.
    Vault = 5,
    /// Likewise.
    Item = 6,
    /// A string: the ids, one a line.
    Policies = 7,
    /// A code.
    Reason = 8,
    /// A string.
    OutcomeReason = 9,
    /// A code.
    Kind = 10,
    /// A code.
    Ruling = 11,
    /// A code.
    Result = 12,
    /// A string.
    Source = 13,
    /// A string.
    Revision = 14,
    /// A string.
    Reference = 15,
}

/// What is different in nearly every record, and therefore kept by 24 bits of it: enough to pass over nearly every
/// chunk without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Request = 0,
    Lease = 1,
    Handle = 2,
    ValueDigest = 3,
    /// From here on the number of a string.
    Credential = 4,
    Session = 5,
    Destination = 6,
    Client = 7,
}

impl IndexState {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Has it made anew; whether nobody had said so before.
    pub(crate) fn report_damage(&self) -> bool {
        !self.damaged.swap(true, Ordering::Relaxed)
    }
}

impl Extent {
    /// The last record that is covered.
    pub(crate) fn covered(self) -> u64 {
        self.chunks.saturating_mul(self.chunk_size)
    }

    /// The chunk of a record.
    pub(crate) fn chunk_of(self, seq: u64) -> u64 {
        seq.saturating_sub(1) / self.chunk_size.max(1)
    }

    /// The record before a chunk's first.
    pub(crate) fn base(self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.chunk_size)
    }
}

impl Mark {
    /// Every mark, in the order of its number.
    const ALL: [Self; 8] = [
        Self::Request,
        Self::Lease,
        Self::Handle,
        Self::ValueDigest,
        Self::Credential,
        Self::Session,
        Self::Destination,
        Self::Client,
    ];

    /// The row of a chunk's marks of this sort.
    fn row(self, chunk: u64) -> i64 {
        i64::try_from(chunk).unwrap_or(i64::MAX).saturating_mul(8).saturating_add(self as i64)
    }
}

/// 24 bits of an id, which is random.
fn mark_of_bytes(bytes: &[u8]) -> Option<u32> {
    let [a, b, c] = bytes.first_chunk::<3>()?;
    Some(u32::from_be_bytes([0, *a, *b, *c]))
}

/// 24 bits for the number of a string; numbers that follow each other are spread.
fn mark_of_string(id: i64) -> u32 {
    let spread = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    u32::try_from(spread).unwrap_or_default()
}

/// The index of a database.
pub(crate) fn path_of(database: &Path) -> PathBuf {
    beside(database, "-index")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Attaches the index to a reader's connection. `false` where there is none that fits.
pub(crate) fn attach(log: &Connection, database: &Path) -> rusqlite::Result<bool> {
    let path = path_of(database);
    if !path.is_file() {
        return Ok(false);
    }
    log.execute("ATTACH ?1 AS idx", [path.to_string_lossy()])?;
    // While it is being made, there is none yet.
    let made = "SELECT EXISTS (SELECT 1 FROM idx.sqlite_schema WHERE name = 'meta')";
    if !log.query_row(made, [], |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    fits(log, "idx.", log, None)
}

/// How far the attached index goes. Begins its part of the transaction: asked before the log, it never knows more than
/// the log does.
pub(crate) fn extent(log: &Connection) -> rusqlite::Result<Extent> {
    log.query_row("SELECT chunk_size, chunks FROM idx.meta WHERE one = 1", [], |row| {
        Ok(Extent { chunk_size: row.get(0)?, chunks: row.get(1)? })
    })
}

/// Opens the index for writing; makes it anew where it does not fit the log.
fn open(database: &Path, log: &Connection, chunk_size: u64) -> Result<Connection, IndexError> {
    let path = path_of(database);
    if path.exists() {
        let opened = connect(&path);
        match opened.and_then(|index| Ok((fits(&index, "", log, Some(chunk_size))?, index))) {
            Ok((true, index)) => return Ok(index),
            Ok((false, index)) => drop(index),
            Err(error) => tracing::debug!(%error, "the index of the audit log cannot be used"),
        }
        tracing::warn!(path = %path.display(), "the index of the audit log does not fit; it is made anew");
    }
    create(&path, chunk_size)
}

/// Makes an empty index.
fn create(path: &Path, chunk_size: u64) -> Result<Connection, IndexError> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut index = connect(path)?;
    // At once: a reader sees nothing, or an index.
    let transaction = index.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let insert = "INSERT INTO meta (one, version, chunk_size, chunks, fingerprint) VALUES (1, ?1, ?2, 0, ?3)";
    transaction.execute(insert, params![VERSION, chunk_size, [0u8; 32]])?;
    transaction.commit()?;
    Ok(index)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let index = Connection::open_with_flags(path, flags)?;
    index.busy_timeout(BUSY_TIMEOUT)?;
    index.pragma_update(None, "trusted_schema", false)?;
    // Before the first page is written. Few large pages: a chunk is read in few places.
    index.pragma_update(None, "page_size", PAGE_BYTES)?;
    index.pragma_update(None, "journal_mode", "WAL")?;
    // What a power failure takes is made again from the log; what is left is whole.
    index.pragma_update(None, "synchronous", "NORMAL")?;
    index.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    index.pragma_update(None, "journal_size_limit", i64::from(WAL_PAGES) * i64::from(PAGE_BYTES) * 2)?;
    index.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(index)
}

/// Whether an index is of this version and goes with this log: the last record that it knows stands there as it did.
fn fits(
    index: &Connection,
    schema: &str,
    log: &Connection,
    chunk_size: Option<u64>,
) -> rusqlite::Result<bool> {
    let sql = format!("SELECT version, chunk_size, chunks, fingerprint FROM {schema}meta WHERE one = 1");
    let row = index
        .query_row(&sql, [], |row| {
            let extent = Extent { chunk_size: row.get(1)?, chunks: row.get(2)? };
            Ok((row.get::<_, i64>(0)?, extent, row.get::<_, [u8; 32]>(3)?))
        })
        .optional()?;
    let Some((version, extent, known)) = row else { return Ok(false) };
    let sized = chunk_size.is_none_or(|wanted| wanted == extent.chunk_size);
    if version != VERSION || !sized || extent.chunk_size == 0 {
        return Ok(false);
    }
    // Made over a record that was retired, it knows that there was none.
    Ok(extent.chunks == 0 || fingerprint(log, extent.covered())?.unwrap_or_default() == known)
}

/// Recognises a record, as its numbers stand in the log.
fn fingerprint(log: &Connection, seq: u64) -> rusqlite::Result<Option<[u8; 32]>> {
    log.prepare_cached(
        "SELECT r.*, o.* FROM records r LEFT JOIN outcomes o ON o.seq = r.seq WHERE r.seq = ?1",
    )?
    .query_row([seq], |row| {
        let mut hash = Sha256::new();
        for column in 0..row.as_ref().column_count() {
            let value: rusqlite::types::Value = row.get(column)?;
            hash.update(format!("{value:?};"));
        }
        Ok(hash.finalize().into())
    })
    .optional()
}

/// Why the index cannot be kept up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the index or the log refused")]
    Database(#[from] rusqlite::Error),
    #[error("the index cannot be made")]
    File(#[from] std::io::Error),
}

const SCHEMA: &str = include_str!("index/schema.sql");
/// Of the file; another one is made anew.
const VERSION: i64 = 1;
/// Records in a chunk; at most 65,535.
pub(crate) const CHUNK: u64 = 8192;
const PAGE_BYTES: i32 = 16_384;
const WAL_PAGES: i32 = 1_000;
const STATEMENTS: usize = 64;
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
