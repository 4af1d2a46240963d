//! `valetkey audit item`: everything about one item.

use serde_json::{Value, json};
use valetkey_client::{AuditRecord, Broker, ReportPeriod, ReportSubject};

use super::report::{object, of_reference, show as show_report};
use super::{SHOWN, cells, fetch, shown};
use crate::cli::{OneFormat, ReportKind};
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD};

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
    let rows: Vec<_> = records.into_iter().map(shown).collect();
    if rows.is_empty() {
        return format!("\n{BOLD}{title}{BOLD:#}: none\n");
    }
    let columns = SHOWN.into_iter().filter(|column| *column != "decision").collect::<Vec<_>>();
    format!(
        "\n{BOLD}{title}{BOLD:#}\n{}",
        output::fitted(&columns, &rows, &["caller", "tool", "reference"], width)
    )
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
