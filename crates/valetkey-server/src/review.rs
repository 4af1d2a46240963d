//! What a reviewer may read of the log, and whether that still holds: decided and recorded before anything is read, and
//! again while something goes on.

use std::sync::Arc;

use tonic::Status;
use valetkey_audit::{AuditReader, ReadError, Vaults};
use valetkey_core::{
    AuditRecord, AuditScope, Broker, Call, Identity, Reason, RecordId, RecordKind, Refusal, scrub,
};

use crate::convert::Violation;
use crate::status;

/// What somebody may read, and what that was decided on.
#[derive(Clone)]
pub(crate) struct Review {
    pub(crate) scope: AuditScope,
    /// The policies.
    generation: u64,
    /// The vaults that occur in the log.
    vaults: Vaults,
}

/// Something that goes on reading. Under other policies it is decided again, and where the log has other vaults.
pub(crate) struct Reading {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: AuditReader,
    pub(crate) call: Arc<Call>,
    /// What was asked, for each record of it.
    pub(crate) detail: String,
    pub(crate) review: Review,
}

/// Decides how much of the log may be read, and records it. Only people can be limited to some vaults, so for
/// others nobody needs to know which there are.
pub(crate) async fn permit(
    broker: &Broker,
    reader: &AuditReader,
    call: &Call,
    detail: &str,
) -> Result<Review, Status> {
    let vaults = match call.caller {
        Identity::Person(_) => reader.vaults().await,
        Identity::Agent(_) | Identity::Tool(_) => Ok(Vaults::default()),
    };
    let generation = broker.generation();
    let known = vaults.as_ref().map(|vaults| vaults.vaults.as_slice()).unwrap_or_default();
    match (broker.permit_audit(call, known, &scrub(detail, DETAIL_MAX)).await, vaults) {
        (Ok(scope), vaults) => Ok(Review { scope, generation, vaults: vaults.unwrap_or_default() }),
        // Whoever reads the whole log does not depend on its vaults; a refusal may.
        (Err(Refusal::Denied { .. }), Err(error)) => Err(unreadable(error)),
        (Err(refusal), _) => Err(status::refused(&refusal, &call.id.to_string())),
    }
}

impl Review {
    /// The same with the vaults of today; `None` where it was decided on something else: it is to be decided again.
    ///
    /// # Errors
    /// [`ReadError`] where nobody knows the vaults.
    pub(crate) async fn renewed(
        &self,
        broker: &Broker,
        reader: &AuditReader,
    ) -> Result<Option<Self>, ReadError> {
        let limited = matches!(self.scope, AuditScope::Vaults(_));
        let found = if limited { reader.vaults().await? } else { Vaults::default() };
        let changed = broker.generation() != self.generation;
        let holds = !changed && (!limited || found.vaults == self.vaults.vaults);
        Ok(holds.then(|| Self { vaults: found, ..self.clone() }))
    }

    /// Up to which record it holds.
    pub(crate) fn until(&self) -> RecordId {
        match self.scope {
            AuditScope::Whole => TO_THE_END,
            AuditScope::Vaults(_) => self.vaults.seen,
        }
    }
}

impl Reading {
    /// Has it decided again where what it was decided on has changed. Up to which record that holds: a vault that
    /// comes up later is to be decided on before its records are passed over.
    pub(crate) async fn decide_again(&mut self) -> Result<RecordId, Status> {
        self.review = match self.review.renewed(&self.broker, &self.reader).await.map_err(unreadable)? {
            Some(review) => review,
            None => permit(&self.broker, &self.reader, &self.call, &self.detail).await?,
        };
        Ok(self.review.until())
    }

    /// What may be read as it was decided last.
    pub(crate) fn scope(&self) -> &AuditScope {
        &self.review.scope
    }
}

/// Records that a question about the log breaks its rules.
pub(crate) async fn refuse(broker: &Broker, call: &Call, violations: &[Violation]) -> Status {
    let record =
        AuditRecord::refusal(broker.clock().now(), RecordKind::ReadAudit, Reason::FieldInvalid).by(call);
    let detail = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match broker.note(record.with_detail(&scrub(&detail, DETAIL_MAX))).await {
        Ok(record) => status::invalid(violations, record),
        Err(_) => status::audit_unavailable(),
    }
}

/// What a reader's failure is to the caller.
pub(crate) fn unreadable(error: ReadError) -> Status {
    match error {
        ReadError::Busy | ReadError::TooLong | ReadError::TooManyVaults => {
            status::query_limit(&error.to_string())
        }
        ReadError::Unavailable(source) => {
            tracing::error!(%source, "the audit log cannot be read");
            status::audit_unavailable()
        }
    }
}

/// A log without bound.
const TO_THE_END: RecordId = RecordId(u64::MAX);
const DETAIL_MAX: usize = 1024;
