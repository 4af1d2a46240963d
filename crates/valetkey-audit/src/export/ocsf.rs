//! A record as an event of OCSF, the Open Cybersecurity Schema Framework: class 6003, API Activity, with the profile
//! `ai_operation`, of schema version 1.9.0, which is the first that knows AI agents. docs/audit.md has the mapping.
//!
//! What has no place in the schema stands under `unmapped`, by its name in the canonical form. Nothing of a record is
//! left out.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use valetkey_core::{OutcomeResult, Reason, RecordKind, Ruling};

use crate::canonical::{decision, redeemer_name};
use crate::row::micros;
use crate::stored::{StoredOutcome, StoredRecord, StoredTarget};

/// The event.
pub(super) fn event(record: &StoredRecord) -> Value {
    let Activity(activity_id, activity) = activity(record.kind);
    let outcome = record.outcome.as_ref();
    let (status_id, status) = status(record.ruling, record.reason, outcome);
    let code = outcome.and_then(|outcome| outcome.reason.as_deref()).unwrap_or(record.reason.as_str());
    let text = outcome.and_then(|outcome| outcome.detail.as_deref()).or(record.detail.as_deref());
    let text = text.unwrap_or(code);
    let (user_agent, place) = client_and_place(record.client.as_deref());
    let (severity_id, severity) = severity(record.ruling);
    pruned(json!({
        "class_uid": CLASS,
        "class_name": "API Activity",
        "category_uid": CLASS / 1000,
        "category_name": "Application Activity",
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": CLASS * 100 + activity_id,
        "type_name": format!("API Activity: {activity}"),
        "time": record.time.as_micros().div_euclid(1000),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_code": code,
        "status_detail": text,
        "message": message(record),
        "metadata": metadata(record),
        "actor": actor(record, user_agent),
        "ai_agent": record.agent.as_ref().map(|name| {
            let instance = &record.session;
            json!({"uid": name, "name": name, "instance_uid": instance, "type_id": 0, "type": "Unknown"})
        }),
        "api": {
            "operation": record.kind.as_str(),
            "service": {"name": "valetkey"},
            "request": record.request.as_ref().map(|id| json!({"uid": id})),
            "response": (status_id == FAILURE).then(|| json!({"error": code, "error_message": text})),
        },
        "resources": [resource(record)],
        "src_endpoint": place.unwrap_or_else(|| json!({"name": if is_own(record) { "valetkey" } else { "unknown" }})),
        "dst_endpoint": record.destination.as_ref().map(|host| json!({"hostname": host})),
        "http_request": user_agent.map(|text| json!({"user_agent": text})),
        "trace": record.trace.as_ref().map(|id| json!({"uid": id})),
        "unmapped": unmapped(record),
    }))
}

/// What the event is. `uid` is what an export that broke off is gone on with.
fn metadata(record: &StoredRecord) -> Value {
    let mut profiles = vec!["ai_operation"];
    profiles.extend(record.trace.as_ref().map(|_| "trace"));
    json!({
        "version": SCHEMA,
        "product": {"name": "valetkey", "vendor_name": "valetkey", "version": env!("CARGO_PKG_VERSION")},
        "profiles": profiles,
        "uid": record.id.to_string(),
        "sequence": record.id.0,
        "original_time": record.time.to_string(),
        "event_code": record.kind.as_str(),
        "log_name": "audit",
        "correlation_uid": record.lease.as_ref().or(record.request.as_ref()),
    })
}

/// Every field is named: one that is not here has its place in the schema.
fn unmapped(record: &StoredRecord) -> Value {
    let StoredRecord {
        id: _,
        time: _,
        kind: _,
        ruling: _,
        reason,
        request: _,
        trace: _,
        credential: _,
        on_behalf_of,
        caller: _,
        client,
        agent: _,
        tool,
        reference: _,
        target: _,
        policies: _,
        revision,
        session,
        destination: _,
        lease,
        handle,
        ttl,
        uses,
        redeemer,
        purpose,
        detail,
        outcome,
    } = record;
    json!({
        "reason": reason.as_str(),
        "on_behalf_of": on_behalf_of,
        "client": client,
        "tool": tool,
        "policy_revision": revision,
        "session": session,
        "lease_id": lease,
        "handle_id": handle,
        "ttl_micros": ttl.map(micros),
        "uses": uses,
        "redeemer": redeemer.map(redeemer_name),
        "purpose": purpose,
        "detail": detail,
        "outcome": outcome.as_ref().map(unmapped_outcome),
    })
}

/// Its number and its name in the schema.
struct Activity(i64, &'static str);

/// Asking and looking reads; what the schema has no word for is named by its kind.
fn activity(kind: RecordKind) -> Activity {
    match kind {
        RecordKind::TokenCreate | RecordKind::Approve => Activity(1, "Create"),
        RecordKind::Acquire
        | RecordKind::Redeem
        | RecordKind::Check
        | RecordKind::Locate
        | RecordKind::ReadAudit
        | RecordKind::FindValue
        | RecordKind::Operate
        | RecordKind::TokenList
        | RecordKind::ApprovalList => Activity(2, "Read"),
        RecordKind::Renew | RecordKind::PolicyLoad | RecordKind::ConfigLoad | RecordKind::TlsLoad => {
            Activity(3, "Update")
        }
        RecordKind::EndLease
        | RecordKind::LeaseEnd
        | RecordKind::HandleExpire
        | RecordKind::HandleRevoke
        | RecordKind::Retire
        | RecordKind::TokenRevoke
        | RecordKind::Reject => Activity(4, "Delete"),
        RecordKind::Unauthenticated
        | RecordKind::Malformed
        | RecordKind::Limit
        | RecordKind::Start
        | RecordKind::Stop => Activity(99, kind.as_str()),
    }
}

/// What came of it; `Unknown` is what the log itself does not know.
fn status(ruling: Ruling, reason: Reason, outcome: Option<&StoredOutcome>) -> (i64, &'static str) {
    use OutcomeResult::{Failed, Interrupted, Issued, Released, Withheld};
    let done = match (ruling, outcome.map(|outcome| outcome.result)) {
        (Ruling::Deny, _) | (_, Some(Failed | Withheld)) => Some(false),
        (_, Some(Interrupted)) => None,
        (_, Some(Issued | Released)) => Some(true),
        (Ruling::Allow | Ruling::Event, None) => Some(reason != Reason::Failed),
    };
    match done {
        Some(true) => (1, "Success"),
        Some(false) => (FAILURE, "Failure"),
        None => (0, "Unknown"),
    }
}

/// Refusals deserve a look.
fn severity(ruling: Ruling) -> (i64, &'static str) {
    match ruling {
        Ruling::Deny => (2, "Low"),
        Ruling::Allow | Ruling::Event => (1, "Informational"),
    }
}

/// A sentence for people: `acquire allow by agent:travel-bot of op://Tutorial/Navan/password: POLICY_PERMIT`.
fn message(record: &StoredRecord) -> String {
    let part = |word: &str, text: &Option<String>| {
        text.as_ref().map(|text| format!(" {word} {text}")).unwrap_or_default()
    };
    let decision = decision(record.ruling).map(|decision| format!(" {decision}")).unwrap_or_default();
    let (caller, reference) = (part("by", &record.caller), part("of", &record.reference));
    format!("{}{decision}{caller}{reference}: {}", record.kind.as_str(), record.reason.as_str())
}

/// Who called, as far as it is no AI agent; on whose behalf; and what was decided. The schema wants one of the names
/// at least.
fn actor(record: &StoredRecord, user_agent: Option<&str>) -> Value {
    let (kind, name) = record.caller.as_deref().and_then(|caller| caller.split_once(':')).unzip();
    let person = (kind == Some("person")).then_some(name).flatten().or(record.on_behalf_of.as_deref());
    let tool = (kind == Some("tool")).then_some(name).flatten();
    let broker = is_own(record).then_some("valetkey");
    json!({
        "user": person.map(|name| json!({"name": name, "uid": format!("person:{name}"), "type_id": 1, "type": "User"})),
        "app_name": tool.or(broker).or(user_agent).unwrap_or("unknown"),
        "app_uid": record.caller,
        "session": {"credential_uid": record.credential},
        "authorizations": authorizations(record),
    })
}

/// An event that no call has brought.
fn is_own(record: &StoredRecord) -> bool {
    record.caller.is_none() && record.ruling == Ruling::Event
}

/// One for each policy that determined the decision; where none did, it was the set as a whole, or no policy at all.
fn authorizations(record: &StoredRecord) -> Value {
    let decision = match record.ruling {
        Ruling::Allow => "allowed",
        Ruling::Deny => "denied",
        Ruling::Event => return Value::Null,
    };
    let version = &record.revision;
    let by = |id: &String| {
        let policy = json!({"uid": id, "name": id, "version": version, "type": "Cedar", "is_applied": true});
        json!({"decision": decision, "policy": policy})
    };
    let set = version.as_ref().map(|version| json!({"type": "Cedar", "version": version}));
    match record.policies.is_empty() {
        false => record.policies.iter().map(by).collect(),
        true => json!([{"decision": decision, "policy": set}]),
    }
}

/// The item, or what is known of the reference's meaning.
fn resource(record: &StoredRecord) -> Option<Value> {
    let reference = record.reference.as_deref();
    let version = record.outcome.as_ref().and_then(|outcome| outcome.item_version);
    let Some(target) = &record.target else {
        return reference.map(
            |name| json!({"name": name, "type": "1Password reference", "role_id": 1, "role": "Target"}),
        );
    };
    let StoredTarget { vault_id, vault_name, item_id, item_name, field_id, error } = target;
    let vault = json!({"uid": vault_id, "name": vault_name});
    let (what, uid, name, group) = match (item_id, vault_id) {
        (Some(_), _) => ("1Password item", item_id.as_deref(), item_name.as_deref(), vault),
        (None, Some(_)) => ("1Password vault", vault_id.as_deref(), vault_name.as_deref(), Value::Null),
        (None, None) => ("1Password reference", None, reference, Value::Null),
    };
    Some(json!({
        "uid": uid,
        "name": name,
        "type": what,
        "group": group,
        "role_id": 1,
        "role": "Target",
        "version": version.map(|version| version.to_string()),
        "data": {"reference": reference, "field_id": field_id, "error": error},
    }))
}

fn unmapped_outcome(outcome: &StoredOutcome) -> Value {
    let StoredOutcome { time, result, reason, source, item_version, value_age, detail, value_digest } =
        outcome;
    json!({
        "create_time": time.to_string(),
        "result": result.as_str(),
        "reason": reason,
        "source": source,
        "item_version": item_version,
        "value_age_micros": value_age.map(micros),
        "detail": detail,
        "value_digest": value_digest.map(|digest| digest.to_string()),
    })
}

/// What the client says itself to be, and where it is: the last word, where that is an address or a user.
fn client_and_place(client: Option<&str>) -> (Option<&str>, Option<Value>) {
    let Some(client) = client else { return (None, None) };
    let (agent, last) = client.rsplit_once(' ').unwrap_or(("", client));
    let place = match last.parse::<IpAddr>() {
        Ok(address) => json!({"ip": address.to_string()}),
        Err(_) if last.strip_prefix("uid:").is_some_and(is_number) => {
            json!({"uid": last, "name": "local process"})
        }
        Err(_) => return (Some(client), None),
    };
    ((!agent.is_empty()).then_some(agent), Some(place))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

/// Without what is absent: the schema has no nulls, and no empty objects.
fn pruned(value: Value) -> Value {
    let kept = |value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, pruned(value)));
            Value::Object(fields.filter(|(_, value)| kept(value)).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(pruned).filter(kept).collect()),
        other => other,
    }
}

const CLASS: i64 = 6003;
const FAILURE: i64 = 2;
const SCHEMA: &str = "1.9.0";

#[cfg(test)]
mod tests;
