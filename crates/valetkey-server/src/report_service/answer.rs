//! Prints the rows of reports.

use valetkey_audit::{FirstUse, Refusals, Thing};
use valetkey_proto::v1;

use super::count::{LastUse, Used};
use super::reach::Unused;
use crate::convert::timestamp;

/// A row, and whether policy would still allow it.
pub(super) fn usage((used, has_access): (Used, bool)) -> v1::ReportUsage {
    let (action, time, record) = match used.last_use {
        Some(LastUse { record, time, kind }) => (kind.as_str(), Some(timestamp(time)), record.to_string()),
        None => ("", None, String::new()),
    };
    v1::ReportUsage {
        agent: used.agent.unwrap_or_default(),
        tool: used.tool.unwrap_or_default(),
        target: target(used.vault, used.item),
        last_action: action.to_owned(),
        last_used: time,
        last_record_id: record,
        issued: used.issued,
        released: used.released,
        refused: used.refused,
        failed: used.failed,
        has_access,
        last_refused: used.last_refused.map(timestamp),
    }
}

pub(super) fn refusals(row: Refusals) -> v1::Refusals {
    let Refusals { agent, tool, vault, item, kind, reason, count, last, last_time } = row;
    v1::Refusals {
        agent: agent.unwrap_or_default(),
        tool: tool.unwrap_or_default(),
        target: target(vault, item),
        kind: kind.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
        count,
        last_time: Some(timestamp(last_time)),
        last_record_id: last.to_string(),
    }
}

pub(super) fn first_use(row: FirstUse) -> v1::FirstUse {
    let FirstUse { agent, tool, vault, item, record, time } = row;
    v1::FirstUse {
        agent,
        tool,
        target: target(Some(vault), Some(item)),
        time: Some(timestamp(time)),
        record_id: record.to_string(),
    }
}

pub(super) fn unused(row: Unused) -> v1::UnusedAccess {
    let Unused { agent, vault, item, last_used } = row;
    v1::UnusedAccess { agent, target: target(Some(vault), Some(item)), last_used: last_used.map(timestamp) }
}

/// Absent where the reference led to no vault.
fn target(vault: Option<Thing>, item: Option<Thing>) -> Option<v1::AuditTarget> {
    let vault = vault?;
    let (item_id, item_name) = item.map(|item| (item.id, item.name)).unwrap_or_default();
    Some(v1::AuditTarget {
        vault_id: vault.id,
        item_id,
        field_id: String::new(),
        vault_name: vault.name,
        item_name,
        error: String::new(),
    })
}
