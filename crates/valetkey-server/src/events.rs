//! The 1Password Events API over the audit log: HTTPS with JSON, as 1Password publishes it, in versions 1 and 2.
//!
//! ```text
//! connection ──> who? ──> how often? ──> read at all? ──> read from where? ──> a page of the log, in their form
//! listen.rs      key.rs   rate.rs        polls.rs          ask.rs, cursor.rs    page.rs, form/
//! ```
//!
//! Its tokens are its own (`key.rs`): they open nothing else, and no other token opens this. What its person may not
//! read of the log is not there.
//!
//! Not here: decisions, and the log itself. docs/events-api.md says what becomes of a record.

mod answer;
mod ask;
mod cursor;
mod form;
mod key;
mod page;
mod polls;
mod rate;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use valetkey_audit::AuditReader;
use valetkey_core::{Broker, Clock};

use crate::limits::{Limiter, PlaceLimits};
use crate::listen::{Listeners, Refusals, connections};
use crate::tls::{Protocol, Tls, TlsError, TlsSettings};
use crate::token::Tokens;

pub use self::key::KeyError;
pub(crate) use self::key::{Signer, SigningKey};
pub use self::rate::EventsRate;

use self::polls::Polls;
use self::rate::Rates;

/// What the broker is told about its Events API.
#[derive(Debug, Clone)]
pub struct EventsSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What clients call it: `host` or `host:port`. Stands in its tokens, and in the ids of events.
    pub host: String,
    /// How it proves itself. Asks for no certificates: such clients have none.
    pub tls: TlsSettings,
    /// The file of the key that signs its tokens; closed to others.
    pub signing_key: PathBuf,
    /// How often a token may ask.
    pub rate: EventsRate,
}

/// Something that a token can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Feature {
    /// Values that were released.
    ItemUsages,
    /// What was refused, granted, ended and changed.
    AuditEvents,
    /// Callers without an identity.
    SignInAttempts,
}

/// Why the Events API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The key of its tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is open before the broker serves.
pub(crate) struct Opened {
    signer: Arc<Signer>,
    tls: Arc<Tls>,
    rate: EventsRate,
}

/// The service.
pub(crate) struct Events {
    broker: Arc<Broker>,
    reader: AuditReader,
    tokens: Arc<Tokens>,
    signer: Arc<Signer>,
    limiter: Arc<Limiter>,
    rates: Rates,
    polls: Polls,
}

/// What it stands on.
pub(crate) struct Parts {
    pub(crate) broker: Arc<Broker>,
    pub(crate) reader: AuditReader,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) places: PlaceLimits,
    pub(crate) refusals: Refusals,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Opened {
    /// Reads the key and the certificate; makes the key with a new log alone.
    ///
    /// # Errors
    /// [`EventsError`] says which cannot be used.
    pub(crate) async fn open(
        settings: EventsSettings,
        create: bool,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, EventsError> {
        let EventsSettings { listen: _, host, tls, signing_key, rate } = settings;
        let key = match create && !signing_key.exists() {
            true => SigningKey::create(&signing_key)?,
            false => SigningKey::open(&signing_key)?,
        };
        let tls = Tls::open(tls, Protocol::Http1, Arc::clone(clock)).await?;
        Ok(Self { signer: Arc::new(Signer { key, host }), tls: Arc::new(tls), rate })
    }

    /// What makes its tokens.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// Serves, and follows the certificate, for as long as the tasks run.
    pub(crate) fn serve(self, tasks: &mut JoinSet<()>, listener: TcpListener, parts: Parts) {
        let Self { signer, tls, rate } = self;
        let Parts { broker, reader, tokens, limiter, places, refusals, stopping } = parts;
        let rates = Rates::new(rate, Arc::clone(broker.clock()));
        let (following, told) = (Arc::clone(&tls), Arc::clone(&broker));
        tasks.spawn(async move { following.follow(&told).await });
        let incoming = connections(Listeners::from(listener), Some(tls), places, refusals);
        let polls = Polls::default();
        let events = Arc::new(Events { broker, reader, tokens, signer, limiter, rates, polls });
        tasks.spawn(serve::serve(incoming, events, stopping));
    }
}

impl EventsSettings {
    /// Reads the key, where there is one, and the certificate, and lets go of them.
    ///
    /// # Errors
    /// [`EventsError`] says which cannot be used.
    pub(crate) fn check(&self, create: bool, clock: &Arc<dyn Clock>) -> Result<(), EventsError> {
        if !create || self.signing_key.exists() {
            SigningKey::open(&self.signing_key)?;
        }
        Ok(self.tls.check(Protocol::Http1, clock)?)
    }
}

impl Feature {
    pub(crate) const ALL: [Self; 3] = [Self::ItemUsages, Self::AuditEvents, Self::SignInAttempts];

    /// The word in paths and tokens.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ItemUsages => "itemusages",
            Self::AuditEvents => "auditevents",
            Self::SignInAttempts => "signinattempts",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.as_str() == word)
    }
}
