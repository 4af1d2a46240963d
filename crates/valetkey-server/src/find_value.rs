//! Where a value went: digests it, forgets it, and looks the digest up in the log.
//!
//! It answers whether a guess was right, so policy decides on it apart from reading, each identity may ask few times a
//! minute, and each question leaves a record: of who asked, and nothing of what.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use valetkey_audit::{AuditReader, Counted};
use valetkey_core::{
    AdminAction, AdminRequest, AdminResource, AuditRecord, Broker, Call, Reason, RecordId, RecordKind,
    SecretValue,
};
use valetkey_proto::v1::{FindValueRequest, FindValueResponse};

use crate::audit_record;
use crate::convert::Violation;
use crate::identity::call_of;
use crate::limits::Limiter;
use crate::review::{Review, permit, unreadable};
use crate::status;

/// What looks for values.
pub(crate) struct Finder {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: AuditReader,
    pub(crate) limiter: Arc<Limiter>,
}

impl Finder {
    pub(crate) async fn find(
        &self,
        request: Request<FindValueRequest>,
    ) -> Result<Response<FindValueResponse>, Status> {
        let call = call_of(&request)?;
        let FindValueRequest { value } = request.into_inner();
        // Wiped however this ends; copies in the buffers of the connection are out of reach.
        let value = SecretValue::new(value);
        if let Err(exceeded) = self.limiter.identities.value(&call.caller) {
            return Err(self.limiter.refuse(&call, "a value to find", &exceeded).await);
        }
        let record = self.permit(&call).await?;
        let Review { scope, .. } = permit(&self.broker, &self.reader, &call, "find a value").await?;
        if !(1..=VALUE_MAX).contains(&value.expose_secret().len()) {
            return Err(self.invalid(&call).await);
        }
        let digester = self.broker.digester().ok_or_else(|| status::digest_key_missing(record))?;
        let digest = digester.digest(&value);
        drop(value);
        let found = self.reader.released(digest, &scope, RECORDS_MAX + 1).await.map_err(unreadable)?;
        let Counted { rows: mut records, seen } = found;
        let truncated = records.len() > RECORDS_MAX;
        records.truncate(RECORDS_MAX);
        Ok(Response::new(FindValueResponse {
            records: records.into_iter().map(audit_record::print).collect(),
            truncated,
            seen_record_id: seen.to_string(),
        }))
    }

    async fn permit(&self, call: &Arc<Call>) -> Result<RecordId, Status> {
        let request = AdminRequest {
            call: Arc::clone(call),
            action: AdminAction::FindValue,
            resource: AdminResource::AuditLog,
            detail: "".into(),
        };
        match self.broker.permit(&request).await {
            Ok(permission) => Ok(permission.record()),
            Err(refusal) => Err(status::refused(&refusal, &call.id.to_string())),
        }
    }

    /// Refuses a value that is none, and records it. How long it is is not said.
    async fn invalid(&self, call: &Call) -> Status {
        let violation = Violation::new("value", "INVALID_VALUE", format!("must have 1 to {VALUE_MAX} bytes"));
        let now = self.broker.clock().now();
        let record = AuditRecord::refusal(now, RecordKind::FindValue, Reason::FieldInvalid).by(call);
        let record = self.broker.note(record.with_detail(&violation.to_string())).await;
        record.map_or_else(|_| status::audit_unavailable(), |record| status::invalid(&[violation], record))
    }
}

/// Bytes of a value.
const VALUE_MAX: usize = 64 * 1024;
/// Records in an answer.
const RECORDS_MAX: usize = 1000;
