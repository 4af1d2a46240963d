//! What the model is told.

use std::collections::BTreeMap;

use rmcp::model::CallToolResult;
use serde_json::{Value, json};
use time::OffsetDateTime;
use valetkey_client::{Access, CallError, Issued, Lease, Redeemer, Refused};

use super::Held;

/// A lease was granted, or some of it.
pub(super) fn granted(tool: &str, lease: &Lease) -> CallToolResult {
    let access: Vec<_> = lease.handles().iter().map(handle).collect();
    let refused: Vec<_> = lease.refused().iter().map(refusal).collect();
    let is_empty = access.is_empty();
    let answer = json!({"lease_id": lease.id(), "tool": tool, "access": access, "refused": refused});
    if is_empty { CallToolResult::structured_error(answer) } else { CallToolResult::structured(answer) }
}

/// What is held. Of one that is being asked for again there are no handles: those before are dead.
pub(super) fn listed(leases: &BTreeMap<String, Held>, waiting: Vec<Value>) -> CallToolResult {
    let lease = |held: &Held| {
        let access: Vec<_> = held.lease.handles().iter().map(handle).collect();
        let next = access.is_empty().then_some("the broker is away; list again in a few seconds");
        json!({"lease_id": held.lease.id(), "tool": held.tool, "access": access, "next": next})
    };
    let leases: Vec<_> = leases.values().map(lease).collect();
    CallToolResult::structured(json!({"leases": leases, "waiting_for_approval": waiting}))
}

/// What would be decided.
pub(super) fn checked(access: &Access) -> CallToolResult {
    let Access {
        allowed,
        advice,
        record_id,
        ttl_max,
        uses: _,
        redeemer: _,
        certificate_bound: _,
        approval_required,
    } = access;
    let next = match (allowed, advice.as_str()) {
        (true, _) if *approval_required => {
            "ask by `request_access`: it says which person has to approve it first, and how"
        }
        (true, _) => "it is allowed now: ask by `request_access`",
        (false, "") => "policy gives no advice; tell the person, who can ask a reviewer about the record",
        (false, advice) => advice,
    };
    CallToolResult::structured(json!({
        "allowed": allowed, "approval_required": approval_required, "next": next, "record_id": record_id,
        "longest_ttl_seconds": ttl_max.map(|life| life.as_secs()),
    }))
}

/// The broker did not do it.
pub(super) fn failed(error: &CallError) -> CallToolResult {
    let next = match error {
        CallError::Denied { advice: Some(advice), .. } => advice.as_str(),
        CallError::Denied { advice: None, .. } => "asking again does not help; tell the person",
        CallError::Unavailable { .. }
        | CallError::NoBroker { .. }
        | CallError::TimedOut(_)
        | CallError::LeaseLost(_)
        | CallError::LimitReached { .. } => "try again later",
        CallError::Unauthenticated | CallError::PersonUnauthenticated | CallError::Internal { .. } => {
            "tell the person: nothing in the request is wrong"
        }
        _ => "correct the request, or tell the person",
    };
    let record_id = match error {
        CallError::Denied { record_id, .. }
        | CallError::NotFound { record_id, .. }
        | CallError::Precondition { record_id, .. }
        | CallError::Invalid { record_id, .. } => record_id.as_deref(),
        _ => None,
    };
    let reason = match (error.reason(), error) {
        ("", CallError::Unauthenticated) => "UNAUTHENTICATED",
        ("", CallError::TimedOut(_)) => "TIMED_OUT",
        ("", CallError::Internal { .. }) => "INTERNAL",
        ("", CallError::LeaseEnded(_)) => "LEASE_ENDED",
        ("", _) => "UNAVAILABLE",
        (reason, _) => reason,
    };
    CallToolResult::structured_error(
        json!({"error": reason, "message": error.to_string(), "next": next, "record_id": record_id}),
    )
}

/// As many leases are held as may be.
pub(super) fn too_many() -> CallToolResult {
    CallToolResult::structured_error(json!({
        "error": "TOO_MANY_LEASES", "next": "end one that is done with, by `end_lease`",
    }))
}

/// The client does not want the answer any more.
pub(super) fn cancelled() -> CallToolResult {
    CallToolResult::structured_error(json!({"error": "CANCELLED"}))
}

fn handle(issued: &Issued) -> Value {
    let Issued {
        reference,
        handle,
        handle_id: _,
        expire_time,
        uses,
        redeemer,
        record_id,
        certificate_bound: _,
    } = issued;
    let redeemer = match redeemer {
        Redeemer::Agent => "agent",
        _ => "tool",
    };
    let seconds = (*expire_time - OffsetDateTime::now_utc()).whole_seconds().max(0);
    json!({
        "reference": reference, "handle": handle.expose_secret(), "expires_in_seconds": seconds, "uses": uses,
        "redeemed_by": redeemer, "record_id": record_id,
    })
}

fn refusal(refused: &Refused) -> Value {
    let Refused { reference, reason, message, record_id } = refused;
    json!({"reference": reference, "error": reason, "message": message, "record_id": record_id})
}
