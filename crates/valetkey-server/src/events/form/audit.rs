//! Audit events: what was refused, granted, ended and changed, and who looked.
//!
//! The published words have none for a refusal: it is `cancel`, on what it was about, and `aux_info` says
//! `decision=deny`. `unknown` is a value that may have been released.

use serde_json::{Map, Value, json};
use valetkey_audit::StoredRecord;
use valetkey_core::{OutcomeResult, Reason, RecordKind, Ruling};

use super::{Client, Version, event_uuid, principal_uuid, user, uuid};
use crate::token::EVENTS_TOKEN_PREFIX;

/// What a record becomes; `None` where it is for another feature, or tells a reviewer nothing.
pub(super) fn event(version: Version, record: &StoredRecord, host: &str) -> Option<Value> {
    let action = action(record)?;
    let (object_type, object_uuid) = object(record, host);
    let actor = actor(record);
    let client = Client::of(record);
    let agent = record.agent.as_ref().map(|agent| format!("agent:{agent}"));
    let of = |sort: &str, text: &Option<String>| {
        text.as_deref().map(|text| uuid(&[sort, text])).unwrap_or_default()
    };
    let mut event = json!({
        "uuid": event_uuid(record, host),
        "timestamp": record.time.to_string(),
        "actor_uuid": principal_uuid(&actor),
        "action": action,
        "object_type": object_type,
        "object_uuid": object_uuid,
        "aux_id": record.id.0,
        "aux_uuid": agent.as_deref().map(principal_uuid).unwrap_or_default(),
        "aux_info": info(record),
        "session": {
            "uuid": of("request", &record.request),
            // There is no signing in but the call itself.
            "login_time": record.time.to_string(),
            "device_uuid": of("credential", &record.credential),
            "ip": client.address,
        },
    });
    if let (Version::V2, Value::Object(fields)) = (version, &mut event) {
        fields.extend(v2(&actor, agent.as_deref(), host));
    }
    Some(event)
}

/// What version 2 has beside it.
fn v2(actor: &str, agent: Option<&str>, host: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("actor_details".to_owned(), user(Some(actor)));
    fields.insert("actor_type".to_owned(), "user".into());
    fields.insert("account_uuid".to_owned(), uuid(&["account", host]).into());
    if agent.is_some() {
        fields.insert("aux_details".to_owned(), user(agent));
    }
    fields
}

fn action(record: &StoredRecord) -> Option<&'static str> {
    let refused = record.ruling == Ruling::Deny || record.reason == Reason::Failed;
    let result = record.outcome.as_ref().map(|outcome| outcome.result);
    let done = match record.kind {
        RecordKind::Acquire if result == Some(OutcomeResult::Issued) => Some("grant"),
        RecordKind::Acquire | RecordKind::Renew | RecordKind::Redeem => {
            (result == Some(OutcomeResult::Interrupted)).then_some("unknown")
        }
        RecordKind::EndLease => Some("revoke"),
        RecordKind::LeaseEnd => Some(match record.reason {
            Reason::EndPolicy | Reason::EndCredential => "revoke",
            _ => "delete",
        }),
        RecordKind::HandleRevoke => Some("revoke"),
        // What we are asked here would be the next answer, for ever. Refused, it is news.
        RecordKind::ReadAudit => {
            let ours = record.credential.as_deref().is_some_and(|id| id.starts_with(EVENTS_TOKEN_PREFIX));
            (!ours).then_some("view")
        }
        RecordKind::PolicyLoad | RecordKind::ConfigLoad => Some("update"),
        RecordKind::TlsLoad => Some("replace"),
        RecordKind::Start => Some("activate"),
        RecordKind::Stop => Some("suspend"),
        RecordKind::Retire => Some("purge"),
        // Decided; what came of it is another record.
        RecordKind::TokenCreate | RecordKind::TokenRevoke if record.ruling == Ruling::Allow => None,
        RecordKind::TokenCreate => Some("create"),
        RecordKind::TokenList => Some("view"),
        RecordKind::TokenRevoke => Some("revoke"),
        RecordKind::Approve => Some("grant"),
        RecordKind::Reject => Some("cancel"),
        RecordKind::ApprovalList => Some("view"),
        RecordKind::FindValue => (record.ruling == Ruling::Allow).then_some("view"),
        RecordKind::Check | RecordKind::Operate | RecordKind::Malformed | RecordKind::Limit => None,
        RecordKind::Locate | RecordKind::HandleExpire | RecordKind::Unauthenticated => return None,
    };
    if refused { Some("cancel") } else { done }
}

/// What it was about.
fn object(record: &StoredRecord, host: &str) -> (&'static str, String) {
    let account = || ("account", uuid(&["account", host]));
    match record.kind {
        // An approval is of a lease that is yet to be.
        RecordKind::EndLease | RecordKind::LeaseEnd | RecordKind::Approve | RecordKind::Reject => {
            let lease = record.lease.as_deref().map(|lease| uuid(&["lease", lease]));
            ("dlgdsess", lease.unwrap_or_default())
        }
        RecordKind::TokenCreate | RecordKind::TokenList | RecordKind::TokenRevoke => {
            ("satoken", String::new())
        }
        RecordKind::ReadAudit | RecordKind::FindValue | RecordKind::ApprovalList => ("report", String::new()),
        _ => match &record.target {
            Some(target) => match (&target.item_id, &target.vault_id) {
                (Some(item), _) => ("item", item.clone()),
                (None, Some(vault)) => ("vault", vault.clone()),
                (None, None) => ("item", String::new()),
            },
            None if record.handle.is_some() => ("item", String::new()),
            None => account(),
        },
    }
}

/// Who did it: the caller, or the agent whose lease it was, or the broker itself.
fn actor(record: &StoredRecord) -> String {
    let agent = || record.agent.as_ref().map(|agent| format!("agent:{agent}"));
    record.caller.clone().or_else(agent).unwrap_or_else(|| "broker:valetkey".to_owned())
}

/// `name=value` with blanks between them. Values that may have blanks, which are the last ones, are JSON strings.
fn info(record: &StoredRecord) -> String {
    let decision = match record.ruling {
        Ruling::Allow => "allow",
        Ruling::Deny => "deny",
        Ruling::Event => "event",
    };
    let mut info = format!(
        "record={} kind={} decision={decision} reason={}",
        record.id,
        record.kind.as_str(),
        record.reason.as_str()
    );
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            info.push_str(&format!(" {name}={value}"));
        }
    };
    let quoted = |text: &Option<String>| text.as_deref().map(|text| Value::from(text).to_string());
    let outcome = record.outcome.as_ref();
    add("agent", record.agent.as_deref());
    add("tool", record.tool.as_deref());
    add("on_behalf_of", record.on_behalf_of.as_deref());
    add("outcome", outcome.map(|outcome| outcome.result.as_str()));
    add("credential", record.credential.as_deref());
    add("lease", record.lease.as_deref());
    add("handle", record.handle.as_deref());
    add("policies", Some(&record.policies.join(",")));
    add("revision", record.revision.as_deref());
    add("reference", quoted(&record.reference).as_deref());
    add("detail", quoted(&record.detail).as_deref());
    info
}
