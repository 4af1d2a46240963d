//! The wiring, top to bottom: open everything, serve, drain.

mod background;

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;
use valetkey_audit::{ArchiveError, AuditStore, Missing, OpenError, StoreOptions, TokenStoreError};
use valetkey_core::{
    AgentId, AuditError, AuditLog, AuditRecord, Broker, Clock, Directory, Gate, Identity, LeaseTable,
    PolicyEngine, Reason, RecordKind, Resolver, Revision,
};
use valetkey_onepassword::Sources;
use valetkey_policy::{Bundle, Engine, LoadError};
use valetkey_proto::v1::approval_service_server::ApprovalServiceServer;
use valetkey_proto::v1::audit_service_server::AuditServiceServer;
use valetkey_proto::v1::lease_service_server::LeaseServiceServer;
use valetkey_proto::v1::operator_service_server::OperatorServiceServer;
use valetkey_proto::v1::report_service_server::ReportServiceServer;
use valetkey_proto::v1::token_service_server::TokenServiceServer;

use self::background::{background, report_health};
use crate::approval_service::Approvals;
use crate::audit_service::Audit;
use crate::config::{ApprovalLink, ApprovalSettings, Config, Limits, SectionDigest, SourceConfig};
use crate::convert::AskLimits;
use crate::digest_key::{self, DigestKeyError};
use crate::events::{self, EventsError, Opened};
use crate::find_value::Finder;
use crate::identity::bearers::Bearers;
use crate::identity::jwt::{ClientError, Issuer, Issuers};
use crate::identity::known::{Known, Member, SpiffeRule};
use crate::identity::{Identifier, IdentityLayer};
use crate::lease_service::Leases;
use crate::limits::{Identities, Limiter, Repeats};
use crate::listen::{Listeners, Refusals, connections, write_down};
use crate::metrics;
use crate::operator_service::Operator;
use crate::reload::{Reloader, loaded};
use crate::report_service::{Reach, Reports};
use crate::sources::{self, SourceError};
use crate::state::State;
use crate::tls::{Protocol, Tls, TlsError, TlsSettings};
use crate::token::Tokens;
use crate::token_service::{self, TokenDesk};

/// A broker, opened and ready to serve.
pub struct App {
    broker: Arc<Broker>,
    store: Arc<AuditStore>,
    reloader: Reloader,
    /// Of the configuration.
    agents: Arc<[AgentId]>,
    known: Known,
    bearers: Bearers,
    tls: Option<Arc<Tls>>,
    events: Option<Opened>,
    limits: Limits,
    approval_link: Option<ApprovalLink>,
    state: State,
}

/// What a broker reaches its log and its vault through.
pub struct Ports {
    /// The log.
    pub log: Arc<dyn AuditLog>,
    /// What exists.
    pub directory: Arc<dyn Directory>,
    /// Where values come from.
    pub resolver: Arc<dyn Resolver>,
}

/// Why a broker cannot start. Nothing was bound; nothing that was missing was made unless asked for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policies have faults.
    #[error("the policies have faults:{}", lines(.0.faults()))]
    Policies(LoadError),
    /// A source cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no certificate to serve with.
    #[error(transparent)]
    Tls(TlsError),
    /// The Events API cannot be served.
    #[error(transparent)]
    Events(EventsError),
    /// The audit database cannot be opened.
    #[error("the audit database cannot be used")]
    Audit(#[source] OpenError),
    /// The key of value digests cannot be used.
    #[error(transparent)]
    DigestKey(#[from] DigestKeyError),
    /// The policies cannot be kept in it.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The tokens in it cannot be read.
    #[error("the tokens in the audit database cannot be read")]
    Tokens(#[source] TokenStoreError),
    /// The keys of an issuer could never be fetched.
    #[error("an issuer's keys cannot be fetched")]
    Issuers(#[source] ClientError),
    /// The keys of an issuer cannot be read from their file.
    #[error("{0}")]
    IssuerKeys(String),
    /// The audit database cannot be written.
    #[error("the audit database cannot be written")]
    Record(#[source] AuditError),
}

/// Why a broker stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The transport failed.
    #[error("the broker cannot serve")]
    Serve(#[source] tonic::transport::Error),
}

impl App {
    /// Opens the audit log, the policies and the vault, in the order of how much a mistake in them costs.
    ///
    /// # Errors
    /// [`StartError`] says which of them cannot be used.
    pub async fn open(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::open_with(config, clock, |ports| ports).await
    }

    /// The same, with something between the broker and its ports.
    ///
    /// # Errors
    /// [`StartError`] likewise.
    pub async fn open_with(
        config: Config,
        clock: Arc<dyn Clock>,
        between: impl FnOnce(Ports) -> Ports,
    ) -> Result<Self, StartError> {
        let Config {
            listen: _,
            metrics: _,
            tls,
            unix: _,
            events,
            audit_database,
            audit_create,
            audit_digest_key,
            audit_signing,
            audit_retention,
            policies,
            sources,
            members,
            spiffe_rules,
            approvals,
            issuers,
            limits,
            digests,
        } = config;
        let agents = members.iter().filter_map(|member| match &member.identity {
            Identity::Agent(agent) => Some(agent.clone()),
            Identity::Tool(_) | Identity::Person(_) => None,
        });
        let agents = agents.collect();
        let loaded_config = config_load(&digests, &members, &spiffe_rules, &issuers);
        let (known, configured) = Known::new(members, spiffe_rules);
        let tokens = Arc::new(Tokens::new(configured, Arc::clone(&clock)));
        let issuers = Issuers::new(issuers, Arc::clone(&clock)).map_err(StartError::Issuers)?;
        let bundle = Bundle::load(&policies).map_err(StartError::Policies)?;
        let sources = open_sources(&sources, &audit_database, &clock)?;
        let tls = open_tls(tls, &clock).await?;
        let events = match events {
            Some(settings) => {
                Some(Opened::open(settings, audit_create, &clock).await.map_err(StartError::Events)?)
            }
            None => None,
        };
        let missing = if audit_create { Missing::Create } else { Missing::Refuse };
        let options = StoreOptions {
            missing,
            signing: audit_signing,
            retention: audit_retention,
            ..StoreOptions::default()
        };
        let store =
            AuditStore::open(&audit_database, options, Arc::clone(&clock)).map_err(StartError::Audit)?;

        token_service::load(store.tokens(), &tokens, clock.now()).map_err(StartError::Tokens)?;
        let digester = audit_digest_key.map(|path| digest_key::open(&path, store.archive(), clock.now()));
        let digester = digester.transpose()?;
        // Before the first decision by it.
        store.archive().keep_policy_set(&bundle.digest_text(), bundle.text(), clock.now())?;

        let engine = Arc::new(Engine::new(bundle));
        let store = Arc::new(store);
        let ports = Ports {
            log: Arc::clone(&store) as _,
            directory: Arc::clone(&sources) as _,
            resolver: Arc::clone(&sources) as _,
        };
        let Ports { log, directory, resolver } = between(ports);
        let gate = Gate::new(Arc::clone(&engine) as _, log, Arc::clone(&clock));
        let ApprovalSettings { limits: approval_limits, link: approval_link } = approvals;
        let gate = gate.with_approvals(approval_limits);
        let leases = LeaseTable::new(limits.leases, Arc::clone(&clock));
        let broker = Broker::new(gate, directory, resolver, leases, clock, digester);

        note_start(&broker, engine.revision(), &loaded_config).await?;
        let state = State {
            broker: Arc::clone(&broker),
            engine: Arc::clone(&engine) as _,
            sources,
            audit_available: store.availability(),
            audit: store.reader().clone(),
            audit_committed: store.committed(),
            started: broker.clock().now(),
        };
        let archive = Arc::clone(store.archive());
        let reloader = Reloader::new(policies, engine, Arc::clone(&broker), archive);
        let bearers = Bearers { tokens, issuers };
        Ok(Self {
            broker,
            store,
            reloader,
            agents,
            known,
            bearers,
            tls,
            events,
            limits,
            approval_link,
            state,
        })
    }

    /// Looks at the key that signs the audit log, where there is a database already; likewise. Nothing is made.
    ///
    /// # Errors
    /// [`StartError::Audit`] says why it cannot be used.
    pub fn check_signing(config: &Config) -> Result<(), StartError> {
        match config.audit_database.exists() {
            true => config.audit_signing.check(&config.audit_database).map_err(StartError::Audit),
            false => Ok(()),
        }
    }

    /// Opens the sources and lets go of them; for checking a configuration without a broker.
    ///
    /// # Errors
    /// [`StartError::Source`] says why one cannot be used.
    pub fn check_sources(config: &Config, clock: Arc<dyn Clock>) -> Result<(), StartError> {
        Ok(open_sources(&config.sources, &config.audit_database, &clock).map(drop)?)
    }

    /// Loads the TLS files, where there are some, and lets go of them; likewise.
    ///
    /// # Errors
    /// [`StartError::Tls`] says why they cannot be used.
    pub fn check_tls(config: &Config, clock: &Arc<dyn Clock>) -> Result<(), StartError> {
        config
            .tls
            .as_ref()
            .map_or(Ok(()), |settings| settings.check(Protocol::Http2, clock))
            .map_err(StartError::Tls)
    }

    /// Loads what the Events API needs, where it is served, likewise. Its key may be missing where the audit database is:
    /// they are made together.
    ///
    /// # Errors
    /// [`StartError::Events`] says what cannot be used.
    pub fn check_events(config: &Config, clock: &Arc<dyn Clock>) -> Result<(), StartError> {
        let create = !config.audit_database.exists();
        config
            .events
            .as_ref()
            .map_or(Ok(()), |events| events.check(create, clock))
            .map_err(StartError::Events)
    }

    /// Looks at what the issuers' keys need on this machine: the `jwks_file`s, and the authorities for a `jwks_url`.
    /// No server is asked.
    ///
    /// # Errors
    /// [`StartError::Issuers`] and [`StartError::IssuerKeys`] say what cannot be used.
    pub async fn check_issuers(config: &Config, clock: Arc<dyn Clock>) -> Result<(), StartError> {
        let issuers = Issuers::new(config.issuers.clone(), clock).map_err(StartError::Issuers)?;
        issuers.check_files().await.map_err(StartError::IssuerKeys)
    }

    /// Reloads the policies on demand; for SIGHUP.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// The audit log, for whoever opened the broker in its own process.
    #[must_use]
    pub fn audit(&self) -> &Arc<AuditStore> {
        &self.store
    }

    /// The broker, likewise.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Serves `GET /metrics` on `listener` for as long as it is polled. The caller owns the socket, which is on
    /// loopback: nobody is asked who reads them.
    pub fn metrics(&self, listener: TcpListener) -> impl Future<Output = ()> + Send + use<> {
        metrics::serve(listener, self.state.clone())
    }

    /// Serves on `listeners` until `shutdown`, then drains: no new leases, the open ones are told, and what
    /// is still open after the grace ends. The caller owns the socket and the signal.
    ///
    /// # Errors
    /// [`RunError`] where serving itself failed.
    pub async fn run(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), RunError> {
        let Self {
            broker,
            store,
            reloader,
            agents,
            known,
            bearers,
            tls,
            events,
            limits,
            approval_link,
            state,
        } = self;
        let mut listeners = listeners.into();
        let (stop, stopping) = watch::channel(false);
        let (health, health_service) = tonic_health::server::health_reporter();

        let mut tasks = background(&broker, &store, &bearers, reloader);
        tasks.spawn(report_health(health, store.availability()));
        let (refusals, told) = Refusals::new();
        tasks.spawn(write_down(told, Arc::clone(&broker)));
        if let Some(tls) = tls.clone() {
            let broker = Arc::clone(&broker);
            tasks.spawn(async move { tls.follow(&broker).await });
        }
        let events_listener = listeners.take_events();
        let incoming = connections(listeners, tls, limits.places, refusals.clone());

        let limiter = Arc::new(Limiter {
            broker: Arc::clone(&broker),
            identities: Identities::new(limits.identities, Arc::clone(broker.clock())),
            repeats: Repeats::new(limits.repeats, Arc::clone(broker.clock())),
        });
        let signer = events.as_ref().map(Opened::signer);
        if let Some((opened, listener)) = events.zip(events_listener) {
            let parts = events::Parts {
                broker: Arc::clone(&broker),
                reader: store.reader().clone(),
                tokens: Arc::clone(&bearers.tokens),
                limiter: Arc::clone(&limiter),
                places: limits.places,
                refusals,
                stopping: stopping.clone(),
            };
            opened.serve(&mut tasks, listener, parts);
        }
        let (last_refused, no_more) = watch::channel(false);
        let counting = tokio::spawn(Arc::clone(&limiter.repeats).keep(Arc::clone(&broker), no_more));

        let leases = Leases {
            broker: Arc::clone(&broker),
            limits: AskLimits { ttl_usual: limits.ttl_usual, ttl_max: limits.ttl_max },
            limiter: Arc::clone(&limiter),
            approval_link,
        };
        let approvals = Approvals { broker: Arc::clone(&broker) };
        let audit = Audit {
            broker: Arc::clone(&broker),
            reader: store.reader().clone(),
            verifier_key: store.verifier_key().to_string(),
            committed: store.committed(),
            stopping: stopping.clone(),
        };
        let finder = Finder {
            broker: Arc::clone(&broker),
            reader: store.reader().clone(),
            limiter: Arc::clone(&limiter),
        };
        let desk = TokenDesk {
            broker: Arc::clone(&broker),
            store: Arc::clone(store.tokens()),
            tokens: Arc::clone(&bearers.tokens),
            signer,
        };
        let reports = Reports {
            finder,
            broker: Arc::clone(&broker),
            reader: store.reader().clone(),
            reach: Reach {
                engine: Arc::clone(&state.engine),
                directory: Arc::clone(&state.sources) as _,
                members: agents,
                tokens: Arc::clone(&bearers.tokens),
                turns: Arc::new(Semaphore::new(Reach::TURNS)),
            },
        };
        let tokens = Arc::clone(&bearers.tokens);
        let identifier = Arc::new(Identifier { known, bearers, broker: Arc::clone(&broker), limiter });
        let serving = server(limits)
            .layer(IdentityLayer(identifier))
            .add_service(LeaseServiceServer::new(leases).max_decoding_message_size(MESSAGE_MAX))
            .add_service(AuditServiceServer::new(audit).max_decoding_message_size(MESSAGE_MAX))
            .add_service(OperatorServiceServer::new(Operator(state)).max_decoding_message_size(MESSAGE_MAX))
            .add_service(ReportServiceServer::new(reports).max_decoding_message_size(MESSAGE_MAX))
            .add_service(TokenServiceServer::new(desk).max_decoding_message_size(MESSAGE_MAX))
            .add_service(ApprovalServiceServer::new(approvals).max_decoding_message_size(MESSAGE_MAX))
            .add_service(health_service)
            .add_optional_service(reflection())
            .serve_with_incoming_shutdown(incoming, stopped(stopping));
        let draining = drain(Arc::clone(&broker), limits.drain_grace, shutdown, stop);
        let served = tokio::select! {
            served = serving => served,
            () = draining => Ok(()),
        };

        last_refused.send_replace(true);
        if let Err(error) = counting.await {
            tracing::error!(%error, "the counts of refusals are not written down");
        }
        tasks.shutdown().await;
        close(&broker, store, &tokens).await;
        served.map_err(RunError::Serve)
    }
}

/// Writes down that the broker starts: with which key and configuration, and by which policies.
async fn note_start(broker: &Broker, revision: Revision, configured: &str) -> Result<(), StartError> {
    let key =
        broker.digester().map_or_else(|| "no digest key".to_owned(), |it| format!("digest key {}", it.id()));
    let event =
        |kind, detail: &str| AuditRecord::event(broker.clock().now(), kind, Reason::Done).with_detail(detail);
    let start = event(RecordKind::Start, &format!("valetkey {}, {key}", env!("CARGO_PKG_VERSION")));
    let records = vec![start, event(RecordKind::ConfigLoad, configured), loaded(broker, revision)];
    broker.note_all(records).await.map_err(StartError::Record)
}

/// What was configured, for the record: what can change who may call, or what they get.
fn config_load(
    digests: &[SectionDigest],
    members: &[Member],
    spiffe_rules: &[SpiffeRule],
    issuers: &[Issuer],
) -> String {
    let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
    let (members, rules, issuers) = (members.len(), spiffe_rules.len(), issuers.len());
    let counts = format!("{members} proofs of identities, {rules} rules for SPIFFE ids, {issuers} issuers");
    match digests.is_empty() {
        true => format!("{counts}; no file"),
        false => format!("{counts}; {}", digests.join(", ")),
    }
}

/// Writes down what is left to be written, and closes the log.
async fn close(broker: &Broker, store: Arc<AuditStore>, tokens: &Tokens) {
    if let Err(error) = broker.stop().await {
        tracing::error!(%error, "the end of the last leases is not written down");
    }
    let record = AuditRecord::event(broker.clock().now(), RecordKind::Stop, Reason::Done);
    if let Err(error) = broker.note(record).await {
        tracing::error!(%error, "the stop is not written down");
    }
    token_service::note_uses(tokens, store.tokens()).await;
    // Closing waits for the disk.
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

/// The folder of what outlives the broker: that of the log.
pub(crate) fn state_dir(audit_database: &Path) -> &Path {
    audit_database.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Loads what the broker proves itself with, where it is to.
async fn open_tls(
    settings: Option<TlsSettings>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<Tls>>, StartError> {
    let Some(settings) = settings else { return Ok(None) };
    let tls = Tls::open(settings, Protocol::Http2, Arc::clone(clock)).await.map_err(StartError::Tls)?;
    Ok(Some(Arc::new(tls)))
}

/// Opens the sources; their budgets are kept beside the log.
fn open_sources(
    configured: &[SourceConfig],
    audit_database: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Sources>, SourceError> {
    sources::open(configured, state_dir(audit_database), &|name| std::env::var_os(name), clock)
}

/// One a line, each on a line of its own.
pub(crate) fn lines(faults: &[impl Display]) -> String {
    faults.iter().map(|fault| format!("\n{fault}")).collect()
}

/// The transport and its bounds.
fn server(limits: Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection_max)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADERS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// The descriptors of the API, for tools that ask for them.
fn reflection() -> Option<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(valetkey_proto::DESCRIPTORS)
        .build_v1()
        .inspect_err(|error| tracing::error!(%error, "reflection is not served"))
        .ok()
}

/// Waits for the signal, then lets leases end by themselves for a while, then ends them, and lets the
/// transport go on until the last answers are out.
async fn drain(
    broker: Arc<Broker>,
    grace: Duration,
    shutdown: impl Future<Output = ()>,
    stop: watch::Sender<bool>,
) {
    shutdown.await;
    tracing::info!(grace_seconds = grace.as_secs(), "stopping");
    broker.drain(grace);
    let deadline = tokio::time::Instant::now() + grace;
    while broker.leases().counts().0 > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    if let Err(error) = broker.stop().await {
        tracing::error!(%error, "the end of the last leases is not written down");
    }
    stop.send_replace(true);
    // The transport ends by itself when its last stream does; this bounds the wait for peers that stall.
    tokio::time::sleep(LAST_ANSWERS).await;
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The largest message that is read. 10,000 references fit, and are then refused by name.
const MESSAGE_MAX: usize = 1024 * 1024;
const HEADERS_MAX: u32 = 16 * 1024;
/// A half-open connection is noticed after two of these: its leases end within 5 s.
const KEEPALIVE: Duration = Duration::from_secs(2);
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const DRAIN_LOOK: Duration = Duration::from_millis(20);
const LAST_ANSWERS: Duration = Duration::from_secs(2);
