//! Writes and queries the audit log in SQLite.
//!
//! ```text
//! record() ──> queue ──> writer thread: one transaction, one fsync ──> all waiters answered
//!              bounded        │ wakes            └──> committed(): watchers
//! record_outcome() ───────────┘         thread of wal.rs: write-ahead log to database file
//!                                       index thread: settled records to the index beside the log
//! list(), after(), usage() ──> read-only connections of their own: the index, and the log behind it
//! ```
//!
//! Not here: gRPC, Cedar, secrets. SQL and SQLite's types do not leave the crate.
//!
//! Invariants:
//! - [`AuditLog::record`](valetkey_core::AuditLog::record) returns ids only after the transaction that holds
//!   the records is on disk (`synchronous = FULL`). What it refuses was not acknowledged to anybody.
//! - Records are numbered from 1 without gaps, in the order in which they were queued. The records of one
//!   call are in one transaction: all or none.
//! - What is written stays: triggers refuse `UPDATE`, `DELETE` and `REPLACE`.
//! - A record that allowed something has exactly one outcome, sooner or later: the real one, or
//!   `interrupted` where none came in time, or none before the broker stopped.
//! - Nothing waits without bound, and a reader never blocks the writer.

mod archive;
mod backup;
mod blocks;
mod canonical;
mod checkpoint_file;
mod code;
mod evidence;
mod export;
#[cfg(any(test, feature = "test-util"))]
mod fault;
mod filter;
mod index;
mod keys;
mod note;
mod outcomes;
mod page;
mod prove;
mod query;
mod queue;
mod read;
mod recount;
mod retention;
mod row;
mod schema;
mod store;
mod stored;
mod strings;
mod term;
#[cfg(test)]
mod testing;
mod tokens;
mod tree;
mod usage;
mod vaults;
mod verify;
mod wal;
mod writer;

pub use archive::{Archive, ArchiveError};
pub use backup::{BackupError, Contents, Copied, backup};
pub use evidence::Signing;
pub use export::{Export, ExportFormat, Part, csv};
#[cfg(any(test, feature = "test-util"))]
pub use fault::{Fault, integrity};
pub use filter::{Filter, FilterError, FilterFault};
pub use note::{Checkpoint, NoteError, VerifierKey};
pub use page::{PageToken, PageTokenError};
pub use prove::{ProofError, ProvenRecord, check_proof};
pub use read::{AuditReader, Page, Proof, ReadError, Tail};
pub use retention::Retention;
pub use schema::OpenError;
pub use store::{AuditStore, Missing, StoreOptions};
pub use stored::{StoredOutcome, StoredRecord, StoredTarget};
pub use tokens::{NewToken, StoredToken, TokenPlace, TokenStore, TokenStoreError, TokenUsage};
pub use tree::Hash;
pub use usage::{
    Counted, Day, Days, FirstUse, IndexProgress, LastUse, PolicyUse, Refusals, Subject, Thing, Usage,
    UsageResult,
};
pub use vaults::Vaults;
pub use verify::{Against, Finding, FindingKind, LogFile, Proven, Verdict, VerifyError, verify};
