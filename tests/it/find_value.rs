//! A leaked value: who redeemed a handle for it, found without the log ever holding it.

use std::time::Duration;

use anyhow::{Context, Result};
use tonic::{Code, Status};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordKind};
use valetkey_proto::v1::{AuditRecord, FindValueRequest, FindValueResponse};
use valetkey_server::StartError;
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Client, Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const USERNAME: &str = "op://Tutorial/Navan/username";
const CODE: &str = "op://Tutorial/Navan/one-time password?attribute=otp";
const SEED: &str = "op://Tutorial/Navan/one-time password";
const DATABASE: &str = "op://Production/Database/password";
const KEY: &str = "audit.db-digest-key";

const POLICIES: &str = r#"
// Everything for one tool, so that every value is on its way.
@id("all")
permit (principal == Agent::"travel-bot", action in [Action::"acquire", Action::"acquireSeed"], resource)
when { context.tool == Tool::"navan.book_flight" };

@id("all-redeem")
permit (principal == Tool::"navan.book_flight", action == Action::"redeem", resource);

// A team that looks after a leak in its own vault.
@id("eve-finds")
permit (principal == Person::"eve", action == Action::"findValue", resource);

@id("eve-reads")
permit (principal == Person::"eve", action == Action::"readAudit", resource in Vault::"production");
"#;

const DENIED: Refused = Refused {
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    kind: RecordKind::FindValue,
    why: Reason::PolicyNoPermit,
};

fn setup() -> Result<Setup> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/more.cedar"), POLICIES)?;
    Ok(setup)
}

/// Acquires and redeems; the value.
async fn release(broker: &TestBroker, reference: &str) -> Result<Vec<u8>> {
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[reference])).await?;
    let mark = broker.mark();
    let value = broker.client(BOOK).await?.redeem(lease.handle(0)?).await?.secret_value;
    broker.settled(mark).await?;
    Ok(value)
}

async fn find(client: &mut Client, value: &[u8]) -> Result<FindValueResponse, Status> {
    let ask = FindValueRequest { value: value.to_vec() };
    client.reports.find_value(ask).await.map(tonic::Response::into_inner)
}

/// Of which items records are, newest first.
fn items(found: &[AuditRecord]) -> Vec<&str> {
    let item = |record: &AuditRecord| Some(record.target.as_ref()?.item_name.clone());
    assert!(found.iter().all(|record| record.kind == "redeem" && item(record).is_some()), "{found:#?}");
    found.iter().filter_map(|it| it.target.as_ref()).map(|target| target.item_name.as_str()).collect()
}

#[tokio::test]
async fn a_value_leads_to_who_redeemed_it() -> Result<()> {
    let broker = setup()?.start().await?;
    let (password, username) = (release(&broker, PASSWORD).await?, release(&broker, USERNAME).await?);
    release(&broker, PASSWORD).await?;
    // Issued, and never redeemed.
    let mut bot = broker.client("travel-bot").await?;
    let _lease = Lease::open(&mut bot, acquire(BOOK, &[DATABASE])).await?;

    let mut ana = broker.client("ana").await?;
    let found = find(&mut ana, &password).await?;
    assert_eq!((items(&found.records), found.truncated), (vec!["navan"; 2], false));
    let [newest, oldest] = &found.records[..] else { anyhow::bail!("not two") };
    let number = |record: &AuditRecord| record.record_id.parse::<u64>();
    assert!(number(newest)? > number(oldest)? && found.seen_record_id.parse::<u64>()? > number(newest)?);
    assert_eq!(
        (newest.caller.as_str(), newest.agent.as_str(), newest.policy_ids.join(" ").as_str()),
        ("tool:navan.book_flight", "travel-bot", "all-redeem navan-login-redeem")
    );
    let digest = |record: &AuditRecord| record.outcome.clone().map(|it| it.value_digest);
    assert_eq!(digest(newest), digest(oldest));
    assert!(digest(newest).is_some_and(|digest| digest.len() == 32));
    assert_eq!(items(&find(&mut ana, &username).await?.records), ["navan"]);

    let never = b"demo-database-password-e94b06".to_vec();
    let with_line_end = [&password[..], b"\n"].concat();
    for other in [&never, &with_line_end, &password.to_ascii_uppercase(), &b"x".repeat(64 * 1024)] {
        assert_eq!(find(&mut ana, other).await?.records, []);
    }
    Ok(())
}

#[tokio::test]
async fn a_code_leaves_no_digest_and_a_seed_does() -> Result<()> {
    let broker = setup()?.start().await?;
    let (code, seed) = (release(&broker, CODE).await?, release(&broker, SEED).await?);
    let mut ana = broker.client("ana").await?;
    assert_eq!(find(&mut ana, &code).await?.records, []);
    assert_eq!(items(&find(&mut ana, &seed).await?.records), ["navan"]);
    let digests: Vec<_> = broker
        .records("kind:redeem outcome:released")
        .await?
        .into_iter()
        .map(|it| it.outcome.is_some_and(|it| !it.value_digest.is_empty()))
        .collect();
    assert_eq!(digests, [false, true]);
    Ok(())
}

#[tokio::test]
async fn the_question_is_written_down_and_the_value_is_not() -> Result<()> {
    let broker = setup()?.start().await?;
    let value = release(&broker, PASSWORD).await?;
    let mark = broker.mark();
    let found = find(&mut broker.client("ana").await?, &value).await?;
    let digest = found.records[0].outcome.clone().context("no outcome")?.value_digest;
    let records = broker.since(mark).await?;
    let asked = records.iter().filter(|it| it.caller.as_deref() == Some("person:ana"));
    let asked: Vec<_> = asked.collect();
    let kinds: Vec<_> = asked.iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [RecordKind::FindValue, RecordKind::ReadAudit]);
    assert_eq!(asked[0].policies, ["reviewers-find-value"]);
    assert_eq!(asked[0].detail.as_deref().unwrap_or_default(), "");
    let said = format!("{records:?}");
    for secret in [String::from_utf8(value.clone())?, digest.clone(), value.len().to_string() + " "] {
        assert!(!said.contains(&secret), "{secret}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn it_takes_both_actions_and_finds_no_further_than_one_reads() -> Result<()> {
    let broker = setup()?.start().await?;
    let (navan, database) = (release(&broker, PASSWORD).await?, release(&broker, DATABASE).await?);
    let mut eve = broker.client("eve").await?;
    assert_eq!(items(&find(&mut eve, &database).await?.records), ["database"]);
    assert_eq!(find(&mut eve, &navan).await?.records, [], "of another vault");

    let counts = broker.broker.leases().counts();
    for who in ["omar", "travel-bot", BOOK] {
        let mark = broker.mark();
        let answer = find(&mut broker.client(who).await?, &navan).await;
        broker.check_refused(who, mark, counts, answer, DENIED).await?;
    }
    for (without, kind) in [("findValue", RecordKind::FindValue), ("readAudit", RecordKind::ReadAudit)] {
        let narrower =
            POLICIES.replace(without, "operate").replace(r#"resource in Vault::"production""#, "resource");
        broker.put_policies("more.cedar", &narrower)?;
        broker.reloader.reload().await?;
        let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
        let answer = find(&mut eve, &database).await;
        broker.check_refused(without, mark, counts, answer, Refused { kind, ..DENIED }).await?;
    }
    Ok(())
}

#[tokio::test]
async fn values_have_a_size_and_guesses_a_rate() -> Result<()> {
    let clock = FakeClock::default();
    let broker = setup()?.clock(&clock).start().await?;
    let mut ana = broker.client("ana").await?;
    let malformed =
        Refused { code: Code::InvalidArgument, reason: "INVALID_VALUE", why: Reason::FieldInvalid, ..DENIED };
    for size in [0, 64 * 1024 + 1] {
        let mark = broker.mark();
        let answer = find(&mut ana, &b"x".repeat(size)).await;
        let (status, record) = broker.check_refused("a size", mark, (0, 0), answer, malformed).await?;
        let said = format!("{} {record:?}", status.message());
        assert!(!said.contains(&format!(" {size} ")) && !said.contains("65537"), "{said}");
    }
    for guess in 0..8 {
        assert_eq!(find(&mut ana, format!("{guess}").as_bytes()).await?.records, []);
    }
    let limited = Refused {
        code: Code::ResourceExhausted,
        reason: "IDENTITY_LIMIT",
        kind: RecordKind::Limit,
        why: Reason::IdentityLimit,
    };
    let mark = broker.mark();
    let answer = find(&mut ana, b"8").await;
    broker.check_refused("the eleventh", mark, (0, 0), answer, limited).await?;
    assert!(broker.records("").await.is_ok(), "only this is");
    clock.advance(Duration::from_secs(2));
    assert!(find(&mut ana, b"8").await.is_ok());
    assert_eq!(
        find(&mut ana, b"9").await.map_err(|status| status.code()).err(),
        Some(Code::ResourceExhausted)
    );
    Ok(())
}

#[tokio::test]
async fn a_broker_without_a_key_says_so() -> Result<()> {
    let broker = setup()?.configure(|config| config.audit_digest_key = None).start().await?;
    let value = release(&broker, PASSWORD).await?;
    let status = find(&mut broker.client("ana").await?, &value).await.err().context("it answers")?;
    assert_eq!(
        (status.code(), valetkey_tests::reason(&status)),
        (Code::FailedPrecondition, "DIGEST_KEY_MISSING".into())
    );
    let released = broker.records("outcome:released").await?;
    assert!(released.iter().all(|it| it.outcome.as_ref().is_some_and(|it| it.value_digest.is_empty())));
    assert!(!broker.dir.path().join(KEY).exists());
    Ok(())
}

#[tokio::test]
async fn the_key_outlives_the_broker_and_is_missed() -> Result<()> {
    let broker = setup()?.start().await?;
    let value = release(&broker, PASSWORD).await?;
    let broker = broker.stop().await?.start().await?;
    assert_eq!(items(&find(&mut broker.client("ana").await?, &value).await?.records), ["navan"]);
    let starts = broker.records("kind:start").await?;
    let [first, second] = &starts[..] else { anyhow::bail!("{starts:#?}") };
    assert!(first.detail.contains(", digest key vkd_") && first.detail == second.detail, "{first:?}");

    let setup = broker.stop().await?;
    let key = setup.dir().join(KEY);
    std::fs::remove_file(&key)?;
    let dir = setup.dir().to_owned();
    let error = setup.start().await.err().context("it starts")?;
    assert!(matches!(error.downcast_ref(), Some(StartError::DigestKey(_))), "{error:#}");
    assert!(!dir.join(KEY).exists());
    Ok(())
}
