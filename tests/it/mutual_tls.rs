//! Callers known by their certificates: who gets in, who does not and what the log says of it, and certificates that
//! change while the broker serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use valetkey_audit::StoredRecord;
use valetkey_client::{
    AcquireLease, Broker, CallError, CheckAccess, ConnectError, Credentials, Handle, LeaseEvent, Retries,
    Token,
};
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordKind, SpiffePattern, TrustDomain};
use valetkey_server::{
    CertificateSource, ClientCertificates, IdentityKind, PlaceLimits, SpiffeRule, TlsSettings,
};
use valetkey_tests::pki::{Authority, Files, Leaf, replace};
use valetkey_tests::{Setup, TestBroker};

const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const VALUE: &[u8] = b"demo-navan-user@travel.example";
const BOT_ID: &str = "spiffe://example.org/agent/travel-bot";
const BOOK_ID: &str = "spiffe://example.org/tool/navan.book_flight";

/// A broker with TLS, whose callers have certificates.
struct Scene {
    broker: TestBroker,
    authority: Authority,
    folder: PathBuf,
}

impl Scene {
    async fn new(required: bool) -> Result<Self> {
        Self::with(Setup::new()?, required).await
    }

    async fn with(setup: Setup, required: bool) -> Result<Self> {
        let authority = Authority::new("example.org")?;
        let folder = setup.dir().join("tls");
        std::fs::create_dir(&folder)?;
        let Files { certificate, key } = authority.sign_into(&folder, "broker", &Leaf::broker())?;
        let ca = folder.join("ca.pem");
        replace(&ca, authority.pem())?;
        let trust_domain = TrustDomain::parse("example.org")?;
        let rules = vec![rule(IdentityKind::Agent)?, rule(IdentityKind::Tool)?];
        let broker = setup
            .configure(move |config| {
                config.tls = Some(TlsSettings {
                    source: CertificateSource::Files { certificate, key, client_ca: Some(ca) },
                    clients: Some(ClientCertificates { trust_domain, required }),
                    tls12: false,
                });
                config.spiffe_rules = rules;
            })
            .start()
            .await?;
        Ok(Self { broker, authority, folder })
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn files(&self, name: &str, leaf: &Leaf) -> Result<Files> {
        self.authority.sign_into(&self.folder, name, leaf)
    }

    async fn connect(&self, credentials: Credentials) -> Result<Broker, ConnectError> {
        Broker::connect(&format!("https://127.0.0.1:{}", self.broker.address.port()), credentials).await
    }

    async fn client(&self, id: &str) -> Result<Broker> {
        let name = id.rsplit('/').next().unwrap_or_default();
        let files = self.files(name, &Leaf::client(id))?;
        Ok(self.connect(files.credentials(&self.ca())).await?)
    }

    /// Tries to call; whatever comes of it must be no answer, and leave exactly one record: its reason and detail.
    async fn refused(&self, what: &str, credentials: Credentials) -> Result<StoredRecord> {
        let mark = self.broker.mark();
        let called = match self.connect(credentials).await {
            Ok(broker) => broker.check(check()).await.map(drop).map_err(anyhow::Error::from),
            Err(error) => Err(error.into()),
        };
        ensure!(called.is_err(), "{what}: was not refused");
        let denied = |log: &[StoredRecord]| {
            log.iter().find(|record| record.kind == RecordKind::Unauthenticated).cloned()
        };
        let record = self.broker.await_records(mark, denied).await.with_context(|| what.to_owned())?;
        ensure!(record.caller.is_none() && record.client.is_some(), "{what}: {record:?}");
        Ok(record)
    }
}

fn rule(kind: IdentityKind) -> Result<SpiffeRule> {
    let word = if kind == IdentityKind::Agent { "agent" } else { "tool" };
    let pattern = SpiffePattern::parse(&format!("spiffe://example.org/{word}/{{name}}"))?;
    Ok(SpiffeRule { pattern, kind, prefix: String::new(), suffix: String::new() })
}

fn ask() -> AcquireLease {
    AcquireLease::new(BOOK, [USERNAME], "book the flight to Lisbon")
}

fn check() -> CheckAccess {
    CheckAccess { tool: BOOK.into(), reference: USERNAME.into(), ttl: None, session: None, destination: None }
}

/// A lease of one handle, which lives as long as the first.
async fn acquire(broker: &Broker) -> Result<(valetkey_client::LeaseStream, Handle)> {
    let mut lease = broker.acquire(ask()).await?;
    while let Some(event) = lease.next().await? {
        if let LeaseEvent::Issued(issued) = event {
            let handle = Handle::new(issued.handle.expose_secret());
            return Ok((lease, handle));
        }
    }
    anyhow::bail!("no handle")
}

#[tokio::test]
async fn certificates_are_identities() -> Result<()> {
    let scene = Scene::new(true).await?;
    let (bot, tool) = (scene.client(BOT_ID).await?, scene.client(BOOK_ID).await?);
    let mark = scene.broker.mark();
    let (_lease, handle) = acquire(&bot).await?;
    assert_eq!(tool.redeem(&handle).await?.expose_secret(), VALUE);
    let log = scene.broker.settled(mark).await?;
    let callers: Vec<_> = log.iter().filter_map(|record| record.caller.as_deref()).collect();
    assert_eq!(callers, ["agent:travel-bot", "tool:navan.book_flight"]);
    Ok(())
}

/// Each row: what is shown, and the reason in the record.
#[tokio::test]
async fn every_bad_certificate_is_refused_and_recorded() -> Result<()> {
    let scene = Scene::new(true).await?;
    let good = Leaf::client(BOT_ID);
    let uris =
        |uris: &[&str]| Leaf { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..good.clone() };
    let mallory = Authority::new("mallory")?;
    let rows = [
        (
            "expired",
            &scene.authority,
            Leaf { life: (1_767_225_600, 1_767_225_700), ..good.clone() },
            Reason::CertificateExpired,
        ),
        (
            "early",
            &scene.authority,
            Leaf { life: (2_398_377_500, 2_398_377_600), ..good.clone() },
            Reason::CertificateNotYetValid,
        ),
        ("another authority's", &mallory, good.clone(), Reason::CertificateUntrusted),
        ("a server's", &scene.authority, Leaf { server: true, ..good.clone() }, Reason::CertificateUntrusted),
        (
            "of another domain",
            &scene.authority,
            uris(&["spiffe://example.com/agent/travel-bot"]),
            Reason::CertificateTrustDomain,
        ),
        ("two URIs", &scene.authority, uris(&[BOT_ID, BOOK_ID]), Reason::CertificateSpiffeId),
        ("one URI twice", &scene.authority, uris(&[BOT_ID, BOT_ID]), Reason::CertificateSpiffeId),
        ("no URI", &scene.authority, uris(&[]), Reason::CertificateSpiffeId),
        (
            "a URI of another kind",
            &scene.authority,
            uris(&["https://example.org/agent/travel-bot"]),
            Reason::CertificateSpiffeId,
        ),
        (
            "a loose id",
            &scene.authority,
            uris(&["spiffe://example.org/agent/../agent/travel-bot"]),
            Reason::CertificateSpiffeId,
        ),
        (
            "an authority's",
            &scene.authority,
            Leaf { signs: true, ..good.clone() },
            Reason::CertificateSpiffeId,
        ),
        ("nobody's", &scene.authority, uris(&["spiffe://example.org/nobody"]), Reason::CertificateUnknown),
    ];
    let mut before = None;
    for (what, authority, leaf, reason) in rows {
        if before == Some(reason) {
            // A reason is recorded once in a second.
            tokio::time::sleep(Duration::from_millis(2_100)).await;
        }
        before = Some(reason);
        let files = authority.sign_into(&scene.folder, "bad", &leaf)?;
        let record = scene.refused(what, files.credentials(&scene.ca())).await?;
        assert_eq!(record.reason, reason, "{what}: {record:?}");
        let detail = record.detail.unwrap_or_default();
        // A handshake that is refused is known by its certificate alone.
        ensure!(reason == Reason::CertificateUnknown || detail.contains("serial "), "{what}: {detail}");
    }
    let record = scene.refused("none", Credentials::default().ca(scene.ca())).await?;
    assert_eq!(record.reason, Reason::CertificateMissing);
    Ok(())
}

/// What TLS refuses it refuses each time: a lease is not asked for again until time is over.
#[tokio::test]
async fn a_lease_with_a_bad_certificate_is_a_refusal_at_once() -> Result<()> {
    let scene = Scene::new(true).await?;
    let mallory = Authority::new("mallory")?;
    let files = mallory.sign_into(&scene.folder, "bad", &Leaf::client(BOT_ID))?;
    for credentials in [files.credentials(&scene.ca()), Credentials::default().ca(scene.ca())] {
        let Ok(broker) = scene.connect(credentials).await else { continue };
        let broker = broker.retries(Retries::within(Duration::from_secs(600)));
        let refused = tokio::time::timeout(Duration::from_secs(60), broker.lease(ask())).await?;
        ensure!(refused.is_err(), "it was granted");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_tls_is_refused_and_recorded_once_a_second() -> Result<()> {
    let scene = Scene::new(true).await?;
    let mark = scene.broker.mark();
    for _ in 0..50 {
        let mut plain = TcpStream::connect(scene.broker.address).await?;
        tokio::io::AsyncWriteExt::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
    }
    let all = |log: &[StoredRecord]| {
        let counted: usize = log.iter().filter_map(|record| record.detail.as_deref()).map(attempts).sum();
        (counted == 50).then_some(log.len())
    };
    let records = scene.broker.await_records(mark, all).await?;
    ensure!(records <= 5, "{records} records for 50 attempts");
    Ok(())
}

/// Strangers that never finish their handshake lose their places to whoever comes, long before its time is over.
#[tokio::test]
async fn handshakes_that_stall_keep_nobody_out() -> Result<()> {
    let places = PlaceLimits { connections_max: 4, unknown_max: 3, unknown_per_address_max: 2 };
    let scene = Scene::with(Setup::new()?.limits(|limits| limits.places = places), true).await?;
    let (mut silent, begun) = (Vec::new(), Instant::now());
    for _ in 0..20 {
        silent.push(TcpStream::connect(scene.broker.address).await?);
    }
    scene.client(BOT_ID).await?.check(check()).await?;
    let first = silent.first_mut().context("no connections")?;
    ensure!(first.read(&mut [0]).await.is_ok_and(|read| read == 0), "the oldest is kept");
    // One handshake may take 5 s, and there are places for four at a time.
    ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    Ok(())
}

/// `7 others and: …` stands for eight.
fn attempts(detail: &str) -> usize {
    let others = detail.split_once(" others and: ").and_then(|(count, _)| count.parse::<usize>().ok());
    1 + others.unwrap_or_default()
}

#[tokio::test]
async fn a_token_and_a_certificate_must_be_the_same_ones() -> Result<()> {
    let scene = Scene::new(false).await?;
    let token = |name: &str| anyhow::Ok(Token::parse(scene.broker.token(name)?)?);
    let bot = scene.files("bot", &Leaf::client(BOT_ID))?;
    let both = scene.connect(bot.credentials(&scene.ca()).token(token("travel-bot")?)).await?;
    both.check(check()).await?;
    let alone = scene.connect(Credentials::from(token("travel-bot")?).ca(scene.ca())).await?;
    alone.check(check()).await?;
    let record = scene.refused("two", bot.credentials(&scene.ca()).token(token(BOOK)?)).await?;
    assert_eq!(record.reason, Reason::IdentityConflict);
    let record = scene.refused("nothing", Credentials::default().ca(scene.ca())).await?;
    assert_eq!(record.reason, Reason::TokenMissing);
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_expires_on_a_long_connection() -> Result<()> {
    let clock = FakeClock::default();
    let scene = Scene::with(Setup::new()?.clock(&clock), true).await?;
    let life = (START_SECONDS - 10, START_SECONDS + 100);
    let files = scene.files("bot", &Leaf { life, ..Leaf::client(BOT_ID) })?;
    let bot = scene.connect(files.credentials(&scene.ca())).await?;
    bot.check(check()).await?;
    clock.advance(Duration::from_secs(102));
    let mark = scene.broker.mark();
    let late = bot.check(check()).await;
    ensure!(matches!(late, Err(CallError::Unauthenticated)), "{late:?}");
    let log = scene.broker.since(mark).await?;
    assert_eq!(log.iter().map(|record| record.reason).collect::<Vec<_>>(), [Reason::CertificateExpired]);
    Ok(())
}

/// A handle that is bound to a certificate, stolen by somebody who has another one for the same tool, and by somebody
/// else altogether.
#[tokio::test]
async fn a_stolen_handle() -> Result<()> {
    let setup = Setup::new()?;
    // What books the flight is bound to a certificate, and can be used twice.
    let travel = setup.dir().join("policies/travel.cedar");
    let bound = "@id(\"navan-login\")\n@bind(\"certificate\")\n@uses(\"2\")";
    std::fs::write(&travel, std::fs::read_to_string(&travel)?.replace("@id(\"navan-login\")", bound))?;
    let scene = Scene::with(setup, false).await?;
    let bot = scene.client(BOT_ID).await?;
    let (_lease, handle) = acquire(&bot).await?;
    let tool = scene.client(BOOK_ID).await?;
    assert_eq!(tool.redeem(&handle).await?.expose_secret(), VALUE);

    let mark = scene.broker.mark();
    let other = scene.files("other", &Leaf::client(BOOK_ID))?;
    let other = scene.connect(other.credentials(&scene.ca())).await?;
    let by_token = Credentials::from(Token::parse(scene.broker.token(BOOK)?)?).ca(scene.ca());
    let by_token = scene.connect(by_token).await?;
    let search = scene.client("spiffe://example.org/tool/web.search").await?;
    let mail = scene.client("spiffe://example.org/agent/mail-bot").await?;
    let thieves = [
        (&other, "tool:navan.book_flight", Reason::HandleBinding),
        (&by_token, "tool:navan.book_flight", Reason::HandleBinding),
        (&search, "tool:web.search", Reason::HandleRedeemer),
        (&mail, "agent:mail-bot", Reason::HandleRedeemer),
    ];
    for (thief, _, _) in thieves {
        let stolen = thief.redeem(&handle).await.map(drop);
        ensure!(matches!(stolen, Err(CallError::HandleNotActive { .. })), "{stolen:?}");
    }
    let log = scene.broker.since(mark).await?;
    assert_eq!(log.len(), 4);
    for (record, (_, caller, reason)) in log.iter().zip(thieves) {
        assert_eq!((record.reason, record.caller.as_deref()), (reason, Some(caller)));
        assert_eq!((record.agent.as_deref(), record.tool.as_deref()), (Some("travel-bot"), Some(BOOK)));
    }
    assert_eq!(tool.redeem(&handle).await?.expose_secret(), VALUE, "the one that it is bound to goes on");

    // Without a certificate there is no such handle, and policy says why.
    let token = Credentials::from(Token::parse(scene.broker.token("travel-bot")?)?).ca(scene.ca());
    let denied = scene.connect(token).await?.acquire(ask()).await.map(drop);
    let Err(CallError::Denied { advice: Some(advice), .. }) = denied else { anyhow::bail!("{denied:?}") };
    ensure!(advice.contains("client certificate"), "{advice}");
    Ok(())
}

/// The broker's certificate, its key and the authorities are replaced again and again while clients call, over old
/// connections and over new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_under_load() -> Result<()> {
    let scene = Arc::new(Scene::new(true).await?);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let old = scene.client(BOT_ID).await?;
    let files = scene.files("fresh", &Leaf::client(BOT_ID))?;
    let callers: Vec<_> = (0..3)
        .map(|place| {
            let (scene, stop, calls) = (Arc::clone(&scene), Arc::clone(&stop), Arc::clone(&calls));
            let (old, files) = ((place == 0).then(|| old.clone()), files.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let broker = match &old {
                        Some(old) => old.clone(),
                        None => scene.connect(files.credentials(&scene.ca())).await?,
                    };
                    broker.check(check()).await?;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for round in 0..3 {
        let mark = scene.broker.mark();
        let before = calls.load(Ordering::Relaxed);
        let next = scene.authority.sign(&Leaf::broker())?;
        // The pair is never whole between the two: what is in force must not care.
        replace(&scene.folder.join("broker.pem"), &next.certificate)?;
        if round == 1 {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        replace(&scene.folder.join("broker.key"), &next.key)?;
        replace(&scene.ca(), &format!("{}{}", scene.authority.pem(), Authority::new("another")?.pem()))?;
        loaded(&scene.broker, mark, Reason::Done).await?;
        while calls.load(Ordering::Relaxed) < before + 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await??;
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_new_file_keeps_the_old_one_loudly() -> Result<()> {
    let scene = Scene::new(true).await?;
    let broken = [
        ("broker.pem", "nothing of the kind".to_owned(), "no certificate in PEM form"),
        ("broker.key", Authority::new("x")?.sign(&Leaf::broker())?.key, "cannot be used"),
        ("ca.pem", String::new(), "no certificate in PEM form"),
    ];
    for (file, content, says) in broken {
        let path = scene.folder.join(file);
        let good = std::fs::read_to_string(&path)?;
        let mark = scene.broker.mark();
        replace(&path, &content)?;
        let record = loaded(&scene.broker, mark, Reason::Failed).await?;
        ensure!(record.detail.as_deref().is_some_and(|detail| detail.contains(says)), "{file}: {record:?}");
        let client = Files { certificate: scene.folder.join("c.pem"), key: scene.folder.join("c.key") };
        scene.files("c", &Leaf::client(BOT_ID))?;
        replace(&scene.folder.join("trust.pem"), scene.authority.pem())?;
        let bot = scene.connect(client.credentials(&scene.folder.join("trust.pem"))).await?;
        bot.check(check()).await.with_context(|| file.to_owned())?;
        let mark = scene.broker.mark();
        replace(&path, &good)?;
        loaded(&scene.broker, mark, Reason::Done).await?;
    }
    // A key that others can read is no key.
    let key = scene.folder.join("broker.key");
    let mark = scene.broker.mark();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let record = loaded(&scene.broker, mark, Reason::Failed).await?;
    ensure!(record.detail.is_some_and(|detail| detail.contains("open to others")), "no reason");
    Ok(())
}

async fn loaded(broker: &TestBroker, mark: valetkey_core::RecordId, reason: Reason) -> Result<StoredRecord> {
    let of = |record: &&StoredRecord| record.kind == RecordKind::TlsLoad && record.reason == reason;
    broker.await_records(mark, |log| log.iter().find(of).cloned()).await
}

/// An authority that is taken out of the bundle signs nobody who comes after that.
#[tokio::test]
async fn an_authority_that_is_taken_out() -> Result<()> {
    let scene = Scene::new(true).await?;
    let trust: &Path = &scene.folder.join("trust.pem");
    replace(trust, scene.authority.pem())?;
    let files = scene.files("bot", &Leaf::client(BOT_ID))?;
    scene.connect(files.credentials(trust)).await?.check(check()).await?;
    let mark = scene.broker.mark();
    replace(&scene.ca(), Authority::new("another")?.pem())?;
    loaded(&scene.broker, mark, Reason::Done).await?;
    let record = scene.refused("of the old authority", files.credentials(trust)).await?;
    assert_eq!(record.reason, Reason::CertificateUntrusted);
    Ok(())
}

/// What a [`FakeClock`] begins with, in seconds since 1970.
const START_SECONDS: i64 = 1_780_000_001;
