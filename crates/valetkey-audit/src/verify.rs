//! Verifying a log without a broker: is it what was signed, and if not, where not?
//!
//! ```text
//! records ──> leaves ──┬─ first bytes of each, as stored: names the record
//!                      ├─ hash of each block, as stored
//!                      └─ root at the size of each signed checkpoint, in the database and in the file kept elsewhere
//! ```
//!
//! Only the checkpoints prove anything. What is stored beside the records is of use because whoever changes a record
//! has to change that too, and then meets a checkpoint. Memory does not grow with the log. Not here: what a broker
//! does at its start, which is far less (`evidence.rs`).

mod checkpoints;
mod database;
mod export;
mod finding;
mod walk;

use std::path::{Path, PathBuf};

use valetkey_core::Timestamp;

use crate::OpenError;
use crate::note::VerifierKey;

pub use self::finding::{Finding, FindingKind};

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub enum LogFile<'a> {
    /// A database: of a live broker, of none, or a backup.
    Database(&'a Path),
    /// An export of lines of JSON, from record 1 on, or with its proof beside it.
    Export(&'a Path),
}

/// What it is verified against.
#[derive(Debug, Clone)]
pub struct Against {
    /// The log's public key.
    pub key: VerifierKey,
    /// A file of earlier checkpoints.
    pub checkpoints: Option<PathBuf>,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The first record that there is; the number after the last where there is none.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The newest checkpoint that covers nothing but what was signed.
    pub proven: Option<Proven>,
    /// Checkpoints that were good.
    pub checkpoints: u64,
    /// Checkpoints that reach into records which are gone, so that nothing can be said of them.
    pub checkpoints_passed_over: u64,
    /// Of an export: how many records the given checkpoints know of, where that is more than it has.
    pub beyond: Option<u64>,
    /// What is wrong; the first records first, as far as that can be said. At most 20.
    pub findings: Vec<Finding>,
    /// Whether there is more than that.
    pub more: bool,
}

/// How far the log is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The records up to here.
    pub size: u64,
    /// When the checkpoint was made; its file does not say.
    pub time: Option<Timestamp>,
    /// The database or the file that it is in.
    pub place: PathBuf,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether there are records, and no good checkpoint covers any of them: then nothing is known of them.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.proven.is_none() && self.last >= self.first
    }

    /// Records that no checkpoint covers yet.
    #[must_use]
    pub fn unsigned(&self) -> u64 {
        let covered = self.proven.as_ref().map_or(0, |proven| proven.size).max(self.first.saturating_sub(1));
        self.last.saturating_sub(covered)
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be read.
    #[error("cannot read `{path}`")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing in the file that a checkpoint could be compared with.
    #[error("{0}")]
    Nothing(String),
}

/// Verifies a log. `progress` is told now and then how many records were looked at, and of how many; 0 where that is
/// not known.
///
/// # Errors
/// [`VerifyError`] where nothing can be said; what is wrong with the log is in the verdict.
pub fn verify(
    file: LogFile<'_>,
    against: &Against,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, VerifyError> {
    match file {
        LogFile::Database(path) => database::verify(path, against, progress),
        LogFile::Export(path) => export::verify(path, against, progress),
    }
}

#[cfg(test)]
mod tests;
