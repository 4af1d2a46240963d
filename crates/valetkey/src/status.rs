//! `valetkey status`: what the broker is doing, and what is left of its sources.

use serde_json::{Value, json};
use valetkey_client::{GetStatusResponse, SourceQuota, SourceState, SourceStatus};

use crate::audit::moment_to_second;
use crate::cli::{OneFormat, StatusArgs};
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::output::{self, BAD, Cell, GOOD};

/// Runs it.
pub(crate) async fn run(args: StatusArgs) -> Result<Exit, Failure> {
    let StatusArgs { format, connection } = args;
    let status = connect(&connection).await?.status().await?;
    match format {
        OneFormat::Table => output::text(&text(&status))?,
        OneFormat::Json => output::line(&format!("{:#}", object(status)))?,
    }
    Ok(Exit::Done)
}

fn text(status: &GetStatusResponse) -> String {
    let GetStatusResponse {
        version,
        start_time,
        policy_revision,
        leases,
        handles,
        audit_available,
        sources,
        audit_index_lag,
    } = status;
    let log = match audit_available {
        true => {
            let lag = usize::try_from(*audit_index_lag).unwrap_or(usize::MAX);
            let behind = output::count(lag, "record", "records");
            format!("{GOOD}written{GOOD:#}; {behind} not in its index yet")
        }
        false => format!("{BAD}cannot be written: nothing is served{BAD:#}"),
    };
    let since = start_time.map(|time| moment_to_second(time.seconds)).unwrap_or_default();
    let rows: Vec<_> = sources.iter().map(shown).collect();
    let sources = match rows.is_empty() {
        true => "sources   vault files alone: nothing is asked, nothing is limited\n".to_owned(),
        false => format!("\n{}", output::table(&SHOWN, &rows)),
    };
    format!(
        "valetkey {version} since {since}\npolicies  revision {policy_revision}\nleases    {leases}, with {}\n\
         log       {log}\n{sources}",
        output::count(usize::try_from(*handles).unwrap_or(usize::MAX), "live handle", "live handles"),
    )
}

/// A row of the table of sources.
fn shown(source: &SourceStatus) -> Vec<Cell> {
    let spent = |quota: &Option<SourceQuota>| match quota {
        None => Value::from("no limit"),
        Some(SourceQuota { used, left }) => format!("{used} of {}", used.saturating_add(*left)).into(),
    };
    let state = match source.retry_time {
        None => state(source),
        Some(time) => format!("{} until {}", state(source), moment_to_second(time.seconds)),
    };
    vec![
        ("source", source.name.as_str().into()),
        ("kind", source.kind.as_str().into()),
        ("state", state.into()),
        ("last_hour", spent(&source.hour)),
        ("last_day", spent(&source.day)),
        ("reads", source.reads.into()),
        ("shared", source.shared_reads.into()),
        ("cached", source.cached_reads.into()),
        ("last_answer", last_answer(source).into()),
        ("last_error", source.last_error.as_str().into()),
    ]
}

fn last_answer(source: &SourceStatus) -> String {
    source.last_success_time.map_or_else(|| "never".to_owned(), |time| moment_to_second(time.seconds))
}

fn state(source: &SourceStatus) -> String {
    let name = source.state().as_str_name().trim_start_matches("SOURCE_STATE_");
    match source.state() {
        SourceState::Ready => name.to_lowercase(),
        _ => name.to_lowercase().replace('_', " "),
    }
}

fn object(status: GetStatusResponse) -> Value {
    let GetStatusResponse {
        version,
        start_time,
        policy_revision,
        leases,
        handles,
        audit_available,
        sources,
        audit_index_lag,
    } = status;
    let sources: Vec<_> = sources.into_iter().map(source_object).collect();
    json!({
        "version": version, "start_time": start_time.map(|time| moment_to_second(time.seconds)), "policy_revision": policy_revision,
        "leases": leases, "handles": handles, "audit_available": audit_available,
        "audit_index_lag": audit_index_lag, "sources": sources,
    })
}

fn source_object(source: SourceStatus) -> Value {
    let state = state(&source);
    let SourceStatus {
        name,
        kind,
        state: _,
        last_error,
        retry_time,
        last_success_time,
        hour,
        day,
        reads,
        shared_reads,
        cached_reads,
    } = source;
    let quota = |quota: Option<SourceQuota>| {
        quota.map(|SourceQuota { used, left }| json!({"used": used, "left": left}))
    };
    json!({
        "name": name, "kind": kind, "state": state, "last_error": last_error,
        "retry_time": retry_time.map(|time| moment_to_second(time.seconds)), "last_success_time": last_success_time.map(|time| moment_to_second(time.seconds)),
        "hour": quota(hour), "day": quota(day),
        "reads": reads, "shared_reads": shared_reads, "cached_reads": cached_reads,
    })
}

const SHOWN: [&str; 10] = [
    "source",
    "kind",
    "state",
    "last_hour",
    "last_day",
    "reads",
    "shared",
    "cached",
    "last_answer",
    "last_error",
];
