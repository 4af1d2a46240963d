//! What waits until a person approves it.

use std::sync::{Mutex, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{
    CallToolResult, ElicitRequest, ElicitRequestParams, InputRequest, InputRequests, InputRequiredResult,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use valetkey_client::CallError;

use super::RequestAccess;

/// An ask that a person has to approve first.
#[derive(Clone)]
pub(super) struct Wait {
    pub(super) approval_id: String,
    pub(super) url: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) record_id: Option<String>,
}

impl Wait {
    /// Of the error that says so.
    pub(super) fn of(error: CallError) -> Option<Self> {
        let CallError::ApprovalRequired { approval_id, url, reference, record_id } = error else {
            return None;
        };
        Some(Self { approval_id, url, reference, record_id })
    }
}

/// The asks that wait, as far as this process knows: they may have been approved, or be too old.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<(RequestAccess, Wait)>>);

impl Waiting {
    /// An ask waits; the same one before it does not any more.
    pub(super) fn note(&self, asked: RequestAccess, wait: Wait) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(known, _)| !known.is_like(&asked));
        if all.len() >= WAITING_MAX {
            all.remove(0);
        }
        all.push((asked, wait));
    }

    /// An ask was granted, or is refused for good.
    pub(super) fn forget(&self, asked: &RequestAccess) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| !known.is_like(asked));
    }

    /// What waits, for the model.
    pub(super) fn listed(&self) -> Vec<Value> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |(asked, wait): &(RequestAccess, Wait)| {
            json!({
                "approval_id": wait.approval_id, "tool": asked.tool, "references": asked.references,
                "reference": wait.reference, "url": wait.url, "next": next(wait),
            })
        };
        all.iter().map(wait).collect()
    }
}

/// The specification's own way to have a person look at a page; `None` where the broker names no page, or the client
/// cannot show one. What comes back with the state is the same ask again: it is decided anew, and nothing is believed.
pub(super) fn input_required(
    context: &RequestContext<RoleServer>,
    wait: &Wait,
) -> Option<InputRequiredResult> {
    let Wait { approval_id, url, reference: _, record_id: _ } = wait;
    let url = url.clone()?;
    context.client_capabilities()?.elicitation?.url?;
    let page = ElicitRequestParams::UrlElicitationParams {
        meta: None,
        message: format!("Access to secrets waits for approval ({approval_id})."),
        url,
        elicitation_id: approval_id.clone(),
    };
    let asked = InputRequest::Elicitation(ElicitRequest::new(page));
    let requests = InputRequests::from([("approval".to_owned(), asked)]);
    Some(InputRequiredResult::new(Some(requests), Some(approval_id.clone())))
}

/// The same in a plain answer.
pub(super) fn waits(wait: &Wait) -> CallToolResult {
    let Wait { approval_id, url, reference, record_id } = wait;
    CallToolResult::structured_error(json!({
        "error": "APPROVAL_REQUIRED", "approval_id": approval_id, "url": url, "reference": reference,
        "message": "a person has to approve this first, and has not yet", "next": next(wait), "record_id": record_id,
    }))
}

fn next(wait: &Wait) -> String {
    let Wait { approval_id, url, reference: _, record_id: _ } = wait;
    let page = url.as_ref().map(|url| format!("at {url}, or ")).unwrap_or_default();
    format!(
        "tell the person that it has to be approved {page}by `valetkey approval approve {approval_id}`; when that is \
         done, call `request_access` again with the same arguments"
    )
}

/// As many as leases; the oldest goes.
const WAITING_MAX: usize = super::LEASES_MAX;
