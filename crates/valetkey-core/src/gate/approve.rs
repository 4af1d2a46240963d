//! Approvals at the gate: whether a decision needs one, and who may give it.

use std::sync::Arc;

use super::{Denial, Gate, with_allow, with_deny};
use crate::approval::{Ask, Choice, Decided};
use crate::audit::{AuditError, AuditRecord, Reason, RecordId, RecordKind};
use crate::decision::{Allow, Decision, Deny};
use crate::identity::{AgentId, GroupId, Identity, PersonId};
use crate::lease::LeaseId;
use crate::request::{AccessKind, AccessRequest, AdminAction, AdminRequest, AdminResource, Call};

/// Whether somebody has approved what policy permits.
pub(super) enum Consent {
    /// Nobody needs to.
    Free,
    /// This decision did.
    Approved(Decided),
    /// Somebody in all of these groups has to.
    Awaited(Arc<[GroupId]>),
    /// Somebody has rejected it.
    Rejected(Decided),
}

impl Gate {
    /// Holds what policy permits against what persons have decided. Of these the newest counts whose person could
    /// decide so still.
    pub(super) fn consent(&self, request: &AccessRequest, allow: &Allow) -> Consent {
        let groups = match (&allow.obligations.approval, request.kind) {
            // Who redeems was never asked about: the handle exists.
            (None, _) | (Some(_), AccessKind::Redeem) => return Consent::Free,
            (Some(groups), AccessKind::Acquire | AccessKind::Renew | AccessKind::Check) => groups,
        };
        for decided in self.approvals.decided(request) {
            if self.still_counts(&decided, &request.agent, groups) {
                return match decided.choice {
                    Choice::Approve => Consent::Approved(decided),
                    Choice::Reject => Consent::Rejected(decided),
                };
            }
        }
        Consent::Awaited(Arc::clone(groups))
    }

    /// Whether whoever decided would be let to, by the policies that are in force now.
    fn still_counts(&self, decided: &Decided, holder: &AgentId, groups: &Arc<[GroupId]>) -> bool {
        let resource = of_lease(decided.ask, Some(holder), groups);
        let call = Arc::clone(&decided.by);
        let request = AdminRequest { call, action: action_of(decided.choice), resource, detail: "".into() };
        // Not that the person's token is over: its owner has decided, and is who they were. Revoked is another thing.
        !decided.by.is_revoked() && matches!(self.engine.decide_admin(&request), Decision::Allow(_))
    }

    /// Decides whether a caller may do this to an ask, and writes that down: for an ask that waits one record for each
    /// of its wants, otherwise one. To whom it is refused an ask that waits and one that does not are the same.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is approved or rejected either.
    pub(crate) async fn admit_choice(
        &self,
        call: &Arc<Call>,
        choice: Choice,
        id: LeaseId,
        ask: Option<&Ask>,
    ) -> Result<Result<Vec<RecordId>, Denial>, AuditError> {
        let action = action_of(choice);
        let decision = self.on_ask(call, action, id, ask);
        let record = AuditRecord::event(self.clock.now(), action.into(), Reason::PolicyPermit);
        let record = AuditRecord { lease: Some(id), ..record };
        let records = match ask {
            None => vec![record.by(call)],
            Some(ask) => about(&record, ask, call, self.approvals.good_for().as_secs()),
        };
        let written = records.len();
        let ids =
            self.log.record(records.into_iter().map(|record| conclude(record, &decision)).collect()).await?;
        match (decision, ids.first()) {
            (_, None) => Err(AuditError("it acknowledged nothing".into())),
            (_, Some(_)) if ids.len() != written => {
                Err(AuditError("it acknowledged another number of records than it was given".into()))
            }
            (Decision::Allow(_), Some(_)) => Ok(Ok(ids)),
            (Decision::Deny(Deny { advice, .. }), Some(record)) => {
                Ok(Err(Denial { record: *record, advice }))
            }
        }
    }

    /// Decides which of these asks a caller may see, which are those that it may decide; likewise. Refused is whoever
    /// may see none of them, and would not be let to decide on just any.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is shown either.
    pub(crate) async fn admit_asks(
        &self,
        call: &Arc<Call>,
        asks: Vec<(u64, Arc<Ask>)>,
    ) -> Result<Result<Vec<(u64, Arc<Ask>)>, Denial>, AuditError> {
        let action = AdminAction::ListApprovals;
        let mut decision = self.on_ask(call, action, LeaseId::NONE, None);
        let mut seen = Vec::new();
        for (place, ask) in asks {
            if let allowed @ Decision::Allow(_) = self.on_ask(call, action, ask.id, Some(&ask)) {
                if seen.is_empty() && matches!(decision, Decision::Deny(_)) {
                    decision = allowed;
                }
                seen.push((place, ask));
            }
        }
        let record = AuditRecord::event(self.clock.now(), action.into(), Reason::PolicyPermit).by(call);
        let record = record.with_detail(&format!("of those that wait, {} are theirs to decide", seen.len()));
        Ok(self.conclude(record, decision).await?.map(|_permission| seen))
    }

    /// Whether a caller may do this to an ask. That a person approves is not left to policy, nor that it is another
    /// than the one on whose behalf it was asked.
    fn on_ask(&self, call: &Arc<Call>, action: AdminAction, id: LeaseId, ask: Option<&Ask>) -> Decision {
        let refused = |reason, advice: Option<&str>| {
            Decision::Deny(Deny {
                reason,
                policies: [].into(),
                advice: advice.map(Into::into),
                detail: None,
                revision: self.engine.revision(),
            })
        };
        if let Some(deny) = self.over(call) {
            return Decision::Deny(deny);
        }
        let Identity::Person(person) = &call.caller else { return refused(Reason::CallerKind, None) };
        let resource =
            of_lease(id, ask.map(|ask| &ask.subject.agent), ask.map_or(&[].into(), |ask| &ask.groups));
        let request = AdminRequest { call: Arc::clone(call), action, resource, detail: "".into() };
        let decision = self.engine.decide_admin(&request);
        match &decision {
            Decision::Allow(_) if ask.is_some_and(|ask| is_for(ask, person)) => {
                refused(Reason::ApproverOwn, Some(OWN_ADVICE))
            }
            Decision::Allow(_) | Decision::Deny(_) => decision,
        }
    }
}

/// Whether it was asked on behalf of this person, whose name an identity provider may write in other letters.
fn is_for(ask: &Ask, person: &PersonId) -> bool {
    ask.subject.person.as_ref().is_some_and(|it| it.0.as_str().eq_ignore_ascii_case(person.0.as_str()))
}

fn action_of(choice: Choice) -> AdminAction {
    match choice {
        Choice::Approve => AdminAction::Approve,
        Choice::Reject => AdminAction::Reject,
    }
}

fn of_lease(id: LeaseId, holder: Option<&AgentId>, groups: &Arc<[GroupId]>) -> AdminResource {
    AdminResource::Ask { id, holder: holder.cloned(), groups: Arc::clone(groups) }
}

/// One record for each want: what is decided is found by item and vault, as what was asked is.
fn about(record: &AuditRecord, ask: &Ask, call: &Call, good_for_seconds: u64) -> Vec<AuditRecord> {
    let Ask { id: _, subject, wants, purpose, session, groups: _, create_time: _, expire_time: _ } = ask;
    let text = |text: &str| Arc::<str>::from(text);
    let of = |want: &crate::approval::Want| {
        AuditRecord {
            on_behalf_of: subject.person.clone(),
            agent: Some(subject.agent.clone()),
            tool: Some(subject.tool.clone()),
            reference: Some(Arc::clone(&want.reference)),
            target: Some(Arc::clone(&want.target)),
            purpose: purpose.as_ref().map(|it| text(it.as_str())),
            session: session.as_ref().map(|it| text(it.as_str())),
            destination: subject.destination.as_ref().map(|it| text(it.as_str())),
            ..record.clone()
        }
        .by(call)
        .with_detail(&format!("asked in record {}; for {good_for_seconds} s", want.record))
    };
    wants.iter().map(of).collect()
}

/// What a record says of the decision by which something was allowed, or refused.
pub(super) fn by_decision(word: &str, decided: &Decided) -> String {
    let Decided { choice: _, ask, by, record } = decided;
    format!("{word} by {} in record {record} ({ask})", by.caller)
}

/// What a record says of one that is missing yet.
pub(super) fn awaits(groups: &[GroupId]) -> String {
    let names: Vec<_> = groups.iter().map(|group| format!("`{group}`")).collect();
    format!("a person in {} has to approve it", names.join(" and "))
}

fn conclude(record: AuditRecord, decision: &Decision) -> AuditRecord {
    match decision {
        Decision::Allow(allow) => with_allow(record, allow),
        Decision::Deny(deny) => with_deny(record, deny),
    }
}

impl From<AdminAction> for RecordKind {
    fn from(action: AdminAction) -> Self {
        match action {
            AdminAction::ReadAudit => Self::ReadAudit,
            AdminAction::FindValue => Self::FindValue,
            AdminAction::Revoke => Self::EndLease,
            AdminAction::Operate => Self::Operate,
            AdminAction::CreateToken => Self::TokenCreate,
            AdminAction::ListTokens => Self::TokenList,
            AdminAction::RevokeToken => Self::TokenRevoke,
            AdminAction::ListApprovals => Self::ApprovalList,
            AdminAction::Approve => Self::Approve,
            AdminAction::Reject => Self::Reject,
        }
    }
}

const OWN_ADVICE: &str = "it was asked on your behalf; somebody else has to decide";
