//! CSV as RFC 4180 has it, but with the line feeds of this system's other tools, and safe to open: a cell holds no
//! control character, so a row is one line, and none is a formula.

use serde_json::Value;

use crate::canonical::{decision, redeemer_name};
use crate::stored::{StoredOutcome, StoredRecord, StoredTarget};

/// A text as a cell: a spreadsheet shows it and does not run it, whatever an agent was talked into.
#[must_use]
pub fn cell(text: &str) -> String {
    // Tabs and carriage returns before a formula would not stop a spreadsheet.
    let text = inline(text);
    let inert = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    match inert.contains([',', '"']) {
        true => format!("\"{}\"", inert.replace('"', "\"\"")),
        false => inert,
    }
}

/// A text in one line that reads as it is written; control characters would also steer a terminal.
#[must_use]
pub fn inline(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a character ends a line, or turns the direction of what follows (Unicode, annex 9, section 2).
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The names of the columns, with the line feed.
pub(super) fn header() -> String {
    COLUMNS.join(",") + "\n"
}

/// A record, without the line feed.
pub(super) fn row(record: &StoredRecord) -> String {
    cells(record).map(|text| cell(&text)).join(",")
}

/// In the order of [`COLUMNS`].
fn cells(record: &StoredRecord) -> [String; COLUMNS.len()] {
    let StoredRecord {
        id,
        time,
        kind,
        ruling,
        reason,
        request,
        trace,
        credential,
        on_behalf_of,
        caller,
        client,
        agent,
        tool,
        reference,
        target,
        policies,
        revision,
        session,
        destination,
        lease,
        handle,
        ttl,
        uses,
        redeemer,
        purpose,
        detail,
        outcome,
    } = record;
    let [vault_id, item_id, field_id, vault_name, item_name, target_error] = target_cells(target.as_ref());
    let [result, outcome_time, outcome_reason, outcome_detail, source, item_version, value_age, value_digest] =
        outcome_cells(outcome.as_ref());
    [
        id.to_string(),
        time.to_string(),
        kind.as_str().to_owned(),
        text(decision(*ruling)),
        reason.as_str().to_owned(),
        text(detail.as_deref()),
        text(caller.as_deref()),
        text(credential.as_deref()),
        text(on_behalf_of.as_deref()),
        text(agent.as_deref()),
        text(tool.as_deref()),
        text(reference.as_deref()),
        vault_id,
        item_id,
        field_id,
        vault_name,
        item_name,
        target_error,
        policies.join(" "),
        text(revision.as_deref()),
        text(purpose.as_deref()),
        text(session.as_deref()),
        text(destination.as_deref()),
        text(lease.as_deref()),
        text(handle.as_deref()),
        number(ttl.map(|life| life.as_secs())),
        number(uses.filter(|uses| *uses > 0)),
        text(redeemer.map(redeemer_name)),
        text(request.as_deref()),
        text(trace.as_deref()),
        text(client.as_deref()),
        result,
        outcome_time,
        outcome_reason,
        outcome_detail,
        source,
        item_version,
        value_age,
        value_digest,
    ]
}

fn target_cells(target: Option<&StoredTarget>) -> [String; 6] {
    let Some(StoredTarget { vault_id, vault_name, item_id, item_name, field_id, error }) = target else {
        return Default::default();
    };
    [vault_id, item_id, field_id, vault_name, item_name, error].map(|part| text(part.as_deref()))
}

fn outcome_cells(outcome: Option<&StoredOutcome>) -> [String; 8] {
    let Some(outcome) = outcome else { return Default::default() };
    let StoredOutcome { time, result, reason, source, item_version, value_age, detail, value_digest } =
        outcome;
    [
        result.as_str().to_owned(),
        time.to_string(),
        text(reason.as_deref()),
        text(detail.as_deref()),
        text(source.as_deref()),
        number(item_version.filter(|version| *version > 0)),
        number(value_age.map(|age| age.as_secs_f64())),
        number(value_digest.map(|digest| digest.to_string())),
    ]
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

/// As JSON writes it.
fn number<T: Into<Value>>(number: Option<T>) -> String {
    match number.map(Into::into) {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(number) => number.to_string(),
    }
}

/// The fields of a record, flat. A column is never renamed or moved; new ones come at the end.
const COLUMNS: [&str; 39] = [
    "record_id",
    "time",
    "kind",
    "decision",
    "reason",
    "detail",
    "caller",
    "credential",
    "on_behalf_of",
    "agent",
    "tool",
    "reference",
    "vault_id",
    "item_id",
    "field_id",
    "vault_name",
    "item_name",
    "target_error",
    "policy_ids",
    "policy_revision",
    "purpose",
    "session",
    "destination",
    "lease_id",
    "handle_id",
    "ttl_seconds",
    "uses",
    "redeemer",
    "request_id",
    "trace_id",
    "client",
    "result",
    "outcome_time",
    "outcome_reason",
    "outcome_detail",
    "source",
    "item_version",
    "value_age_seconds",
    "value_digest",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (text, expected) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("=1,\"2\"", "\"'=1,\"\"2\"\"\""),
            ("\t=1", "\u{fffd}=1"),
            ("\r=1", "\u{fffd}=1"),
            ("a\nb", "a\u{fffd}b"),
            ("a\u{202e}b\u{2069}", "a\u{fffd}b\u{fffd}"),
            ("a=1", "a=1"),
            ("ä,\"b\"", "\"ä,\"\"b\"\"\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
