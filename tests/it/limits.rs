//! The limits of one identity, and of everybody without one: what is refused, that others are not, and that the log
//! has every refusal, one by one or as a count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use valetkey_audit::StoredRecord;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordId, RecordKind};
use valetkey_proto::v1::CheckAccessRequest;
use valetkey_server::{IdentityLimits, PlaceLimits, RepeatLimits};
use valetkey_tests::log::{Refused, shape};
use valetkey_tests::raw::{Raw, RawCall, frame};
use valetkey_tests::{Client, Setup, TestBroker, acquire, reason};

const BOT: &str = "travel-bot";
const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";
const ACQUIRE: &str = "/valetkey.v1.LeaseService/AcquireLease";
const WINDOW: u32 = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);

const LIMITED: Refused = Refused {
    code: Code::ResourceExhausted,
    reason: "IDENTITY_LIMIT",
    kind: RecordKind::Limit,
    why: Reason::IdentityLimit,
};

#[tokio::test]
async fn requests_per_second() -> Result<()> {
    let clock = FakeClock::default();
    let limits = IdentityLimits { requests_per_second: 10, requests_burst: 3, ..IdentityLimits::default() };
    let broker = Setup::new()?.limits(|it| it.identities = limits).clock(&clock).start().await?;
    let mut bot = broker.client(BOT).await?;
    for _ in 0..3 {
        check(&mut bot).await?;
    }
    let mark = broker.mark();
    let answer = check(&mut bot).await;
    let (status, record) = broker.check_refused("the fourth", mark, (0, 0), answer, LIMITED).await?;
    assert_eq!(record.caller.as_deref(), Some("agent:travel-bot"));
    assert!(
        record
            .detail
            .is_some_and(|it| it.starts_with("requests_per_second is at its bound of 10: /valetkey"))
    );
    let quota = status.get_details_quota_failure().context("no QuotaFailure")?;
    assert_eq!(quota.violations.first().map(|it| it.subject.as_str()), Some("requests_per_second"));
    let wait = status.get_details_retry_info().and_then(|it| it.retry_delay).context("no RetryInfo")?;
    assert_eq!(wait, Duration::from_millis(100));

    // The others of the window have no record of their own, and other callers nothing to do with it.
    let mark = broker.mark();
    for _ in 0..7 {
        let status = check(&mut bot).await.err().context("not refused")?;
        assert_eq!(reason(&status), "IDENTITY_LIMIT");
    }
    assert!(broker.since(mark).await?.is_empty());
    check(&mut broker.client("mail-bot").await?).await?;
    clock.advance(wait);
    check(&mut bot).await?;

    clock.advance(MINUTE);
    let told = repeated(&broker, mark).await?;
    assert_eq!((told.kind, told.agent.as_deref()), (RecordKind::Limit, Some(BOT)));
    let detail = told.detail.unwrap_or_default();
    assert!(detail.starts_with("7 more requests over requests_per_second of agent:travel-bot, "), "{detail}");
    Ok(())
}

#[tokio::test]
async fn connections_of_one_identity() -> Result<()> {
    let limits = IdentityLimits { connections_max: 2, ..IdentityLimits::default() };
    let broker = Setup::new()?.limits(|it| it.identities = limits).start().await?;
    let (mut one, mut two) = (broker.client(BOT).await?, broker.client(BOT).await?);
    check(&mut one).await?;
    check(&mut two).await?;
    let mark = broker.mark();
    let answer = check(&mut broker.client(BOT).await?).await;
    let (_, record) = broker.check_refused("the third", mark, (0, 0), answer, LIMITED).await?;
    assert!(record.detail.is_some_and(|it| it.starts_with("connections_per_identity is at its bound of 2")));
    check(&mut one).await.context("those that are open go on")?;
    check(&mut broker.client("mail-bot").await?).await.context("others have their own")?;
    drop(two);
    for _ in 0..500 {
        if check(&mut broker.client(BOT).await?).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("a closed connection still counts");
}

#[tokio::test]
async fn messages_that_are_sent_half() -> Result<()> {
    const HALF: usize = 800 * 1024;
    let limits = IdentityLimits { message_bytes_max: 2 * 1024 * 1024, ..IdentityLimits::default() };
    let broker = Setup::new()?.limits(|it| it.identities = limits).start().await?;
    let body = frame(&vec![0; 1024 * 1024 - 64])[..HALF].to_vec();
    let call = RawCall::new(ACQUIRE, Some(broker.token(BOT)?), &acquire(BOOK, &[NAVAN])).body(body);
    let mark = broker.mark();
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    let (one, _one) = raw.begin(call.clone(), false).await?;
    let (two, _two) = raw.begin(call.clone(), false).await?;
    let (three, _three) = raw.begin(call, false).await?;
    // Whichever goes over the bound is refused; the others wait for their rest.
    let response = tokio::select! { it = one => it?, it = two => it?, it = three => it? };
    let status = Status::from_header_map(response.headers()).context("no status")?;
    let (_, record) = broker.check_refused("the third half", mark, (0, 0), refusal(status), LIMITED).await?;
    assert!(
        record
            .detail
            .is_some_and(|it| it.starts_with("message_bytes_per_identity is at its bound of 2097152"))
    );
    check(&mut broker.client("mail-bot").await?).await?;
    Ok(())
}

/// Some thousand attempts: the answer is always the same, the database hardly grows, and the records add up.
#[tokio::test]
async fn a_flood_without_identity_is_counted() -> Result<()> {
    const FLOOD: usize = 3_000;
    let clock = FakeClock::default();
    let setup = Setup::new()?.limits(|it| it.repeats = RepeatLimits::default()).clock(&clock);
    let broker = setup.start().await?;
    let (mark, size) = (broker.mark(), log_bytes(&broker)?);
    assert_eq!(flood(&broker, FLOOD).await?, 1, "whether a refusal is written down can be told");
    let written = broker.since(mark).await?;
    assert_eq!(written.len(), 10);
    let grown = log_bytes(&broker)?.saturating_sub(size);
    assert!(grown < 256 * 1024, "{grown} bytes for a flood");

    clock.advance(MINUTE);
    let told = repeated(&broker, mark).await?;
    assert_eq!((told.kind, told.client.as_deref()), (RecordKind::Unauthenticated, Some("127.0.0.1")));
    let detail = told.detail.clone().unwrap_or_default();
    let expected = format!("{} more attempts without an identity of 127.0.0.1, the first at ", FLOOD - 10);
    assert!(detail.starts_with(&expected), "{detail}");
    assert_eq!(told.caller, None);

    // What is counted when the broker stops is told too, once.
    flood(&broker, 100).await?;
    let again = broker.stop().await?.start().await?;
    let counts: Result<Vec<usize>> = again.since(mark).await?.iter().map(attempts).collect();
    let counts: Vec<_> = counts?.into_iter().filter(|count| *count > 0).collect();
    assert_eq!(counts.iter().sum::<usize>(), FLOOD + 100);
    assert_eq!(counts.iter().filter(|count| **count > 1).count(), 2, "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_counted() -> Result<()> {
    let clock = FakeClock::default();
    let repeats = RepeatLimits { per_source_max: 2, ..RepeatLimits::default() };
    let broker = Setup::new()?.limits(|it| it.repeats = repeats).clock(&clock).start().await?;
    let call =
        RawCall::new(ACQUIRE, Some(broker.token(BOT)?), &acquire(BOOK, &[NAVAN])).body(frame(b"\xff\xff"));
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    let mark = broker.mark();
    for number in 0..7 {
        let status = raw.call(call.clone()).await?.status();
        assert_eq!(reason(&status), "INVALID_MESSAGE");
        let info = status.get_details_error_info().context("no ErrorInfo")?;
        assert_eq!(info.metadata.contains_key("record_id"), number < 2, "{number}");
    }
    assert_eq!(broker.since(mark).await?.len(), 2);
    clock.advance(MINUTE);
    let told = repeated(&broker, mark).await?;
    assert_eq!((told.kind, told.caller.as_deref()), (RecordKind::Malformed, Some("agent:travel-bot")));
    assert!(
        told.detail
            .is_some_and(|it| it.starts_with("5 more messages that cannot be read of agent:travel-bot"))
    );
    Ok(())
}

/// What policy denies is never counted away.
#[tokio::test]
async fn every_denial_has_its_record() -> Result<()> {
    let broker = Setup::new()?.limits(|it| it.repeats = RepeatLimits::default()).start().await?;
    let mark = broker.mark();
    let mut other = broker.client("mail-bot").await?;
    for _ in 0..100 {
        let answer = other.leases.acquire_lease(acquire(BOOK, &[NAVAN])).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::PermissionDenied));
    }
    let denied = broker.since(mark).await?;
    assert_eq!(denied.iter().filter(|it| it.reason == Reason::PolicyNoPermit).count(), 100);
    Ok(())
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() -> Result<()> {
    let places = PlaceLimits { connections_max: 6, unknown_max: 4, unknown_per_address_max: 3 };
    let broker = Setup::new()?.limits(|it| it.places = places).start().await?;
    let mut bot = broker.client(BOT).await?;
    check(&mut bot).await?;
    let (mut silent, begun) = (Vec::new(), Instant::now());
    for _ in 0..20 {
        silent.push(TcpStream::connect(broker.address).await?);
        check(&mut bot).await.context("who is known stays")?;
    }
    // Each of these takes the place of a silent one; all of them are known, and stay.
    let mut known = Vec::new();
    for _ in 0..5 {
        let mut client = broker.client(BOT).await?;
        check(&mut client).await?;
        known.push(client);
    }
    for socket in &mut silent {
        // It says hello, and no more.
        let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await;
        ensure!(closed.is_ok(), "a silent connection is kept");
    }
    // Its patience with the silent is ten seconds: nobody waited for that.
    ensure!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    for client in &mut known {
        check(client).await?;
    }
    Ok(())
}

async fn check(client: &mut Client) -> Result<(), Status> {
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    client.leases.check_access(ask).await.map(drop)
}

/// So many attempts without identity; how many different answers they got.
async fn flood(broker: &TestBroker, attempts: usize) -> Result<usize> {
    let call = RawCall::new(ACQUIRE, None, &acquire(BOOK, &[NAVAN]));
    let mut shapes = Vec::new();
    let mut raw = Raw::connect(broker.address, WINDOW).await?;
    for number in 1..=attempts {
        // Nobody without an identity stays connected for long.
        if number % 250 == 0 {
            raw = Raw::connect(broker.address, WINDOW).await?;
        }
        let status = raw.call(call.clone()).await?.status();
        ensure!(status.code() == Code::Unauthenticated, "{status:?}");
        shapes.push(shape(&status));
    }
    shapes.dedup();
    Ok(shapes.len())
}

/// The first record after a mark that counts.
async fn repeated(broker: &TestBroker, mark: RecordId) -> Result<StoredRecord> {
    let counts = |log: &[StoredRecord]| log.iter().find(|it| it.reason == Reason::Repeated).cloned();
    broker.await_records(mark, counts).await
}

/// How many attempts a record stands for.
fn attempts(record: &StoredRecord) -> Result<usize> {
    match (record.kind, record.reason) {
        (RecordKind::Unauthenticated, Reason::Repeated) => {
            let detail = record.detail.as_deref().and_then(|it| it.split(' ').next()).context("no detail")?;
            Ok(detail.parse()?)
        }
        (RecordKind::Unauthenticated, _) => Ok(1),
        _ => Ok(0),
    }
}

/// The database and its write-ahead log.
fn log_bytes(broker: &TestBroker) -> Result<u64> {
    let size = |name: &str| Ok::<_, std::io::Error>(std::fs::metadata(broker.dir.path().join(name))?.len());
    Ok(size("audit.db")? + size("audit.db-wal")?)
}

fn refusal(status: Status) -> Result<(), Status> {
    if status.code() == Code::Ok { Ok(()) } else { Err(status) }
}
