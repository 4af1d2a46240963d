//! Changed policies: what is no longer allowed dies at once, and what is broken changes nothing.

use std::sync::Arc;

use anyhow::{Context, Result};
use tonic::Code;
use valetkey_audit::StoredRecord;
use valetkey_core::{OutcomeResult, Reason, RecordKind, Ruling};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::{EndCause, HandleRevoked};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const REVOKED: Refused = Refused {
    code: Code::FailedPrecondition,
    reason: "HANDLE_NOT_ACTIVE",
    kind: RecordKind::Redeem,
    why: Reason::HandleRevoked,
};

#[tokio::test]
async fn a_change_revokes_what_it_forbids_and_nothing_else() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut lease = lease(&broker).await?;
    let mut tool = broker.client(BOOK).await?;
    let mark = broker.mark();
    forbid(&broker, r#"resource.field == "password""#)?;
    broker.reloader.reload().await?;

    let revoked = revoked(&mut lease).await?;
    assert_eq!((revoked.reference.as_str(), revoked.cause()), (PASSWORD, EndCause::Policy));
    let records = revocations(&broker, mark, 1).await?;
    let record = records.first().context("no record")?;
    assert_eq!((record.reason, &*record.policies), (Reason::EndPolicy, &["shut".to_owned()][..]));
    assert_eq!(record.handle.as_deref(), Some(revoked.handle_id.as_str()));
    let loads = broker.records("kind:policy_load reason:done").await?;
    let load = loads.last().context("no load")?;
    assert_eq!(Some(&load.policy_revision), record.revision.as_ref());

    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let answer = tool.redeem(lease.handle(1)?).await;
    broker.check_refused("a revoked handle", mark, counts, answer, REVOKED).await?;
    assert_eq!(tool.redeem(lease.handle(0)?).await?.secret_value, b"demo-navan-user@travel.example");
    Ok(())
}

#[tokio::test]
async fn the_last_revocation_ends_the_lease() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut lease = lease(&broker).await?;
    let mark = broker.mark();
    forbid(&broker, "true")?;
    broker.reloader.reload().await?;
    let mut references = vec![revoked(&mut lease).await?.reference, revoked(&mut lease).await?.reference];
    references.sort();
    assert_eq!(references, [PASSWORD, USERNAME]);
    let last = lease.next().await?;
    assert!(matches!(&last, Some(Event::Ended(it)) if it.cause() == EndCause::Policy), "{last:?}");
    assert!(lease.next().await?.is_none(), "the stream goes on behind its last event");
    revocations(&broker, mark, 2).await?;
    let ended = |records: &[StoredRecord]| {
        records
            .iter()
            .any(|it| it.kind == RecordKind::LeaseEnd && it.reason == Reason::EndPolicy)
            .then_some(())
    };
    broker.await_records(mark, ended).await
}

#[tokio::test]
async fn the_files_are_watched() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut lease = lease(&broker).await?;
    forbid(&broker, "true")?;
    // Nobody says anything to the broker.
    assert_eq!(revoked(&mut lease).await?.cause(), EndCause::Policy);
    Ok(())
}

/// The whole directory is taken away, and another comes in its place: its absence is said, but not again
/// and again, and what comes is noticed although the old watch sees none of it.
#[tokio::test]
async fn a_directory_that_is_replaced_is_noticed() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut lease = lease(&broker).await?;
    let (here, away) = (broker.dir.path().join("policies"), broker.dir.path().join("away"));
    let mark = broker.mark();
    std::fs::rename(&here, &away)?;
    // Long enough for several looks: that nothing more is written takes time to see.
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    let records = broker.since(mark).await?;
    let failed = records.iter().filter(|it| it.reason == Reason::Failed).count();
    assert!((1..=2).contains(&failed), "{records:#?}");

    let forbid = r#"@id("stop") forbid (principal, action, resource);"#;
    std::fs::write(away.join("stop.cedar"), forbid)?;
    std::fs::rename(&away, &here)?;
    assert_eq!(revoked(&mut lease).await?.cause(), EndCause::Policy);
    Ok(())
}

#[tokio::test]
async fn bad_policies_change_nothing_and_say_so() -> Result<()> {
    let broker = TestBroker::start().await?;
    let live = lease(&broker).await?;
    let before = broker.records("kind:policy_load reason:done").await?;
    for (place, bad) in [
        r#"permit (principal, action, resource) when { nonsense "#,
        r#"permit (principal, action == Action::"acquire", resource);"#,
        r#"@id("x") permit (principal, action == Action::"fly", resource);"#,
        r#"@id("x") @misspelt("1") permit (principal, action == Action::"acquire", resource);"#,
        r#"@id("navan-login") forbid (principal, action == Action::"acquire", resource);"#,
    ]
    .into_iter()
    .enumerate()
    {
        let mark = broker.mark();
        broker.put_policies("bad.cedar", bad)?;
        let error = broker.reloader.reload().await.err().with_context(|| format!("{bad} was taken"))?;
        let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(text.contains("bad.cedar"), "{place}: {text}");
        // The file watch may have noticed too, which is one record more.
        let records = broker.since(mark).await?;
        let record = records.iter().find(|it| it.kind == RecordKind::PolicyLoad).context("no record")?;
        assert_eq!(record.reason, Reason::Failed);
        assert!(record.detail.as_ref().is_some_and(|it| it.contains("bad.cedar")), "{record:#?}");
    }
    std::fs::remove_file(broker.dir.path().join("policies/bad.cedar"))?;
    broker.reloader.reload().await?;

    // What was live lives, what was allowed is allowed, and no other policies ever came into force.
    let mut tool = broker.client(BOOK).await?;
    assert_eq!(tool.redeem(live.handle(0)?).await?.secret_value, b"demo-navan-user@travel.example");
    lease(&broker).await?;
    let loads = broker.records("kind:policy_load reason:done").await?;
    let in_force = before.first().map(|load| &load.policy_revision);
    assert!(loads.iter().all(|load| Some(&load.policy_revision) == in_force), "{loads:#?}");
    Ok(())
}

/// Redeeming is decided by the policies of its own moment, with its own action.
#[tokio::test]
async fn a_handle_from_before_is_decided_again_at_redeem() -> Result<()> {
    let broker = TestBroker::start().await?;
    let lease = lease(&broker).await?;
    broker.edit_policies(
        "travel.cedar",
        r#"principal == Tool::"navan.book_flight""#,
        r#"principal == Tool::"nobody""#,
    )?;
    broker.reloader.reload().await?;
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let answer = broker.client(BOOK).await?.redeem(lease.handle(0)?).await;
    let denied = Refused {
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        kind: RecordKind::Redeem,
        why: Reason::PolicyNoPermit,
    };
    broker.check_refused("a redeem that is no longer allowed", mark, counts, answer, denied).await?;
    Ok(())
}

/// However acquires and the reload fall: when the reload has returned, no handle of before works.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_raced_the_reload_survives_it() -> Result<()> {
    let broker = Arc::new(TestBroker::start().await?);
    let early = lease(&broker).await?;
    let racing: Vec<_> = (0..24)
        .map(|_| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                let mut bot = broker.client("travel-bot").await?;
                anyhow::Ok(Lease::open(&mut bot, acquire(BOOK, &[USERNAME, PASSWORD])).await.ok())
            })
        })
        .collect();
    forbid(&broker, "true")?;
    broker.reloader.reload().await?;
    let mark = broker.mark();
    let mut tool = broker.client(BOOK).await?;
    let mut leases = vec![early];
    for raced in racing {
        // Those that were refused were too late.
        leases.extend(raced.await??);
    }
    for handle in leases.iter().flat_map(|lease| &lease.issued) {
        let answer = tool.redeem(&handle.handle).await;
        assert!(answer.is_err(), "a handle of policies that are gone was redeemed");
    }
    let released =
        |it: &&StoredRecord| it.outcome.as_ref().is_some_and(|it| it.result == OutcomeResult::Released);
    assert_eq!(broker.settled(mark).await?.iter().filter(released).count(), 0);
    assert_eq!(broker.broker.leases().counts(), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_uses_are_three_however_many_race() -> Result<()> {
    const RACERS: usize = 64;
    const NOTES: &str = "op://Tutorial/Navan/notesPlain";
    let setup = Setup::new()?;
    let thrice = r#"
        // Read on three pages.
        @id("notes")
        @uses("3")
        permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Item::"tutorial/navan")
        when { resource.field == "notesplain" };

        @id("notes-redeem")
        permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource in Item::"tutorial/navan")
        when { resource.field == "notesplain" };
    "#;
    std::fs::write(setup.dir().join("policies/notes.cedar"), thrice)?;
    let broker = setup.start().await?;
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NOTES])).await?;
    assert_eq!(lease.issued.first().map(|it| it.uses), Some(3));
    let mark = broker.mark();
    let start = Arc::new(tokio::sync::Barrier::new(RACERS));
    let mut racers = Vec::new();
    for _ in 0..RACERS {
        let (mut tool, start) = (broker.client(BOOK).await?, Arc::clone(&start));
        let handle = lease.handle(0)?.to_owned();
        racers.push(tokio::spawn(async move {
            start.wait().await;
            tool.redeem(&handle).await
        }));
    }
    let mut won = 0;
    for racer in racers {
        match racer.await? {
            Ok(answer) => {
                assert_eq!(answer.secret_value, b"demo-navan-notes: book economy only");
                won += 1;
            }
            Err(status) => assert_eq!(valetkey_tests::reason(&status), "HANDLE_NOT_ACTIVE", "{status:?}"),
        }
    }
    assert_eq!(won, 3);
    let records = broker.settled(mark).await?;
    let redeems: Vec<_> = records.iter().filter(|it| it.kind == RecordKind::Redeem).collect();
    let count = |ruling, why| redeems.iter().filter(|it| (it.ruling, it.reason) == (ruling, why)).count();
    assert_eq!(count(Ruling::Allow, Reason::PolicyPermit), 3);
    assert_eq!(count(Ruling::Deny, Reason::HandleSpent), RACERS - 3);
    assert_eq!(redeems.len(), RACERS);
    Ok(())
}

async fn lease(broker: &TestBroker) -> Result<Lease> {
    let mark = broker.mark();
    let lease =
        Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[USERNAME, PASSWORD])).await?;
    broker.settled(mark).await?;
    Ok(lease)
}

/// Adds a policy `shut` that forbids the Navan login to be acquired, under a condition.
fn forbid(broker: &TestBroker, condition: &str) -> Result<()> {
    let text = format!(
        r#"
        // No longer.
        @id("shut")
        forbid (principal, action == Action::"acquire", resource in Item::"tutorial/navan")
        when {{ {condition} }};
        "#
    );
    broker.put_policies("shut.cedar", &text)
}

async fn revoked(lease: &mut Lease) -> Result<HandleRevoked> {
    match lease.next().await? {
        Some(Event::Revoked(revoked)) => Ok(revoked),
        other => anyhow::bail!("no revocation but {other:?}"),
    }
}

/// Waits for so many records of revocations.
async fn revocations(
    broker: &TestBroker,
    mark: valetkey_core::RecordId,
    count: usize,
) -> Result<Vec<StoredRecord>> {
    let wanted = |records: &[StoredRecord]| {
        let all: Vec<_> = records.iter().filter(|it| it.kind == RecordKind::HandleRevoke).cloned().collect();
        (all.len() == count).then_some(all)
    };
    broker.await_records(mark, wanted).await
}
