//! `valetkey audit item`: everything about one item.

use serde_json::{Value, json};
use valetkey_client::{AuditRecord, Broker, ReportPeriod, ReportSubject};

use super::report::{minute, object, of_reference, show as show_report};
use super::timeline::{WIDE, by, what_came};
use super::{cells, fetch, moment_to_second};
use crate::cli::{OneFormat, ReportKind};
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD, Cell};

/// Shows it.
pub(super) async fn show(
    broker: &Broker,
    item: &str,
    period: ReportPeriod,
    format: OneFormat,
) -> Result<(), Failure> {
    let item = of_reference(item);
    let created = created(&period);
    let report = broker.usage_report(ReportSubject::Item(item.clone()), period).await?;
    let filter = filter(&item)?;
    let refused = fetch(broker, &format!("{filter} decision:deny{created}"), LAST_MAX).await?;
    let last = fetch(broker, &format!("{filter}{created}"), LAST_MAX).await?;
    match format {
        OneFormat::Table => {
            let width = output::width();
            let mut page = show_report(ReportKind::Item, &item, report, width);
            page.push_str(&section("Last refusals", refused, width));
            page.push_str(&section("Last records", last, width));
            output::text(&page)?;
        }
        OneFormat::Json => {
            let list = |records: Vec<AuditRecord>| -> Vec<Value> {
                records.into_iter().map(|record| output::object(&cells(record))).collect()
            };
            let all = json!({
                "report": object(report), "last_refusals": list(refused), "last_records": list(last),
            });
            output::line(&format!("{all:#}"))?;
        }
    }
    Ok(())
}

fn section(title: &str, records: Vec<AuditRecord>, width: usize) -> String {
    let rows: Vec<Vec<Cell>> = records.into_iter().map(row).collect();
    if rows.is_empty() {
        return format!("\n{BOLD}{title}{BOLD:#}: none\n");
    }
    let wide = ["record_id", "time", "kind", "by", "tool", "what_came_of_it", "field"];
    let narrow = ["record_id", "time", "kind", "by", "what_came_of_it", "field"];
    let columns = if width < WIDE { &narrow[..] } else { &wide };
    let table = output::fitted(columns, &rows, &["by", "tool", "field"], width);
    format!("\n{BOLD}{title}{BOLD:#}\n{table}")
}

/// A record about the item: of the reference, the field alone is news.
fn row(record: AuditRecord) -> Vec<Cell> {
    let time = record.create_time.map(|time| minute(&moment_to_second(time.seconds)));
    let field = record.reference.rsplit('/').next().unwrap_or_default();
    vec![
        ("record_id", record.record_id.as_str().into()),
        ("time", time.into()),
        ("kind", record.kind.as_str().into()),
        ("by", by(&record)),
        ("tool", record.tool.as_str().into()),
        ("what_came_of_it", what_came(&record)),
        ("field", field.into()),
    ]
}

/// The item in the language of filters.
fn filter(item: &str) -> Result<String, Failure> {
    let quoted = |word: &str| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    if item.is_empty() {
        return Err(Failure::new(Exit::Usage, "name an item"));
    }
    Ok(match item.split_once('/') {
        Some((vault, item)) => format!("vault:{} item:{}", quoted(vault), quoted(item)),
        None => format!("item:{}", quoted(item)),
    })
}

/// The days in the language of filters; without any, those of the report differ from the records', which are the last
/// whenever that was.
fn created(period: &ReportPeriod) -> String {
    let ReportPeriod { first_day, last_day } = period;
    let bound = |sign: &str, day: &str| match day {
        "" => String::new(),
        day => format!(" created:{sign}{day}"),
    };
    bound(">=", first_day) + &bound("<=", last_day)
}

const LAST_MAX: u32 = 10;
