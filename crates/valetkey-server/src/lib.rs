//! Speaks gRPC and wires the rest together.
//!
//! A request passes `identity.rs` (who calls), `convert.rs` (what is asked), the broker of
//! `valetkey-core`, and `convert.rs` again or `status.rs` (the only place where an error becomes a
//! `tonic::Status`). `app.rs` is the wiring, top to bottom.
//!
//! Not here: Cedar types, SQL types, decisions.
//!
//! Invariants:
//! - No identity, no service: every request passes `identity.rs` before it reaches any method, health and
//!   reflection included.
//! - Every error status carries `google.rpc.ErrorInfo`, and says to the caller no more than `status.rs`
//!   lets it.
//! - Everything a peer can make us keep has a bound: connections, streams, messages, headers, events.

mod app;
mod approval_service;
mod audit_record;
mod audit_service;
mod clock;
mod config;
mod convert;
mod digest;
mod digest_key;
mod events;
mod export_service;
mod find_value;
mod identity;
mod lease_service;
mod limits;
mod listen;
mod metrics;
mod operator_service;
mod reload;
mod report_service;
mod review;
mod sources;
mod state;
mod status;
mod tls;
mod token;
mod token_service;
mod watch;

pub use app::{App, Ports, RunError, StartError};
pub use clock::SystemClock;
pub use config::{
    ApprovalLink, ApprovalSettings, Config, ConfigError, Limits, SectionDigest, SourceBounds, SourceConfig,
    SourceKind, usual_digest_key,
};
pub use digest_key::DigestKeyError;
pub use events::{EventsError, EventsRate, EventsSettings, KeyError};
pub use identity::jwt::{Algorithm, ClientError, Issuer, KeySource, Rule};
pub use identity::known::{IdentityKind, Member, Proof, SpiffeRule};
pub use limits::{IdentityLimits, PlaceLimits, RepeatLimits};
pub use listen::{BindError, Listeners, UnixSettings};
pub use reload::{ReloadError, Reloaded, Reloader};
pub use sources::{SourceError, source_checks};
pub use tls::{CertificateSource, ClientCertificates, TlsError, TlsSettings};
pub use token::{TOKEN_PREFIX, TokenDigest, Tokens};
/// For `valetkey doctor` and `valetkey onepassword`, which know the sources through the server alone.
pub use valetkey_audit::{Retention, Signing};
pub use valetkey_onepassword::{Check, InstallError, SdkPin, Verdict, find_op, sdk_pins};
