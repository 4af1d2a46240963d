//! The configuration: TOML, parsed whole before anything is done, all faults at once.

mod approvals;
mod audit;
mod digests;
mod events;
mod issuers;
mod members;
mod source;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use valetkey_audit::{Retention, Signing};
use valetkey_core::LeaseLimits;

use crate::events::EventsSettings;
use crate::identity::jwt::Issuer;
use crate::identity::known::{Member, Proof, SpiffeRule};
use crate::limits::{IdentityLimits, PlaceLimits, RepeatLimits};
use crate::listen::UnixSettings;
use crate::tls::TlsSettings;

pub use self::approvals::{ApprovalLink, ApprovalSettings};
pub use self::audit::usual_digest_key;
pub use self::digests::SectionDigest;
pub use self::source::{SourceBounds, SourceConfig, SourceKind};

/// What a broker is told.
pub struct Config {
    /// Where to listen; must be set if `unix` is not. Beyond loopback `tls` must be set.
    pub listen: Option<SocketAddr>,
    /// How the broker proves itself to those who connect there.
    pub tls: Option<TlsSettings>,
    /// The Unix socket to listen on, for callers on this machine.
    pub unix: Option<UnixSettings>,
    /// The Events API; `None` serves it nowhere.
    pub events: Option<EventsSettings>,
    /// The audit database.
    pub audit_database: PathBuf,
    /// Whether a missing audit database is made. Never set it by habit: a database that has gone missing is
    /// evidence.
    pub audit_create: bool,
    /// The key of value digests; made where the database never had one. `None`: values leave no digest.
    pub audit_digest_key: Option<PathBuf>,
    /// How the audit log is signed.
    pub audit_signing: Signing,
    /// How long its records are kept.
    pub audit_retention: Retention,
    /// The directory of the policies; watched for changes.
    pub policies: PathBuf,
    /// Where `GET /metrics` is served, to anybody on the machine. Loopback only; `None` serves it nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where values come from.
    pub sources: Vec<SourceConfig>,
    /// Who may call; an entry with several proofs is as many members.
    pub members: Vec<Member>,
    /// Who else may call, by the names in their SPIFFE ids.
    pub spiffe_rules: Vec<SpiffeRule>,
    /// How people approve.
    pub approvals: ApprovalSettings,
    /// Whose signed tokens count.
    pub issuers: Vec<Issuer>,
    /// The bounds.
    pub limits: Limits,
    /// What the file says, for the record. Empty where there is no file.
    pub digests: Vec<SectionDigest>,
}

/// The bounds of a broker.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a handle lives unless asked otherwise.
    pub ttl_usual: Duration,
    /// The longest life that may be asked for.
    pub ttl_max: Duration,
    /// The bounds of the lease table.
    pub leases: LeaseLimits,
    /// The bounds of each identity.
    pub identities: IdentityLimits,
    /// The bounds of connections.
    pub places: PlaceLimits,
    /// How much of what is refused again and again is written down one by one.
    pub repeats: RepeatLimits,
    /// Streams and calls of one connection at the same time.
    pub streams_per_connection_max: u32,
    /// How long leases may go on after the broker was told to stop.
    pub drain_grace: Duration,
}

/// Everything that is wrong with a configuration; prints one fault a line.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    faults: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ttl_usual: Duration::from_secs(60),
            ttl_max: Duration::from_secs(15 * 60),
            leases: LeaseLimits {
                leases_max: 50_000,
                leases_per_agent_max: 1_000,
                handles_max: 200_000,
                handles_per_agent_max: 10_000,
                dead_handles_max: 65_536,
            },
            identities: IdentityLimits::default(),
            places: PlaceLimits::default(),
            repeats: RepeatLimits::default(),
            streams_per_connection_max: 1_024,
            drain_grace: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Reads a configuration file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] names every fault.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let fault = |fault| ConfigError { file: file.to_owned(), faults: vec![fault] };
        let size = std::fs::metadata(file).map_err(|error| fault(unreadable(&error)))?.len();
        if size > SIZE_MAX {
            return Err(fault(format!("must have at most {SIZE_MAX} bytes, has {size}")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| fault(unreadable(&error)))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|faults| ConfigError { file: file.to_owned(), faults })
    }

    /// Parses a configuration; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// Every fault, as a line each.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let mut document: toml::Table = toml::from_str(text).map_err(|error| vec![syntax(text, &error)])?;
        let digests = digests::digests(&document);
        let mut faults = Vec::new();
        let unix: Option<tls::UnixSection> = optional(&mut document, "unix", &mut faults);
        let unix = unix.and_then(|unix| unix.check(folder, &mut faults));
        let listen: Option<SocketAddr> = match unix {
            Some(_) => optional(&mut document, "listen", &mut faults),
            None => section(&mut document, "listen", &mut faults),
        };
        let has_tls = document.contains_key("tls");
        let tls: Option<tls::TlsSection> = optional(&mut document, "tls", &mut faults);
        let tls = tls.and_then(|tls| tls.check(folder, &mut faults));
        let events: Option<events::EventsSection> = optional(&mut document, "events", &mut faults);
        let events = events.and_then(|events| events.check(folder, tls.as_ref(), &mut faults));
        let audit: Option<audit::AuditSection> = section(&mut document, "audit", &mut faults);
        let audit = audit.and_then(|audit| audit.check(folder, &mut faults));
        let policies: Option<PoliciesSection> = section(&mut document, "policies", &mut faults);
        let sources = source::sources(&mut document, folder, &mut faults);
        let metrics = match document.contains_key("metrics") {
            true => section(&mut document, "metrics", &mut faults).map(|MetricsSection { listen }| listen),
            false => None,
        };
        let limits = match document.contains_key("limits") {
            true => section(&mut document, "limits", &mut faults),
            false => Some(LimitsSection::default()),
        };
        let limits = limits.and_then(|limits| limits.check(&mut faults));
        let approvals: Option<approvals::ApprovalsSection> =
            optional(&mut document, "approvals", &mut faults);
        let approvals = approvals.unwrap_or_default().check(&mut faults);
        let no_one = !["identity", "spiffe_rule", "issuer"].iter().any(|key| document.contains_key(*key));
        if no_one {
            faults.push(
                "`identity` is missing: nobody could call; `valetkey token create` makes entries".to_owned(),
            );
        }
        let (members, spiffe_rules) = members::read_all(&mut document, &mut faults);
        let issuers = issuers::read_all(&mut document, folder, &mut faults);
        for key in document.keys() {
            faults.push(format!("`{key}` is not a known key"));
        }
        if let Some(listen) = listen.filter(|listen| !listen.ip().is_loopback() && !has_tls) {
            faults.push(format!(
                "`listen` must be a loopback address such as 127.0.0.1:7447, is {listen}: beyond the machine a \
                 broker needs TLS, which is set up in `[tls]`"
            ));
        }
        if metrics.is_some_and(|metrics| metrics.port() != 0 && Some(metrics) == listen) {
            faults.push(
                "`metrics.listen` must be another address than `listen`: give it a port of its own"
                    .to_owned(),
            );
        }
        let taken = events.as_ref().map(|events| events.listen).filter(|listen| listen.port() != 0);
        if taken.is_some_and(|taken| [listen, metrics].contains(&Some(taken))) {
            faults.push(
                "`events.listen` must be another address than `listen` and `metrics.listen`".to_owned(),
            );
        }
        if let Some(listen) = metrics.filter(|listen: &SocketAddr| !listen.ip().is_loopback()) {
            faults.push(format!(
                "`metrics.listen` must be a loopback address such as 127.0.0.1:9447, is {listen}: nobody is asked who \
                 reads them"
            ));
        }
        if faults.is_empty() {
            check_reach(&members, &spiffe_rules, tls.as_ref(), unix.as_ref(), &mut faults);
        }
        match (audit, policies, limits, approvals) {
            (Some(audit), Some(policies), Some(limits), Some(approvals)) if faults.is_empty() => Ok(Self {
                listen,
                tls,
                unix,
                events,
                audit_database: audit.database,
                audit_create: false,
                audit_digest_key: audit.digest_key,
                audit_signing: audit.signing,
                audit_retention: audit.retention,
                policies: folder.join(policies.directory),
                metrics,
                sources,
                members,
                spiffe_rules,
                approvals,
                issuers,
                limits,
                digests,
            }),
            _ => Err(faults),
        }
    }
}

/// Why there is nothing to read, and what to do about it.
fn unreadable(error: &std::io::Error) -> String {
    let next = match error.kind() {
        std::io::ErrorKind::NotFound => "write one as README.md begins, or name the one that is there",
        std::io::ErrorKind::PermissionDenied => "run this as the user that runs the broker",
        _ => return format!("cannot be read: {error}"),
    };
    format!("cannot be read: {error}: {next}")
}

/// What is no TOML, and where, on one line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

impl ConfigError {
    /// The faults.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, faults } = self;
        for (place, fault) in faults.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {fault}", file.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoliciesSection {
    directory: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsSection {
    listen: SocketAddr,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    ttl_usual_seconds: Option<u64>,
    ttl_max_seconds: Option<u64>,
    leases_max: Option<usize>,
    leases_per_agent_max: Option<usize>,
    handles_max: Option<usize>,
    handles_per_agent_max: Option<usize>,
    requests_per_second: Option<u32>,
    requests_burst: Option<u32>,
    connections_per_identity_max: Option<usize>,
    message_bytes_per_identity_max: Option<usize>,
    connections_max: Option<usize>,
    unknown_connections_max: Option<usize>,
    unknown_connections_per_address_max: Option<usize>,
    refusals_written_max: Option<usize>,
    refusals_written_per_source_max: Option<usize>,
    streams_per_connection_max: Option<u32>,
    drain_grace_seconds: Option<u64>,
}

impl LimitsSection {
    fn check(self, faults: &mut Vec<String>) -> Option<Limits> {
        let usual = Limits::default();
        let seconds = |given: Option<u64>, usual| given.map_or(usual, Duration::from_secs);
        let places = PlaceLimits::of(self.connections_max.unwrap_or(usual.places.connections_max));
        let limits = Limits {
            ttl_usual: seconds(self.ttl_usual_seconds, usual.ttl_usual),
            ttl_max: seconds(self.ttl_max_seconds, usual.ttl_max),
            leases: LeaseLimits {
                leases_max: self.leases_max.unwrap_or(usual.leases.leases_max),
                leases_per_agent_max: self.leases_per_agent_max.unwrap_or(usual.leases.leases_per_agent_max),
                handles_max: self.handles_max.unwrap_or(usual.leases.handles_max),
                handles_per_agent_max: self
                    .handles_per_agent_max
                    .unwrap_or(usual.leases.handles_per_agent_max),
                dead_handles_max: usual.leases.dead_handles_max,
            },
            identities: IdentityLimits {
                requests_per_second: self.requests_per_second.unwrap_or(usual.identities.requests_per_second),
                requests_burst: self.requests_burst.unwrap_or(usual.identities.requests_burst),
                connections_max: self
                    .connections_per_identity_max
                    .unwrap_or(usual.identities.connections_max),
                message_bytes_max: self
                    .message_bytes_per_identity_max
                    .unwrap_or(usual.identities.message_bytes_max),
            },
            places: PlaceLimits {
                connections_max: places.connections_max,
                unknown_max: self.unknown_connections_max.unwrap_or(places.unknown_max),
                unknown_per_address_max: self
                    .unknown_connections_per_address_max
                    .unwrap_or(places.unknown_per_address_max),
            },
            repeats: RepeatLimits {
                unauthenticated_max: self.refusals_written_max.unwrap_or(usual.repeats.unauthenticated_max),
                per_source_max: self.refusals_written_per_source_max.unwrap_or(usual.repeats.per_source_max),
            },
            streams_per_connection_max: self
                .streams_per_connection_max
                .unwrap_or(usual.streams_per_connection_max),
            drain_grace: seconds(self.drain_grace_seconds, usual.drain_grace),
        };
        let before = faults.len();
        let mut within = |key: &str, has: u64, min: u64, max: u64| {
            if !(min..=max).contains(&has) {
                faults.push(format!("`limits.{key}` must be {min} to {max}, is {has}"));
            }
        };
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        within("ttl_max_seconds", limits.ttl_max.as_secs(), 1, TTL_MAX_SECONDS);
        within("ttl_usual_seconds", limits.ttl_usual.as_secs(), 1, limits.ttl_max.as_secs().max(1));
        within("leases_max", wide(limits.leases.leases_max), 1, COUNT_MAX);
        within("leases_per_agent_max", wide(limits.leases.leases_per_agent_max), 1, COUNT_MAX);
        within("handles_max", wide(limits.leases.handles_max), 1, COUNT_MAX);
        within("handles_per_agent_max", wide(limits.leases.handles_per_agent_max), 1, COUNT_MAX);
        within("requests_per_second", limits.identities.requests_per_second.into(), 1, 1_000_000);
        within("requests_burst", limits.identities.requests_burst.into(), 1, 1_000_000);
        within("connections_per_identity_max", wide(limits.identities.connections_max), 1, 100_000);
        let bytes = wide(limits.identities.message_bytes_max);
        within("message_bytes_per_identity_max", bytes, MESSAGE_BYTES_MIN, 1 << 40);
        within("connections_max", wide(limits.places.connections_max), 1, 100_000);
        let connections = wide(limits.places.connections_max);
        within("unknown_connections_max", wide(limits.places.unknown_max), 1, connections);
        let of_address = wide(limits.places.unknown_per_address_max);
        within("unknown_connections_per_address_max", of_address, 1, connections);
        within("refusals_written_max", wide(limits.repeats.unauthenticated_max), 1, COUNT_MAX);
        within("refusals_written_per_source_max", wide(limits.repeats.per_source_max), 1, COUNT_MAX);
        within("streams_per_connection_max", limits.streams_per_connection_max.into(), 1, 100_000);
        within("drain_grace_seconds", limits.drain_grace.as_secs(), 0, 3_600);
        (faults.len() == before).then_some(limits)
    }
}

/// Takes a key out of the document and reads it; a fault is noted with the key's name.
fn section<T: DeserializeOwned>(
    document: &mut toml::Table,
    key: &str,
    faults: &mut Vec<String>,
) -> Option<T> {
    let Some(value) = document.remove(key) else {
        faults.push(format!("`{key}` is missing"));
        return None;
    };
    read(value, key, faults)
}

/// The same for a key that may be left out.
fn optional<T: DeserializeOwned>(
    document: &mut toml::Table,
    key: &str,
    faults: &mut Vec<String>,
) -> Option<T> {
    document.remove(key).and_then(|value| read(value, key, faults))
}

/// Whoever may call must have a way to show who they are: an entry that nobody can use is a mistake.
fn check_reach(
    members: &[Member],
    rules: &[SpiffeRule],
    tls: Option<&TlsSettings>,
    unix: Option<&UnixSettings>,
    faults: &mut Vec<String>,
) {
    let by_certificate = members.iter().any(|member| matches!(member.shows, Proof::Spiffe(_)));
    if (by_certificate || !rules.is_empty()) && tls.is_none_or(|tls| tls.clients.is_none()) {
        faults.push(
            "`spiffe` needs `tls.client_ca` or `tls.workload_api`: nobody could show a certificate".into(),
        );
    }
    let by_user = members.iter().any(|member| matches!(member.shows, Proof::User(_)));
    if by_user && unix.is_none() {
        faults.push("`uid` and `user` need `[unix]`: only there the kernel says who calls".into());
    }
}

fn read<T: DeserializeOwned>(value: toml::Value, key: &str, faults: &mut Vec<String>) -> Option<T> {
    value
        .try_into()
        .map_err(|error: toml::de::Error| faults.push(format!("`{key}`: {}", error.message())))
        .ok()
}

const SIZE_MAX: u64 = 4 * 1024 * 1024;
const TTL_MAX_SECONDS: u64 = 24 * 60 * 60;
/// One message of the largest size.
const MESSAGE_BYTES_MIN: u64 = 2 * 1024 * 1024;
const COUNT_MAX: u64 = 10_000_000;

#[cfg(test)]
mod tests;
