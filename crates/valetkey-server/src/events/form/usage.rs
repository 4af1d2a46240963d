//! Item usages: a value that has left the broker. A handle that was issued and never redeemed used nothing.

use serde_json::{Value, json};
use valetkey_audit::StoredRecord;
use valetkey_core::{OutcomeResult, RecordKind};

use super::{Client, event_uuid, user};

/// What a redeemed handle becomes.
pub(super) fn usage(record: &StoredRecord, host: &str) -> Option<Value> {
    let (target, outcome) = record.target.as_ref().zip(record.outcome.as_ref())?;
    if record.kind != RecordKind::Redeem || outcome.result != OutcomeResult::Released {
        return None;
    }
    let agent = record.agent.as_ref().map(|agent| format!("agent:{agent}"));
    let tool = record.tool.as_deref().unwrap_or_default();
    Some(json!({
        "uuid": event_uuid(record, host),
        "timestamp": record.time.to_string(),
        // Clients keep it in 32 bits, and refuse the whole page otherwise.
        "used_version": outcome.item_version.unwrap_or_default().min(u32::MAX.into()),
        "vault_uuid": target.vault_id.as_deref().unwrap_or_default(),
        "item_uuid": target.item_id.as_deref().unwrap_or_default(),
        "action": "server-fetch",
        "user": user(agent.as_deref()),
        "client": Client::of(record).print((tool, "")),
    }))
}
