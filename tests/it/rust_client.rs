//! The Rust client's lease, in trouble: a broker that dies, restarts, freezes, drains; a network that is cut; policies
//! that change in mid-use; clocks that are wrong. Each gives a typed error or a silent recovery, never a wait beyond the
//! bound, never a stale handle.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use valetkey_client::{AcquireLease, Broker, CallError, EndCause, Handle, Lease, LeaseEvent, Retries, Token};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordKind};
use valetkey_tests::process::Process;
use valetkey_tests::proxy::Proxy;
use valetkey_tests::{Setup, TestBroker};

const BOT: &str = "travel-bot";
const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";
const VALUE: &[u8] = b"demo-navan-password-7f3a91";
const NO_PASSWORD: &str = "@id(\"no-password\")\nforbid (principal, action in Action::\"access\", resource)\n\
                           when { resource is Secret && resource.field == \"password\" };\n";
const NOTHING: &str = "@id(\"nothing\")\nforbid (principal, action in Action::\"access\", resource);\n";

/// A broker in a process of its own, behind a network; both can be broken.
struct Scene {
    setup: Setup,
    process: Option<Process>,
    network: Proxy,
}

impl Scene {
    async fn new() -> Result<Self> {
        let setup = Setup::new()?;
        setup.write_config()?;
        let (process, address) = start(&setup).await?;
        Ok(Self { setup, process: Some(process), network: Proxy::start(address).await? })
    }

    /// As a power cut would.
    async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it is dead")?.kill().await
    }

    async fn restart(&mut self) -> Result<()> {
        let (process, address) = start(&self.setup).await?;
        self.process = Some(process);
        self.network.lead_to(address);
        Ok(())
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        self.process.as_ref().context("it is dead")?.freeze(frozen)
    }

    async fn connect(&self, name: &str) -> Result<Broker> {
        let authorization = self.setup.authorization(name)?;
        connect(&self.network.uri, authorization.trim_start_matches("Bearer ")).await
    }

    /// The agent and the tool, and a lease that waits at most so long.
    async fn lease(&self, seconds: u64) -> Result<(Lease, Broker)> {
        let retries = Retries::within(Duration::from_secs(seconds));
        let lease = self.connect(BOT).await?.retries(retries).lease(request()).await?;
        Ok((lease, self.connect(BOOK).await?.retries(retries)))
    }
}

async fn start(setup: &Setup) -> Result<(Process, SocketAddr)> {
    let (process, uri) = Process::broker(env!("CARGO_BIN_EXE_stand-in"), setup.dir(), &[]).await?;
    Ok((process, uri.trim_start_matches("http://").parse()?))
}

async fn connect(uri: &str, token: &str) -> Result<Broker> {
    Ok(Broker::connect(uri, Token::parse(token)?).await?)
}

fn request() -> AcquireLease {
    AcquireLease::new(BOOK, [PASSWORD], "book the flight to Lisbon")
}

#[tokio::test]
async fn a_broker_that_is_killed_and_restarts() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (lease, tool) = scene.lease(60).await?;
    let (old, old_id) = (lease.handle(PASSWORD).await?, lease.id());
    scene.kill().await?;
    until(|| lease.handles().is_empty()).await?;
    scene.restart().await?;
    let fresh = lease.handle(PASSWORD).await?;
    ensure!(fresh.handle_id != old.handle_id && lease.id() != old_id && lease.lost().is_none());
    let dead = tool.redeem(&old.handle).await.map(drop);
    ensure!(matches!(dead, Err(CallError::HandleNotActive { .. })), "{dead:?}");
    assert_eq!(lease.redeem_as(&tool, PASSWORD).await?.expose_secret(), VALUE);
    Ok(())
}

#[tokio::test]
async fn a_redeem_outlasts_a_restart() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (lease, tool) = scene.lease(60).await?;
    scene.kill().await?;
    let redeeming = tokio::spawn(async move { lease.redeem_as(&tool, PASSWORD).await });
    scene.restart().await?;
    assert_eq!(redeeming.await??.expose_secret(), VALUE);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_drains() -> Result<()> {
    let grace = Duration::from_millis(600);
    let broker = Setup::new()?.limits(|limits| limits.drain_grace = grace).start().await?;
    let network = Proxy::start(broker.address).await?;
    let lease = connect(&network.uri, broker.token(BOT)?).await?.lease(request()).await?;
    let tool = connect(&network.uri, broker.token(BOOK)?).await?;
    let (old, mut events) = (lease.handle(PASSWORD).await?, lease.events());
    let stopping = tokio::spawn(broker.stop());
    ensure!(matches!(events.next().await, Some(LeaseEvent::Draining { .. })));
    ensure!(lease.is_draining() && lease.handles().len() == 1, "it is good until the broker has gone");
    let again = stopping.await??.start().await?;
    network.lead_to(again.address);
    let fresh = lease.handle(PASSWORD).await?;
    ensure!(fresh.handle_id != old.handle_id && !lease.is_draining());
    assert_eq!(lease.redeem_as(&tool, PASSWORD).await?.expose_secret(), VALUE);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_stays_away() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (lease, tool) = scene.lease(2).await?;
    let handle = lease.handle(PASSWORD).await?.handle;
    scene.kill().await?;
    until(|| lease.handles().is_empty()).await?;
    away("a handle", lease.handle(PASSWORD)).await?;
    away("a value", lease.redeem_as(&tool, PASSWORD)).await?;
    away("a value for a handle", tool.redeem(&handle)).await?;
    let agent = tool.clone();
    away("another lease", agent.lease(request())).await?;
    let why = timed(lease.revoked()).await?;
    assert_eq!(lease.lost(), Some(why));
    timed(lease.end()).await??;
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_frozen_and_thaws() -> Result<()> {
    let scene = Scene::new().await?;
    let (lease, tool) = scene.lease(60).await?;
    let impatient = tool.clone().retries(Retries::within(Duration::from_secs(1)));
    let old = lease.handle(PASSWORD).await?;
    scene.freeze(true)?;
    away("a value", impatient.redeem(&old.handle)).await?;
    away("another lease", impatient.lease(request())).await?;
    until(|| lease.handles().is_empty()).await?;
    scene.freeze(false)?;
    ensure!(lease.handle(PASSWORD).await?.handle_id != old.handle_id);
    assert_eq!(lease.redeem_as(&tool, PASSWORD).await?.expose_secret(), VALUE);
    Ok(())
}

#[tokio::test]
async fn a_network_that_comes_back() -> Result<()> {
    for cut in [Proxy::cut, Proxy::swallow] {
        let scene = Scene::new().await?;
        let (lease, tool) = scene.lease(60).await?;
        let old = lease.handle(PASSWORD).await?;
        cut(&scene.network);
        until(|| lease.handles().is_empty()).await?;
        scene.network.restore();
        ensure!(lease.handle(PASSWORD).await?.handle_id != old.handle_id);
        assert_eq!(lease.redeem_as(&tool, PASSWORD).await?.expose_secret(), VALUE);
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_that_changes_in_mid_use() -> Result<()> {
    let broker = TestBroker::start().await?;
    let uri = format!("http://{}", broker.address);
    let (agent, tool) = (connect(&uri, broker.token(BOT)?).await?, connect(&uri, broker.token(BOOK)?).await?);
    let both = AcquireLease { references: vec![PASSWORD.into(), USERNAME.into()], ..request() };
    let lease = agent.lease(both).await?;
    let old = lease.handle(PASSWORD).await?;
    broker.put_policies("zz.cedar", NO_PASSWORD)?;
    broker.reloader.reload().await?;
    assert_eq!(timed(lease.revoked()).await?, CallError::LeaseEnded(EndCause::Policy));
    let denied = Some(CallError::LeaseEnded(EndCause::Policy));
    assert_eq!(lease.handle(PASSWORD).await.err(), denied);
    assert_eq!(lease.redeem_as(&tool, PASSWORD).await.err(), denied);
    ensure!(tool.redeem(&old.handle).await.is_err());
    lease.handle(USERNAME).await?;
    broker.put_policies("zz.cedar", NOTHING)?;
    broker.reloader.reload().await?;
    until(|| lease.lost().is_some()).await?;
    assert_eq!(lease.lost(), denied);
    Ok(())
}

#[tokio::test]
async fn a_restart_under_other_policies_is_a_refusal() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (lease, _) = scene.lease(60).await?;
    scene.kill().await?;
    std::fs::write(scene.setup.dir().join("policies/zz.cedar"), NOTHING)?;
    scene.restart().await?;
    let why = timed(lease.revoked()).await?;
    ensure!(matches!(why, CallError::Denied { .. }), "{why}");
    assert_eq!(lease.handle(PASSWORD).await.err(), Some(why));
    Ok(())
}

/// The broker's clock is half a year from this machine's: renewal and redeem go on as usual.
#[tokio::test]
async fn a_clock_that_is_wrong() -> Result<()> {
    let clock = FakeClock::default();
    let broker = Setup::new()?.clock(&clock).start().await?;
    let uri = format!("http://{}", broker.address);
    let (agent, tool) = (connect(&uri, broker.token(BOT)?).await?, connect(&uri, broker.token(BOOK)?).await?);
    let lease = agent.lease(request()).await?;
    let old = lease.handle(PASSWORD).await?;
    clock.advance(Duration::from_secs(48));
    until(|| lease.handles().iter().any(|issued| issued.handle_id != old.handle_id)).await?;
    assert_eq!(lease.redeem_as(&tool, PASSWORD).await?.expose_secret(), VALUE);
    Ok(())
}

/// This process does not come to read for longer than the handle lives: what it knows of is dead by then.
#[tokio::test]
async fn a_process_that_slept_shows_no_stale_handle() -> Result<()> {
    let scene = Scene::new().await?;
    let short = AcquireLease { ttl: Some(Duration::from_secs(2)), ..request() };
    let lease = scene.connect(BOT).await?.lease(short).await?;
    let old = lease.handle(PASSWORD).await?;
    // Not a wait of tokio's: nothing else runs meanwhile. A second more than it lives: dates are in whole ones.
    std::thread::sleep(Duration::from_millis(3_500));
    ensure!(lease.handles().is_empty(), "a stale handle");
    ensure!(lease.handle(PASSWORD).await?.handle_id != old.handle_id);
    Ok(())
}

#[tokio::test]
async fn a_lease_ends_with_its_value() -> Result<()> {
    let broker = TestBroker::start().await?;
    let agent = connect(&format!("http://{}", broker.address), broker.token(BOT)?).await?;
    for (ends, why) in [(false, Reason::EndDisconnect), (true, Reason::EndCaller)] {
        let lease = agent.lease(request()).await?;
        let id = lease.id();
        let mark = broker.mark();
        if ends {
            lease.end().await?
        } else {
            drop(lease)
        }
        let end = broker.await_records(mark, |log| {
            log.iter().find(|it| it.kind == RecordKind::LeaseEnd && it.lease.as_deref() == Some(&id)).cloned()
        });
        assert_eq!(end.await?.reason, why);
        until(|| broker.broker.leases().counts() == (0, 0)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_leases_at_once() -> Result<()> {
    let broker = TestBroker::start().await?;
    let uri = format!("http://{}", broker.address);
    let (agent, tool) = (connect(&uri, broker.token(BOT)?).await?, connect(&uri, broker.token(BOOK)?).await?);
    let within = Retries::within(Duration::from_secs(120));
    let (agent, tool) = (agent.retries(within), tool.retries(within));
    let opening: Vec<_> = (0..200)
        .map(|_| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.lease(request()).await })
        })
        .collect();
    let mut leases = Vec::new();
    for lease in opening {
        leases.push(lease.await??);
    }
    assert_eq!(broker.broker.leases().counts(), (200, 200));
    let redeeming: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let tool = tool.clone();
            tokio::spawn(async move { lease.redeem_as(&tool, PASSWORD).await })
        })
        .collect();
    for value in redeeming {
        assert_eq!(value.await??.expose_secret(), VALUE);
    }
    until(|| broker.broker.leases().counts() == (0, 0)).await
}

#[tokio::test]
async fn nobody_is_there() -> Result<()> {
    let scene = Scene::new().await?;
    let tool = scene.connect(BOOK).await?.retries(Retries::within(Duration::from_secs(1)));
    scene.network.cut();
    let secret = "vkh_0123456789abcdef_secretsecret";
    let error = away("a value", tool.redeem(&Handle::new(secret))).await?;
    ensure!(!error.to_string().contains("secretsecret"), "{error}");
    away("a check", tool.lease(request())).await?;
    Ok(())
}

/// It fails, in time, because the broker is away.
async fn away<T>(what: &str, work: impl Future<Output = Result<T, CallError>>) -> Result<CallError> {
    let error = timed(work).await?.err().with_context(|| format!("{what} came"))?;
    let is_typed =
        matches!(error, CallError::Unavailable { .. } | CallError::TimedOut(_) | CallError::LeaseLost(_));
    ensure!(is_typed, "{what}: {error}");
    Ok(error)
}

async fn timed<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(WAIT_MAX, work).await.context("a hang")
}

async fn until(holds: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + WAIT_MAX;
    while !holds() {
        ensure!(Instant::now() < end, "it does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Far longer than any bound that a test sets.
const WAIT_MAX: Duration = Duration::from_secs(20);
