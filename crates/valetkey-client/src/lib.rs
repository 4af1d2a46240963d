//! The Rust client of a valetkey broker: a lease that keeps itself and ends with its value, redeem, audit queries.
//!
//! Not here: decisions. Who may have what is the broker's to say, each time anew.
//!
//! Invariants:
//! - A token, a handle and a value have no `Debug`, no `Display` and no `Clone`, and no error shows
//!   them; `expose_secret` is the only way out of each.
//! - A token travels in clear text over loopback only. TLS trusts the one authority that it is given, never a
//!   machine's whole list.
//! - Every call is bounded in time, and a broker that is gone is noticed within seconds.
//! - A call is made again only where that is of use and harms nothing: [`Retries`] bounds it. A redeem is repeated only
//!   where no use can have been spent.
//! - A [`Lease`] shows no handle that is known to be dead, and nothing of it survives its value. The clock on this
//!   machine's wall is never looked at.
//!
//! # An agent
//!
//! ```no_run
//! use valetkey_client::{AcquireLease, Broker, Token};
//!
//! # async fn agent(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::connect("http://127.0.0.1:7447", Token::parse(token)?).await?;
//! let (user, password) = ("op://Tutorial/Navan/username", "op://Tutorial/Navan/password");
//! let lease = broker.lease(AcquireLease::new("navan.book_flight", [user, password], "book LIS-BER")).await?;
//! let issued = lease.handle(password).await?;
//! // Hand `issued.handle.expose_secret()` to the model: it is no secret of the vault.
//! lease.end().await?;
//! # Ok(()) }
//! ```
//!
//! # A tool
//!
//! ```no_run
//! # use valetkey_client::{Broker, CallError, Handle};
//! # async fn tool(broker: Broker, argument: String) -> Result<(), CallError> {
//! let password = broker.redeem(&Handle::new(argument)).await?;
//! // Use `password.expose_secret()`; the value is wiped from memory when it is dropped.
//! # Ok(()) }
//! ```

mod address;
mod approvals;
mod audit;
mod broker;
mod clock;
mod connect;
mod credentials;
mod diagnose;
mod error;
mod lease;
mod operate;
mod reports;
mod retries;
mod secret;
mod stream;
mod tokens;

pub use approvals::{ApprovalDecision, ApprovalPage};
pub use audit::{AuditExport, AuditPage, AuditWatch, FoundValue};
pub use broker::{Access, AcquireLease, Broker, CheckAccess};
pub use connect::ConnectError;
pub use credentials::{Credentials, CredentialsError};
pub use diagnose::{Step, StepResult, diagnose};
pub use error::{CallError, Violation};
pub use lease::{Lease, LeaseEvents};
pub use reports::ReportSubject;
pub use retries::Retries;
pub use secret::{Handle, SecretValue, Token, TokenError};
pub use stream::{Issued, LeaseEvent, LeaseStream, Refused};
pub use tokens::{NewToken, Revoked, TokenPage};
pub use valetkey_proto::v1::Token as KnownToken;
pub use valetkey_proto::v1::{
    Approval, ApprovalReference, AuditOutcome, AuditRecord, AuditTarget, Decision, EndCause, EventsFeature,
    ExportAuditRecordsResponse, ExportFormat, FirstUse, GetStatusResponse, GetUsageReportResponse,
    ListFirstUsesResponse, ListRefusalsResponse, ListUnusedAccessResponse, Redeemer, Refusals, ReportAccess,
    ReportPeriod, ReportTotals, ReportUsage, SourceQuota, SourceState, SourceStatus, TokenState, TokenUsage,
    UnusedAccess,
};

/// What the pages promise compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/rust.md")]
struct Pages;
