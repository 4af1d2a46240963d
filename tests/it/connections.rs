//! Leases live as long as their streams: however a client goes, its handles are dead within five seconds,
//! and the log says so. And the other ends of a lease: bounds, renewal, a broker that stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;
use valetkey_audit::{Fault, StoredRecord};
use valetkey_core::testing::FakeClock;
use valetkey_core::{OutcomeResult, Reason, RecordKind};
use valetkey_proto::v1::EndCause;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::process::Process;
use valetkey_tests::proxy::Proxy;
use valetkey_tests::{Client, Setup, TestBroker, acquire, reason};

const BOT: &str = "travel-bot";
const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const VALUE: &[u8] = b"demo-navan-user@travel.example";
const DEAD: Refused = Refused {
    code: Code::FailedPrecondition,
    reason: "HANDLE_NOT_ACTIVE",
    kind: RecordKind::Redeem,
    why: Reason::HandleRevoked,
};

#[tokio::test]
async fn a_stream_that_is_closed() -> Result<()> {
    let broker = TestBroker::start().await?;
    let lease = Lease::open(&mut broker.client(BOT).await?, acquire(BOOK, &[USERNAME])).await?;
    let handle = lease.handle(0)?.to_owned();
    check_dead(&broker, &handle, Reason::EndDisconnect, async || {
        drop(lease);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_connection_that_is_dropped() -> Result<()> {
    let broker = TestBroker::start().await?;
    let (uri, token) = (format!("http://{}", broker.address), format!("Bearer {}", broker.token(BOT)?));
    // On a runtime of its own: when that is shut down its sockets close, and nobody says goodbye.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let lease = runtime.spawn(async move {
        let mut bot = Client::connect(&uri, Some(&token)).await?;
        anyhow::Ok(Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?)
    });
    let lease = lease.await??;
    let handle = lease.handle(0)?.to_owned();
    check_dead(&broker, &handle, Reason::EndDisconnect, async || {
        runtime.shutdown_background();
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_that_is_killed() -> Result<()> {
    let broker = TestBroker::start().await?;
    let (uri, token) = (format!("http://{}", broker.address), format!("Bearer {}", broker.token(BOT)?));
    let role = ["client", &uri, &token, BOOK, USERNAME];
    let mut client = Process::start(env!("CARGO_BIN_EXE_stand-in"), &role)?;
    let handle = client.hear("holding").await?;
    check_dead(&broker, &handle, Reason::EndDisconnect, async || client.kill().await).await
}

/// The cable is cut: sockets stay open on both sides, and nothing comes through.
#[tokio::test]
async fn a_connection_that_is_half_open() -> Result<()> {
    let broker = TestBroker::start().await?;
    let proxy = Proxy::start(broker.address).await?;
    let mut bot = Client::connect(&proxy.uri, Some(&format!("Bearer {}", broker.token(BOT)?))).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    let handle = lease.handle(0)?.to_owned();
    let cut = async || {
        proxy.swallow();
        Ok(())
    };
    check_dead(&broker, &handle, Reason::EndDisconnect, cut).await
}

#[tokio::test]
async fn a_client_that_lives_is_not_cut() -> Result<()> {
    let broker = TestBroker::start().await?;
    let lease = Lease::open(&mut broker.client(BOT).await?, acquire(BOOK, &[USERNAME])).await?;
    tokio::time::sleep(DEAD_WITHIN).await;
    assert_eq!(broker.client(BOOK).await?.redeem(lease.handle(0)?).await?.secret_value, VALUE);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stalls() -> Result<()> {
    let clock = FakeClock::default();
    let broker = Setup::new()?.clock(&clock).start().await?;
    // A window of a few events, so that the rest stays with the broker.
    let endpoint =
        Endpoint::from_shared(format!("http://{}", broker.address))?.initial_stream_window_size(1_000);
    let token = format!("Bearer {}", broker.token(BOT)?);
    let mut bot = Client::over(endpoint.connect().await?, Some(&token))?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME, PASSWORD])).await?;
    let mark = broker.mark();
    let mut renewals = 0;
    while broker.broker.leases().counts().0 == 1 {
        ensure!(renewals < 100, "{renewals} unread renewals, and the reader is still there");
        clock.advance(Duration::from_secs(48));
        renewals += 2;
        broker.await_records(mark, |log| (renewed(log) >= renewals || ends(log) == 1).then_some(())).await?;
    }
    ensure!(renewals >= 16, "it was cut after no more than {renewals} events");
    let end = broker.await_records(mark, |log| end_of(log, &lease.id)).await?;
    assert_eq!(end.reason, Reason::EndStalled);
    Ok(())
}

#[tokio::test]
async fn bounds_of_leases() -> Result<()> {
    type Bound = fn(&mut valetkey_server::Limits);
    const FULL: Refused = Refused {
        code: Code::ResourceExhausted,
        reason: "LEASE_LIMIT",
        kind: RecordKind::Acquire,
        why: Reason::LeaseLimit,
    };
    const OWN: Refused =
        Refused { reason: "IDENTITY_LIMIT", kind: RecordKind::Limit, why: Reason::IdentityLimit, ..FULL };
    let bounds: [(&str, Bound, Refused); 4] = [
        ("leases_per_agent", |limits| limits.leases.leases_per_agent_max = 2, OWN),
        ("handles_per_agent", |limits| limits.leases.handles_per_agent_max = 2, OWN),
        ("leases", |limits| limits.leases.leases_max = 2, FULL),
        ("handles", |limits| limits.leases.handles_max = 2, FULL),
    ];
    for (bound, limit, expected) in bounds {
        let broker = Setup::new()?.limits(limit).start().await?;
        let mut bot = broker.client(BOT).await?;
        let one = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
        let _two = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
        let mark = broker.mark();
        let answer = Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await;
        let (status, record) = broker.check_refused(bound, mark, (2, 2), answer, expected).await?;
        let quota = status.get_details_quota_failure().context("no QuotaFailure")?;
        assert_eq!(quota.violations.first().map(|violation| violation.subject.as_str()), Some(bound));
        assert!(record.detail.is_some_and(|it| it.starts_with(&format!("{bound} is at its bound of 2"))));
        if expected == OWN {
            // Once for a while, not once a request; and nobody else is at it.
            let mark = broker.mark();
            let again = Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await.err().context("opened")?;
            assert_eq!(reason(&again), "IDENTITY_LIMIT");
            ensure!(again.get_details_retry_info().is_some(), "no RetryInfo");
            assert!(broker.since(mark).await?.is_empty());
            let other =
                broker.client("mail-bot").await?.leases.acquire_lease(acquire(BOOK, &[USERNAME])).await;
            assert_eq!(other.err().map(|status| status.code()), Some(Code::PermissionDenied));
        }

        drop(one);
        until(|| broker.broker.leases().counts().0 == 1).await?;
        Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await.context("there is room again")?;
    }
    Ok(())
}

#[tokio::test]
async fn renewal() -> Result<()> {
    let clock = FakeClock::default();
    let broker = Setup::new()?.clock(&clock).start().await?;
    let mut tool = broker.client(BOOK).await?;
    let mut lease = Lease::open(&mut broker.client(BOT).await?, acquire(BOOK, &[USERNAME])).await?;
    let old = lease.issued.first().context("no handle")?.clone();
    let mark = broker.mark();

    clock.advance(Duration::from_secs(47));
    assert_eq!(broker.since(mark).await?.len(), 0, "it is not time yet");
    clock.advance(Duration::from_secs(1));
    let Some(Event::Renewed(renewed)) = lease.next().await? else { anyhow::bail!("no renewal") };
    let fresh = renewed.issued.context("no fresh handle")?;
    assert_eq!((&renewed.previous_handle_id, &fresh.reference), (&old.handle_id, &old.reference));
    let ends = [&old, &fresh].map(|issued| issued.expire_time.as_ref().map(|end| end.seconds));
    assert_eq!(ends.map(Option::unwrap_or_default), [60, 108].map(|later| START_SECONDS + later));
    let records = broker.settled(mark).await?;
    let renew = records.iter().find(|record| record.kind == RecordKind::Renew).context("no record")?;
    assert_eq!((renew.handle.as_ref(), renew.lease.as_ref()), (Some(&fresh.handle_id), Some(&lease.id)));

    assert_eq!(tool.redeem(&fresh.handle).await?.secret_value, VALUE, "the fresh one is good at once");
    clock.advance(Duration::from_secs(11));
    assert_eq!(tool.redeem(&old.handle).await?.secret_value, VALUE, "the old one is good until its end");
    Ok(())
}

#[tokio::test]
async fn the_old_handle_dies_at_its_own_end() -> Result<()> {
    let clock = FakeClock::default();
    let broker = Setup::new()?.clock(&clock).start().await?;
    let mut tool = broker.client(BOOK).await?;
    let mut lease = Lease::open(&mut broker.client(BOT).await?, acquire(BOOK, &[USERNAME])).await?;
    clock.advance(Duration::from_secs(48));
    let Some(Event::Renewed(renewed)) = lease.next().await? else { anyhow::bail!("no renewal") };
    clock.advance(Duration::from_secs(12));
    until(|| broker.broker.leases().counts() == (1, 1)).await?;
    let mark = broker.mark();
    let answer = tool.redeem(lease.handle(0)?).await;
    let expired = Refused { why: Reason::HandleExpired, ..DEAD };
    broker.check_refused("the old handle", mark, (1, 1), answer, expired).await?;
    let fresh = renewed.issued.context("no fresh handle")?;
    assert_eq!(tool.redeem(&fresh.handle).await?.secret_value, VALUE);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_stops() -> Result<()> {
    let grace = Duration::from_millis(600);
    let broker = Setup::new()?.limits(|limits| limits.drain_grace = grace).start().await?;
    let (mut bot, store) = (broker.client(BOT).await?, Arc::clone(&broker.store));
    let mut tool = broker.client(BOOK).await?;
    let mut lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    let handle = lease.handle(0)?.to_owned();
    let mark = broker.mark();

    // A redeem that is under way when the stop begins: its record waits for the disk.
    store.inject(Fault::Stall);
    let redeeming = tokio::spawn(async move { tool.redeem(&handle).await });
    until(|| broker.broker.leases().counts() == (1, 1)).await?;
    let stopping = tokio::spawn(broker.stop());
    let draining = lease.next().await?;
    ensure!(matches!(&draining, Some(Event::Draining(it)) if it.end_time.is_some()), "{draining:?}");
    store.heal();
    drop(store);
    assert_eq!(redeeming.await??.secret_value, VALUE, "what is under way finishes");
    let late =
        Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await.err().context("a lease while draining")?;
    assert_eq!(reason(&late), "SHUTTING_DOWN");
    ensure!(late.get_details_retry_info().is_some(), "no RetryInfo");
    let ended = lease.next().await?;
    ensure!(matches!(&ended, Some(Event::Ended(it)) if it.cause() == EndCause::Shutdown), "{ended:?}");
    ensure!(lease.next().await?.is_none(), "something came after the end");

    let again = stopping.await??.start().await?;
    let log = again.since(mark).await?;
    assert_eq!(end_of(&log, &lease.id).map(|end| end.reason), Some(Reason::EndShutdown));
    ensure!(log.iter().any(|record| record.kind == RecordKind::Stop), "no record of the stop");
    let redeem = log.iter().find(|record| record.kind == RecordKind::Redeem).context("no redeem")?;
    let result = redeem.outcome.as_ref().map(|outcome| outcome.result);
    assert_eq!(result, Some(OutcomeResult::Released));
    Ok(())
}

/// However `go` takes the client away: no value after that, the record of the end, and all of it in time.
async fn check_dead(
    broker: &TestBroker,
    handle: &str,
    why: Reason,
    go: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let mut tool = broker.client(BOOK).await?;
    assert_eq!(broker.broker.leases().counts(), (1, 1));
    let mark = broker.mark();
    let gone = Instant::now();
    go().await?;
    until(|| broker.broker.leases().counts() == (0, 0)).await?;
    let took = gone.elapsed();
    ensure!(took < DEAD_WITHIN, "the handle lived for {took:?} without its client");
    let end = broker
        .await_records(mark, |log| log.iter().find(|it| it.kind == RecordKind::LeaseEnd).cloned())
        .await?;
    assert_eq!((end.reason, end.agent.as_deref()), (why, Some(BOT)));
    let mark = broker.mark();
    let answer = tool.redeem(handle).await;
    broker.check_refused("the handle of a client that is gone", mark, (0, 0), answer, DEAD).await?;
    Ok(())
}

async fn until(holds: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + WAIT_MAX;
    while !holds() {
        ensure!(Instant::now() < end, "it does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Renewals that are done: until then the handle before them is the lease's last.
fn renewed(log: &[StoredRecord]) -> usize {
    log.iter().filter(|record| record.kind == RecordKind::Renew && record.outcome.is_some()).count()
}

fn ends(log: &[StoredRecord]) -> usize {
    log.iter().filter(|record| record.kind == RecordKind::LeaseEnd).count()
}

fn end_of(log: &[StoredRecord], lease: &str) -> Option<StoredRecord> {
    let mut ends = log.iter().filter(|record| record.kind == RecordKind::LeaseEnd);
    ends.find(|record| record.lease.as_deref() == Some(lease)).cloned()
}

/// What a [`FakeClock`] begins with, in seconds since 1970.
const START_SECONDS: i64 = 1_780_000_001;
const DEAD_WITHIN: Duration = Duration::from_secs(5);
const WAIT_MAX: Duration = Duration::from_secs(10);
