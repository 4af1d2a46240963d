//! The travel story end to end: what `valetkey demo` shows, with every refusal and the log that it leaves.

use anyhow::{Context, Result};
use tonic::Code;
use valetkey_core::{Reason, RecordKind};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::{AuditRecord, Decision, EndCause, EndLeaseRequest, Redeemer};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{TestBroker, acquire};

const BOOKING: [(&str, &str); 5] = [
    ("op://Tutorial/Navan/username", "demo-navan-user@travel.example"),
    ("op://Tutorial/Navan/password", "demo-navan-password-7f3a91"),
    ("op://Tutorial/Travel Card/number", "4111111111111111"),
    ("op://Tutorial/Travel Card/expiry date", "demo-expiry-203112"),
    ("op://Tutorial/Travel Card/verification number", "demo-cvv-4471"),
];
const EXPENSE: [(&str, &str); 2] = [
    ("op://Tutorial/Ramp/username", "demo-ramp-user@travel.example"),
    ("op://Tutorial/Ramp/password", "demo-ramp-password-c20d58"),
];
const CARD: &str = "op://Tutorial/Travel Card/number";
const DENIED: Refused = Refused {
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    kind: RecordKind::Acquire,
    why: Reason::PolicyForbid,
};
const DEAD: Refused = Refused {
    code: Code::FailedPrecondition,
    reason: "HANDLE_NOT_ACTIVE",
    kind: RecordKind::Redeem,
    why: Reason::HandleRedeemer,
};

#[tokio::test]
async fn the_travel_story() -> Result<()> {
    play(&TestBroker::start().await?).await
}

/// Plays it on a fresh broker, wherever its values come from.
pub(crate) async fn play(broker: &TestBroker) -> Result<()> {
    let mut bot = broker.client("travel-bot").await?;
    let mut booking = tool_works(broker, "navan.book_flight", &BOOKING).await?;
    let expense = tool_works(broker, "ramp.submit_expense", &EXPENSE).await?;

    // A handle in the wrong hands, and a handle a second time.
    let counts = broker.broker.leases().counts();
    let mark = broker.mark();
    let stolen = broker.client("web.search").await?.redeem(booking.handle(0)?).await;
    broker.check_refused("a stolen handle", mark, counts, stolen, DEAD).await?;
    let mark = broker.mark();
    let replayed = broker.client("navan.book_flight").await?.redeem(booking.handle(0)?).await;
    let spent = Refused { why: Reason::HandleSpent, ..DEAD };
    let (_, record) = broker.check_refused("a replay", mark, counts, replayed, spent).await?;
    assert_eq!(record.handle.as_deref(), booking.issued.first().map(|it| it.handle_id.as_str()));

    // The card for another tool: refused with advice. For another agent: refused without.
    let mark = broker.mark();
    let search = bot.leases.acquire_lease(acquire("web.search", &[CARD])).await;
    let (status, _) = broker.check_refused("the card for web.search", mark, counts, search, DENIED).await?;
    assert!(status.message().contains("ask for it with tool navan.book_flight"), "{status:?}");
    for tool in ["navan.book_flight", "web.search"] {
        let mut other = broker.client("mail-bot").await?;
        for (reference, _) in BOOKING.iter().chain(&EXPENSE) {
            let mark = broker.mark();
            let answer = other.leases.acquire_lease(acquire(tool, &[reference])).await;
            let forbidden = reference.contains("Card") && tool == "web.search";
            let why = if forbidden { Reason::PolicyForbid } else { Reason::PolicyNoPermit };
            let expected = Refused { why, ..DENIED };
            let (status, _) = broker.check_refused(reference, mark, counts, answer, expected).await?;
            assert_eq!(status.message(), "policy does not allow this", "{reference}");
        }
    }

    // The agent hands its lease back.
    bot.leases.end_lease(EndLeaseRequest { lease_id: booking.id.clone() }).await?;
    let last = booking.next().await?;
    assert!(matches!(&last, Some(Event::Ended(it)) if it.cause() == EndCause::Caller), "{last:?}");
    assert!(booking.next().await?.is_none());
    the_log_matches(broker).await?;
    dead_with_its_stream(broker, expense).await
}

/// The lease ends with its stream, and handles that nobody redeemed with it.
async fn dead_with_its_stream(broker: &TestBroker, expense: Lease) -> Result<()> {
    let mut bot = broker.client("travel-bot").await?;
    let lease = Lease::open(&mut bot, acquire("ramp.submit_expense", &[EXPENSE[1].0])).await?;
    let (handle, mark) = (lease.handle(0)?.to_owned(), broker.mark());
    drop((lease, expense));
    broker
        .await_records(mark, |records| {
            let ends = records.iter().filter(|it| it.kind == RecordKind::LeaseEnd);
            (ends.filter(|it| it.reason == Reason::EndDisconnect).count() == 2).then_some(())
        })
        .await?;
    assert_eq!(broker.broker.leases().counts(), (0, 0));
    let mark = broker.mark();
    let answer = broker.client("ramp.submit_expense").await?.redeem(&handle).await;
    let revoked = Refused { why: Reason::HandleRevoked, ..DEAD };
    broker.check_refused("a handle after its stream", mark, (0, 0), answer, revoked).await?;
    Ok(())
}

/// A lease on all references of one tool, each redeemed once and right.
async fn tool_works(broker: &TestBroker, name: &str, secrets: &[(&str, &str)]) -> Result<Lease> {
    let mut bot = broker.client("travel-bot").await?;
    let references: Vec<_> = secrets.iter().map(|(reference, _)| *reference).collect();
    let lease = Lease::open(&mut bot, acquire(name, &references)).await?;
    assert_eq!((lease.issued.len(), lease.refused.len()), (secrets.len(), 0));
    let mut tool = broker.client(name).await?;
    for ((reference, value), issued) in secrets.iter().zip(&lease.issued) {
        assert_eq!((&*issued.reference, issued.uses, issued.redeemer()), (*reference, 1, Redeemer::Tool));
        assert!(issued.handle.starts_with(&format!("{}_", issued.handle_id)) && issued.handle.len() == 61);
        let redeemed = tool.redeem(&issued.handle).await?;
        assert_eq!(redeemed.secret_value, value.as_bytes(), "{reference}");
    }
    Ok(lease)
}

/// The log through the API, as the reviewer reads it.
async fn the_log_matches(broker: &TestBroker) -> Result<()> {
    let issued = broker.records("kind:acquire decision:allow").await?;
    let released = broker.records("kind:redeem decision:allow").await?;
    for (reference, _) in BOOKING.iter().chain(&EXPENSE) {
        let of = |records: &[AuditRecord]| -> Result<AuditRecord> {
            let mut hits = records.iter().filter(|record| record.reference == *reference);
            let hit = hits.next().with_context(|| format!("{reference} is not in the log"))?;
            assert!(hits.next().is_none(), "{reference} is in the log twice");
            Ok(hit.clone())
        };
        let (acquired, redeemed) = (of(&issued)?, of(&released)?);
        let tool = if reference.contains("Ramp") { "ramp.submit_expense" } else { "navan.book_flight" };
        let policy = match reference {
            _ if reference.contains("Ramp") => "ramp-login",
            _ if reference.contains("Navan") => "navan-login",
            _ => "travel-card",
        };
        assert_eq!(acquired.caller, "agent:travel-bot");
        assert_eq!(redeemed.caller, format!("tool:{tool}"));
        assert_eq!(acquired.policy_ids, [policy]);
        assert_eq!(redeemed.policy_ids, [format!("{policy}-redeem")]);
        assert_eq!((acquired.handle_id, acquired.lease_id), (redeemed.handle_id, redeemed.lease_id));
        assert_eq!(acquired.purpose, "book the flight to Lisbon");
        assert_eq!((acquired.agent, redeemed.agent), ("travel-bot".to_owned(), "travel-bot".to_owned()));
        assert_eq!((acquired.tool, redeemed.tool), (tool.to_owned(), tool.to_owned()));
        assert_eq!(acquired.target.map(|target| target.vault_name), Some("tutorial".to_owned()));
        assert_eq!(acquired.outcome.map(|outcome| outcome.result), Some("issued".to_owned()));
        assert_eq!(redeemed.outcome.map(|outcome| outcome.result), Some("released".to_owned()));
    }
    assert_eq!((issued.len(), released.len()), (7, 7));

    let denied = broker.records("decision:deny").await?;
    assert!(denied.iter().all(|it| it.decision() == Decision::Deny && it.outcome.is_none()));
    let count = |reason: &str| denied.iter().filter(|it| it.reason == reason).count();
    assert_eq!(count("HANDLE_REDEEMER"), 1);
    assert_eq!(count("HANDLE_SPENT"), 1);
    // The card for web.search: once for travel-bot, three times for mail-bot.
    assert_eq!(count("POLICY_FORBID"), 4);
    assert_eq!(count("POLICY_NO_PERMIT"), 11);
    assert_eq!(denied.len(), 17);
    let ends = broker.records("kind:lease_end").await?;
    let reasons: Vec<_> = ends.iter().map(|it| it.reason.as_str()).collect();
    assert_eq!(reasons, ["END_CALLER"]);
    Ok(())
}
