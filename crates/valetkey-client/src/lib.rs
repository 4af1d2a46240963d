//! The Rust client of a valetkey broker: a lease that ends with its value, redeem, audit queries.
//!
//! Not here: retries. A redeem may have spent a use although its answer got lost, and a lease that is
//! lost has to be asked for again, which is decided and recorded again: both are the caller's choice.
//!
//! Invariants:
//! - A token, a handle and a value have no `Debug`, no `Display` and no `Clone`, and no error shows
//!   them; `expose_secret` is the only way out of each.
//! - A token travels in clear text over loopback only. TLS trusts the one authority that it is given, never a
//!   machine's whole list.
//! - Every call is bounded in time, and a broker that is gone is noticed within seconds.
//!
//! # An agent
//!
//! ```no_run
//! use valetkey_client::{AcquireLease, Broker, LeaseEvent, Token};
//!
//! # async fn agent(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::connect("http://127.0.0.1:7447", Token::parse(token)?).await?;
//! let references = ["op://Tutorial/Navan/username", "op://Tutorial/Navan/password"];
//! let mut lease =
//!     broker.acquire(AcquireLease::new("navan.book_flight", references, "book LIS-BER")).await?;
//! while let Some(event) = lease.next().await? {
//!     if let LeaseEvent::Issued(issued) = event {
//!         // Hand `issued.handle.expose_secret()` to the model: it is no secret of the vault.
//!     }
//! }
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
mod connect;
mod credentials;
mod diagnose;
mod error;
mod lease;
mod operate;
mod reports;
mod secret;
mod tokens;

pub use approvals::{ApprovalDecision, ApprovalPage};
pub use audit::{AuditExport, AuditPage, AuditWatch, FoundValue};
pub use broker::{Access, AcquireLease, Broker, CheckAccess};
pub use connect::ConnectError;
pub use credentials::{Credentials, CredentialsError};
pub use diagnose::{Step, StepResult, diagnose};
pub use error::{CallError, Violation};
pub use lease::{Issued, Lease, LeaseEvent, Refused};
pub use reports::ReportSubject;
pub use secret::{Handle, SecretValue, Token, TokenError};
pub use tokens::{NewToken, Revoked, TokenPage};
pub use valetkey_proto::v1::Token as KnownToken;
pub use valetkey_proto::v1::{
    Approval, ApprovalReference, AuditOutcome, AuditRecord, AuditTarget, Decision, EndCause, EventsFeature,
    ExportAuditRecordsResponse, ExportFormat, FirstUse, GetStatusResponse, GetUsageReportResponse,
    ListFirstUsesResponse, ListRefusalsResponse, ListUnusedAccessResponse, Redeemer, Refusals, ReportAccess,
    ReportPeriod, ReportTotals, ReportUsage, SourceQuota, SourceState, SourceStatus, TokenState, TokenUsage,
    UnusedAccess,
};
