//! The calls of whoever approves what agents ask for.

use valetkey_proto::v1;

use crate::broker::{Broker, bounded};
use crate::error::CallError;

/// A page of what waits for an approval.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalPage {
    /// What waits, the oldest first.
    pub approvals: Vec<v1::Approval>,
    /// Where the next page begins; `None` at the end.
    pub next_page_token: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalDecision {
    /// What it was about.
    pub approval: v1::Approval,
    /// Until when it holds.
    pub expire_time: Option<prost_types::Timestamp>,
    /// The audit record of the decision.
    pub record_id: String,
}

impl Broker {
    /// Lists at most `page_size` (0: 50, at most 1,000) of what waits and the caller may decide, the oldest first, from
    /// where `page_token` of the page before says; empty: from the oldest.
    ///
    /// # Errors
    /// [`CallError::Denied`] where the caller may decide nothing.
    pub async fn list_approvals(&self, page_size: i32, page_token: &str) -> Result<ApprovalPage, CallError> {
        let request = v1::ListApprovalsRequest { page_size, page_token: page_token.to_owned() };
        let v1::ListApprovalsResponse { approvals, next_page_token } =
            bounded(self.approvals.clone().list_approvals(request)).await?;
        let next_page_token = (!next_page_token.is_empty()).then_some(next_page_token);
        Ok(ApprovalPage { approvals, next_page_token })
    }

    /// Approves what waits under an id, `vkl_` and 16 characters, as a person.
    ///
    /// # Errors
    /// [`CallError::Denied`] where it is not the caller's to decide; [`CallError::NotFound`] where nothing waits.
    pub async fn approve(&self, approval_id: &str) -> Result<ApprovalDecision, CallError> {
        let request = v1::ApproveAccessRequest { approval_id: approval_id.to_owned() };
        let v1::ApproveAccessResponse { approval, expire_time, record_id } =
            bounded(self.approvals.clone().approve_access(request)).await?;
        Ok(ApprovalDecision { approval: approval.unwrap_or_default(), expire_time, record_id })
    }

    /// Rejects it.
    ///
    /// # Errors
    /// As [`Broker::approve`].
    pub async fn reject(&self, approval_id: &str) -> Result<ApprovalDecision, CallError> {
        let request = v1::RejectAccessRequest { approval_id: approval_id.to_owned() };
        let v1::RejectAccessResponse { approval, expire_time, record_id } =
            bounded(self.approvals.clone().reject_access(request)).await?;
        Ok(ApprovalDecision { approval: approval.unwrap_or_default(), expire_time, record_id })
    }
}
