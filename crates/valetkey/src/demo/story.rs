//! The acts of the travel story.

use std::time::Duration;

use serde_json::Value;
use valetkey_client::{
    AcquireLease, Broker, CallError, EndCause, Issued, LeaseEvent, LeaseStream, SecretValue,
};

use super::stage::Stage;
use super::teller::{act, aside, expect, must_refuse, refused, tell, unexpected, worked, works};
use crate::failure::{Exit, Failure};
use crate::lease::word;
use crate::throwaway::VAULT;

/// `travel-bot` gets seven handles, and the two tools get seven values.
pub(super) async fn errand(stage: &Stage) -> Result<(), Failure> {
    act("1. The errand: book a flight, file the expense")?;
    tell("travel-bot asks for five secrets for navan.book_flight and two for ramp.submit_expense.")?;
    tell("It gets handles. They are safe in a prompt or a log: each works once, for its tool alone.")?;
    for (tool, redeemer, references) in [(NAVAN, &stage.navan, &FLIGHT[..]), (RAMP, &stage.ramp, &EXPENSE)] {
        let mut lease = acquire(&stage.travel_bot, tool, references).await?;
        let handles = issued(&mut lease, references.len()).await?;
        tell(&format!("For {tool} it gets:"))?;
        for issued in &handles {
            works(&format!("{:WIDTH$} {}_••••", issued.reference, issued.handle_id))?;
        }
        tell(&format!("{tool} redeems them:"))?;
        for issued in &handles {
            let value = worked("a value", redeemer.redeem(&issued.handle).await)?;
            expect_value(&issued.reference, &value)?;
            let length = value.expose_secret().len();
            works(&format!("{:WIDTH$} •••• ({length} bytes)", issued.reference))?;
        }
        worked("the end of the lease", lease.end().await)?;
    }
    Ok(())
}

/// What policy does not permit is refused before anything is fetched.
pub(super) async fn refusals(stage: &Stage) -> Result<(), Failure> {
    act("2. Other tools, other agents")?;
    tell("A web page talks travel-bot into asking for the card for web.search:")?;
    let error = deny(&stage.travel_bot, SEARCH, CARD).await?;
    let CallError::Denied { advice: Some(advice), record_id: Some(record_id), .. } = error else {
        return Err(unexpected("a refusal with advice and a record", &error.to_string()));
    };
    refused(&format!("{CARD} for {SEARCH} (record {record_id})"))?;
    aside(&format!("what the agent can do about it: {advice}"))?;

    tell("Another agent, notes-bot, asks for the card, and for a login:")?;
    for reference in [CARD, PASSWORD] {
        let error = deny(&stage.notes_bot, NAVAN, reference).await?;
        let CallError::Denied { advice: None, .. } = error else {
            return Err(unexpected("a refusal that says nothing of the policies", &error.to_string()));
        };
        refused(&format!("{reference} for {NAVAN}"))?;
    }
    tell("travel-bot asks for a vault that no policy gives it, and for one that does not exist:")?;
    let (real, made_up) = ("op://Production/Database/password", "op://Nowhere/Database/password");
    let (there, nowhere) =
        (deny(&stage.travel_bot, NAVAN, real).await?, deny(&stage.travel_bot, NAVAN, made_up).await?);
    let same = |error: &CallError| match error {
        CallError::Denied { reason, advice, .. } => Some((reason.clone(), advice.clone())),
        _ => None,
    };
    expect("the same refusal for both", same(&there), same(&nowhere))?;
    for reference in [real, made_up] {
        refused(reference)?;
    }
    aside("both refusals read the same: nobody learns what exists by asking")
}

/// A handle is worth nothing to others, and nothing twice.
pub(super) async fn stolen_and_used(stage: &Stage) -> Result<(), Failure> {
    act("3. A stolen handle, a used handle")?;
    let mut lease = acquire(&stage.travel_bot, NAVAN, &[PASSWORD]).await?;
    let handle = one(&mut lease).await?;
    tell("The handle leaks into a log, and web.search redeems it:")?;
    dead(stage, &stage.search, &handle, "HANDLE_REDEEMER").await?;
    tell("That spent nothing: navan.book_flight can still redeem it, once:")?;
    let value = worked("a value", stage.navan.redeem(&handle.handle).await)?;
    expect_value(PASSWORD, &value)?;
    works(&format!("{PASSWORD:WIDTH$} •••• ({} bytes)", value.expose_secret().len()))?;
    tell("A second time:")?;
    dead(stage, &stage.navan, &handle, "HANDLE_SPENT").await?;
    worked("the end of the lease", lease.end().await)
}

/// A lease lives as long as its stream.
pub(super) async fn closed_stream(stage: &Stage) -> Result<(), Failure> {
    act("4. The agent goes away")?;
    let mut lease = acquire(&stage.travel_bot, NAVAN, &[PASSWORD]).await?;
    let handle = one(&mut lease).await?;
    let id = lease.id().to_owned();
    tell(&format!("travel-bot holds lease {id}, and its process dies: the stream closes."))?;
    drop(lease);
    let record = stage.record(&format!("lease:{id} kind:lease_end")).await?;
    expect("a lease that ended by", "END_DISCONNECT", record.reason.as_str())?;
    tell("Its handle was never used; navan.book_flight redeems it now:")?;
    dead(stage, &stage.navan, &handle, "HANDLE_REVOKED").await
}

/// Who changes the policies changes the leases that are out.
pub(super) async fn changed_policy(stage: &Stage) -> Result<(), Failure> {
    act("5. The policies change under a live lease")?;
    let mut card = acquire(&stage.travel_bot, NAVAN, &[CARD]).await?;
    let mut login = acquire(&stage.travel_bot, NAVAN, &[USERNAME]).await?;
    let (card_handle, login_handle) = (one(&mut card).await?, one(&mut login).await?);
    tell("travel-bot holds a lease on the card and one on a login. The card is stolen; a policy goes in:")?;
    aside(LOCK_SHOWN)?;
    std::fs::write(stage.policies().join("lock.cedar"), LOCK)?;
    // The broker may have seen the file by itself already.
    stage.reloader.reload().await.map_err(|error| Failure::chain(Exit::Failed, &error))?;
    tell("The streams say what follows:")?;
    revoked(&mut card, &card_handle).await?;
    dead(stage, &stage.navan, &card_handle, "HANDLE_REVOKED").await?;
    deny(&stage.travel_bot, NAVAN, CARD).await?;
    refused(&format!("{CARD} for {NAVAN}, asked for again"))?;
    worked("a value", stage.navan.redeem(&login_handle.handle).await)?;
    works(&format!("{USERNAME}: still allowed, its lease lives on and its handle redeems"))?;
    worked("the end of the lease", login.end().await)
}

/// The lease's only handle is revoked by policy, and the lease ends with it.
async fn revoked(lease: &mut LeaseStream, issued: &Issued) -> Result<(), Failure> {
    let revoked = event(lease).await?;
    let LeaseEvent::Revoked { reference: _, handle_id, cause } = revoked else {
        return Err(unexpected("a revoked handle", &format!("{revoked:?}")));
    };
    expect("the handle revoked", issued.handle_id.as_str(), handle_id.as_str())?;
    expect("a handle revoked by", EndCause::Policy, cause)?;
    works(&format!("{handle_id} for {} is revoked by {}", issued.reference, word(cause)))?;
    let ended = event(lease).await?;
    let LeaseEvent::Ended(cause) = ended else {
        return Err(unexpected("the end of the lease", &format!("{ended:?}")));
    };
    expect("a lease ended by", EndCause::Policy, cause)?;
    works(&format!("lease {} has ended by {}", lease.id(), word(cause)))
}

async fn acquire(agent: &Broker, tool: &str, references: &[&str]) -> Result<LeaseStream, Failure> {
    let request = AcquireLease::new(tool, references.iter().copied(), PURPOSE);
    worked("a lease", agent.acquire(request).await)
}

async fn deny(agent: &Broker, tool: &str, reference: &str) -> Result<CallError, Failure> {
    let answer = agent.acquire(AcquireLease::new(tool, [reference], PURPOSE)).await;
    must_refuse(&format!("{reference} for {tool}"), "ACCESS_DENIED", answer)
}

/// The next event, in time.
async fn event(lease: &mut LeaseStream) -> Result<LeaseEvent, Failure> {
    let event = tokio::time::timeout(EVENT_MAX, lease.next()).await;
    let event = worked("an event", event.map_err(|_| unexpected("an event", "none in time"))?)?;
    event.ok_or_else(|| unexpected("an event", "the end of the lease"))
}

async fn issued(lease: &mut LeaseStream, count: usize) -> Result<Vec<Issued>, Failure> {
    let mut handles = Vec::with_capacity(count);
    while handles.len() < count {
        match event(lease).await? {
            LeaseEvent::Issued(issued) => handles.push(issued),
            other => return Err(unexpected("a handle", &format!("{other:?}"))),
        }
    }
    Ok(handles)
}

async fn one(lease: &mut LeaseStream) -> Result<Issued, Failure> {
    let handle = issued(lease, 1).await?.pop();
    handle.ok_or_else(|| unexpected("a handle", "none"))
}

/// The handle gives nothing, the caller is told no more than that, and the log has the true reason.
async fn dead(stage: &Stage, caller: &Broker, issued: &Issued, reason: &str) -> Result<(), Failure> {
    let answer = caller.redeem(&issued.handle).await;
    let error = must_refuse("a dead handle", "HANDLE_NOT_ACTIVE", answer)?;
    let CallError::HandleNotActive { record_id: Some(record_id) } = error else {
        return Err(unexpected("a refusal with a record", &error.to_string()));
    };
    let record = worked("the record", stage.ana.audit_record(&record_id).await)?;
    expect("the handle's id in the record", issued.handle_id.as_str(), record.handle_id.as_str())?;
    expect("the reason in the record", reason, record.reason.as_str())?;
    refused(&format!("{}_•••• (record {record_id}, for reviewers only: {reason})", issued.handle_id))
}

/// The value is the vault's, without showing either.
fn expect_value(reference: &str, value: &SecretValue) -> Result<(), Failure> {
    let vault: Value = serde_json::from_str(VAULT).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut parts = reference.rsplit('/');
    let (field, item) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let known = named(&vault, "items", "title", item).and_then(|item| named(item, "fields", "label", field));
    let known = known.and_then(|field| field.get("value")?.as_str());
    if known.map(str::as_bytes) == Some(value.expose_secret()) {
        return Ok(());
    }
    Err(unexpected(&format!("the value of {reference}"), "another one"))
}

/// The one in a list of `whole` whose `key` is `name`.
fn named<'a>(whole: &'a Value, list: &str, key: &str, name: &str) -> Option<&'a Value> {
    let is = |one: &&Value| one.get(key).and_then(Value::as_str) == Some(name);
    whole.get(list)?.as_array()?.iter().find(is)
}

const NAVAN: &str = "navan.book_flight";
const RAMP: &str = "ramp.submit_expense";
const SEARCH: &str = "web.search";
const PURPOSE: &str = "book LIS-BER for Wendy and file the expense";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const CARD: &str = "op://Tutorial/Travel Card/number";
const FLIGHT: [&str; 5] = [
    USERNAME,
    PASSWORD,
    CARD,
    "op://Tutorial/Travel Card/expiry date",
    "op://Tutorial/Travel Card/verification number",
];
const EXPENSE: [&str; 2] = ["op://Tutorial/Ramp/username", "op://Tutorial/Ramp/password"];
const LOCK: &str = r#"
// The card was reported stolen.
@id("travel-card-lock")
@reason("reported stolen")
forbid (principal, action in Action::"access", resource in Item::"tutorial/travel card");
"#;
const LOCK_SHOWN: &str =
    r#"forbid (principal, action in Action::"access", resource in Item::"tutorial/travel card");"#;
/// Of a reference.
const WIDTH: usize = 46;
const EVENT_MAX: Duration = Duration::from_secs(5);
