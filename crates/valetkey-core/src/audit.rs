//! The audit log, as a port: what is written, and the promise that it is durable.

mod reason;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::decision::{PolicyId, Redeemer, Revision};
use crate::gate::Grant;
use crate::handle::HandleId;
use crate::identity::{AgentId, Identity, PersonId, ToolId};
use crate::lease::LeaseId;
use crate::request::{AccessKind, AccessRequest, Call, RequestId, TraceId};
use crate::resolver::Provenance;
use crate::target::Target;

pub use self::reason::Reason;

/// The log. Insert-only: a record is written before anything is resolved or released, its outcome
/// after.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes records and returns when they are durable, with their ids in order. All or none.
    /// Bounded in time: a log that cannot be written says so.
    ///
    /// # Errors
    /// [`AuditError`] where nothing was written; whatever the records were to permit must not happen.
    async fn record(&self, records: Vec<AuditRecord>) -> Result<Vec<RecordId>, AuditError>;

    /// Takes the outcome of a grant, to be written with the next records. The log retries by itself;
    /// an outcome that is lost in a crash becomes `interrupted` at the next start. There are never
    /// more outcomes waiting than grants under way, so this needs no bound of its own.
    fn record_outcome(&self, grant: Grant, outcome: AuditOutcome);
}

/// The log cannot be written: nothing may be resolved or released. Holds the operator's side of the
/// story; the caller learns only that the log is not available.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the audit log is not available: {0}")]
pub struct AuditError(pub Arc<str>);

/// A record's place in the log, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// What is written about one request or event before anything else happens. Never a value, never a
/// handle's secret part.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// When.
    pub time: Timestamp,
    /// What kind of request or event.
    pub kind: RecordKind,
    /// What was decided.
    pub ruling: Ruling,
    /// Why.
    pub reason: Reason,
    /// More for the reviewer; scrubbed, at most 1,024 bytes.
    pub detail: Option<Arc<str>>,
    /// The call, where it came from one.
    pub request: Option<RequestId>,
    /// The caller's trace.
    pub trace: Option<TraceId>,
    /// What the caller showed, by an id that may be logged.
    pub credential: Option<Arc<str>>,
    /// The person on whose behalf.
    pub on_behalf_of: Option<PersonId>,
    /// Who called; absent where nobody was authenticated, and for the broker's own events.
    pub caller: Option<Identity>,
    /// The client as it says itself; scrubbed, at most 256 bytes.
    pub client: Option<Arc<str>>,
    /// The agent concerned.
    pub agent: Option<AgentId>,
    /// The tool concerned.
    pub tool: Option<ToolId>,
    /// The reference as asked; well-formed, so harmless and at most some 1,050 bytes.
    pub reference: Option<Arc<str>>,
    /// What it means.
    pub target: Option<Arc<Target>>,
    /// The policies that determined the decision.
    pub policies: Option<Arc<[PolicyId]>>,
    /// The policy set that decided, or that was loaded.
    pub revision: Option<Revision>,
    /// The agent's reason.
    pub purpose: Option<Arc<str>>,
    /// The agent's name for its run.
    pub session: Option<Arc<str>>,
    /// Where the secret will be sent.
    pub destination: Option<Arc<str>>,
    /// The lease concerned.
    pub lease: Option<LeaseId>,
    /// The handle concerned.
    pub handle: Option<HandleId>,
    /// The life granted, or asked for where it was refused.
    pub ttl: Option<Duration>,
    /// The uses granted.
    pub uses: Option<u32>,
    /// Who can redeem.
    pub redeemer: Option<Redeemer>,
}

/// What a record decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Allowed.
    Allow,
    /// Refused.
    Deny,
    /// Nothing to decide: an event.
    Event,
}

/// The kind of request or event that a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A handle was asked for.
    Acquire,
    /// A fresh handle for a live lease.
    Renew,
    /// A value was asked for.
    Redeem,
    /// A dry run.
    Check,
    /// A source was to be asked what a reference means.
    Locate,
    /// A lease was to be ended.
    EndLease,
    /// The log was to be read.
    ReadAudit,
    /// The broker's own state was to be seen.
    Operate,
    /// Somebody without an identity.
    Unauthenticated,
    /// A message that could not be read.
    Malformed,
    /// A caller was over a limit of its own.
    Limit,
    /// A lease ended.
    LeaseEnd,
    /// A handle expired.
    HandleExpire,
    /// A handle was revoked.
    HandleRevoke,
    /// Policies were loaded, or could not be.
    PolicyLoad,
    /// Certificates were loaded, or could not be.
    TlsLoad,
    /// The broker started.
    Start,
    /// The broker stopped.
    Stop,
    /// A token was to be made.
    TokenCreate,
    /// The tokens were to be seen.
    TokenList,
    /// A token was to be revoked.
    TokenRevoke,
    /// What waits for an approval was to be seen.
    ApprovalList,
    /// Something was to be approved.
    Approve,
    /// Something was to be rejected.
    Reject,
    /// Records were retired: their time is over.
    Retire,
    /// It was to be found out to whom a value was released.
    FindValue,
    /// The configuration was loaded.
    ConfigLoad,
}

/// What came of a grant.
#[derive(Debug, Clone)]
pub struct AuditOutcome {
    /// When.
    pub time: Timestamp,
    /// What.
    pub result: OutcomeResult,
    /// Why, where it failed or was withheld: a stable code.
    pub reason: Option<&'static str>,
    /// More for the reviewer; never anything secret.
    pub detail: Option<Arc<str>>,
    /// Where the value came from.
    pub provenance: Option<Provenance>,
    /// What recognises the value that was released, for whoever has the digest key.
    pub value_digest: Option<ValueDigest>,
}

/// A keyed digest of a value: equal values have equal digests, and without the key it says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueDigest(pub [u8; 16]);

/// The result in an [`AuditOutcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutcomeResult {
    /// A handle was issued.
    Issued,
    /// A value left the broker.
    Released,
    /// The source gave no value, or the handle died meanwhile.
    Failed,
    /// Allowed, but not done: another reference of the lease was refused, or the policies changed.
    Withheld,
    /// The broker does not know: it stopped, or the caller went, between record and outcome. A value
    /// may have been released.
    Interrupted,
}

impl AuditRecord {
    /// An event of the broker's own; fields that do not apply are absent.
    #[must_use]
    pub fn event(time: Timestamp, kind: RecordKind, reason: Reason) -> Self {
        Self {
            time,
            kind,
            ruling: Ruling::Event,
            reason,
            detail: None,
            request: None,
            trace: None,
            credential: None,
            on_behalf_of: None,
            caller: None,
            client: None,
            agent: None,
            tool: None,
            reference: None,
            target: None,
            policies: None,
            revision: None,
            purpose: None,
            session: None,
            destination: None,
            lease: None,
            handle: None,
            ttl: None,
            uses: None,
            redeemer: None,
        }
    }

    /// A refusal that no policy was asked for.
    #[must_use]
    pub fn refusal(time: Timestamp, kind: RecordKind, reason: Reason) -> Self {
        Self { ruling: Ruling::Deny, ..Self::event(time, kind, reason) }
    }

    /// With the call that it came from. An agent that calls is the agent concerned, unless the record is about
    /// another's already: of a handle in the wrong hands, both are to be read.
    #[must_use]
    pub fn by(self, call: &Call) -> Self {
        let Call { id, caller, key: _, client, trace, credential, claims: _, behalf } = call;
        let agent = match caller {
            Identity::Agent(agent) => self.agent.or_else(|| Some(agent.clone())),
            Identity::Tool(_) | Identity::Person(_) => self.agent,
        };
        Self {
            request: Some(*id),
            trace: *trace,
            caller: Some(caller.clone()),
            client: Some(Arc::clone(client)),
            credential: Some(Arc::clone(credential.id())),
            on_behalf_of: behalf.as_ref().map(|behalf| behalf.person.clone()).or(self.on_behalf_of),
            agent,
            ..self
        }
    }

    /// With the request that it is about.
    #[must_use]
    pub fn about(self, request: &AccessRequest) -> Self {
        let AccessRequest {
            call,
            opened_by,
            kind: _,
            agent,
            tool,
            reference,
            target,
            life,
            purpose,
            session,
            destination,
            lease,
            handle,
        } = request;
        Self {
            on_behalf_of: opened_by.behalf.as_ref().map(|behalf| behalf.person.clone()),
            agent: Some(agent.clone()),
            tool: Some(tool.clone()),
            reference: Some(reference.text()),
            target: Some(Arc::clone(target)),
            purpose: purpose.as_ref().map(|text| text.as_str().into()),
            session: session.as_ref().map(|text| text.as_str().into()),
            destination: destination.as_ref().map(|text| text.as_str().into()),
            lease: *lease,
            handle: *handle,
            ttl: Some(life.duration()),
            ..self.by(call)
        }
    }

    /// With more for the reviewer, scrubbed and cut.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        Self { detail: Some(crate::text::scrub(detail, DETAIL_MAX).into()), ..self }
    }
}

impl AuditOutcome {
    /// A result with nothing more to say.
    #[must_use]
    pub fn new(time: Timestamp, result: OutcomeResult) -> Self {
        Self { time, result, reason: None, detail: None, provenance: None, value_digest: None }
    }

    /// A result and the stable code that says why.
    #[must_use]
    pub fn because(time: Timestamp, result: OutcomeResult, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..Self::new(time, result) }
    }
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::Acquire,
        Self::Renew,
        Self::Redeem,
        Self::Check,
        Self::EndLease,
        Self::ReadAudit,
        Self::Operate,
        Self::Unauthenticated,
        Self::Malformed,
        Self::LeaseEnd,
        Self::HandleExpire,
        Self::HandleRevoke,
        Self::PolicyLoad,
        Self::Start,
        Self::Stop,
        Self::Locate,
        Self::TlsLoad,
        Self::Limit,
        Self::TokenCreate,
        Self::TokenList,
        Self::TokenRevoke,
        Self::Retire,
        Self::FindValue,
        Self::ConfigLoad,
        Self::ApprovalList,
        Self::Approve,
        Self::Reject,
    ];

    /// The name in queries and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Redeem => "redeem",
            Self::Check => "check",
            Self::Locate => "locate",
            Self::EndLease => "end_lease",
            Self::ReadAudit => "read_audit",
            Self::Operate => "operate",
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::Limit => "limit",
            Self::LeaseEnd => "lease_end",
            Self::HandleExpire => "handle_expire",
            Self::HandleRevoke => "handle_revoke",
            Self::PolicyLoad => "policy_load",
            Self::TlsLoad => "tls_load",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::TokenCreate => "token_create",
            Self::TokenList => "token_list",
            Self::TokenRevoke => "token_revoke",
            Self::ApprovalList => "approval_list",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Retire => "retire",
            Self::FindValue => "find_value",
            Self::ConfigLoad => "config_load",
        }
    }

    /// Whether an allowed record of this kind is followed by an outcome.
    #[must_use]
    pub fn has_outcome(self) -> bool {
        matches!(self, Self::Acquire | Self::Renew | Self::Redeem)
    }
}

impl From<AccessKind> for RecordKind {
    fn from(kind: AccessKind) -> Self {
        match kind {
            AccessKind::Acquire => Self::Acquire,
            AccessKind::Renew => Self::Renew,
            AccessKind::Check => Self::Check,
            AccessKind::Redeem => Self::Redeem,
        }
    }
}

impl OutcomeResult {
    /// The name in queries and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::Withheld => "withheld",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for ValueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const DETAIL_MAX: usize = 1024;
