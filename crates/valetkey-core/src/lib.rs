//! The words of the domain and the one path a request takes.
//!
//! ```text
//! identify -> parse -> decide -> record (durable) -> resolve -> issue handle -> outcome
//!   Agent     Access    Decision   Grant            SecretValue  Lease, Handle
//!             Request
//! ```
//!
//! Not here: gRPC, Cedar, SQL, HTTP, files, the environment, the real clock. They are adapters, and
//! reach the path through the ports [`PolicyEngine`], [`AuditLog`], [`Directory`], [`Resolver`] and
//! [`Clock`].
//!
//! Invariants:
//! - A [`Grant`] is made in one place, `gate.rs`, after an Allow and after its record is durable.
//!   [`Resolver`] and [`LeaseTable`] take a [`Grant`]: an unrecorded fetch or release does not compile.
//! - The reference that is fetched is the one in the grant; there is no second argument.
//! - A [`SecretValue`] and a [`Handle`] have no `Debug`, `Display`, `Serialize`, `Clone` or `PartialEq`.
//! - Whoever has the lease table's memory but no handle has no values.

mod approval;
mod audit;
mod bearer;
mod broker;
mod clock;
mod credential;
mod decision;
mod digester;
mod gate;
mod handle;
mod identity;
mod inventory;
mod lease;
mod policy;
mod reference;
mod request;
mod resolver;
mod secret;
mod spiffe;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod text;

pub use approval::{ApprovalLimits, Ask, AsksFull, Choice, Subject, Want};
pub use audit::{
    AuditError, AuditLog, AuditOutcome, AuditRecord, OutcomeResult, Reason, RecordId, RecordKind, Ruling,
    ValueDigest,
};
pub use bearer::{Bearer, BearerDigest, BearerError, PublicId};
pub use broker::{Acquire, AskPage, Broker, Check, CheckAnswer, Chosen, Redeemed, Refusal, approval_message};
pub use clock::{Clock, Timestamp};
pub use credential::Credential;
pub use decision::{
    Allow, AuditScope, Binding, Decision, Deny, Obligations, PolicyId, Redeemer, Revision, Terms,
};
pub use digester::{DIGEST_KEY_PREFIX, ValueDigester};
pub use gate::{Awaited, Denial, Gate, Grant, Permission, Survey, Verdict};
pub use handle::{Handle, HandleId};
pub use identity::{AgentId, GroupId, Identity, KeyThumbprint, Name, NameError, PersonId, ToolId};
pub use inventory::{Access, AccessQuestion, Among, Inventory, KnownItem};
pub use lease::{EndCause, Issued, LeaseEvent, LeaseEvents, LeaseFull, LeaseId, LeaseLimits, LeaseTable};
pub use policy::PolicyEngine;
pub use reference::{Attribute, ReferenceError, SecretReference};
pub use request::{
    AccessKind, AccessRequest, AdminAction, AdminRequest, AdminResource, Behalf, Call, Claim, Life,
    RequestId, TraceId,
};
pub use resolver::{
    Directory, Fault, Gap, Located, Provenance, ResolveError, ResolveFailure, Resolved, Resolver,
};
pub use secret::SecretValue;
pub use spiffe::{SpiffeError, SpiffeId, SpiffePattern, TrustDomain};
pub use target::{Facet, FieldTarget, Named, Target};
pub use text::{Destination, Purpose, Session, TextError, scrub};
