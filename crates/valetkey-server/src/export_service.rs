//! `ExportAuditRecords`: the log as the parts of a file, as fast as the caller takes them.
//!
//! Nothing is kept between two parts but the place: the next one is read when the transport asks for it. Each part is
//! decided on again, so what policy takes away ends the export at once.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::Status;
use valetkey_audit::{Export, ExportFormat, Filter, Part};
use valetkey_core::RecordId;
use valetkey_proto::v1::{self, ExportAuditRecordsRequest, ExportAuditRecordsResponse};

use crate::audit_service::{parse_filter, parse_record_id};
use crate::convert::Violation;
use crate::review::{Reading, unreadable};
use crate::status;

/// What is asked for.
pub(crate) struct Ask {
    filter: Filter,
    format: ExportFormat,
    /// The last record that the caller has.
    pub(crate) after: Option<RecordId>,
    first: Option<RecordId>,
}

/// What is asked, as the record says it: `export csv after 17 decision:deny`.
pub(crate) fn describe(message: &ExportAuditRecordsRequest) -> String {
    let ExportAuditRecordsRequest { filter, format: _, after_record_id, first_record_id: _ } = message;
    let format = format_of(message.format()).map_or("in no format", ExportFormat::as_str);
    let after = if after_record_id.is_empty() { String::new() } else { format!("after {after_record_id} ") };
    format!("export {format} {after}{filter}")
}

/// Parses it.
pub(crate) fn parse(message: ExportAuditRecordsRequest) -> Result<Ask, Violation> {
    let format = format_of(message.format());
    let ExportAuditRecordsRequest { filter, format: _, after_record_id, first_record_id } = message;
    let filter = parse_filter(&filter)?;
    let format =
        format.ok_or_else(|| Violation::new("format", "INVALID_FORMAT", "must be JSONL, CSV or OCSF"))?;
    let record = |field, text: &str| match text {
        "" => Ok(None),
        text => parse_record_id(field, text).map(Some),
    };
    let after = record("after_record_id", &after_record_id)?;
    let first = record("first_record_id", &first_record_id)?;
    Ok(Ask { filter, format, after, first })
}

/// Begins it. Ends in time where the broker stops: with a status, because the file is not whole.
pub(crate) async fn stream(
    ask: Ask,
    reading: Reading,
    stopping: watch::Receiver<bool>,
) -> Result<BoxStream<'static, Result<ExportAuditRecordsResponse, Status>>, Status> {
    let Ask { filter, format, after, first } = ask;
    let export = Export::begin(reading.reader.clone(), filter, format, after, first).await;
    let export = export.map_err(unreadable)?;
    Ok(stream::try_unfold(Exporting { export, reading, stopping }, Exporting::part).boxed())
}

/// An export between two parts.
struct Exporting {
    export: Export,
    reading: Reading,
    stopping: watch::Receiver<bool>,
}

impl Exporting {
    async fn part(mut self) -> Result<Option<(ExportAuditRecordsResponse, Self)>, Status> {
        if *self.stopping.borrow() {
            return Err(status::shutting_down(None));
        }
        let until = self.reading.decide_again().await?;
        let part = self.export.part(self.reading.scope(), until).await.map_err(unreadable)?;
        Ok(part.map(|part| (print(part), self)))
    }
}

fn print(part: Part) -> ExportAuditRecordsResponse {
    let Part { lines, seen, last, proof } = part;
    ExportAuditRecordsResponse {
        lines: lines.into_bytes(),
        seen_record_id: seen.to_string(),
        last_record_id: last.to_string(),
        proof: proof.unwrap_or_default(),
    }
}

fn format_of(format: v1::ExportFormat) -> Option<ExportFormat> {
    match format {
        v1::ExportFormat::Unspecified => None,
        v1::ExportFormat::Jsonl => Some(ExportFormat::Jsonl),
        v1::ExportFormat::Csv => Some(ExportFormat::Csv),
        v1::ExportFormat::Ocsf => Some(ExportFormat::Ocsf),
    }
}
