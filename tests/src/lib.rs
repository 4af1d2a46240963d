//! The harness: a whole broker on port 0, with real SQLite in a temporary directory, the real `policies/`,
//! the embedded vault of the travel story, and real gRPC clients.
//!
//! Not here: assertions. The tests are in `it/`, one file per capability.

pub mod contract;
pub mod echo;
pub mod events;
pub mod hunt;
pub mod issuer;
pub mod lease;
pub mod limit;
pub mod log;
pub mod pki;
pub mod policies;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod stop;
pub mod trace;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use valetkey_audit::AuditStore;
use valetkey_core::testing::{FakeClock, agent, person, tool};
use valetkey_core::{Bearer, Broker, Clock, Identity, Name};
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_proto::v1::approval_service_client::ApprovalServiceClient;
use valetkey_proto::v1::audit_service_client::AuditServiceClient;
use valetkey_proto::v1::lease_service_client::LeaseServiceClient;
use valetkey_proto::v1::operator_service_client::OperatorServiceClient;
use valetkey_proto::v1::report_service_client::ReportServiceClient;
use valetkey_proto::v1::token_service_client::TokenServiceClient;
use valetkey_proto::v1::{AcquireLeaseRequest, AcquireLeaseResponse, AuditRecord, ListAuditRecordsRequest};
use valetkey_server::{
    App, ApprovalSettings, Config, Issuer, Limits, Listeners, Member, Proof, Reloader, RepeatLimits,
    Retention, RunError, Signing, SourceBounds, SourceConfig, SourceKind, SystemClock, TOKEN_PREFIX,
    TokenDigest,
};

/// Who has a token in every test: the people of the travel story, and some who have no business in it.
pub const CAST: &[(&str, &str)] = &[
    ("agent", "travel-bot"),
    ("agent", "mail-bot"),
    ("tool", "navan.book_flight"),
    ("tool", "ramp.submit_expense"),
    ("tool", "web.search"),
    ("person", "ana"),
    ("person", "omar"),
    ("person", "eve"),
];

/// A broker that runs in this process until it is dropped or stopped.
pub struct TestBroker {
    /// Where its files are: `audit.db`, `policies/`, `vault.json`.
    pub dir: Arc<TempDir>,
    /// Where it listens.
    pub address: std::net::SocketAddr,
    /// Where its Events API listens, if it has one.
    pub events_address: Option<std::net::SocketAddr>,
    /// Reloads its policies.
    pub reloader: Reloader,
    /// The broker itself, for faults that no client can cause.
    pub broker: Arc<Broker>,
    /// Its log, likewise.
    pub store: Arc<AuditStore>,
    tokens: HashMap<String, String>,
    shutdown: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), RunError>>>,
}

/// What a broker is started with. The default is the travel story on the real clock.
pub struct Setup {
    dir: Arc<TempDir>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    tokens: HashMap<String, String>,
    sources: Vec<SourceConfig>,
    configure: Option<Configure>,
    /// `[[issuer]]` sections.
    issuers: String,
}

/// What a test changes about a configuration.
type Configure = Box<dyn FnOnce(&mut Config) + Send>;

/// gRPC clients of one identity.
#[derive(Clone)]
pub struct Client {
    /// `LeaseService`.
    pub leases: LeaseServiceClient<Wire>,
    /// `AuditService`.
    pub audit: AuditServiceClient<Wire>,
    /// `OperatorService`.
    pub operator: OperatorServiceClient<Wire>,
    /// `ReportService`.
    pub reports: ReportServiceClient<Wire>,
    /// `TokenService`.
    pub tokens: TokenServiceClient<Wire>,
    /// `ApprovalService`.
    pub approvals: ApprovalServiceClient<Wire>,
}

/// A connection that sends a token with every call.
pub type Wire = InterceptedService<Channel, SendToken>;

/// Puts a token into every call.
#[derive(Clone)]
pub struct SendToken {
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
    on_behalf_of: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Interceptor for SendToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.authorization {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(token) = &self.on_behalf_of {
            request.metadata_mut().insert("x-valetkey-on-behalf-of", token.clone());
        }
        Ok(request)
    }
}

impl Setup {
    /// A fresh directory with the policies and the vault of the travel story.
    ///
    /// # Errors
    /// Where files cannot be copied.
    pub fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        copy_policies(&dir.path().join("policies"))?;
        std::fs::copy(root().join("examples/travel/vault.json"), dir.path().join("vault.json"))?;
        let sources = embedded(dir.path())?;
        let tokens = CAST.iter().map(|(_, name)| {
            ((*name).to_owned(), Bearer::random(TOKEN_PREFIX).expose_secret().as_str().to_owned())
        });
        Ok(Self {
            dir: Arc::new(dir),
            limits: Limits {
                drain_grace: Duration::from_millis(200),
                // Each refusal is held against its record; `it/limits.rs` has the usual bounds.
                repeats: RepeatLimits { unauthenticated_max: 100_000, per_source_max: 100_000 },
                ..Limits::default()
            },
            clock: Arc::new(SystemClock::default()),
            tokens: tokens.collect(),
            sources,
            configure: None,
            issuers: String::new(),
        })
    }

    /// The directory, to change files before the start.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes its identities down as the configuration of a broker in a process of its own.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_config(&self) -> Result<()> {
        let token = |name: &str| self.tokens.get(name).map(String::as_str).unwrap_or_default();
        process::write_config(self.dir(), "", CAST.iter().map(|(kind, name)| (*kind, *name, token(name))))
    }

    /// What one of the [`CAST`] sends as `authorization`.
    ///
    /// # Errors
    /// Where `name` is not of the cast.
    pub fn authorization(&self, name: &str) -> Result<String> {
        let token = self.tokens.get(name).with_context(|| format!("{name} is not of the cast"))?;
        Ok(format!("Bearer {token}"))
    }

    /// With one more `[[issuer]]`: the lines of its section.
    #[must_use]
    pub fn issuer(mut self, lines: &str) -> Self {
        self.issuers.push_str(&format!("[[issuer]]\n{lines}\n"));
        self
    }

    /// With other bounds.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// With something else in its configuration.
    #[must_use]
    pub fn configure(self, change: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        Self { configure: Some(Box::new(change)), ..self }
    }

    /// With a clock that the test moves.
    #[must_use]
    pub fn clock(self, clock: &FakeClock) -> Self {
        Self { clock: Arc::new(clock.clone()), ..self }
    }

    /// With other sources than the embedded vault.
    #[must_use]
    pub fn sources(self, sources: Vec<SourceConfig>) -> Self {
        Self { sources, ..self }
    }

    /// Starts the broker.
    ///
    /// # Errors
    /// Where it cannot start.
    pub async fn start(self) -> Result<TestBroker> {
        let Self { dir, limits, clock, tokens, sources, configure, issuers } = self;
        let issuers = issuers_of(&issuers, dir.path())?;
        let identities = CAST.iter().map(|(kind, name)| {
            let identity = match *kind {
                "agent" => Identity::Agent(agent(name)),
                "tool" => Identity::Tool(tool(name)),
                _ => Identity::Person(person(name)),
            };
            let token = tokens.get(*name).map(String::as_str).unwrap_or_default();
            let token = Bearer::parse(TOKEN_PREFIX, token).map_err(anyhow::Error::from)?;
            Ok(Member { identity, shows: Proof::Token(TokenDigest::of(&token)) })
        });
        let mut config = Config {
            listen: Some((std::net::Ipv4Addr::LOCALHOST, 0).into()),
            metrics: None,
            tls: None,
            unix: None,
            events: None,
            audit_database: dir.path().join("audit.db"),
            audit_create: !dir.path().join("audit.db").exists(),
            audit_digest_key: Some(dir.path().join("audit.db-digest-key")),
            audit_signing: Signing::default(),
            audit_retention: Retention::default(),
            policies: dir.path().join("policies"),
            sources,
            members: identities.collect::<Result<_>>()?,
            spiffe_rules: Vec::new(),
            approvals: ApprovalSettings::default(),
            issuers,
            limits,
            digests: Vec::new(),
        };
        if let Some(configure) = configure {
            configure(&mut config);
        }
        let events = match &config.events {
            Some(events) => Some(tokio::net::TcpListener::bind(events.listen).await?),
            None => None,
        };
        let listeners = Listeners::bind(config.listen, config.unix.as_ref()).await?.events(events);
        let events_address = listeners.events_address();
        let address = listeners.address().context("no address")?;
        let app = App::open(config, clock).await?;
        let (reloader, broker, store) = (app.reloader(), Arc::clone(app.broker()), Arc::clone(app.audit()));
        let (shutdown, stop) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(listeners, async move {
            let _ = stop.await;
        }));
        let (shutdown, running) = (Some(shutdown), Some(running));
        Ok(TestBroker { dir, address, events_address, reloader, broker, store, tokens, shutdown, running })
    }
}

impl TestBroker {
    /// The travel story's broker.
    ///
    /// # Errors
    /// Where it cannot start.
    pub async fn start() -> Result<Self> {
        Setup::new()?.start().await
    }

    /// Clients of one of the [`CAST`], on a connection of their own.
    ///
    /// # Errors
    /// Where it cannot connect, or `name` is not of the cast.
    pub async fn client(&self, name: &str) -> Result<Client> {
        let token = self.tokens.get(name).with_context(|| format!("{name} is not of the cast"))?;
        self.client_with(Some(&format!("Bearer {token}"))).await
    }

    /// Clients that send this `authorization`, or none.
    ///
    /// # Errors
    /// Where it cannot connect.
    pub async fn client_with(&self, authorization: Option<&str>) -> Result<Client> {
        Client::connect(&format!("http://{}", self.address), authorization).await
    }

    /// Clients of one of the [`CAST`], on behalf of the person whose signed token this is.
    ///
    /// # Errors
    /// Where it cannot connect, or `name` is not of the cast.
    pub async fn client_for(&self, name: &str, person: &str) -> Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let authorization = format!("Bearer {}", self.token(name)?);
        Client::sending(endpoint.connect().await?, Some(&authorization), Some(person))
    }

    /// The token of one of the [`CAST`].
    ///
    /// # Errors
    /// Where `name` is not of the cast.
    pub fn token(&self, name: &str) -> Result<&str> {
        self.tokens.get(name).map(String::as_str).with_context(|| format!("{name} is not of the cast"))
    }

    /// What the log holds that matches, oldest first, as reviewer `ana` sees it. At most 1,000.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn records(&self, filter: &str) -> Result<Vec<AuditRecord>> {
        let mut ana = self.client("ana").await?;
        let ask =
            ListAuditRecordsRequest { filter: filter.to_owned(), page_size: 1000, page_token: String::new() };
        let mut records = ana.audit.list_audit_records(ask).await?.into_inner().records;
        records.reverse();
        Ok(records)
    }

    /// Stops it as SIGTERM would, and hands back what it needs to start again on the same files.
    ///
    /// # Errors
    /// Where serving had failed.
    pub async fn stop(mut self) -> Result<Setup> {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
        if let Some(running) = self.running.take() {
            running.await??;
        }
        let setup = Setup::new()?;
        let sources = embedded(self.dir.path())?;
        Ok(Setup { dir: Arc::clone(&self.dir), tokens: self.tokens.clone(), sources, ..setup })
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Client {
    /// Connects to a broker at `http://host:port`.
    ///
    /// # Errors
    /// Where it cannot connect, or `authorization` is no header value.
    pub async fn connect(uri: &str, authorization: Option<&str>) -> Result<Self> {
        let endpoint = Endpoint::from_shared(uri.to_owned())?.connect_timeout(Duration::from_secs(5));
        Self::over(endpoint.connect().await?, authorization)
    }

    /// Clients on a connection that others may share.
    ///
    /// # Errors
    /// Where `authorization` is no header value.
    pub fn over(channel: Channel, authorization: Option<&str>) -> Result<Self> {
        Self::sending(channel, authorization, None)
    }

    fn sending(channel: Channel, authorization: Option<&str>, person: Option<&str>) -> Result<Self> {
        let token = SendToken {
            authorization: authorization.map(str::parse).transpose()?,
            on_behalf_of: person.map(str::parse).transpose()?,
        };
        Ok(Self {
            leases: LeaseServiceClient::with_interceptor(channel.clone(), token.clone()),
            audit: AuditServiceClient::with_interceptor(channel.clone(), token.clone()),
            operator: OperatorServiceClient::with_interceptor(channel.clone(), token.clone()),
            reports: ReportServiceClient::with_interceptor(channel.clone(), token.clone()),
            tokens: TokenServiceClient::with_interceptor(channel.clone(), token.clone()),
            approvals: ApprovalServiceClient::with_interceptor(channel, token),
        })
    }
}

/// The vault file of a broker's home as its only source.
///
/// # Errors
/// Never.
pub fn embedded(home: &Path) -> Result<Vec<SourceConfig>> {
    Ok(vec![SourceConfig {
        name: Name::parse("embedded")?,
        vaults: Vec::new(),
        kind: SourceKind::File { file: home.join("vault.json"), open_to_others: true },
        bounds: SourceBounds::default(),
    }])
}

/// A file that none but its owner can read; its path.
///
/// # Errors
/// Where it cannot be written.
pub fn private_file(home: &Path, name: &str, content: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = home.join(name);
    std::fs::write(&path, content)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// A request as the travel story's agent makes it.
#[must_use]
pub fn acquire(tool: &str, references: &[&str]) -> AcquireLeaseRequest {
    AcquireLeaseRequest {
        tool: tool.to_owned(),
        references: references.iter().map(|reference| (*reference).to_owned()).collect(),
        purpose: "book the flight to Lisbon".to_owned(),
        ..AcquireLeaseRequest::default()
    }
}

/// The handle of an `issued` event.
///
/// # Errors
/// Where the event is another.
pub fn handle_of(event: AcquireLeaseResponse) -> Result<String> {
    match event.event {
        Some(Event::Issued(issued)) => Ok(issued.handle),
        other => bail!("no handle was issued but {other:?}"),
    }
}

/// The wall clock, in microseconds since 1970.
#[must_use]
pub fn unix_micros() -> i64 {
    SystemClock::default().now().as_micros()
}

/// The `ErrorInfo.reason` of a status.
#[must_use]
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `[[issuer]]` sections as a configuration has them.
fn issuers_of(sections: &str, dir: &Path) -> Result<Vec<Issuer>> {
    let digest = TokenDigest::of(&Bearer::random(TOKEN_PREFIX));
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"a\"\n[policies]\ndirectory = \"a\"\n\
         [[source]]\nname = \"a\"\nkind = \"file\"\nfile = \"a\"\n\
         [[identity]]\nagent = \"a\"\ntoken = \"{digest}\"\n{sections}"
    );
    let config = Config::parse(&text, dir).map_err(|faults| anyhow::anyhow!("{faults:#?}"))?;
    Ok(config.issuers)
}

fn copy_policies(to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(root().join("policies"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
