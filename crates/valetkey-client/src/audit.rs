//! The calls of a reviewer.

use tonic::Streaming;
use valetkey_proto::v1;

use crate::broker::{Broker, bounded};
use crate::error::CallError;
use crate::secret::SecretValue;

/// A page of records.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// The records, newest first.
    pub records: Vec<v1::AuditRecord>,
    /// Where the next page begins; `None` at the end.
    pub next_page_token: Option<String>,
}

/// Where a value went.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundValue {
    /// The records of its releases, newest first; at most 1,000.
    pub records: Vec<v1::AuditRecord>,
    /// Whether there were more.
    pub truncated: bool,
    /// The record up to which was looked.
    pub seen_record_id: String,
}

/// Records as they come. Dropping it ends the watch.
pub struct AuditWatch(Streaming<v1::WatchAuditRecordsResponse>);

/// An export as it comes. Dropping it ends it.
pub struct AuditExport(Streaming<v1::ExportAuditRecordsResponse>);

impl Broker {
    /// Lists at most `page_size` (0: 50, at most 1,000) of the records that match `filter`, newest first,
    /// from where `page_token` of the page before says; empty: from the newest.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a filter or token that is none.
    pub async fn audit_records(
        &self,
        filter: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<AuditPage, CallError> {
        let request = v1::ListAuditRecordsRequest {
            filter: filter.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
        };
        let v1::ListAuditRecordsResponse { records, next_page_token } =
            bounded(self.audit.clone().list_audit_records(request)).await?;
        let next_page_token = (!next_page_token.is_empty()).then_some(next_page_token);
        Ok(AuditPage { records, next_page_token })
    }

    /// Fetches one record.
    ///
    /// # Errors
    /// [`CallError::NotFound`] where there is none of that id.
    pub async fn audit_record(&self, record_id: &str) -> Result<v1::AuditRecord, CallError> {
        let request = v1::GetAuditRecordRequest { record_id: record_id.to_owned() };
        let v1::GetAuditRecordResponse { record } =
            bounded(self.audit.clone().get_audit_record(request)).await?;
        record.ok_or_else(|| CallError::Internal {
            message: "it answered without the record".into(),
            request_id: None,
        })
    }

    /// Finds to whom a value was ever released: the records of its releases, of those that the caller may read.
    ///
    /// # Errors
    /// [`CallError::LimitReached`] where the caller asked too often; [`CallError::Precondition`] where the broker keeps
    /// no digests of values.
    pub async fn find_value(&self, value: SecretValue) -> Result<FoundValue, CallError> {
        let request = v1::FindValueRequest { value: value.expose_secret().to_vec() };
        let v1::FindValueResponse { records, truncated, seen_record_id } =
            bounded(self.reports.clone().find_value(request)).await?;
        Ok(FoundValue { records, truncated, seen_record_id })
    }

    /// Fetches the proof that a record is in the log: a C2SP tlog-proof, for whoever has the log's public key.
    ///
    /// # Errors
    /// [`CallError::NotFound`] where there is none of that id; with the reason `RECORD_NOT_SIGNED` where no checkpoint
    /// covers it yet, with `RECORD_CHANGED` where it is not what was signed.
    pub async fn audit_proof(&self, record_id: &str) -> Result<String, CallError> {
        let request = v1::GetAuditProofRequest { record_id: record_id.to_owned() };
        let v1::GetAuditProofResponse { proof } =
            bounded(self.audit.clone().get_audit_proof(request)).await?;
        Ok(proof)
    }

    /// Fetches the newest checkpoint of the log, and the public key that verifies it.
    ///
    /// # Errors
    /// [`CallError`] with the reason `RECORD_NOT_SIGNED` where there is none yet.
    pub async fn audit_checkpoint(&self) -> Result<v1::GetAuditCheckpointResponse, CallError> {
        bounded(self.audit.clone().get_audit_checkpoint(v1::GetAuditCheckpointRequest {})).await
    }

    /// Watches the records that match `filter`, from the one after `after_record_id`; empty: from the next
    /// one to be written, `0`: from the first.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a filter that is none.
    pub async fn watch_audit_records(
        &self,
        filter: &str,
        after_record_id: &str,
    ) -> Result<AuditWatch, CallError> {
        let request = v1::WatchAuditRecordsRequest {
            filter: filter.to_owned(),
            after_record_id: after_record_id.to_owned(),
        };
        Ok(AuditWatch(bounded(self.audit.clone().watch_audit_records(request)).await?))
    }

    /// Exports the records that match `filter` as the lines of a file, oldest first, from the one after
    /// `after_record_id`, without a header; empty: from the first, with it. `first_record_id` is the first one that is in
    /// the file already, for the proof at the end; may be empty.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a filter that is none.
    pub async fn export_audit_records(
        &self,
        filter: &str,
        format: v1::ExportFormat,
        after_record_id: &str,
        first_record_id: &str,
    ) -> Result<AuditExport, CallError> {
        let request = v1::ExportAuditRecordsRequest {
            filter: filter.to_owned(),
            format: format.into(),
            after_record_id: after_record_id.to_owned(),
            first_record_id: first_record_id.to_owned(),
        };
        Ok(AuditExport(bounded(self.audit.clone().export_audit_records(request)).await?))
    }
}

impl AuditExport {
    /// Waits for the next part, whole lines; `None` at the end. The export is whole only where the last part has seen
    /// its last record. Cancel safe.
    ///
    /// # Errors
    /// [`CallError`] where it breaks off: export again after the last record.
    pub async fn next(&mut self) -> Result<Option<v1::ExportAuditRecordsResponse>, CallError> {
        Ok(self.0.message().await?)
    }
}

impl AuditWatch {
    /// Waits for the next record; `None` where the broker ends the watch. Cancel safe.
    ///
    /// # Errors
    /// [`CallError`] where the connection is lost: watch again after the last record seen.
    pub async fn next(&mut self) -> Result<Option<v1::AuditRecord>, CallError> {
        while let Some(v1::WatchAuditRecordsResponse { record }) = self.0.message().await? {
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }
}
