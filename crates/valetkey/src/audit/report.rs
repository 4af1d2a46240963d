//! `valetkey audit report`: usage reports that read like 1Password's.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::{Date, OffsetDateTime};
use valetkey_client::{
    AuditTarget, Broker, GetUsageReportResponse, ReportAccess, ReportPeriod, ReportSubject, ReportTotals,
    ReportUsage,
};
use valetkey_core::Clock;
use valetkey_server::SystemClock;

use super::{moment, moment_to_second, text};
use crate::cli::{Format, Period, ReportArgs, ReportKind};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, BOLD, Cell, count};

/// Runs it.
pub(crate) async fn run(args: ReportArgs) -> Result<(), Failure> {
    let ReportArgs { kind, name, period, format, connection } = args;
    let name = name.unwrap_or_default();
    let subject = match kind {
        ReportKind::Overview if !name.is_empty() => {
            return Err(Failure::new(Exit::Usage, "the overview is about everybody: leave the name out"));
        }
        ReportKind::Overview => ReportSubject::Overview,
        ReportKind::Agent => ReportSubject::Agent(name.clone()),
        ReportKind::Vault => ReportSubject::Vault(name.clone()),
        ReportKind::Item => ReportSubject::Item(of_reference(&name)),
        ReportKind::Tool => ReportSubject::Tool(name.clone()),
    };
    let period = self::period(&period)?;
    let report = connect(&connection).await?.usage_report(subject, period).await?;
    if kind != ReportKind::Overview && is_unknown(&report) {
        note_unknown(kind, &name);
    }
    match format {
        Format::Table => output::text(&show(kind, &name, report, output::width()))?,
        Format::Json => output::line(&format!("{:#}", object(report)))?,
        Format::Jsonl | Format::Csv => {
            let rows: Vec<_> = report.usages.into_iter().map(cells).collect();
            output::rows(format, &[], &rows)?;
        }
    }
    Ok(())
}

/// Whether a report has neither a use nor a refusal nor access.
fn is_unknown(report: &GetUsageReportResponse) -> bool {
    let reachable = |access: &ReportAccess| access.items > 0 || !access.complete;
    report.usages.is_empty() && !report.access.as_ref().is_some_and(reachable)
}

/// Tells a person that a name may be wrong: nothing was used, refused or can be accessed by it.
fn note_unknown(kind: ReportKind, name: &str) {
    let (sort, hint) = match kind {
        ReportKind::Overview => return,
        ReportKind::Agent => ("agent", CASE_HINT),
        ReportKind::Tool => ("tool", CASE_HINT),
        ReportKind::Vault => ("vault", ""),
        ReportKind::Item => ("item", ""),
    };
    output::note(&format!("nothing is known of {sort} `{}`{hint}", output::inline(name)));
}

/// The same of an agent about whom another question has no answer.
pub(super) async fn note_unknown_agent(
    broker: &Broker,
    agent: &str,
    period: ReportPeriod,
) -> Result<(), Failure> {
    let report = broker.usage_report(ReportSubject::Agent(agent.to_owned()), period).await?;
    if is_unknown(&report) {
        note_unknown(ReportKind::Agent, agent);
    }
    Ok(())
}

/// The days that are meant, where `since` may be a number of days.
pub(crate) fn period(period: &Period) -> Result<ReportPeriod, Failure> {
    let Period { since, until } = period;
    let first_day = match since.strip_suffix('d').map(str::parse::<u16>) {
        None => since.clone(),
        Some(days) => {
            let wrong =
                || Failure::new(Exit::Usage, "`--since` must be a day such as 2026-11-01, or 1d to 9999d");
            let days = days.ok().filter(|days| (1..=9_999).contains(days)).ok_or_else(wrong)?;
            let last = if until.is_empty() { Some(today()) } else { day(until) };
            let last =
                last.ok_or_else(|| Failure::new(Exit::Usage, "`--until` must be a day such as 2026-11-30"))?;
            let first = last.checked_sub(time::Duration::days(i64::from(days) - 1)).ok_or_else(wrong)?;
            first.to_string()
        }
    };
    Ok(ReportPeriod { first_day, last_day: until.clone() })
}

/// `vault/item` of a reference; anything else as it is.
pub(super) fn of_reference(text: &str) -> String {
    match text.strip_prefix("op://") {
        Some(rest) => rest.split('/').take(2).collect::<Vec<_>>().join("/"),
        None => text.to_owned(),
    }
}

/// A report as a person reads it.
pub(crate) fn show(kind: ReportKind, name: &str, report: GetUsageReportResponse, width: usize) -> String {
    let GetUsageReportResponse { period, seen_record_id, access, usages, totals, truncated } = report;
    let about = match kind {
        ReportKind::Overview => "everybody".to_owned(),
        ReportKind::Agent => format!("agent {name}"),
        ReportKind::Vault => format!("vault {name}"),
        ReportKind::Item => format!("item {name}"),
        ReportKind::Tool => format!("tool {name}"),
    };
    let ReportPeriod { first_day, last_day } = period.unwrap_or_default();
    let about = output::inline(&about);
    let mut shown = format!(
        "{BOLD}Usage of {about}{BOLD:#}, {first_day} to {last_day} (UTC), up to record {seen_record_id}\n"
    );
    shown.push_str(&sentences(kind, &access.unwrap_or_default(), &totals.unwrap_or_default()));
    if truncated {
        shown.push_str("The table has the last used alone: ask for fewer days, or by agent.\n");
    }
    if usages.is_empty() {
        return shown + "\nNothing was used or refused.\n";
    }
    shown + &tables(kind, usages, width)
}

fn sentences(kind: ReportKind, access: &ReportAccess, totals: &ReportTotals) -> String {
    let ReportAccess { vaults, items, agents, complete, incomplete_reason, agent_names, limited } = access;
    let ReportTotals {
        agents: using,
        tools,
        vaults: used_vaults,
        items: used_items,
        issued,
        released,
        refused,
        failed,
    } = totals;
    let able = |agents: u32| match agent_names.len() {
        0 => "No agent can access".to_owned(),
        1..=5 => format!("{} can access", agent_names.join(", ")),
        _ => format!("{agents} agents can access"),
    };
    let items_in = |items: u32, vaults: u32| {
        format!("{} in {}", number(items, "item", "items"), number(vaults, "vault", "vaults"))
    };
    let can = match kind {
        ReportKind::Agent => format!("Can access {} now.", items_in(*items, *vaults)),
        ReportKind::Item => format!("{} it now.", able(*agents)),
        ReportKind::Vault if *agents == 0 => format!("{} anything in it now.", able(0)),
        ReportKind::Vault => format!("{} {} of it now.", able(*agents), number(*items, "item", "items")),
        ReportKind::Tool if *agents == 0 => format!("{} anything with it now.", able(0)),
        ReportKind::Tool => format!("With it, {} {} now.", able(*agents), items_in(*items, *vaults)),
        ReportKind::Overview => format!("{} {} now.", able(*agents), items_in(*items, *vaults)),
    };
    let used = items_in(*used_items, *used_vaults);
    let used = match kind {
        ReportKind::Agent => format!("Used {used}, with {}.", number(*tools, "tool", "tools")),
        ReportKind::Item | ReportKind::Vault | ReportKind::Tool | ReportKind::Overview => format!(
            "Used: {used}, by {} with {}.",
            number(*using, "agent", "agents"),
            number(*tools, "tool", "tools")
        ),
    };
    let of = if *limited { "Of the vaults that you may read:\n" } else { "" };
    let mut text = format!("{of}{}\n{used}\n", output::inline(&can));
    text.push_str(&format!(
        "Handles issued: {issued}. Values released: {released}. Refused: {refused}. Failed: {failed}.\n"
    ));
    if !complete {
        let reason = output::inline(incomplete_reason);
        text.push_str(&format!("Not all is known of what can be accessed: {reason}.\n"));
    }
    text
}

fn number(number: u32, one: &str, many: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), one, many)
}

/// One table, or one for each vault.
fn tables(kind: ReportKind, usages: Vec<ReportUsage>, width: usize) -> String {
    let (names, cuttable) = match kind {
        ReportKind::Overview => return format!("\n{}", overview(usages, width)),
        ReportKind::Item => return format!("\n{}", table(&["agent", "tool"], usages, width)),
        ReportKind::Agent => ("item", "tool"),
        ReportKind::Vault | ReportKind::Tool => ("item", "agent"),
    };
    let mut vaults: Vec<(String, Vec<ReportUsage>)> = Vec::new();
    for usage in usages {
        let vault = usage.target.as_ref().map_or_else(String::new, |target| target.vault_name.clone());
        match vaults.iter_mut().find(|(known, _)| *known == vault) {
            Some((_, rows)) => rows.push(usage),
            None => vaults.push((vault, vec![usage])),
        }
    }
    let is_alone = kind == ReportKind::Vault && vaults.len() == 1;
    let leading: &[&str] = match kind {
        ReportKind::Vault => &[names, cuttable, "tool"],
        _ => &[names, cuttable],
    };
    let vaults: Vec<(String, Vec<Vec<Cell>>)> =
        vaults.into_iter().map(|(vault, rows)| (vault, rows.into_iter().map(shown).collect())).collect();
    // One report has one choice of columns.
    let is_wide = vaults.iter().all(|(_, rows)| width_of(&wide(leading, rows)) <= width);
    let titled = |(vault, rows): (String, Vec<Vec<Cell>>)| {
        let title = if vault.is_empty() {
            "(references that lead nowhere)".to_owned()
        } else {
            output::inline(&vault)
        };
        let title = if is_alone { String::new() } else { format!("{BOLD}{title}{BOLD:#}\n") };
        format!("\n{title}{}", if is_wide { wide(leading, &rows) } else { narrow(leading, rows, width) })
    };
    vaults.into_iter().map(titled).collect()
}

/// With every count where that fits.
fn table(names: &[&str], usages: Vec<ReportUsage>, width: usize) -> String {
    let rows: Vec<Vec<Cell>> = usages.into_iter().map(shown).collect();
    let text = wide(names, &rows);
    if width_of(&text) <= width { text } else { narrow(names, rows, width) }
}

fn wide(names: &[&str], rows: &[Vec<Cell>]) -> String {
    let columns = [names, &["last_used", "action", "issued", "redeemed", "refused", "failed"]].concat();
    output::table(&columns, rows)
}

/// Without the time of day and with fewer columns. What the table is about, its first column, is cut last.
fn narrow(names: &[&str], rows: Vec<Vec<Cell>>, width: usize) -> String {
    let day = |(name, value): Cell| match (name, value.as_str()) {
        ("last_used", Some(text)) => (name, without_clock(text).into()),
        _ => (name, value),
    };
    let narrow: Vec<Vec<Cell>> = rows.into_iter().map(|row| row.into_iter().map(day).collect()).collect();
    let columns = [names, &["last_used", "action", "used", "refused"]].concat();
    let text = output::fitted(&columns, &narrow, names.get(1..).unwrap_or_default(), width);
    if width_of(&text) <= width { text } else { output::fitted(&columns, &narrow, names, width) }
}

/// `2026-11-25 23:50 No Access` without the time of day.
fn without_clock(text: &str) -> String {
    text.split(' ').filter(|word| !word.contains(':')).collect::<Vec<_>>().join(" ")
}

fn width_of(table: &str) -> usize {
    let plain = anstream::adapter::strip_str(table).to_string();
    plain.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

/// A row as a table shows it.
fn shown(usage: ReportUsage) -> Vec<Cell> {
    let ReportUsage {
        agent,
        tool,
        target,
        last_action,
        last_used,
        last_record_id: _,
        issued,
        released,
        refused,
        failed,
        has_access,
        last_refused: _,
    } = usage;
    let last = last_used.map_or_else(|| "never".to_owned(), |time| minute(&moment_to_second(time.seconds)));
    let last = if has_access { last } else { format!("{last} {NO_ACCESS}") };
    let item = target.map_or_else(String::new, |target| target.item_name);
    vec![
        ("agent", or_dash(agent)),
        ("item", or_dash(item)),
        ("tool", or_dash(tool)),
        ("last_used", last.into()),
        ("action", last_action.into()),
        ("issued", issued.into()),
        ("redeemed", released.into()),
        ("used", issued.saturating_add(released).into()),
        ("refused", refused.into()),
        ("failed", failed.into()),
    ]
}

/// A moment to the minute, as tables have it.
pub(super) fn minute(moment: &str) -> String {
    moment.replacen('T', " ", 1).chars().take("2026-11-25 23:50".len()).collect()
}

fn or_dash(text: String) -> Value {
    if text.is_empty() { "-".into() } else { text.into() }
}

/// One row for each agent.
fn overview(usages: Vec<ReportUsage>, width: usize) -> String {
    #[derive(Default)]
    struct Sum {
        items: std::collections::BTreeSet<(String, String)>,
        last: i64,
        counts: [u64; 4],
    }
    let mut agents: BTreeMap<String, Sum> = BTreeMap::new();
    for usage in usages {
        let sum = agents.entry(usage.agent).or_default();
        if let (Some(time), Some(target)) = (usage.last_used, usage.target) {
            sum.items.insert((target.vault_id, target.item_id));
            sum.last = sum.last.max(time.seconds);
        }
        for (sum, more) in
            sum.counts.iter_mut().zip([usage.issued, usage.released, usage.refused, usage.failed])
        {
            *sum = sum.saturating_add(more);
        }
    }
    let row = |(agent, Sum { items, last, counts: [issued, redeemed, refused, failed] }): (String, Sum)| {
        let last = match last {
            0 => "never".to_owned(),
            seconds => minute(&moment_to_second(seconds)),
        };
        vec![
            ("agent", or_dash(agent)),
            ("items", items.len().into()),
            ("last_used", last.into()),
            ("issued", issued.into()),
            ("redeemed", redeemed.into()),
            ("refused", refused.into()),
            ("failed", failed.into()),
        ]
    };
    let rows: Vec<Vec<Cell>> = agents.into_iter().map(row).collect();
    let columns = ["agent", "items", "last_used", "issued", "redeemed", "refused", "failed"];
    output::fitted(&columns, &rows, &["agent"], width)
}

/// All of a row.
pub(super) fn cells(usage: ReportUsage) -> Vec<Cell> {
    let ReportUsage {
        agent,
        tool,
        target,
        last_action,
        last_used,
        last_record_id,
        issued,
        released,
        refused,
        failed,
        has_access,
        last_refused,
    } = usage;
    let mut cells = vec![("agent", text(agent)), ("tool", text(tool))];
    cells.extend(place(target));
    cells.extend([
        ("last_used", last_used.map(|time| moment(time.seconds, time.nanos)).into()),
        ("has_access", has_access.into()),
        ("last_action", text(last_action)),
        ("last_record_id", text(last_record_id)),
        ("issued", issued.into()),
        ("redeemed", released.into()),
        ("refused", refused.into()),
        ("failed", failed.into()),
        ("last_refused", last_refused.map(|time| moment(time.seconds, time.nanos)).into()),
    ]);
    cells
}

/// A vault and an item in cells.
pub(super) fn place(target: Option<AuditTarget>) -> [Cell; 4] {
    let AuditTarget { vault_id, item_id, field_id: _, vault_name, item_name, error: _ } =
        target.unwrap_or_default();
    [
        ("vault", text(vault_name)),
        ("item", text(item_name)),
        ("vault_id", text(vault_id)),
        ("item_id", text(item_id)),
    ]
}

/// All of a report.
pub(super) fn object(report: GetUsageReportResponse) -> Value {
    let GetUsageReportResponse { period, seen_record_id, access, usages, totals, truncated } = report;
    let ReportPeriod { first_day, last_day } = period.unwrap_or_default();
    let ReportAccess { vaults, items, agents, complete, incomplete_reason, agent_names, limited } =
        access.unwrap_or_default();
    let totals = totals.unwrap_or_default();
    let ReportTotals {
        agents: using,
        tools,
        vaults: in_vaults,
        items: used,
        issued,
        released,
        refused,
        failed,
    } = totals;
    let usages: Vec<_> = usages.into_iter().map(|usage| output::object(&cells(usage))).collect();
    json!({
        "first_day": first_day,
        "last_day": last_day,
        "seen_record_id": seen_record_id,
        "access": {
            "vaults": vaults, "items": items, "agents": agents, "agent_names": agent_names,
            "complete": complete, "incomplete_reason": text(incomplete_reason),
            "limited": limited,
        },
        "totals": {
            "agents": using, "tools": tools, "vaults": in_vaults, "items": used,
            "issued": issued, "redeemed": released, "refused": refused, "failed": failed,
        },
        "truncated": truncated,
        "usages": usages,
    })
}

fn today() -> Date {
    let micros = SystemClock::default().now().as_micros();
    let now = OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000));
    now.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

fn day(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u8>().ok()?, parts.next()?);
    Date::from_calendar_date(year, time::Month::try_from(month).ok()?, day.parse().ok()?).ok()
}

const CASE_HINT: &str = ": names of agents and tools count in their case";
/// In 1Password's words.
const NO_ACCESS: &str = "No Access";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_back_are_counted_with_the_last() {
        let first = |since: &str, until: &str| {
            let asked = Period { since: since.into(), until: until.into() };
            period(&asked).map(|period| period.first_day).map_err(|_| ())
        };
        assert_eq!(first("30d", "2026-11-30"), Ok("2026-11-01".into()));
        assert_eq!(first("1d", "2026-11-30"), Ok("2026-11-30".into()));
        assert_eq!(first("2026-11-01", ""), Ok("2026-11-01".into()));
        assert_eq!(first("", ""), Ok(String::new()));
        assert_eq!(first("0d", ""), Err(()));
        assert_eq!(first("xd", ""), Err(()));
        assert_eq!(first("1d", "never"), Err(()));
    }

    #[test]
    fn a_reference_is_to_its_item() {
        for text in ["op://Tutorial/Travel Card/number", "op://Tutorial/Travel Card"] {
            assert_eq!(of_reference(text), "Tutorial/Travel Card");
        }
        assert_eq!(of_reference("Tutorial/Travel Card"), "Tutorial/Travel Card");
    }
}
