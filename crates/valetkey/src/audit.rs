//! `valetkey audit`: the reviewer's side.

mod evidence;
mod item;
mod questions;
pub(crate) mod report;
mod timeline;

use serde_json::Value;
use time::OffsetDateTime;
use valetkey_client::{AuditOutcome, AuditRecord, AuditTarget, Broker, CallError, Violation};
use valetkey_core::ValueDigester;

use crate::cli::{AuditCommand, Format, OneFormat, ReportsCommand, StreamFormat};
use crate::connection::connect;
use crate::export;
use crate::failure::{Exit, Failure};
use crate::find_value;
use crate::output::{self, Cell};
use crate::signals::Interrupts;

/// The columns of a table of records.
/// The reference comes last: it is the one that may be long.
const SHOWN: [&str; 9] =
    ["record_id", "time", "kind", "decision", "reason", "caller", "tool", "result", "reference"];

/// Runs it.
pub(crate) async fn run(command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Query { filter, limit, format, connection } => {
            // One more, to know whether there is.
            let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
            let records =
                fetch(&connect(&connection).await?, &filter.text(), limit.saturating_add(1)).await?;
            let is_cut = records.len() > wanted;
            let row = if format == Format::Table { shown } else { cells };
            let rows: Vec<_> = records.into_iter().take(wanted).map(row).collect();
            match output::told_width().filter(|_| format == Format::Table) {
                Some(width) => output::text(&output::fitted(&SHOWN, &rows, &["reference"], width))?,
                None => output::rows(format, &SHOWN, &rows)?,
            }
            if is_cut {
                output::note("more records match; `--limit` shows more");
            }
            if rows.is_empty() && format == Format::Table {
                output::note("no record matches");
            }
        }
        AuditCommand::Show { record_id, format, connection } => {
            let row = cells(one(&connect(&connection).await?, &record_id).await?);
            match format {
                OneFormat::Table => output::text(&output::record(&row))?,
                OneFormat::Json => output::line(&format!("{:#}", output::object(&row)))?,
            }
        }
        AuditCommand::Watch { filter, after, format, connection } => {
            let broker = connect(&connection).await?;
            return watch(&broker, &filter.text(), &after, format).await;
        }
        AuditCommand::Reports(command) => reports(command).await?,
        AuditCommand::Export(args) => return export::run(args).await,
        AuditCommand::FindValue(args) => return find_value::run(args).await,
        AuditCommand::NewDigestKey => output::line(&ValueDigester::random_key())?,
        AuditCommand::Verify(args) => return evidence::verify(args),
        AuditCommand::Prove(args) => return evidence::prove(args).await,
        AuditCommand::Checkpoint(args) => return evidence::checkpoint(args).await,
    }
    Ok(Exit::Done)
}

async fn reports(command: ReportsCommand) -> Result<(), Failure> {
    match command {
        ReportsCommand::Report(args) => report::run(args).await,
        ReportsCommand::Refusals { agent, period, format, connection } => {
            let period = report::period(&period)?;
            questions::refusals(&connect(&connection).await?, agent.as_deref(), period, format).await
        }
        ReportsCommand::FirstUses { period, format, connection } => {
            let period = report::period(&period)?;
            questions::first_uses(&connect(&connection).await?, period, format).await
        }
        ReportsCommand::Unused { days, agent, format, connection } => {
            questions::unused(&connect(&connection).await?, days, agent.as_deref(), format).await
        }
        ReportsCommand::Timeline { lease_id, format, connection } => {
            timeline::show(&connect(&connection).await?, &lease_id, format).await
        }
        ReportsCommand::Item { item, period, format, connection } => {
            let period = report::period(&period)?;
            item::show(&connect(&connection).await?, &item, period, format).await
        }
    }
}

/// The newest `limit` records that match, page by page.
pub(crate) async fn fetch(broker: &Broker, filter: &str, limit: u32) -> Result<Vec<AuditRecord>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut records = Vec::new();
    let mut token = String::new();
    while records.len() < limit {
        let page_size = i32::try_from((limit - records.len()).min(PAGE_SIZE_MAX)).unwrap_or_default();
        let page = broker.audit_records(filter, page_size, &token).await;
        let page = page.map_err(|error| pointed(error, filter))?;
        records.extend(page.records);
        match page.next_page_token {
            Some(next) => token = next,
            None => break,
        }
    }
    records.truncate(limit);
    Ok(records)
}

/// Of a filter that is wrong, the filter with a mark under the place that the broker names.
pub(crate) fn pointed(error: CallError, filter: &str) -> Failure {
    let place = match &error {
        CallError::Invalid { violations, .. } => violations.iter().find_map(place_in_filter),
        _ => None,
    };
    let mut failure = Failure::from(error);
    if let Some(before) = place.and_then(|place| filter.get(..place)) {
        // One line, and as wide as it is shown.
        let line: String = filter.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let blanks = " ".repeat(before.chars().count());
        failure.message.push_str(&format!("\n  {line}\n  {blanks}^"));
    }
    failure
}

/// `at byte 8 of the filter: …`
fn place_in_filter(violation: &Violation) -> Option<usize> {
    let place = violation.description.strip_prefix("at byte ").filter(|_| violation.field == "filter")?;
    place.split_once(" of the filter")?.0.parse().ok()
}

async fn one(broker: &Broker, record_id: &str) -> Result<AuditRecord, Failure> {
    broker.audit_record(record_id).await.map_err(|error| match error.reason() {
        "RECORD_NOT_FOUND" => Failure::new(Exit::Failed, format!("there is no record `{record_id}`")),
        _ => error.into(),
    })
}

async fn watch(broker: &Broker, filter: &str, after: &str, format: StreamFormat) -> Result<Exit, Failure> {
    let watch = broker.watch_audit_records(filter, after).await;
    let mut watch = watch.map_err(|error| pointed(error, filter))?;
    let mut interrupts = Interrupts::take()?;
    if format == StreamFormat::Table {
        let heads: Vec<_> = SHOWN.into_iter().map(|name| (name, output::head(name).into())).collect();
        output::line(&output::columns(&SHOWN, &WIDTHS, &heads))?;
    }
    loop {
        let record = tokio::select! {
            record = watch.next() => record.map_err(|error| pointed(error, filter))?,
            () = interrupts.next() => return Ok(Exit::Done),
        };
        let Some(record) = record else {
            return Err(Failure::new(
                Exit::Unavailable,
                "the broker stops; watch again after the last record",
            ));
        };
        match format {
            StreamFormat::Table => output::line(&output::columns(&SHOWN, &WIDTHS, &shown(record)))?,
            StreamFormat::Jsonl => output::line(&output::object(&cells(record)).to_string())?,
        }
    }
}

/// The fields of a record as a table shows them: times to the second, and whom an event is about in
/// parentheses where a request has its caller.
pub(crate) fn shown(record: AuditRecord) -> Vec<Cell> {
    let time = record.create_time.map(|time| moment_to_second(time.seconds));
    let about = (record.caller.is_empty() && !record.agent.is_empty())
        .then(|| Value::from(format!("(agent:{})", record.agent)));
    let shorter = |(name, value): Cell| match name {
        "time" => (name, time.clone().into()),
        "caller" => (name, about.clone().unwrap_or(value)),
        _ => (name, value),
    };
    cells(record).into_iter().map(shorter).collect()
}

/// All fields of a record, flat, in the order of the wire.
pub(crate) fn cells(record: AuditRecord) -> Vec<Cell> {
    let (decision, redeemer) = (record.decision().as_str_name(), record.redeemer().as_str_name());
    let AuditRecord {
        record_id,
        create_time,
        kind,
        decision: _,
        reason,
        detail,
        caller,
        agent,
        tool,
        reference,
        target,
        policy_ids,
        policy_revision,
        purpose,
        session,
        destination,
        lease_id,
        handle_id,
        ttl,
        uses,
        redeemer: _,
        request_id,
        trace_id,
        client,
        outcome,
        credential,
        on_behalf_of,
    } = record;
    let AuditTarget { vault_id, item_id, field_id, vault_name, item_name, error } =
        target.unwrap_or_default();
    let AuditOutcome {
        create_time: outcome_time,
        result,
        reason: outcome_reason,
        detail: outcome_detail,
        source,
        item_version,
        value_age,
        value_digest,
    } = outcome.unwrap_or_default();
    vec![
        ("record_id", text(record_id)),
        ("time", create_time.map(|time| moment(time.seconds, time.nanos)).into()),
        ("kind", text(kind)),
        ("decision", output::word(Some(decision), "DECISION_")),
        ("reason", text(reason)),
        ("detail", text(detail)),
        ("caller", text(caller)),
        ("credential", text(credential)),
        ("on_behalf_of", text(on_behalf_of)),
        ("agent", text(agent)),
        ("tool", text(tool)),
        ("reference", text(reference)),
        ("vault_id", text(vault_id)),
        ("item_id", text(item_id)),
        ("field_id", text(field_id)),
        ("vault_name", text(vault_name)),
        ("item_name", text(item_name)),
        ("target_error", text(error)),
        ("policy_ids", if policy_ids.is_empty() { Value::Null } else { policy_ids.into() }),
        ("policy_revision", text(policy_revision)),
        ("purpose", text(purpose)),
        ("session", text(session)),
        ("destination", text(destination)),
        ("lease_id", text(lease_id)),
        ("handle_id", text(handle_id)),
        ("ttl_seconds", ttl.map(|life| life.seconds).into()),
        ("uses", (uses > 0).then_some(uses).into()),
        ("redeemer", output::word(Some(redeemer), "REDEEMER_")),
        ("request_id", text(request_id)),
        ("trace_id", text(trace_id)),
        ("client", text(client)),
        ("result", text(result)),
        ("outcome_time", outcome_time.map(|time| moment(time.seconds, time.nanos)).into()),
        ("outcome_reason", text(outcome_reason)),
        ("outcome_detail", text(outcome_detail)),
        ("source", text(source)),
        ("item_version", (item_version > 0).then_some(item_version).into()),
        ("value_age_seconds", value_age.map(|age| seconds(age.seconds, age.nanos)).into()),
        ("value_digest", text(value_digest)),
    ]
}

fn seconds(seconds: i64, nanos: i32) -> f64 {
    std::time::Duration::new(seconds.unsigned_abs(), nanos.unsigned_abs()).as_secs_f64()
}

pub(crate) fn text(text: String) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// UTC to the microsecond, always of the same width.
pub(crate) fn moment(seconds: i64, nanos: i32) -> String {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, micro) = time.to_hms_micro();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn moment_to_second(seconds: i64) -> String {
    moment(seconds, 0).replace(".000000Z", "Z")
}

const PAGE_SIZE_MAX: usize = 1000;
/// Wide enough for most of what comes; a watch cannot know what comes next.
const WIDTHS: [usize; 9] = [6, 20, 13, 8, 15, 24, 19, 8, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_shown_with_a_mark_under_the_place() {
        let check = |filter: &str, description: &str, expected: &str| {
            let violation = Violation { field: "filter".into(), description: description.into() };
            let error = CallError::Invalid {
                reason: "INVALID_FILTER".into(),
                message: "the request is invalid".into(),
                violations: vec![violation],
                record_id: Some("7".into()),
            };
            let message = pointed(error, filter).message;
            assert!(message.ends_with(expected), "{message}");
        };
        let unknown = "at byte 8 of the filter: there is no qualifier `agnet`; there are agent, tool";
        check("agent:a agnet:b", unknown, "\n  agent:a agnet:b\n          ^");
        check("tool:ö agnet:b", unknown, "\n  tool:ö agnet:b\n         ^");
        check("agent:a", "at byte 99 of the filter: it ends", "audit record 7)");
        check("agent:a", "is wrong", "audit record 7)");
    }
}
