//! The review at the end: what `travel-bot` did, what it may do now, and what the log says.

use std::collections::BTreeMap;
use std::time::Duration;

use valetkey_client::{AuditRecord, CheckAccess, Decision};

use super::stage::Stage;
use super::teller::{act, expect, tell, unexpected, worked};
use crate::audit::{clock, fetch, shown};
use crate::failure::Failure;
use crate::output::{self, Cell};

/// A field and a tool, as the agent asked.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    reference: String,
    tool: String,
}

/// What the agent did with it.
#[derive(Default)]
struct Use {
    issued: u32,
    redeemed: u32,
    refused: u32,
    last: String,
}

/// Ana reviews the agent.
pub(super) async fn review(stage: &Stage) -> Result<(), Failure> {
    act("6. Ana, a reviewer, looks at what travel-bot did")?;
    let uses = uses(&settled(stage).await?);
    let mut rows = Vec::new();
    let mut allowed = 0;
    for (asked, used) in &uses {
        let access = may(stage, asked).await?;
        allowed += u32::from(access);
        rows.push(row(asked, used, access));
    }
    let columns = ["secret", "tool", "issued", "redeemed", "refused", "last", "now"];
    output::text(&output::table(&columns, &rows))?;
    let sum = |count: fn(&Use) -> u32| uses.values().map(count).sum::<u32>();
    // Seven of the errand, then one stolen, one closed, two changed; all but the closed and the card's
    // were redeemed. Refused: four requests, and the handle that was stolen, used, closed and revoked.
    expect("handles issued", 11, sum(|used| used.issued))?;
    expect("values released", 9, sum(|used| used.redeemed))?;
    expect("refusals", 8, sum(|used| used.refused))?;
    expect("secrets that it may still use", 4, allowed)?;

    act(
        "7. The log of all that, without the review's own reads and dry runs (the holes in the ids), newest first",
    )?;
    let records = fetch(&stage.ana, "-kind:read_audit -kind:check", 200).await?;
    tell(&format!("{} records; each was on disk before what it permits happened.", records.len()))?;
    let rows: Vec<_> = records.into_iter().map(shown).collect();
    let columns = ["record_id", "kind", "decision", "reason", "caller", "result", "reference"];
    Ok(output::text(&output::table(&columns, &rows))?)
}

/// The agent's records, as soon as every one has its outcome: those are written after.
async fn settled(stage: &Stage) -> Result<Vec<AuditRecord>, Failure> {
    for _ in 0..LOOKS_MAX {
        let mut records = fetch(&stage.ana, "agent:travel-bot", 1000).await?;
        records.retain(|record| matches!(record.kind.as_str(), "acquire" | "redeem"));
        let open = |record: &AuditRecord| record.decision() == Decision::Allow && record.outcome.is_none();
        if !records.iter().any(open) {
            return Ok(records);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(unexpected("an outcome for every record", "some without"))
}

/// Newest first: the first record of a kind is the last that happened.
fn uses(records: &[AuditRecord]) -> BTreeMap<Asked, Use> {
    let mut uses: BTreeMap<Asked, Use> = BTreeMap::new();
    for record in records {
        let asked = Asked { reference: record.reference.clone(), tool: record.tool.clone() };
        let used = uses.entry(asked).or_default();
        let result = record.outcome.as_ref().map(|outcome| outcome.result.as_str()).unwrap_or_default();
        match (record.decision(), result) {
            (Decision::Deny, _) => used.refused += 1,
            (Decision::Allow, "issued") => used.issued += 1,
            (Decision::Allow, "released") => used.redeemed += 1,
            _ => {}
        }
        if let Some(time) = record.create_time.filter(|_| used.last.is_empty()) {
            used.last = clock(time.seconds);
        }
    }
    uses
}

/// Whether the agent may still have it.
async fn may(stage: &Stage, asked: &Asked) -> Result<bool, Failure> {
    let Asked { reference, tool } = asked;
    let (reference, tool) = (reference.clone(), tool.clone());
    let request = CheckAccess { tool, reference, ttl: None, session: None, destination: None };
    Ok(worked("an answer", stage.travel_bot.check(request).await)?.allowed)
}

fn row(asked: &Asked, used: &Use, access: bool) -> Vec<Cell> {
    let Asked { reference, tool } = asked;
    let Use { issued, redeemed, refused, last } = used;
    vec![
        ("secret", reference.clone().into()),
        ("tool", tool.clone().into()),
        ("issued", (*issued).into()),
        ("redeemed", (*redeemed).into()),
        ("refused", (*refused).into()),
        ("last", last.clone().into()),
        ("now", if access { "allowed" } else { "no access" }.into()),
    ]
}

const LOOKS_MAX: u32 = 200;
const LOOK: Duration = Duration::from_millis(25);
