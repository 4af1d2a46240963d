//! Redeeming: set a use aside, decide and record, release.

use std::sync::Arc;

use super::{ATTEMPTS_MAX, Broker, POLICY_CHANGED, Redeemed, Refusal};
use crate::audit::{AuditOutcome, AuditRecord, OutcomeResult, Reason, RecordKind, ValueDigest};
use crate::gate::{Grant, Verdict};
use crate::handle::Handle;
use crate::lease::ReleaseError;
use crate::request::{AccessKind, AccessRequest, Call};
use crate::resolver::{ResolveError, ResolveFailure, Resolved};
use crate::secret::SecretValue;
use crate::target::Facet;
use crate::text::Destination;

impl Broker {
    /// Redeems a handle: the gate decides and records again, then the value is opened.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn redeem(
        &self,
        call: &Arc<Call>,
        handle: &str,
        destination: Option<Destination>,
    ) -> Result<Redeemed, Refusal> {
        let Ok(handle) = Handle::parse(handle) else {
            let record = AuditRecord::refusal(self.clock.now(), RecordKind::Redeem, Reason::HandleMalformed);
            return Err(Refusal::HandleMalformed { record: self.gate.note(record.by(call)).await? });
        };
        for _ in 0..ATTEMPTS_MAX {
            if let Some(redeemed) = self.try_redeem(call, &handle, destination.as_ref()).await? {
                return Ok(redeemed);
            }
        }
        Err(Refusal::PolicyInFlux)
    }

    /// `None` where the policies changed meanwhile.
    async fn try_redeem(
        &self,
        call: &Arc<Call>,
        handle: &Handle,
        destination: Option<&Destination>,
    ) -> Result<Option<Redeemed>, Refusal> {
        let used = match self.leases.set_aside(handle, call) {
            Ok(used) => used,
            Err(inactive) => {
                let record = AuditRecord::refusal(self.clock.now(), RecordKind::Redeem, inactive.reason);
                let record = match inactive.request {
                    Some(request) => record.about(&request),
                    None => record,
                };
                let record = match inactive.detail {
                    Some(detail) => record.with_detail(&detail),
                    None => record,
                };
                let record = AuditRecord { handle: Some(handle.id()), ..record.by(call) };
                return Err(Refusal::HandleNotActive { record: self.gate.note(record).await? });
            }
        };
        let request = AccessRequest {
            call: Arc::clone(call),
            kind: AccessKind::Redeem,
            purpose: None,
            destination: destination.cloned(),
            ..used.request().as_ref().clone()
        };
        let grant = match self.gate.admit(vec![Arc::new(request)]).await?.pop() {
            Some(Verdict::Allow(grant)) => grant,
            Some(Verdict::Deny(denial)) => return Err(Refusal::Denied { denial, reference: None }),
            Some(Verdict::Unknown { record, error }) => {
                return Err(Refusal::Unresolved {
                    error,
                    reference: used.request().reference.text(),
                    record,
                });
            }
            // The gate asks for no approval here.
            Some(Verdict::Await(_)) | None => return Err(Refusal::Broken),
        };
        let record = grant.record();
        let fresh = match self.fresh_code(&grant).await {
            Ok(fresh) => fresh,
            Err(failure) => {
                let reference = grant.request().reference.text();
                self.settle_failed(grant, &failure);
                return Err(Refusal::Unresolved { error: failure.error, reference, record });
            }
        };
        match used.release(&grant) {
            Ok(sealed) => {
                let Resolved { value, provenance } = fresh.unwrap_or(sealed);
                let outcome = AuditOutcome::new(self.clock.now(), OutcomeResult::Released);
                let value_digest = self.digest_of(&grant, &value);
                let outcome = AuditOutcome { provenance: Some(provenance), value_digest, ..outcome };
                self.gate.settle(grant, outcome);
                Ok(Some(Redeemed { value, record }))
            }
            Err(ReleaseError::Stale) => {
                self.withhold([grant], POLICY_CHANGED);
                Ok(None)
            }
            Err(ReleaseError::Inactive(reason)) => {
                let outcome = AuditOutcome::because(self.clock.now(), OutcomeResult::Failed, reason.as_str());
                self.gate.settle(grant, outcome);
                Err(Refusal::HandleNotActive { record })
            }
        }
    }

    /// What the log recognises a value by later. A code has none: it is over before anybody could ask about it, and
    /// one of a million.
    fn digest_of(&self, grant: &Grant, value: &SecretValue) -> Option<ValueDigest> {
        let is_code = grant.request().target.field().is_some_and(|field| field.facet == Facet::Otp);
        self.digester.as_ref().filter(|_| !is_code).map(|digester| digester.digest(value))
    }

    /// The code of a one-time password as it is now: the one that was sealed when the handle was issued
    /// lives for half a minute. The handle must still open its seal, so nobody gets a code without one.
    async fn fresh_code(&self, grant: &Grant) -> Result<Option<Resolved>, ResolveFailure> {
        match grant.request().target.field() {
            Some(field) if field.facet == Facet::Otp => {
                let fetched =
                    self.fetch(&[grant]).await.pop().unwrap_or(Err(ResolveError::Unavailable.into()));
                fetched.map(Some)
            }
            _ => Ok(None),
        }
    }
}
