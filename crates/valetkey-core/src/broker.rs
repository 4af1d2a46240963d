//! The path of a request from decision to outcome: decide, record, resolve, issue or release, settle.
//!
//! Before it, the server identifies the caller and parses; after it, the server streams.

mod acquire;
mod approve;
mod keep;
mod locate;
mod redeem;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::approval::AsksFull;
use crate::audit::{AuditError, AuditOutcome, AuditRecord, OutcomeResult, Reason, RecordId, RecordKind};
use crate::clock::Clock;
use crate::credential::Credential;
use crate::decision::{AuditScope, Revision, Terms};
use crate::digester::ValueDigester;
use crate::gate::{Awaited, Denial, Gate, Grant, Permission, Verdict};
use crate::identity::{AgentId, ToolId};
use crate::lease::{EndCause, LeaseFull, LeaseId, LeaseTable};
use crate::reference::SecretReference;
use crate::request::{AccessKind, AccessRequest, AdminAction, AdminRequest, AdminResource, Call, Life};
use crate::resolver::{Directory, ResolveError, ResolveFailure, Resolver};
use crate::secret::SecretValue;
use crate::target::{Named, Target};
use crate::text::{Destination, Purpose, Session};

pub use self::acquire::approval_message;
pub use self::approve::{AskPage, Chosen};

/// The broker: the gate, what exists, where values come from, and what is on lease.
pub struct Broker {
    gate: Gate,
    directory: Arc<dyn Directory>,
    resolver: Arc<dyn Resolver>,
    leases: Arc<LeaseTable>,
    clock: Arc<dyn Clock>,
    /// `None` where released values leave no digest.
    digester: Option<ValueDigester>,
    draining: AtomicBool,
}

/// A request for a lease, parsed.
pub struct Acquire {
    /// The call.
    pub call: Arc<Call>,
    /// The caller, as the agent that it is.
    pub agent: AgentId,
    /// The tool that will use the secrets.
    pub tool: ToolId,
    /// What is asked for; at least one, none twice.
    pub references: Vec<SecretReference>,
    /// Why.
    pub purpose: Purpose,
    /// How long each handle shall live.
    pub life: Life,
    /// Whether some will do where others are refused.
    pub partial: bool,
    /// The agent's own name for its run.
    pub session: Option<Session>,
    /// Where the secrets will be sent.
    pub destination: Option<Destination>,
}

/// A dry run, parsed.
pub struct Check {
    /// The call.
    pub call: Arc<Call>,
    /// The caller, as the agent that it is.
    pub agent: AgentId,
    /// The tool that would use the secret.
    pub tool: ToolId,
    /// What would be asked for.
    pub reference: SecretReference,
    /// How long the handle should live.
    pub life: Life,
    /// The agent's own name for its run.
    pub session: Option<Session>,
    /// Where the secret would be sent.
    pub destination: Option<Destination>,
}

/// What a dry run says.
pub enum CheckAnswer {
    /// A lease would be granted on these terms.
    Allow {
        /// The terms.
        terms: Terms,
        /// The record of the check.
        record: RecordId,
        /// Whether a person would have to approve it first.
        needs_approval: bool,
    },
    /// It would be refused.
    Deny(Denial),
}

/// A value on its way to the tool.
pub struct Redeemed {
    /// The value.
    pub value: SecretValue,
    /// The record of the redeem.
    pub record: RecordId,
}

/// Why the broker does not do what was asked. Each has its record, but for the log itself being away
/// and for [`Refusal::AgentLimit`].
#[derive(Debug)]
pub enum Refusal {
    /// Policy refuses.
    Denied {
        /// The refusal.
        denial: Denial,
        /// The first reference refused, as asked; absent where there is none.
        reference: Option<Arc<str>>,
    },
    /// Policy allows, once a person has approved it.
    ApprovalRequired {
        /// What to name to that person: the ask that waits.
        id: LeaseId,
        /// The first reference that needs it, as asked.
        reference: Arc<str>,
        /// The record of its refusal.
        record: RecordId,
    },
    /// Likewise, but too many asks wait, or too much is decided already.
    AskLimit {
        /// The bound that is reached.
        full: AsksFull,
        /// The record.
        record: RecordId,
    },
    /// No such ask waits; only said to callers who may decide any.
    AskNotFound {
        /// The record.
        record: RecordId,
    },
    /// Policy allows, or might, but the reference gives no value.
    Unresolved {
        /// Why.
        error: ResolveError,
        /// The reference as asked.
        reference: Arc<str>,
        /// The record.
        record: RecordId,
    },
    /// The text is no handle.
    HandleMalformed {
        /// The record.
        record: RecordId,
    },
    /// The handle is unknown, spent, expired, revoked, or somebody else's. The record says which.
    HandleNotActive {
        /// The record.
        record: RecordId,
    },
    /// There is no such lease; only said to callers who may end any.
    LeaseNotFound {
        /// The record.
        record: RecordId,
    },
    /// Too many leases or handles.
    LeaseLimit {
        /// The bound that is reached.
        full: LeaseFull,
        /// The record.
        record: RecordId,
    },
    /// Too many leases or handles of this agent. Not recorded: the caller records it, once for a while rather than
    /// once a request.
    AgentLimit {
        /// The bound that is reached.
        full: LeaseFull,
    },
    /// The policies changed again and again while this was decided.
    PolicyInFlux,
    /// The broker is about to stop.
    Draining {
        /// The record.
        record: RecordId,
    },
    /// What the caller was authenticated by was revoked meanwhile.
    CredentialRevoked,
    /// The log cannot be written; nothing was done.
    AuditUnavailable(AuditError),
    /// Our fault.
    Broken,
}

impl From<AuditError> for Refusal {
    fn from(error: AuditError) -> Self {
        Self::AuditUnavailable(error)
    }
}

impl Broker {
    /// A broker over its parts. Without a digester, nobody can find out later where a value went.
    #[must_use]
    pub fn new(
        gate: Gate,
        directory: Arc<dyn Directory>,
        resolver: Arc<dyn Resolver>,
        leases: Arc<LeaseTable>,
        clock: Arc<dyn Clock>,
        digester: Option<ValueDigester>,
    ) -> Arc<Self> {
        let draining = AtomicBool::new(false);
        Arc::new(Self { gate, directory, resolver, leases, clock, digester, draining })
    }

    /// Says whether a lease would be granted; nothing is fetched or issued.
    ///
    /// # Errors
    /// [`Refusal::AuditUnavailable`]; a refusal by policy is an answer.
    pub async fn check(&self, ask: Check) -> Result<CheckAnswer, Refusal> {
        let Check { call, agent, tool, reference, life, session, destination } = ask;
        let request = AccessRequest {
            opened_by: Arc::clone(&call),
            call,
            kind: AccessKind::Check,
            agent,
            tool,
            target: Arc::new(Target::not_located()),
            reference,
            life,
            purpose: None,
            session,
            destination,
            lease: None,
            handle: None,
        };
        let reference = request.reference.text();
        let requests = self.locate_all(vec![request]).await?;
        match self.gate.admit(requests).await?.pop() {
            Some(Verdict::Allow(grant)) => {
                Ok(CheckAnswer::Allow { terms: grant.terms(), record: grant.record(), needs_approval: false })
            }
            Some(Verdict::Await(Awaited { record, terms, request: _, groups: _ })) => {
                Ok(CheckAnswer::Allow { terms, record, needs_approval: true })
            }
            Some(Verdict::Deny(denial)) => Ok(CheckAnswer::Deny(denial)),
            Some(Verdict::Unknown { record, error }) => Err(Refusal::Unresolved { error, reference, record }),
            None => Err(Refusal::Broken),
        }
    }

    /// Ends a lease; its handles are dead when this returns.
    ///
    /// # Errors
    /// [`Refusal::Denied`] also where there is no such lease and the caller may not end any.
    pub async fn end_lease(&self, call: &Arc<Call>, lease: LeaseId) -> Result<(), Refusal> {
        let holder = self.leases.holder(lease);
        let resource = AdminResource::Lease { id: lease, holder };
        let detail = lease.to_string().into();
        let request = AdminRequest { call: Arc::clone(call), action: AdminAction::Revoke, resource, detail };
        let record = self.permit(&request).await?.record();
        match self.leases.end(lease, EndCause::Caller) {
            true => Ok(()),
            false => {
                let event = AuditRecord::event(self.clock.now(), RecordKind::EndLease, Reason::Failed);
                let event =
                    AuditRecord { lease: Some(lease), ..event.by(call).with_detail("LEASE_NOT_FOUND") };
                self.note(event).await?;
                Err(Refusal::LeaseNotFound { record })
            }
        }
    }

    /// Ends every lease that was opened with a credential; call it when the credential is revoked. Their
    /// handles are dead when this returns, and those that needed an approval that was given with it. How many leases
    /// were opened with it.
    pub fn end_opened_with(&self, credential: &Credential) -> usize {
        let ended = self.leases.end_opened_with(credential);
        if self.gate.approvals().has_decided_with(credential) {
            self.decide_again();
        }
        ended
    }

    /// Decides and records something other than access to a secret.
    ///
    /// # Errors
    /// [`Refusal::Denied`] or [`Refusal::AuditUnavailable`].
    pub async fn permit(&self, request: &AdminRequest) -> Result<Permission, Refusal> {
        let denied = |denial| Refusal::Denied { denial, reference: None };
        self.gate.admit_admin(request).await?.map_err(denied)
    }

    /// Decides and records how much of the audit log a caller may read, of which `vaults` occur in it.
    ///
    /// # Errors
    /// [`Refusal::Denied`] or [`Refusal::AuditUnavailable`].
    pub async fn permit_audit(
        &self,
        call: &Call,
        vaults: &[Named],
        detail: &str,
    ) -> Result<AuditScope, Refusal> {
        let denied = |denial| Refusal::Denied { denial, reference: None };
        self.gate.admit_audit(call, vaults, detail).await?.map_err(denied)
    }

    /// Writes down what was refused before it got here, and events.
    ///
    /// # Errors
    /// [`AuditError`] where it could not be written.
    pub async fn note(&self, record: AuditRecord) -> Result<RecordId, AuditError> {
        self.gate.note(record).await
    }

    /// Writes several of those down: all, or none.
    ///
    /// # Errors
    /// [`AuditError`] where they could not be written.
    pub async fn note_all(&self, records: Vec<AuditRecord>) -> Result<(), AuditError> {
        self.gate.note_all(records).await
    }

    /// Decides every live lease again, after the policies changed, and revokes what is no longer allowed.
    /// Takes some microseconds a handle: call it where it may block. How many were revoked.
    pub fn policies_changed(&self, revision: Revision) -> usize {
        self.leases.begin_generation(revision.generation);
        self.decide_again()
    }

    /// Decides every live lease again. How many handles were revoked.
    fn decide_again(&self) -> usize {
        let mut revoked = 0;
        for (handle, request, terms) in self.leases.live() {
            if let Err(deny) = self.gate.still_allows(&request, terms) {
                self.leases.revoke(handle, &deny);
                revoked += 1;
            }
        }
        revoked
    }

    /// Takes no new leases and tells the open ones when they end.
    pub fn drain(&self, grace: Duration) {
        self.draining.store(true, Ordering::Release);
        self.leases.announce_draining(self.clock.now().after(grace));
    }

    /// Ends every lease and writes that down. Call it when [`Broker::keep_leases`] is no longer polled: what
    /// that was writing is written here.
    ///
    /// # Errors
    /// [`AuditError`] where it could not be written.
    pub async fn stop(&self) -> Result<(), AuditError> {
        self.draining.store(true, Ordering::Release);
        self.leases.end_all(EndCause::Shutdown);
        self.flush().await
    }

    /// The generation of the policies in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.gate.generation()
    }

    /// The live leases.
    #[must_use]
    pub fn leases(&self) -> &Arc<LeaseTable> {
        &self.leases
    }

    /// What makes the digests of released values, where something does.
    #[must_use]
    pub fn digester(&self) -> Option<&ValueDigester> {
        self.digester.as_ref()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn withhold(&self, grants: impl IntoIterator<Item = Grant>, why: &'static str) {
        for grant in grants {
            self.gate.settle(grant, AuditOutcome::because(self.clock.now(), OutcomeResult::Withheld, why));
        }
    }

    fn settle_failed(&self, grant: Grant, failure: &ResolveFailure) {
        let ResolveFailure { error, detail } = failure;
        let outcome = AuditOutcome::because(self.clock.now(), OutcomeResult::Failed, error.code());
        let detail = detail.clone().unwrap_or_else(|| error.to_string().into());
        self.gate.settle(grant, AuditOutcome { detail: Some(detail), ..outcome });
    }
}

/// How often a request is decided again because the policies changed under it.
const ATTEMPTS_MAX: usize = 3;
const POLICY_CHANGED: &str = "POLICY_CHANGED";

#[cfg(test)]
mod tests;
