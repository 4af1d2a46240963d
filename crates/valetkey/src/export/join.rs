//! Whether a file that is gone on with is of the log that it is gone on from.
//!
//! Numbers alone do not tell: a log that was restored from a copy uses them again. So the export begins with the record
//! that the file ends with, and its line must be the file's, byte for byte.

use valetkey_audit::{ExportFormat, Part};
use valetkey_core::RecordId;

use super::file::Place;
use super::{Origin, Source};
use crate::failure::{Exit, Failure};
use crate::output;

/// The seam between a file and what comes.
pub(super) struct Join {
    /// The last line of the file, until it has come.
    awaited: Option<(RecordId, String)>,
    format: ExportFormat,
    has_gap: bool,
}

impl Join {
    pub(super) fn new(awaited: Option<(RecordId, String)>, format: ExportFormat) -> Self {
        Self { awaited, format, has_gap: false }
    }

    /// Where the export begins: with the last record of the file.
    pub(super) fn begin(&self, place: Place) -> Place {
        match &self.awaited {
            Some((last, _)) => Place { after: Some(RecordId(last.0.saturating_sub(1))), ..place },
            None => place,
        }
    }

    /// Whether records are missing between the file and what came.
    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// What is to be written of some lines, as soon as that is known.
    pub(super) async fn check(
        &mut self,
        origin: &Origin,
        lines: String,
        is_end: bool,
        end: RecordId,
    ) -> Result<Option<String>, Failure> {
        let Some((record, line)) = &self.awaited else { return Ok(Some(lines)) };
        let record = *record;
        if record > end {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "the file has record {record} already, and the log ends with {end}: it is another log, or an \
                     older copy"
                ),
            ));
        }
        match lines.split_once('\n') {
            None if !is_end => return Ok(None),
            Some((first, rest)) if first == line => {
                self.awaited = None;
                return Ok(Some(rest.to_owned()));
            }
            Some((first, _)) if self.format.record_of(first) == Some(record) => {
                return Err(Failure::new(
                    Exit::Failed,
                    format!(
                        "record {record} is another one in the log than at the end of the file: the file is of \
                         another log, or of this one before it was restored; choose another name"
                    ),
                ));
            }
            Some(_) | None => {}
        }
        // The log gives no such record: it is retired, or the filter is not the one that the file was made with.
        let kept = origin.first_from(record).await?;
        if kept == Some(record) {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "record {record}, with which the file ends, does not match the filter: go on with the filter \
                     that the file was made with, or choose another name"
                ),
            ));
        }
        self.awaited = None;
        self.warn(origin, record, kept.unwrap_or(RecordId(end.0.saturating_add(1))));
        Ok(Some(lines))
    }

    /// Says what cannot be known, and what is missing.
    fn warn(&mut self, origin: &Origin, record: RecordId, kept: RecordId) {
        // A broker tells nobody of what they may not read.
        let gone = match origin {
            Origin::Broker(_) => "retired, or not yours to read",
            Origin::Database(_) => "retired",
        };
        output::note(&format!(
            "record {record}, with which the file ends, is {gone}: it cannot be compared with the log"
        ));
        let (first, last) = (record.0.saturating_add(1), kept.0.saturating_sub(1));
        if first <= last {
            self.has_gap = true;
            output::note(&format!("records {first} to {last} are {gone}, and not in the file"));
        }
    }
}

impl Origin {
    /// The first record that the log still has from this one on, as far as the caller may read it.
    async fn first_from(&self, record: RecordId) -> Result<Option<RecordId>, Failure> {
        let place = Place { first: None, after: Some(RecordId(record.0.saturating_sub(1))) };
        let mut source: Source = self.export("", ExportFormat::Jsonl, place).await?;
        while let Some(Part { lines, .. }) = source.next().await? {
            if let Some(line) = lines.lines().next() {
                return Ok(ExportFormat::Jsonl.record_of(line));
            }
        }
        Ok(None)
    }
}
