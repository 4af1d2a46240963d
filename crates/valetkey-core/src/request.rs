//! What is asked of the broker, fully parsed: the only form in which a request reaches a decision.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::Reason;
use crate::bearer::PublicId;
use crate::credential::Credential;
use crate::handle::HandleId;
use crate::identity::{AgentId, GroupId, Identity, KeyThumbprint, PersonId, ToolId};
use crate::lease::LeaseId;
use crate::reference::SecretReference;
use crate::target::Target;
use crate::text::{Destination, Purpose, Session};

/// One call of an authenticated caller. Records of one call share its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Made by the broker.
    pub id: RequestId,
    /// Who the transport says it is.
    pub caller: Identity,
    /// The key of the client certificate that the connection was made with, where there was one.
    pub key: Option<KeyThumbprint>,
    /// The client's name, version and address, scrubbed; at most 256 bytes. For reviewers only.
    pub client: Arc<str>,
    /// The caller's W3C trace id.
    pub trace: Option<TraceId>,
    /// What the caller showed to be known.
    pub credential: Credential,
    /// What it says about the caller, beside the name.
    pub claims: Arc<[Claim]>,
    /// The person that the caller acts for, where it proves one.
    pub behalf: Option<Behalf>,
}

/// A person that somebody acts for, proved by a token of that person's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behalf {
    /// The person.
    pub person: PersonId,
    /// The proof.
    pub credential: Credential,
}

/// Something that a credential says about its bearer, as `name=value`; at most 256 bytes. For policies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim(Arc<str>);

/// The id of one call; prints as `vkr_<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub PublicId);

/// A W3C trace id; prints as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A request for one reference, or for the value behind one handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequest {
    /// The call that it is part of. Its caller is the principal of the decision.
    pub call: Arc<Call>,
    /// The call that the lease was opened with, or is to be: on whose behalf, and what was claimed, also
    /// where somebody else redeems. For a check, the check.
    pub opened_by: Arc<Call>,
    /// What is asked.
    pub kind: AccessKind,
    /// The agent that holds, or asks for, the lease.
    pub agent: AgentId,
    /// The tool that the lease is for.
    pub tool: ToolId,
    /// The reference as asked: for the record, never for the decision.
    pub reference: SecretReference,
    /// What the reference means: for the decision.
    pub target: Arc<Target>,
    /// How long the handle shall live.
    pub life: Life,
    /// Why, in the agent's words; never part of the decision. A check has none.
    pub purpose: Option<Purpose>,
    /// The agent's own name for its run.
    pub session: Option<Session>,
    /// Where the secret will be sent.
    pub destination: Option<Destination>,
    /// The lease concerned. A check has none.
    pub lease: Option<LeaseId>,
    /// The handle concerned: the one to be issued, or to be redeemed. A check has none.
    pub handle: Option<HandleId>,
}

/// What an [`AccessRequest`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// A handle.
    Acquire,
    /// A fresh handle, for a reference of a live lease.
    Renew,
    /// Whether a handle would be given.
    Check,
    /// The value behind a handle.
    Redeem,
}

/// How long a handle shall live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// This long; refused where policy allows less.
    Asked(Duration),
    /// The broker's usual life, or as much of it as policy allows.
    Usual(Duration),
}

/// A request for something other than a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRequest {
    /// The call. Its caller is the principal of the decision.
    pub call: Arc<Call>,
    /// What is asked.
    pub action: AdminAction,
    /// On what.
    pub resource: AdminResource,
    /// What exactly, for the record: a filter, a record id. Scrubbed; at most 1,024 bytes.
    pub detail: Arc<str>,
}

/// What an [`AdminRequest`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdminAction {
    /// Read audit records.
    ReadAudit,
    /// Find out to whom a value was released.
    FindValue,
    /// End a lease.
    Revoke,
    /// See the broker's own state: reflection and health.
    Operate,
    /// Make a token. This and the next two are one policy action.
    CreateToken,
    /// See which tokens there are.
    ListTokens,
    /// Revoke a token.
    RevokeToken,
    /// See what waits for an approval. This and the next two are one policy action.
    ListApprovals,
    /// Approve what an agent asked for.
    Approve,
    /// Reject it.
    Reject,
}

/// On what an [`AdminRequest`] acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AdminResource {
    /// The audit log.
    AuditLog,
    /// One lease. A lease that does not exist has no holder, and policy sees that.
    Lease {
        /// The lease as asked.
        id: LeaseId,
        /// The agent that holds it.
        holder: Option<AgentId>,
    },
    /// What an agent asked for and was refused, because a person has to approve it first. To policy it is the lease
    /// that it would have been.
    Ask {
        /// The lease.
        id: LeaseId,
        /// The agent that asked. An ask that does not exist has none, and policy sees that.
        holder: Option<AgentId>,
        /// The groups that whoever acts on it must be in, all of them.
        groups: Arc<[GroupId]>,
    },
    /// The broker.
    Broker,
}

impl AccessRequest {
    /// The principal of the decision.
    #[must_use]
    pub fn principal(&self) -> &Identity {
        &self.call.caller
    }
}

impl Call {
    /// Whether something that it was authenticated by has been revoked since.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.credentials().any(Credential::is_revoked)
    }

    /// Returns when something that it was authenticated by is revoked.
    pub async fn revoked(&self) {
        let other = async {
            match &self.behalf {
                Some(behalf) => behalf.credential.revoked().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.credential.revoked() => {}
            () = other => {}
        }
    }

    /// Why it no longer counts, where something that it was authenticated by was revoked or has ended since. `now` is
    /// on the monotonic clock.
    #[must_use]
    pub fn over(&self, now: Duration) -> Option<Reason> {
        if self.is_revoked() {
            return Some(Reason::CredentialRevoked);
        }
        self.expires().is_some_and(|end| now >= end).then_some(Reason::CredentialExpired)
    }

    /// When the first of what it was authenticated by ends, on the monotonic clock.
    #[must_use]
    pub fn expires(&self) -> Option<Duration> {
        self.credentials().filter_map(Credential::expires).min()
    }

    fn credentials(&self) -> impl Iterator<Item = &Credential> {
        std::iter::once(&self.credential).chain(self.behalf.as_ref().map(|behalf| &behalf.credential))
    }
}

impl Claim {
    /// Takes a claim, unless it has control characters or is over 256 bytes: cut, it would say another thing.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Option<Self> {
        let claim = format!("{name}={value}");
        (claim.len() <= CLAIM_MAX && !claim.contains(char::is_control)).then(|| Self(claim.into()))
    }

    /// As policies see it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Life {
    /// The life that is hoped for.
    #[must_use]
    pub fn duration(self) -> Duration {
        match self {
            Self::Asked(life) | Self::Usual(life) => life,
        }
    }
}

impl RequestId {
    /// Makes a fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(PublicId::random())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vkr_{}", self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

const CLAIM_MAX: usize = 256;
