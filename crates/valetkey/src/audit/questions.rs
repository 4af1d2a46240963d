//! `valetkey audit refusals`, `first-uses`, `unused`: questions about the whole log, each one command.

use valetkey_client::{
    Broker, FirstUse, ListFirstUsesResponse, ListRefusalsResponse, ListUnusedAccessResponse, Refusals,
    ReportAccess, ReportPeriod, UnusedAccess,
};

use super::report::{minute, note_unknown_agent, place};
use super::{moment, text};
use crate::cli::Format;
use crate::failure::Failure;
use crate::output::{self, Cell};

/// What was refused.
pub(super) async fn refusals(
    broker: &Broker,
    agent: Option<&str>,
    period: ReportPeriod,
    format: Format,
) -> Result<(), Failure> {
    let ListRefusalsResponse { refusals, period, seen_record_id, truncated } =
        broker.refusals(agent.unwrap_or_default(), period).await?;
    let rows: Vec<_> = refusals.into_iter().map(refused).collect();
    let columns = ["count", "last", "agent", "tool", "kind", "reason", "vault", "item"];
    print(format, &columns, &["agent", "tool", "vault", "item"], &rows)?;
    tell(
        format,
        period.clone(),
        &seen_record_id,
        rows.is_empty().then_some("nothing was refused"),
        truncated,
    );
    if let Some(agent) = agent.filter(|_| rows.is_empty()) {
        note_unknown_agent(broker, agent, period.unwrap_or_default()).await?;
    }
    Ok(())
}

/// What was used for the first time.
pub(super) async fn first_uses(broker: &Broker, period: ReportPeriod, format: Format) -> Result<(), Failure> {
    let ListFirstUsesResponse { uses, period, seen_record_id, truncated } = broker.first_uses(period).await?;
    let rows: Vec<_> = uses.into_iter().map(first).collect();
    let columns = ["record_id", "time", "agent", "tool", "vault", "item"];
    print(format, &columns, &["agent", "tool", "vault", "item"], &rows)?;
    tell(
        format,
        period,
        &seen_record_id,
        rows.is_empty().then_some("nothing was used for the first time"),
        truncated,
    );
    Ok(())
}

/// What could be used and is not.
pub(super) async fn unused(
    broker: &Broker,
    days: u16,
    agent: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let ListUnusedAccessResponse { accesses, policy_ids, period, seen_record_id, truncated, access } =
        broker.unused_access(days, agent.unwrap_or_default()).await?;
    let mut rows: Vec<_> = accesses.into_iter().map(not_used).collect();
    let is_empty = rows.is_empty() && policy_ids.is_empty();
    match format {
        Format::Table => {
            if !rows.is_empty() {
                print(format, &["agent", "vault", "item", "last_used"], &["agent", "vault", "item"], &rows)?;
            }
            let policies: Vec<_> =
                policy_ids.into_iter().map(|id| vec![("unused_policy", text(id))]).collect();
            if !policies.is_empty() {
                let gap = if rows.is_empty() { "" } else { "\n" };
                output::text(&format!("{gap}{}", output::table(&["unused_policy"], &policies)))?;
            }
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            rows.extend(
                policy_ids.into_iter().map(|id| unused_cells([None, None, None, None, None], id, None)),
            );
            output::rows(format, &[], &rows)?;
        }
    }
    let ReportAccess { complete, incomplete_reason, limited, items, .. } = access.unwrap_or_default();
    let nothing = if limited {
        "nothing of what you may read is unused"
    } else {
        "nothing that can be accessed is unused"
    };
    tell(format, period.clone(), &seen_record_id, is_empty.then_some(nothing), truncated);
    if let Some(agent) = agent.filter(|_| items == 0) {
        note_unknown_agent(broker, agent, period.unwrap_or_default()).await?;
    }
    if !complete {
        output::note(&format!(
            "not all is known of what can be accessed: {}",
            output::inline(&incomplete_reason)
        ));
    }
    Ok(())
}

/// A row of refusals.
pub(super) fn refused(refusals: Refusals) -> Vec<Cell> {
    let Refusals { agent, tool, target, kind, reason, count, last_time, last_record_id } = refusals;
    let mut cells = vec![
        ("count", count.into()),
        ("last", last_time.map(|time| moment(time.seconds, time.nanos)).into()),
        ("last_record_id", text(last_record_id)),
        ("agent", text(agent)),
        ("tool", text(tool)),
        ("kind", text(kind)),
        ("reason", text(reason)),
    ];
    cells.extend(place(target));
    cells
}

fn first(first: FirstUse) -> Vec<Cell> {
    let FirstUse { agent, tool, target, time, record_id } = first;
    let mut cells = vec![
        ("record_id", text(record_id)),
        ("time", time.map(|time| moment(time.seconds, time.nanos)).into()),
        ("agent", text(agent)),
        ("tool", text(tool)),
    ];
    cells.extend(place(target));
    cells
}

fn not_used(unused: UnusedAccess) -> Vec<Cell> {
    let UnusedAccess { agent, target, last_used } = unused;
    let [(_, vault), (_, item), (_, vault_id), (_, item_id)] = place(target);
    let never = last_used.map(|time| moment(time.seconds, time.nanos));
    unused_cells(
        [Some(text(agent)), Some(vault), Some(item), Some(vault_id), Some(item_id)],
        String::new(),
        never,
    )
}

/// An item or a policy: one row each, with the same columns.
fn unused_cells(
    [agent, vault, item, vault_id, item_id]: [Option<serde_json::Value>; 5],
    policy: String,
    last_used: Option<String>,
) -> Vec<Cell> {
    vec![
        ("agent", agent.into()),
        ("vault", vault.into()),
        ("item", item.into()),
        ("vault_id", vault_id.into()),
        ("item_id", item_id.into()),
        ("last_used", last_used.into()),
        ("policy_id", text(policy)),
    ]
}

fn print(format: Format, columns: &[&str], cuttable: &[&str], rows: &[Vec<Cell>]) -> std::io::Result<()> {
    match format {
        Format::Table => {
            let rows: Vec<Vec<Cell>> = rows.iter().map(|row| row.iter().map(to_minute).collect()).collect();
            output::text(&output::fitted(columns, &rows, cuttable, output::width()))
        }
        Format::Json | Format::Jsonl | Format::Csv => output::rows(format, columns, rows),
    }
}

/// Times to the minute.
fn to_minute((name, value): &Cell) -> Cell {
    match (*name, value.as_str()) {
        ("last" | "time" | "last_used", Some(moment)) => (name, minute(moment).into()),
        (name, _) => (name, value.clone()),
    }
}

/// Says what an answer covers, to a person.
fn tell(format: Format, period: Option<ReportPeriod>, seen: &str, nothing: Option<&str>, truncated: bool) {
    if format != Format::Table {
        return;
    }
    let ReportPeriod { first_day, last_day } = period.unwrap_or_default();
    let nothing = nothing.map(|nothing| format!("{nothing}: ")).unwrap_or_default();
    output::note(&format!("{nothing}{first_day} to {last_day} (UTC), up to record {seen}"));
    if truncated {
        output::note("there are more: ask for fewer days, or one agent");
    }
}
