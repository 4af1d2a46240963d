//! Real sources behind a whole broker, over stand-ins: the travel story on each, and what an upstream that
//! fails becomes for an agent, in the log, and afterwards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Name, OutcomeResult, Reason, RecordKind};
use valetkey_proto::v1::{GetStatusRequest, SourceState, SourceStatus};
use valetkey_server::{SourceBounds, SourceConfig, SourceKind};
use valetkey_standin::{ConnectFault, ConnectServer, OpFault, OpProgram, Service, World, sdk_library, skip};
use valetkey_tests::hunt::Hunt;
use valetkey_tests::lease::Lease;
use valetkey_tests::trace::Trace;
use valetkey_tests::{Setup, TestBroker, acquire, private_file, reason};

use crate::story;

const BOOK: &str = "navan.book_flight";
const USER: &str = "op://Tutorial/Navan/username";
const PASSWORD: &str = "op://Tutorial/Navan/password";

fn source(name: &str, kind: SourceKind) -> Result<SourceConfig> {
    let (name, vaults) = (Name::parse(name)?, vec!["Tutorial".to_owned()]);
    Ok(SourceConfig { name, vaults, kind, bounds: SourceBounds::default() })
}

fn connect(home: &Path, server: &ConnectServer) -> Result<SourceConfig> {
    let token_file = Some(private_file(home, "connect.token", ConnectServer::TOKEN)?);
    source("connect", SourceKind::Connect { host: Some(server.host()), token_file, ca: None })
}

/// A broker over a Connect server, on a clock that the test moves.
struct Stage {
    server: ConnectServer,
    broker: TestBroker,
    clock: FakeClock,
}

impl Stage {
    async fn with(bounds: SourceBounds) -> Result<Self> {
        let server = ConnectServer::start(World::travel()?).await?;
        let (setup, clock) = (Setup::new()?, FakeClock::default());
        let source = SourceConfig { bounds, ..connect(setup.dir(), &server)? };
        let broker = setup.clock(&clock).sources(vec![source]).start().await?;
        Ok(Self { server, broker, clock })
    }

    async fn acquire(&self, references: &[&str]) -> Result<Lease, Status> {
        let mut bot =
            self.broker.client("travel-bot").await.map_err(|it| Status::internal(it.to_string()))?;
        Lease::open(&mut bot, acquire(BOOK, references)).await
    }

    async fn refused(&self, reference: &str) -> Result<Status> {
        self.acquire(&[reference]).await.err().context("it was not refused")
    }

    async fn redeem(&self, handle: &str) -> Result<Vec<u8>> {
        Ok(self.broker.client(BOOK).await?.redeem(handle).await?.secret_value)
    }

    async fn status(&self) -> Result<SourceStatus> {
        let mut omar = self.broker.client("omar").await?;
        let status = omar.operator.get_status(GetStatusRequest {}).await?.into_inner();
        status.sources.into_iter().next().context("no source")
    }

    async fn state(&self) -> Result<SourceState> {
        Ok(self.status().await?.state())
    }

    fn item_reads(&self) -> usize {
        let is_item = |path: &String| path.split('/').count() == 6;
        self.server.requests().iter().filter(|path| is_item(path)).count()
    }
}

#[tokio::test]
async fn the_travel_story_on_connect() -> Result<()> {
    let server = ConnectServer::start(World::travel()?).await?;
    let setup = Setup::new()?;
    let source = connect(setup.dir(), &server)?;
    let broker = setup.sources(vec![source]).start().await?;
    story::play(&broker).await?;
    let issued = broker.records("kind:acquire decision:allow").await?;
    for record in issued {
        let outcome = record.outcome.context("no outcome")?;
        assert_eq!((outcome.source.as_str(), outcome.item_version > 0), ("connect", true));
        assert!(
            record.target.is_some_and(|target| !target.field_id.is_empty() && target.item_id.len() == 26)
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_travel_story_on_op() -> Result<()> {
    let program = OpProgram::new(&World::travel()?)?;
    let setup = Setup::new()?;
    let service = Service::start(World::travel()?).await?;
    let token_file = Some(private_file(setup.dir(), "team.token", &service.token())?);
    let kind = SourceKind::Op { program: program.path(), token_file, allow_loopback: true };
    let broker = setup.sources(vec![source("op", kind)?]).start().await?;
    story::play(&broker).await
}

#[tokio::test]
async fn the_travel_story_on_the_sdk_core() -> Result<()> {
    let library = match sdk_library() {
        Ok(library) => library,
        Err(why) => {
            skip("the_travel_story_on_the_sdk_core", &why);
            return Ok(());
        }
    };
    let service = Service::start(World::travel()?).await?;
    let setup = Setup::new()?;
    let token_file = Some(private_file(setup.dir(), "team.token", &service.token())?);
    let kind = SourceKind::Sdk { library, sha256: None, token_file, allow_loopback: true };
    let broker = setup.sources(vec![source("team", kind)?]).start().await?;
    story::play(&broker).await
}

/// Cold, so that what the item has must be asked too.
#[tokio::test]
async fn a_thousand_requests_for_one_item_are_one_read() -> Result<()> {
    let stage = Stage::with(SourceBounds::default()).await?;
    let bot = stage.broker.client("travel-bot").await?;
    let asks = (0..1000).map(|_| {
        let mut bot = bot.clone();
        tokio::spawn(async move { Lease::open(&mut bot, acquire(BOOK, &[USER, PASSWORD])).await })
    });
    let mut leases = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        leases.push(ask.await??);
    }
    assert_eq!(stage.item_reads(), 1, "{:?}", stage.server.requests());
    assert!(leases.iter().all(|lease| lease.issued.len() == 2));
    Ok(())
}

#[tokio::test]
async fn a_server_that_fails_is_said_recorded_and_survived() -> Result<()> {
    let stage = Stage::with(SourceBounds::default()).await?;
    let lease = stage.acquire(&[PASSWORD]).await?;
    stage.clock.advance(Duration::from_secs(2));
    for (fault, why, code, state) in [
        (
            ConnectFault::Status(500, "broken"),
            "RESOLVER_UNAVAILABLE",
            Code::Unavailable,
            SourceState::Unavailable,
        ),
        (ConnectFault::Cut, "RESOLVER_UNAVAILABLE", Code::Unavailable, SourceState::Unavailable),
        (
            ConnectFault::Status(401, "Invalid token signature"),
            "RESOLVER_CREDENTIALS_REFUSED",
            Code::Unavailable,
            SourceState::CredentialsRefused,
        ),
        (
            ConnectFault::RateLimit(Some("30")),
            "RESOLVER_RATE_LIMITED",
            Code::ResourceExhausted,
            SourceState::Limited,
        ),
    ] {
        stage.server.fail("/v1/", fault.clone());
        let mark = stage.broker.mark();
        // As often as it takes until it is left alone: more requests do not mean more questions.
        let mut asked = 0;
        for _ in 0..20 {
            let status = stage.refused(PASSWORD).await?;
            assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{fault:?}");
            let details = status.get_error_details();
            let retry = details.retry_info().and_then(|it| it.retry_delay).context("no delay")?;
            assert!(why != "RESOLVER_RATE_LIMITED" || retry.as_secs() >= 29, "{retry:?}");
            asked = stage.server.requests().len();
        }
        let records = stage.broker.settled(mark).await?;
        let failed = records.iter().filter(|it| it.kind == RecordKind::Acquire);
        for record in failed {
            let outcome = record.outcome.as_ref();
            let said =
                outcome.filter(|it| it.result == OutcomeResult::Failed).and_then(|it| it.reason.as_deref());
            assert!(said == Some(why) || record.reason == Reason::SourceFailed, "{record:#?}");
            assert!(!format!("{record:?}").contains(ConnectServer::TOKEN));
        }
        assert_eq!(stage.state().await?, state, "{fault:?}");
        stage.refused(PASSWORD).await?;
        assert_eq!(stage.server.requests().len(), asked, "it is left alone");

        // It comes back by itself.
        stage.server.mend();
        stage.clock.advance(Duration::from_secs(10 * 60));
        let again = stage.acquire(&[PASSWORD]).await;
        assert!(again.is_ok(), "{fault:?}: {again:?}", again = again.err());
        assert_eq!(stage.state().await?, SourceState::Ready);
        stage.clock.advance(Duration::from_secs(2));
    }
    drop(lease);
    Ok(())
}

#[tokio::test]
async fn what_is_out_lives_on_while_its_source_is_away() -> Result<()> {
    let stage = Stage::with(SourceBounds::default()).await?;
    let lease = stage.acquire(&[PASSWORD]).await?;
    stage.server.fail("/", ConnectFault::Status(503, "gone"));
    stage.clock.advance(Duration::from_secs(5));
    assert_eq!(stage.redeem(lease.handle(0)?).await?, b"demo-navan-password-7f3a91");
    Ok(())
}

#[tokio::test]
async fn a_quota_that_is_spent_says_when_to_ask_again() -> Result<()> {
    let bounds = SourceBounds { requests_per_hour: Some(4), ..SourceBounds::default() };
    let stage = Stage::with(bounds).await?;
    stage.acquire(&[PASSWORD]).await?;
    let mut refused = None;
    for _ in 0..10 {
        stage.clock.advance(Duration::from_secs(2));
        if let Err(status) = stage.acquire(&[PASSWORD]).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.context("the quota has no end")?;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "RESOLVER_RATE_LIMITED"));
    let details = status.get_error_details();
    let retry = details.retry_info().and_then(|it| it.retry_delay).context("no delay")?;
    // An hour, and the slot of five minutes that the count is kept in.
    assert!((Duration::from_secs(60)..=Duration::from_secs(65 * 60)).contains(&retry), "{retry:?}");
    assert!(stage.server.requests().len() <= 4, "{:?}", stage.server.requests());
    let hour = stage.status().await?.hour.context("it has a limit")?;
    assert_eq!(hour.used + hour.left, 4, "{hour:?}");
    assert!(hour.left <= 1, "an agent alone has four fifths: {hour:?}");
    stage.clock.advance(retry + Duration::from_secs(1));
    stage.acquire(&[PASSWORD]).await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_agent_costs_the_source_nothing() -> Result<()> {
    let stage = Stage::with(SourceBounds::default()).await?;
    let mut other = stage.broker.client("mail-bot").await?;
    for reference in [PASSWORD, "op://Tutorial/None/x", "op://None/None/x"] {
        let status =
            Lease::open(&mut other, acquire(BOOK, &[reference])).await.err().context("not refused")?;
        assert_eq!(reason(&status), "ACCESS_DENIED");
    }
    assert_eq!(stage.server.requests(), Vec::<String>::new());
    // A vault that no source serves costs nothing either, whoever asks.
    let status = stage.refused("op://Production/Database/password").await?;
    assert_eq!(reason(&status), "ACCESS_DENIED");
    assert!(!stage.server.requests().iter().any(|path| path.contains("items")));
    Ok(())
}

/// What the travel story's values and each source's token leave behind: nothing, in the log, in files, in what a
/// failure says, also where the server repeats the token.
#[tokio::test]
async fn no_value_and_no_token_is_left_anywhere() -> Result<()> {
    let trace = Trace::start()?;
    let mut hunt = Hunt::default();
    for value in ["demo-navan-user@travel.example", "demo-navan-password-7f3a91"] {
        hunt.add(value, value.as_bytes());
    }
    hunt.add("the token for Connect", ConnectServer::TOKEN.as_bytes());
    let server = ConnectServer::start(World::travel()?).await?;
    let service = Service::start(World::travel()?).await?;
    hunt.add("the service account's token", service.token().as_bytes());
    let program = OpProgram::new(&World::travel()?)?;
    for kind in ["connect", "op", "sdk"] {
        let setup = Setup::new()?;
        let token_file = Some(private_file(setup.dir(), "team.token", &service.token())?);
        let configured = match kind {
            "connect" => connect(setup.dir(), &server)?,
            "op" => {
                source("op", SourceKind::Op { program: program.path(), token_file, allow_loopback: true })?
            }
            _ => {
                let Ok(library) = sdk_library() else { continue };
                source("team", SourceKind::Sdk { library, sha256: None, token_file, allow_loopback: true })?
            }
        };
        let broker = setup.sources(vec![configured]).start().await?;
        let mut bot = broker.client("travel-bot").await?;
        let lease = Lease::open(&mut bot, acquire(BOOK, &[USER, PASSWORD])).await?;
        broker.client(BOOK).await?.redeem(lease.handle(0)?).await?;
        server.fail("/", ConnectFault::EchoToken(401));
        let leak = format!("[ERROR] 2026/11/25 10:00:00 bad token {}", service.token());
        program.fail(OpFault::Exit(1, &leak))?;
        service.fail(Some(401));
        // Past what is shared.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let status = Lease::open(&mut bot, acquire(BOOK, &[PASSWORD])).await.err().context("not refused")?;
        hunt.search_status(kind, &status);
        hunt.search("the log", format!("{:?}", broker.records("").await?));
        let setup = broker.stop().await?;
        hunt.search_files(setup.dir(), &["vault.json", "team.token", "connect.token"])?;
        server.mend();
        program.mend()?;
        service.fail(None);
    }
    hunt.search("the logs", trace.bytes());
    let (found, searched) = hunt.found();
    assert!(found.is_empty() && searched > 12, "{found:#?} in {searched} places");
    Ok(())
}
