//! A log that cannot be written: every call is refused and nothing is done, and service returns by itself
//! when the disk does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt;
use valetkey_audit::{Fault, integrity};
use valetkey_core::{Reason, RecordId, RecordKind};
use valetkey_proto::v1::{
    CheckAccessRequest, EndLeaseRequest, GetAuditRecordRequest, ListAuditRecordsRequest,
    WatchAuditRecordsRequest,
};
use valetkey_tests::lease::Lease;
use valetkey_tests::process::Process;
use valetkey_tests::{Client, Setup, TestBroker, acquire, reason};

const BOT: &str = "travel-bot";
const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const VALUE: &[u8] = b"demo-navan-user@travel.example";

#[tokio::test]
async fn a_read_only_database() -> Result<()> {
    let broker = TestBroker::start().await?;
    outage(&broker, || broker.store.inject(Fault::ReadOnly), || broker.store.heal()).await
}

#[tokio::test]
async fn a_full_disk() -> Result<()> {
    let broker = TestBroker::start().await?;
    outage(&broker, || broker.store.inject(Fault::DiskFull), || broker.store.heal()).await
}

#[tokio::test]
async fn a_disk_that_does_not_answer() -> Result<()> {
    let broker = TestBroker::start().await?;
    outage(&broker, || broker.store.inject(Fault::Stall), || broker.store.heal()).await
}

/// No fault injected: the file is really gone from its place, and back.
#[tokio::test]
async fn a_database_that_was_moved_away() -> Result<()> {
    let broker = TestBroker::start().await?;
    let (here, away) = (broker.dir.path().join("audit.db"), broker.dir.path().join("elsewhere.db"));
    let (mut moved, mut back) = (Ok(()), Ok(()));
    outage(&broker, || moved = std::fs::rename(&here, &away), || back = std::fs::rename(&away, &here))
        .await?;
    Ok(moved.and(back)?)
}

/// No fault injected: the system lets no file of the broker's process grow.
#[tokio::test]
async fn files_that_cannot_grow() -> Result<()> {
    let setup = Setup::new()?;
    setup.write_config()?;
    let (mut process, uri) = Process::broker(env!("CARGO_BIN_EXE_stand-in"), setup.dir(), &[]).await?;
    let mut bot = Client::connect(&uri, Some(&setup.authorization(BOT)?)).await?;
    let mut tool = Client::connect(&uri, Some(&setup.authorization(BOOK)?)).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    let mut health = Health::watch(&uri, &setup.authorization("omar")?).await?;
    health.expect(ServingStatus::Serving).await?;

    process.tell("limit 4096").await?;
    process.hear("limited").await?;
    for _ in 0..3 {
        check_unavailable("acquire", Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await)?;
        check_unavailable("redeem", tool.redeem(lease.handle(0)?).await)?;
    }
    health.expect(ServingStatus::NotServing).await?;

    process.tell("unlimit").await?;
    process.hear("unlimited").await?;
    let value =
        until_served(async || tool.clone().redeem(lease.handle(0)?).await.map_err(Into::into)).await?;
    assert_eq!(value.secret_value, VALUE, "no use was spent meanwhile");
    health.expect(ServingStatus::Serving).await?;
    process.kill().await?;
    assert_eq!(integrity(&setup.dir().join("audit.db"))?, "ok");
    Ok(())
}

/// Nothing heals a writer that is gone; it must at least be seen.
#[tokio::test]
async fn a_writer_that_panicked() -> Result<()> {
    let broker = TestBroker::start().await?;
    let (mut bot, mut tool) = (broker.client(BOT).await?, broker.client(BOOK).await?);
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    let mut health = Health::of(&broker).await?;
    health.expect(ServingStatus::Serving).await?;
    broker.store.inject(Fault::Panic);
    check_unavailable("redeem", tool.redeem(lease.handle(0)?).await)?;
    broker.store.heal();
    check_unavailable("redeem, later", tool.redeem(lease.handle(0)?).await)?;
    check_unavailable("acquire", Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await)?;
    health.expect(ServingStatus::NotServing).await
}

/// What holds for every way in which the log can be away for a while.
async fn outage(broker: &TestBroker, begin: impl FnOnce(), end: impl FnOnce()) -> Result<()> {
    let mut bot = broker.client(BOT).await?;
    let mut tool = broker.client(BOOK).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    let dropped = Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await?;
    let dropped_id = dropped.id.clone();
    let mut health = Health::of(broker).await?;
    health.expect(ServingStatus::Serving).await?;

    begin();
    until_refused(&mut bot).await?;
    let mark = broker.mark();
    let counts = broker.broker.leases().counts();
    check_every_call(broker, &lease).await?;
    assert_eq!(broker.broker.leases().counts(), counts, "nothing was issued or ended");
    health.expect(ServingStatus::NotServing).await?;
    drop(dropped);
    until(|| broker.broker.leases().counts() == (1, 1)).await?;
    assert_eq!(broker.mark(), mark, "nothing was written");

    end();
    let answer =
        until_served(async || tool.clone().redeem(lease.handle(0)?).await.map_err(anyhow::Error::from))
            .await?;
    assert_eq!(answer.secret_value, VALUE, "the attempts meanwhile spent no use");
    let spent = tool.redeem(lease.handle(0)?).await.err().context("a second use")?;
    assert_eq!(reason(&spent), "HANDLE_NOT_ACTIVE");
    health.expect(ServingStatus::Serving).await?;
    check_ended_later(broker, mark, &dropped_id).await
}

/// The lease that ended while nothing could be written has its record, once.
async fn check_ended_later(broker: &TestBroker, mark: RecordId, lease: &str) -> Result<()> {
    let of_lease = |records: &[valetkey_audit::StoredRecord]| {
        let ends = records.iter().filter(|it| it.kind == RecordKind::LeaseEnd);
        let ends: Vec<_> = ends.filter(|it| it.lease.as_deref() == Some(lease)).cloned().collect();
        (!ends.is_empty()).then_some(ends)
    };
    let ends = broker.await_records(mark, of_lease).await?;
    let reasons: Vec<_> = ends.iter().map(|record| record.reason).collect();
    assert_eq!(reasons, [Reason::EndDisconnect]);
    Ok(())
}

/// Each call, as somebody who may make it.
async fn check_every_call(broker: &TestBroker, lease: &Lease) -> Result<()> {
    let (bot, tool, ana) =
        (broker.client(BOT).await?, broker.client(BOOK).await?, broker.client("ana").await?);
    let check = CheckAccessRequest { tool: BOOK.into(), reference: USERNAME.into(), ..Default::default() };
    let end = EndLeaseRequest { lease_id: lease.id.clone() };
    let record = GetAuditRecordRequest { record_id: "1".into() };
    let (list, watch) = (ListAuditRecordsRequest::default(), WatchAuditRecordsRequest::default());
    // All at once: each may have to wait for as long as the broker waits for its disk.
    let (mut one, mut two, mut three, mut four) = (bot.clone(), tool, bot.clone(), bot);
    let (mut five, mut six, mut seven) = (ana.clone(), ana.clone(), ana);
    let (acquired, redeemed, checked, ended, listed, fetched, watched) = tokio::join!(
        Lease::open(&mut one, acquire(BOOK, &[PASSWORD])),
        two.redeem(lease.handle(0)?),
        three.leases.check_access(check),
        four.leases.end_lease(end),
        five.audit.list_audit_records(list),
        six.audit.get_audit_record(record),
        seven.audit.watch_audit_records(watch),
    );
    check_unavailable("acquire", acquired)?;
    check_unavailable("redeem", redeemed)?;
    check_unavailable("check", checked)?;
    check_unavailable("end", ended)?;
    check_unavailable("list", listed)?;
    check_unavailable("fetch", fetched)?;
    check_unavailable("watch", watched)
}

fn check_unavailable<T>(what: &str, answer: Result<T, Status>) -> Result<()> {
    let status = answer.err().with_context(|| format!("{what}: was served without a log"))?;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "AUDIT_UNAVAILABLE"), "{what}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    ensure!(retry.is_some_and(|delay| delay > Duration::ZERO), "{what}: no RetryInfo: {status:?}");
    Ok(())
}

/// A disk is full when it is full: what still fits is served. Asks until something no longer does.
async fn until_refused(bot: &mut Client) -> Result<()> {
    for _ in 0..1000 {
        let check =
            CheckAccessRequest { tool: BOOK.into(), reference: USERNAME.into(), ..Default::default() };
        if let Err(status) = bot.leases.check_access(check).await {
            return check_unavailable("the first", Err::<(), _>(status));
        }
    }
    anyhow::bail!("the log was never away")
}

/// Asks again until it is served, for ten seconds.
async fn until_served<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let end = Instant::now() + WAIT_MAX;
    loop {
        match ask().await {
            Err(_) if Instant::now() < end => tokio::time::sleep(LOOK_AGAIN).await,
            answer => return answer,
        }
    }
}

async fn until(holds: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + WAIT_MAX;
    while !holds() {
        ensure!(Instant::now() < end, "it does not come true");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The health of the lease service, as an operator watches it. Asking anew needs the log.
struct Health(Streaming<HealthCheckResponse>);

impl Health {
    async fn of(broker: &TestBroker) -> Result<Self> {
        let token = format!("Bearer {}", broker.token("omar")?);
        Self::watch(&format!("http://{}", broker.address), &token).await
    }

    async fn watch(uri: &str, authorization: &str) -> Result<Self> {
        let channel = Endpoint::from_shared(uri.to_owned())?.connect().await?;
        let mut ask = Request::new(HealthCheckRequest { service: "valetkey.v1.LeaseService".into() });
        ask.metadata_mut().insert("authorization", authorization.parse()?);
        Ok(Self(HealthClient::new(channel).watch(ask).await?.into_inner()))
    }

    /// What it says next.
    async fn expect(&mut self, expected: ServingStatus) -> Result<()> {
        let next = tokio::time::timeout(WAIT_MAX, self.0.message()).await.context("health says nothing")?;
        assert_eq!(next?.context("health went away")?.status(), expected);
        Ok(())
    }
}

const WAIT_MAX: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
