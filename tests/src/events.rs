//! The Events API as a client sees it: HTTPS, JSON and a bearer token.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use valetkey_audit::StoredRecord;
use valetkey_core::RecordKind;
use valetkey_proto::v1::{
    CheckAccessRequest, CreateTokenRequest, CreateTokenResponse, EventsFeature, TokenUsage,
};
use valetkey_server::{CertificateSource, EventsRate, EventsSettings, TlsSettings};

use crate::contract::hold;
use crate::lease::Lease;
use crate::pki::{Authority, Leaf};
use crate::{Setup, TestBroker, acquire};

/// What a broker needs to serve it, and its clients to believe that.
pub struct Place {
    authority: Authority,
    settings: EventsSettings,
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Asker {
    http: Client,
    base: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its `retry-after`.
    pub retry_after: Option<u64>,
    /// Its body.
    pub body: Value,
}

impl Place {
    /// A certificate in this folder, and a place for a key.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn new(folder: &Path, rate: EventsRate) -> Result<Self> {
        let authority = Authority::new("events.test")?;
        let files = authority.sign_into(folder, "events", &Leaf::broker())?;
        let source =
            CertificateSource::Files { certificate: files.certificate, key: files.key, client_ca: None };
        let settings = EventsSettings {
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            host: HOST.to_owned(),
            tls: TlsSettings { source, clients: None, tls12: false },
            signing_key: folder.join("events-signing.key"),
            rate,
        };
        Ok(Self { authority, settings })
    }

    /// A broker that serves it.
    ///
    /// # Errors
    /// Where it cannot start.
    pub async fn start(&self, setup: Setup) -> Result<TestBroker> {
        let settings = self.settings.clone();
        setup.configure(move |config| config.events = Some(settings)).start().await
    }

    /// Somebody who asks it, and shows nothing.
    ///
    /// # Errors
    /// Where the broker serves none.
    pub fn stranger(&self, broker: &TestBroker) -> Result<Asker> {
        let address = broker.events_address.context("it serves no Events API")?;
        let http = Client::builder().tls_backend_preconfigured(self.trust()?).build()?;
        Ok(Asker { http, base: format!("https://{address}"), token: None })
    }

    /// TLS that believes its certificate.
    ///
    /// # Errors
    /// Never.
    pub fn trust(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der().to_vec()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

impl Asker {
    /// The same, with a token.
    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Asks.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn ask(&self, method: Method, path: &str, body: impl Into<String>) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).body(body.into());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.send().await?;
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|it| it.to_str().ok()?.parse().ok());
        let body = serde_json::from_slice(&response.bytes().await?)?;
        Ok(Answer { status, retry_after, body })
    }

    /// Asks for events; the answer must be good.
    ///
    /// # Errors
    /// Where it is not.
    pub async fn page(&self, path: &str, body: &str) -> Result<Value> {
        let Answer { status, retry_after: _, body: answer } = self.ask(Method::POST, path, body).await?;
        anyhow::ensure!(status == StatusCode::OK, "{path} {body}: {status} {answer}");
        Ok(answer)
    }
}

/// What `omar` gets for a person: a token for the Events API.
///
/// # Errors
/// Where the broker does not make it.
pub async fn create_token(
    broker: &TestBroker,
    person: &str,
    features: &[EventsFeature],
) -> Result<CreateTokenResponse> {
    let mut omar = broker.client("omar").await?;
    let ask = CreateTokenRequest {
        identity: format!("person:{person}"),
        ttl: None,
        usage: TokenUsage::Events.into(),
        events_features: features.iter().map(|feature| (*feature).into()).collect(),
    };
    Ok(omar.tokens.create_token(ask).await?.into_inner())
}

/// A broker that serves it, and a client that may read everything.
pub struct Scene {
    /// What the broker serves it with.
    pub place: Place,
    /// The broker.
    pub broker: TestBroker,
    /// The token of `ana`.
    pub token: String,
    /// A client with it.
    pub asker: Asker,
}

impl Scene {
    /// The travel story's.
    ///
    /// # Errors
    /// Where something fails.
    pub async fn new() -> Result<Self> {
        Self::with(Setup::new()?, EventsRate::default()).await
    }

    /// With this set-up, and these bounds.
    ///
    /// # Errors
    /// Where something fails.
    pub async fn with(setup: Setup, rate: EventsRate) -> Result<Self> {
        let place = Place::new(setup.dir(), rate)?;
        let broker = place.start(setup).await?;
        let token = create_token(&broker, "ana", &[]).await?.secret_token;
        let asker = place.stranger(&broker)?.with(&token);
        Ok(Self { place, broker, token, asker })
    }

    /// The same, after a restart.
    ///
    /// # Errors
    /// Where something fails.
    pub async fn restarted(self) -> Result<Self> {
        let Self { place, broker, token, asker: _ } = self;
        let broker = place.start(broker.stop().await?).await?;
        let asker = place.stranger(&broker)?.with(&token);
        Ok(Self { place, broker, token, asker })
    }

    /// A client with another token.
    ///
    /// # Errors
    /// Where something fails.
    pub async fn token_for(&self, person: &str, features: &[EventsFeature]) -> Result<Asker> {
        let made = create_token(&self.broker, person, features).await?;
        Ok(self.place.stranger(&self.broker)?.with(&made.secret_token))
    }
}

/// A handle, issued and redeemed.
///
/// # Errors
/// Where something fails, or is not as it must be.
pub async fn use_value(broker: &TestBroker) -> Result<()> {
    let mark = broker.mark();
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    broker.client(BOOK).await?.redeem(lease.handle(0)?).await?;
    drop(lease);
    let ended = |log: &[StoredRecord]| log.iter().any(|it| it.kind == RecordKind::LeaseEnd).then_some(());
    broker.await_records(mark, ended).await?;
    broker.settled(mark).await?;
    Ok(())
}

/// A dry run, which leaves a record and no more.
///
/// # Errors
/// Where something fails, or is not as it must be.
pub async fn check(broker: &TestBroker, reference: &str) -> Result<()> {
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: reference.into(), ..Default::default() };
    broker.client("travel-bot").await?.leases.check_access(ask).await?;
    Ok(())
}

/// Reads pages to the end; the events, and the last cursor.
///
/// # Errors
/// Where something fails, or is not as it must be.
pub async fn drain(asker: &Asker, path: &str, body: &str) -> Result<(Vec<Value>, String)> {
    let (mut events, mut body) = (Vec::new(), body.to_owned());
    for _ in 0..1_000 {
        let page = asker.page(path, &body).await?;
        hold_page(path, &page)?;
        let field = |name: &str| page.get(name).cloned().unwrap_or_default();
        events.extend(field("items").as_array().context("no items")?.clone());
        let cursor = field("cursor").as_str().context("no cursor")?.to_owned();
        if field("has_more") == false {
            return Ok((events, cursor));
        }
        body = json!({ "cursor": cursor }).to_string();
    }
    anyhow::bail!("{path} never ends")
}

/// Holds a page against what is published for its path.
///
/// # Errors
/// Where something fails, or is not as it must be.
pub fn hold_page(path: &str, page: &Value) -> Result<()> {
    let version = if path.starts_with("/api/v2/") { 2 } else { 1 };
    let name = match path.rsplit('/').next() {
        Some("itemusages") => "ItemUsageItems",
        Some("auditevents") => "AuditEventItems",
        _ => "SignInAttemptItems",
    };
    let name = if version == 2 { format!("{name}V2") } else { name.to_owned() };
    hold(version, &name, page).map_err(anyhow::Error::msg)?;
    ensure!(page.as_object().is_some_and(|page| page.len() == 3), "{page}");
    Ok(())
}

/// Holds the body of an error against both published forms at once.
///
/// # Errors
/// Where something fails, or is not as it must be.
pub fn hold_error(body: &Value) -> Result<()> {
    // Either form is whole by itself; together they are one object.
    let (mut v1, mut v2) = (body.clone(), body.clone());
    let (v1_fields, v2_fields) = (v1.as_object_mut().context("none")?, v2.as_object_mut().context("none")?);
    v1_fields.retain(|key, _| key == "Error");
    v2_fields.remove("Error");
    hold(1, "Error", &v1).and_then(|()| hold(2, "ErrorResponse", &v2)).map_err(anyhow::Error::msg)?;
    ensure!(
        body.get("message").is_some_and(Value::is_string)
            && body.get("message") == body.pointer("/Error/Message"),
        "{body}"
    );
    Ok(())
}

/// The ids of events.
#[must_use]
pub fn uuids(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["uuid"].as_str()).collect()
}

/// What its tokens call it.
pub const HOST: &str = "events.test:8443";
/// A tool of the travel story.
pub const BOOK: &str = "navan.book_flight";
/// What it may use.
pub const NAVAN: &str = "op://Tutorial/Navan/username";
/// What nobody may use.
pub const PRODUCTION: &str = "op://Production/Database/password";
/// A path.
pub const USAGES: &str = "/api/v1/itemusages";
/// A path.
pub const AUDIT: &str = "/api/v1/auditevents";
/// A path.
pub const SIGN_INS: &str = "/api/v1/signinattempts";
/// As the clients that are about begin.
pub const FROM_THE_BEGINNING: &str = r#"{"limit":2,"start_time":"2020-01-01T00:00:00Z"}"#;
