//! Exports: records as the lines of a file, oldest first.
//!
//! ```text
//! begin: up to the last record that nothing changes any more ──> part, part, part ... the last
//! ```
//!
//! An export ends before the first record that is still open. So a line never changes: a file that broke off is gone
//! on with, and one that was finished is added to later. Every record is one line in every format, and each line says
//! which record it is.
//!
//! Not here: who may read what; files.

pub mod csv;
mod ocsf;

use serde_json::Value;
use valetkey_core::{AuditScope, RecordId};

use crate::canonical;
use crate::filter::Filter;
use crate::read::{AuditReader, ReadError, Tail};
use crate::stored::StoredRecord;

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// The canonical form that the leaves of the Merkle tree are made of: a JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// An OCSF API Activity event a line.
    Ocsf,
}

/// An export between two of its parts. Holds nothing but its place.
pub struct Export {
    reader: AuditReader,
    filter: Filter,
    format: ExportFormat,
    seen: RecordId,
    last: RecordId,
    stage: Stage,
    /// The first record of the file.
    first: Option<RecordId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is out yet. The first part is the header alone, so that it comes at once.
    Header,
    Lines,
    Proven,
}

/// A part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whole lines, each with its line feed; none where no record of this part of the log matches. Some 256 KiB at
    /// most, and always one line.
    pub lines: String,
    /// Everything up to here was looked at: where to go on.
    pub seen: RecordId,
    /// The newest record that the export looks at.
    pub last: RecordId,
    /// For the file `<export>.proof`: in the last part alone, and where there is anything to prove.
    pub proof: Option<String>,
}

impl Export {
    /// Begins after a record that is in the file already, without a header; or with the first and the header. Ends
    /// with the last record of now that nothing changes any more. `first` is the first record in the file, where it is
    /// known: the proof covers it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn begin(
        reader: AuditReader,
        filter: Filter,
        format: ExportFormat,
        after: Option<RecordId>,
        first: Option<RecordId>,
    ) -> Result<Self, ReadError> {
        let last = reader.settled().await?;
        let stage = if after.is_none() { Stage::Header } else { Stage::Lines };
        Ok(Self { reader, filter, format, seen: after.unwrap_or_default(), last, stage, first })
    }

    /// The next part, of what `scope` takes in, which must be true of every record up to `until`. `None` at the end.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn part(&mut self, scope: &AuditScope, until: RecordId) -> Result<Option<Part>, ReadError> {
        let mut lines = String::new();
        if self.stage == Stage::Header {
            self.stage = Stage::Lines;
            lines.extend(self.format.header());
            return Ok(Some(self.told(lines)));
        }
        if self.stage == Stage::Lines && self.seen >= self.last {
            self.stage = Stage::Proven;
            return Ok(Some(Part { proof: self.prove(scope).await?, ..self.told(lines) }));
        }
        if self.stage == Stage::Proven {
            return Ok(None);
        }
        let span = (self.seen, self.last.min(until));
        let Tail { records, seen } = self.reader.after(&self.filter, scope, span, BATCH).await?;
        if seen == self.seen {
            // Records that were there are gone: another database was put in its place.
            return Err(ReadError::Unavailable("the log has become shorter".into()));
        }
        self.seen = seen;
        self.first = self.first.or_else(|| records.first().map(|record| record.id));
        for record in &records {
            lines.push_str(&self.format.line(record));
            lines.push('\n');
            if lines.len() >= PART_BYTES {
                // The others are read again: nothing is kept between two parts.
                self.seen = record.id;
                break;
            }
        }
        Ok(Some(self.told(lines)))
    }

    /// Proves the file, where it holds every record from its first on, and in the form that leaves are made of.
    async fn prove(&self, scope: &AuditScope) -> Result<Option<String>, ReadError> {
        let (Some(first), AuditScope::Whole, ExportFormat::Jsonl) = (self.first, scope, self.format) else {
            return Ok(None);
        };
        if !self.filter.terms().is_empty() {
            return Ok(None);
        }
        Ok(self.reader.prove_range(first, self.last.max(self.seen)).await?.map(|(_, proof)| proof))
    }

    fn told(&self, lines: String) -> Part {
        Part { lines, seen: self.seen, last: self.last, proof: None }
    }
}

impl ExportFormat {
    /// The name on command lines and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Ocsf => "ocsf",
        }
    }

    /// What stands before the first line, with its line feed.
    #[must_use]
    pub fn header(self) -> Option<String> {
        (self == Self::Csv).then(csv::header)
    }

    /// The record that a whole line of this format is about, where it is one. A header is about record 0.
    #[must_use]
    pub fn record_of(self, line: &str) -> Option<RecordId> {
        let id = match self {
            Self::Jsonl => json_text(line, "/record_id")?,
            Self::Ocsf => json_text(line, "/metadata/uid")?,
            Self::Csv if csv::header().strip_suffix('\n') == Some(line) => return Some(RecordId(0)),
            Self::Csv => line.split_once(',')?.0.to_owned(),
        };
        id.parse().ok().filter(|id| *id > 0).map(RecordId)
    }

    fn line(self, record: &StoredRecord) -> String {
        match self {
            Self::Jsonl => canonical::line(record),
            Self::Csv => csv::row(record),
            Self::Ocsf => ocsf::event(record).to_string(),
        }
    }
}

fn json_text(line: &str, pointer: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

/// Records that one part is made of.
const BATCH: usize = 256;
/// The length over which a part ends: far below what a message may have.
const PART_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
