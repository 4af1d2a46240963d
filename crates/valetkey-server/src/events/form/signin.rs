//! Sign-in attempts: callers without an identity, all of them failures. There is no signing in that could succeed: each
//! call shows who it is by itself.

use serde_json::{Value, json};
use valetkey_audit::StoredRecord;
use valetkey_core::{Reason, RecordKind};

use super::{Client, event_uuid, user, uuid};

/// What a refused identity becomes.
pub(super) fn attempt(record: &StoredRecord, host: &str) -> Option<Value> {
    if record.kind != RecordKind::Unauthenticated {
        return None;
    }
    let (category, sort) = failure(record.reason);
    let client = Client::of(record);
    let program = (client.name, client.version);
    Some(json!({
        "uuid": event_uuid(record, host),
        "session_uuid": record.request.as_deref().map(|request| uuid(&["request", request])).unwrap_or_default(),
        "timestamp": record.time.to_string(),
        "country": "",
        "category": category,
        "type": sort,
        "details": {"value": record.reason.as_str()},
        "target_user": user(record.caller.as_deref()),
        "client": client.print(program),
    }))
}

/// The nearest of the published words; the true one stands in `details`.
fn failure(reason: Reason) -> (&'static str, &'static str) {
    let text = reason.as_str();
    match text {
        "TLS_HANDSHAKE" => ("modern_version_failed", "modern_version_old"),
        _ if text.starts_with("JWT_") || text.starts_with("BEHALF_") => ("sso_failed", "sso_user_mismatch"),
        _ if text.starts_with("CERTIFICATE_") || text == "USER_UNKNOWN" => {
            ("credentials_failed", "platform_secret_bad")
        }
        _ => ("credentials_failed", "password_secret_bad"),
    }
}
