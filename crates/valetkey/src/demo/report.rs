//! The review at the end: the usage report of `travel-bot`, and the log of it all.

use std::path::Path;
use std::time::Duration;

use valetkey_audit::{Against, LogFile, Signing, VerifierKey};
use valetkey_client::{AuditRecord, Decision, GetUsageReportResponse, ReportPeriod, ReportSubject};

use super::stage::Stage;
use super::teller::{act, aside, expect, tell, unexpected, worked, works};
use crate::audit::report::show;
use crate::audit::{fetch, shown};
use crate::cli::ReportKind;
use crate::failure::{Exit, Failure};
use crate::output;

/// Ana reviews the agent.
pub(super) async fn review(stage: &Stage) -> Result<(), Failure> {
    act("6. Ana, a reviewer, asks for the usage report of travel-bot")?;
    settled(stage).await?;
    let report =
        stage.ana.usage_report(ReportSubject::Agent(AGENT.to_owned()), ReportPeriod::default()).await;
    let report = worked("a report", report)?;
    check(&report)?;
    output::text(&show(ReportKind::Agent, AGENT, report, output::width()))?;
    tell(
        "\"No Access\" stands where policy would refuse it now: the card is locked, and no search may have anything.",
    )
}

/// Ana reads the log.
pub(super) async fn log(stage: &Stage) -> Result<(), Failure> {
    act(
        "7. The log of all that, without the review's own reads and dry runs (the holes in the ids), newest first",
    )?;
    let records = fetch(&stage.ana, "-kind:read_audit -kind:check", 200).await?;
    tell(&format!("{} records; each was on disk before what it permits happened.", records.len()))?;
    let rows: Vec<_> = records.into_iter().map(shown).collect();
    let columns = ["record_id", "kind", "decision", "reason", "caller", "result", "reference"];
    Ok(output::text(&output::table(&columns, &rows))?)
}

/// Anybody verifies the log that the broker has left behind.
pub(super) fn verify(database: &Path) -> Result<(), Failure> {
    act("8. The broker has stopped. Anybody verifies its log, with the file and its public key alone")?;
    let key = std::fs::read_to_string(Signing::default().public_key_place(database))?;
    let key = VerifierKey::parse(&key).map_err(|error| unexpected("a public key", &error.to_string()))?;
    let against = Against { key, checkpoints: None };
    let verdict = valetkey_audit::verify(LogFile::Database(database), &against, &mut |_, _| {});
    let verdict = verdict.map_err(|error| Failure::chain(Exit::Failed, &error))?;
    expect("a whole log", true, verdict.is_whole())?;
    expect("records that nothing proves", 0, verdict.unsigned())?;
    let (first, last) = (verdict.first, verdict.last);
    works(&format!("records {first} to {last} are what was written, in this order, and none is missing"))?;
    aside("`valetkey audit verify` names any that was changed, removed, moved or inserted")
}

/// The report says what the story did.
fn check(report: &GetUsageReportResponse) -> Result<(), Failure> {
    let (Some(totals), Some(access)) = (&report.totals, &report.access) else {
        return Err(unexpected("a report with its totals", "one without"));
    };
    // Seven of the errand, then one stolen, one closed, two changed; all but the closed and the card's
    // were redeemed. Refused: four requests, and the handle that was stolen, used, closed and revoked.
    expect("handles issued", 11, totals.issued)?;
    expect("values released", 9, totals.released)?;
    expect("refusals", 8, totals.refused)?;
    // The card was used, too, and is locked by now.
    expect("items used", 3, totals.items)?;
    expect("items that it may still use", 2, access.items)?;
    let locked = |row: &&valetkey_client::ReportUsage| row.last_used.is_some() && !row.has_access;
    expect("items used that it may not use any more", 1, report.usages.iter().filter(locked).count())
}

/// Waits until every record of the agent has its outcome: those are written after.
async fn settled(stage: &Stage) -> Result<(), Failure> {
    for _ in 0..LOOKS_MAX {
        let records = fetch(&stage.ana, "agent:travel-bot", 1000).await?;
        let open = |record: &AuditRecord| {
            let has_outcome = matches!(record.kind.as_str(), "acquire" | "redeem");
            has_outcome && record.decision() == Decision::Allow && record.outcome.is_none()
        };
        if !records.iter().any(open) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(unexpected("an outcome for every record", "some without"))
}

const AGENT: &str = "travel-bot";
const LOOKS_MAX: u32 = 200;
const LOOK: Duration = Duration::from_millis(25);
