//! `valetkey audit timeline`: everything that one lease did.

use serde_json::Value;
use valetkey_client::{AuditRecord, Broker, Decision};

use super::{cells, fetch, moment_to_second};
use crate::cli::Format;
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD, Cell};

/// Shows it, the oldest record first.
pub(super) async fn show(broker: &Broker, lease_id: &str, format: Format) -> Result<(), Failure> {
    let mut records = fetch(broker, &format!("lease:{lease_id}"), RECORDS_MAX).await?;
    records.reverse();
    let Some(first) = records.first() else {
        return Err(Failure::new(Exit::Failed, format!("no record names the lease `{lease_id}`")));
    };
    let start = micros(first);
    if format == Format::Table {
        output::text(&title(lease_id, &records))?;
    }
    let row = |record: AuditRecord| {
        let at = since(micros(&record).saturating_sub(start));
        let mut row = vec![("at", at.into()), ("what_came_of_it", what_came(&record)), ("by", by(&record))];
        row.extend(cells(record));
        row
    };
    let rows: Vec<Vec<Cell>> = records.into_iter().map(row).collect();
    match format {
        Format::Table => {
            let width = output::width();
            let wide = ["at", "record_id", "kind", "by", "handle_id", "what_came_of_it", "reference"];
            let narrow = ["at", "record_id", "kind", "by", "what_came_of_it", "reference"];
            let columns = if width < WIDE { &narrow[..] } else { &wide };
            output::text(&output::fitted(columns, &rows, &["by", "reference"], width))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => output::rows(format, &[], &rows)?,
    }
    if rows.len() == usize::try_from(RECORDS_MAX).unwrap_or(usize::MAX) {
        output::note("there are earlier records of this lease: `audit query` has them all");
    }
    Ok(())
}

/// Whose lease it was, for what, and how it ended.
fn title(lease_id: &str, records: &[AuditRecord]) -> String {
    let find = |of: fn(&AuditRecord) -> &str| {
        records.iter().map(of).find(|text| !text.is_empty()).unwrap_or_default()
    };
    let (agent, tool) = (find(|record| &record.agent), find(|record| &record.tool));
    let mut title = format!("{BOLD}Lease {lease_id}{BOLD:#} of {agent} for {tool}");
    for (word, text) in [
        ("on behalf of", find(|record| &record.on_behalf_of)),
        ("to", find(|record| &record.destination)),
        ("session", find(|record| &record.session)),
    ] {
        if !text.is_empty() {
            title.push_str(&format!(", {word} {}", output::inline(text)));
        }
    }
    title.push('\n');
    let purpose = find(|record| &record.purpose);
    if !purpose.is_empty() {
        title.push_str(&format!("Purpose, as it said: {}\n", output::inline(purpose)));
    }
    let opened = records.first().and_then(|record| record.create_time.as_ref());
    let opened = opened.map(|time| moment_to_second(time.seconds)).unwrap_or_default();
    let ended = match records.iter().find(|record| record.kind == "lease_end") {
        Some(end) => format!("ended by {}", end.reason),
        None => "not ended yet, or not in what you may read".to_owned(),
    };
    title + &format!("Opened {opened}, {ended}\n\n")
}

/// The outcome, or why there is none.
pub(super) fn what_came(record: &AuditRecord) -> Value {
    let outcome = record.outcome.as_ref();
    let reason = outcome.map(|outcome| outcome.reason.as_str()).filter(|reason| !reason.is_empty());
    match (record.decision(), outcome) {
        (Decision::Deny, _) => format!("refused: {}", record.reason),
        (Decision::Allow, Some(outcome)) => match reason {
            Some(reason) => format!("{}: {reason}", outcome.result),
            None => outcome.result.clone(),
        },
        (Decision::Allow, None) => "allowed".to_owned(),
        (Decision::Unspecified, _) => record.reason.clone(),
    }
    .into()
}

/// Who did it; events are the broker's own.
pub(super) fn by(record: &AuditRecord) -> Value {
    if record.caller.is_empty() { "(broker)".into() } else { record.caller.clone().into() }
}

fn micros(record: &AuditRecord) -> i64 {
    let time = record.create_time.unwrap_or_default();
    time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000)
}

/// A time after the first: `+0.250 s`, `+2 min 05 s`.
fn since(micros: i64) -> String {
    let (minutes, seconds) = (micros / 60_000_000, micros / 1_000_000);
    match minutes {
        0 => format!("+{seconds}.{:03} s", micros % 1_000_000 / 1_000),
        1..60 => format!("+{minutes} min {:02} s", seconds % 60),
        _ => format!("+{} h {:02} min", minutes / 60, minutes % 60),
    }
}

const RECORDS_MAX: u32 = 10_000;
/// Room for all columns.
pub(super) const WIDE: usize = 110;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative() {
        let shown = [0, 250_999, 59_999_999, 125_000_000, 3_600_000_000 * 25].map(since);
        assert_eq!(shown, ["+0.000 s", "+0.250 s", "+59.999 s", "+2 min 05 s", "+25 h 00 min"]);
    }
}
