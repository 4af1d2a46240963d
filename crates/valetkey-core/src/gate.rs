//! The gate: decide, write down, and only then hand out proof. The most reviewed file.
//!
//! A [`Grant`] has private fields and is made in one place, [`Gate::admit`], after the decision is Allow
//! and after its record is durable. [`crate::Resolver`] and [`crate::LeaseTable`] take a [`Grant`].
//! Therefore no secret can be fetched or released that was not allowed and written down; it does not
//! compile:
//!
//! ```compile_fail,E0451
//! # fn forge(request: std::sync::Arc<valetkey_core::AccessRequest>, terms: valetkey_core::Terms) {
//! let forged = valetkey_core::Grant { request, terms, record: valetkey_core::RecordId(1), generation: 1 };
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # fn twice(grant: valetkey_core::Grant) -> (valetkey_core::Grant, valetkey_core::Grant) {
//! (grant.clone(), grant)
//! # }
//! ```
//!
//! What the types do not prove: that the policy is right (its matrix does) and that the record is really
//! on disk (the crash test does).

mod approve;

use std::sync::Arc;

use self::approve::{Consent, awaits, by_decision};
use crate::approval::{ApprovalLimits, Approvals, Decided};
use crate::audit::{AuditError, AuditLog, AuditOutcome, AuditRecord, Reason, RecordId, RecordKind, Ruling};
use crate::clock::Clock;
use crate::decision::{Allow, AuditScope, Binding, Decision, Deny, Terms};
use crate::identity::GroupId;
use crate::policy::PolicyEngine;
use crate::request::{AccessKind, AccessRequest, AdminRequest, AdminResource, Call, Life};
use crate::resolver::{Gap, ResolveError};
use crate::target::{Named, Target};

/// Proof that a request was allowed and durably recorded; the only key to the resolver and to a lease.
///
/// One grant, one way through, one outcome: it is not `Clone`, and [`AuditLog::record_outcome`] takes it
/// away.
#[must_use = "a grant stands for an open record; settle it with an outcome"]
pub struct Grant {
    request: Arc<AccessRequest>,
    terms: Terms,
    record: RecordId,
    generation: u64,
}

/// Proof that something other than a secret was allowed and durably recorded.
#[must_use = "a permission is the proof to act on"]
pub struct Permission {
    record: RecordId,
}

/// Proof that asking a source what a reference means was called for and durably recorded; the only key to
/// [`crate::Directory::learn`]. No value comes of it.
#[must_use = "a survey is the proof to ask with"]
pub struct Survey {
    request: Arc<AccessRequest>,
    gap: Gap,
    record: RecordId,
}

/// What the gate says to one request.
pub enum Verdict {
    /// Allowed and recorded.
    Allow(Grant),
    /// Refused and recorded.
    Deny(Denial),
    /// Refused and recorded, until a person approves it.
    Await(Awaited),
    /// Refused and recorded, because what it means could not be found out.
    Unknown {
        /// Its record.
        record: RecordId,
        /// Why.
        error: ResolveError,
    },
}

/// What policy would allow on these terms, once a person has approved it; recorded.
pub struct Awaited {
    /// Its record.
    pub record: RecordId,
    /// The request.
    pub request: Arc<AccessRequest>,
    /// The terms.
    pub terms: Terms,
    /// The groups that the person must be in, all of them.
    pub groups: Arc<[GroupId]>,
}

/// What is said to one request, before it is written down.
enum Ruled {
    Allow {
        allow: Allow,
        terms: Terms,
        /// By what decision of a person, where one was needed.
        approved: Option<Decided>,
    },
    Await {
        allow: Allow,
        terms: Terms,
        groups: Arc<[GroupId]>,
    },
    Deny(Deny),
}

/// A refusal, recorded.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Its record.
    pub record: RecordId,
    /// What the refused caller may read.
    pub advice: Option<Arc<str>>,
}

impl Denial {
    /// What the refused caller may read: that it is refused, and the policy author's advice.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.advice {
            None => "policy does not allow this".to_owned(),
            Some(advice) => format!("policy does not allow this: {advice}"),
        }
    }
}

/// Decides and writes down.
pub struct Gate {
    engine: Arc<dyn PolicyEngine>,
    log: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
    approvals: Approvals,
}

impl Gate {
    /// A gate over a policy engine, a log and a clock.
    #[must_use]
    pub fn new(engine: Arc<dyn PolicyEngine>, log: Arc<dyn AuditLog>, clock: Arc<dyn Clock>) -> Self {
        let approvals = Approvals::new(ApprovalLimits::default(), Arc::clone(&clock));
        Self { engine, log, clock, approvals }
    }

    /// With other bounds of approvals than the usual ones.
    #[must_use]
    pub fn with_approvals(self, limits: ApprovalLimits) -> Self {
        Self { approvals: Approvals::new(limits, Arc::clone(&self.clock)), ..self }
    }

    /// Decides on requests, writes every decision down, and returns when all of that is durable.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is granted either.
    pub async fn admit(&self, requests: Vec<Arc<AccessRequest>>) -> Result<Vec<Verdict>, AuditError> {
        let rulings: Vec<_> = requests
            .iter()
            .map(|request| self.over(&request.call).map_or_else(|| self.rule(request), Ruled::Deny))
            .collect();
        let records =
            requests.iter().zip(&rulings).map(|(request, ruling)| self.write_up(request, ruling)).collect();
        let ids = self.log.record(records).await?;
        if ids.len() != requests.len() {
            return Err(AuditError("it acknowledged another number of records than it was given".into()));
        }
        // From here on the decisions are durable.
        let verdicts =
            requests.into_iter().zip(rulings).zip(ids).map(|((request, ruling), record)| match ruling {
                Ruled::Allow { allow: Allow { revision, .. }, terms, approved: _ } => {
                    Verdict::Allow(Grant { request, terms, record, generation: revision.generation })
                }
                Ruled::Await { allow: _, terms, groups } => {
                    Verdict::Await(Awaited { record, request, terms, groups })
                }
                Ruled::Deny(Deny { advice, .. }) => match &*request.target {
                    Target::Unknown { failure, .. } => {
                        Verdict::Unknown { record, error: failure.error.clone() }
                    }
                    Target::Field(_) | Target::Unresolved { .. } => Verdict::Deny(Denial { record, advice }),
                },
            });
        Ok(verdicts.collect())
    }

    /// Which of these requests a source may be asked about, and the proof of it: those that some policy may
    /// allow, depending on what their references turn out to mean. The proofs are durable. For the others
    /// nothing is written: the decision on what is known already will be.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is asked either.
    pub async fn survey(
        &self,
        requests: impl IntoIterator<Item = (Arc<AccessRequest>, Gap)>,
    ) -> Result<Vec<Option<Survey>>, AuditError> {
        let revision = self.engine.revision();
        let possible: Vec<_> = requests
            .into_iter()
            .map(|(request, gap)| self.engine.may_allow(&request, gap).then_some((request, gap)))
            .collect();
        let records: Vec<_> = possible
            .iter()
            .flatten()
            .map(|(request, gap)| {
                let record = AuditRecord::event(self.clock.now(), RecordKind::Locate, Reason::PolicyPossible);
                let revision = Some(revision);
                AuditRecord { handle: None, ttl: None, revision, ..record.about(request) }
                    .with_detail(gap.as_str())
            })
            .collect();
        let written = records.len();
        let ids = match written {
            0 => Vec::new(),
            _ => self.log.record(records).await?,
        };
        if ids.len() != written {
            return Err(AuditError("it acknowledged another number of records than it was given".into()));
        }
        let mut ids = ids.into_iter();
        let mut survey = |(request, gap)| ids.next().map(|record| Survey { request, gap, record });
        Ok(possible.into_iter().map(|possible| possible.and_then(&mut survey)).collect())
    }

    /// Decides on something other than a secret, likewise.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is permitted either.
    pub async fn admit_admin(
        &self,
        request: &AdminRequest,
    ) -> Result<Result<Permission, Denial>, AuditError> {
        let over = self.over(&request.call).map(Decision::Deny);
        let decision = over.unwrap_or_else(|| self.engine.decide_admin(request));
        let lease = match &request.resource {
            AdminResource::Lease { id, holder: _ } | AdminResource::Ask { id, holder: _, groups: _ } => {
                Some(*id)
            }
            AdminResource::AuditLog | AdminResource::Broker => None,
        };
        let record = AuditRecord::event(self.clock.now(), request.action.into(), Reason::PolicyPermit);
        let record = record.by(&request.call);
        self.conclude(AuditRecord { lease, ..record }.with_detail(&request.detail), decision).await
    }

    /// Decides how much of the audit log may be read, on the vaults that occur in it, likewise. The record names
    /// the vaults.
    ///
    /// # Errors
    /// [`AuditError`] where nothing could be written: then nothing is permitted either.
    pub async fn admit_audit(
        &self,
        call: &Call,
        vaults: &[Named],
        detail: &str,
    ) -> Result<Result<AuditScope, Denial>, AuditError> {
        let (decision, scope) = self.engine.decide_audit(&call.caller, vaults);
        let decision = self.over(call).map_or(decision, Decision::Deny);
        let record =
            AuditRecord::event(self.clock.now(), RecordKind::ReadAudit, Reason::PolicyPermit).by(call);
        let record = match (&decision, &scope) {
            (Decision::Allow(_), AuditScope::Vaults(vaults)) => {
                record.with_detail(&format!("{}: {detail}", listed(vaults)))
            }
            _ => record.with_detail(detail),
        };
        Ok(self.conclude(record, decision).await?.map(|_permission| scope))
    }

    /// Writes a decision down, and then tells it.
    async fn conclude(
        &self,
        record: AuditRecord,
        decision: Decision,
    ) -> Result<Result<Permission, Denial>, AuditError> {
        let record = match &decision {
            Decision::Allow(allow) => with_allow(record, allow),
            Decision::Deny(deny) => with_deny(record, deny),
        };
        let record = self.note(record).await?;
        Ok(match decision {
            Decision::Allow(_) => Ok(Permission { record }),
            Decision::Deny(Deny { advice, .. }) => Err(Denial { record, advice }),
        })
    }

    /// Writes down what needs no decision: refusals before one, and events.
    ///
    /// # Errors
    /// [`AuditError`] where it could not be written.
    pub async fn note(&self, record: AuditRecord) -> Result<RecordId, AuditError> {
        let ids = self.log.record(vec![record]).await?;
        ids.first().copied().ok_or_else(|| AuditError("it acknowledged nothing".into()))
    }

    /// Writes several of those.
    ///
    /// # Errors
    /// [`AuditError`] where they could not be written.
    pub async fn note_all(&self, records: Vec<AuditRecord>) -> Result<(), AuditError> {
        self.log.record(records).await.map(drop)
    }

    /// Ends a grant with what came of it.
    pub fn settle(&self, grant: Grant, outcome: AuditOutcome) {
        self.log.record_outcome(grant, outcome);
    }

    /// Decides again on what was granted, for live leases after a change of policy. Nothing is granted
    /// by it, so nothing is recorded; a revocation that follows is.
    ///
    /// # Errors
    /// The [`Deny`] that says why it is no longer allowed on the same terms.
    pub fn still_allows(&self, request: &AccessRequest, terms: Terms) -> Result<(), Deny> {
        let again = AccessRequest { life: Life::Asked(terms.life), ..request.clone() };
        let (allow, now) = match self.rule(&again) {
            Ruled::Allow { allow, terms, approved: _ } => (allow, terms),
            Ruled::Await { allow, terms: _, groups } => return Err(awaiting(&allow, &groups)),
            Ruled::Deny(deny) => return Err(deny),
        };
        if now.uses >= terms.uses && now.redeemer == terms.redeemer && now.binding >= terms.binding {
            return Ok(());
        }
        Err(Deny {
            reason: Reason::EndPolicy,
            policies: allow.policies,
            advice: None,
            detail: Some("the policies now ask for stricter terms".into()),
            revision: allow.revision,
        })
    }

    /// What waits for an approval, and what is decided.
    pub(crate) fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// The generation of the policies in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.engine.revision().generation
    }

    /// Why nothing is allowed to a call that was authenticated by what no longer counts.
    fn over(&self, call: &Call) -> Option<Deny> {
        let reason = call.over(self.clock.monotonic())?;
        Some(Deny {
            reason,
            policies: [].into(),
            advice: Some(OVER_ADVICE.into()),
            detail: None,
            revision: self.engine.revision(),
        })
    }

    /// Policy's answer, and whether a person has approved what it permits.
    fn rule(&self, request: &AccessRequest) -> Ruled {
        let (allow, terms) = match self.permit(request) {
            Ok(permitted) => permitted,
            Err(deny) => return Ruled::Deny(deny),
        };
        // Last: nobody is asked to approve what is refused anyway.
        match self.consent(request, &allow) {
            Consent::Free => Ruled::Allow { allow, terms, approved: None },
            Consent::Approved(decided) => Ruled::Allow { allow, terms, approved: Some(decided) },
            Consent::Awaited(groups) => Ruled::Await { allow, terms, groups },
            Consent::Rejected(decided) => Ruled::Deny(Deny {
                reason: Reason::ApprovalRejected,
                policies: allow.policies,
                advice: Some(REJECTED_ADVICE.into()),
                detail: Some(by_decision("rejected", &decided).into()),
                revision: allow.revision,
            }),
        }
    }

    /// Policy's answer, with the wished life held against the obligations.
    fn permit(&self, request: &AccessRequest) -> Result<(Allow, Terms), Deny> {
        if let Target::Unknown { failure, .. } = &*request.target {
            return Err(Deny {
                reason: Reason::SourceFailed,
                policies: [].into(),
                advice: None,
                detail: Some(failure.detail.clone().unwrap_or_else(|| failure.error.to_string().into())),
                revision: self.engine.revision(),
            });
        }
        let allow = match self.engine.decide(request) {
            Decision::Allow(allow) => allow,
            Decision::Deny(deny) => return Err(deny),
        };
        match allow.obligations.terms(request.life) {
            Some(terms) if terms.binding == Binding::Certificate && request.call.key.is_none() => Err(Deny {
                reason: Reason::PolicyBinding,
                policies: allow.policies,
                advice: Some(BINDING_ADVICE.into()),
                detail: None,
                revision: allow.revision,
            }),
            Some(terms) => Ok((allow, terms)),
            None => Err(Deny {
                reason: Reason::PolicyTtl,
                policies: allow.policies,
                advice: allow.obligations.ttl_max.map(|max| {
                    format!("ask for a ttl of at most {} s, or for none", max.as_secs_f64()).into()
                }),
                detail: None,
                revision: allow.revision,
            }),
        }
    }

    fn write_up(&self, request: &AccessRequest, ruled: &Ruled) -> AuditRecord {
        let record =
            AuditRecord::event(self.clock.now(), request.kind.into(), Reason::PolicyPermit).about(request);
        let (allow, terms, about_approval) = match ruled {
            Ruled::Allow { allow, terms, approved } => {
                (allow, terms, approved.as_ref().map(|decided| by_decision("approved", decided)))
            }
            // A check is answered with what policy says, and what is missing yet.
            Ruled::Await { allow, terms, groups } if request.kind == AccessKind::Check => {
                (allow, terms, Some(awaits(groups)))
            }
            Ruled::Await { allow, terms: _, groups } => {
                return write_deny(record, request, &awaiting(allow, groups));
            }
            Ruled::Deny(deny) => return write_deny(record, request, deny),
        };
        let about_key = match (terms.binding, request.call.key) {
            (Binding::Certificate, Some(key)) => Some(format!("with the key {key}")),
            (Binding::Certificate | Binding::Identity, _) => None,
        };
        let details: Vec<_> = about_key.into_iter().chain(about_approval).collect();
        let record = if details.is_empty() { record } else { record.with_detail(&details.join("; ")) };
        AuditRecord {
            ttl: Some(terms.life),
            uses: Some(terms.uses),
            redeemer: Some(terms.redeemer),
            ..with_allow(record, allow)
        }
    }
}

impl Grant {
    /// The request that was allowed. What to fetch stands here and nowhere else.
    #[must_use]
    pub fn request(&self) -> &AccessRequest {
        &self.request
    }

    /// The same, shared.
    pub(crate) fn request_shared(&self) -> Arc<AccessRequest> {
        Arc::clone(&self.request)
    }

    /// On what terms.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }

    /// The generation of the policies that allowed it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// For the unit tests of adapters, which cannot come through a gate.
    #[cfg(any(test, feature = "test-util"))]
    pub fn for_test(request: AccessRequest, record: RecordId) -> Self {
        let terms = crate::decision::Obligations::default().terms(request.life);
        let terms = terms.unwrap_or(Terms {
            life: request.life.duration(),
            ttl_max: None,
            uses: 1,
            redeemer: crate::decision::Redeemer::Tool,
            binding: Binding::Identity,
        });
        Self { request: Arc::new(request), terms, record, generation: 0 }
    }
}

impl Survey {
    /// The request whose reference is to be looked up.
    #[must_use]
    pub fn request(&self) -> &AccessRequest {
        &self.request
    }

    /// What is to be asked; no more than this.
    #[must_use]
    pub fn gap(&self) -> Gap {
        self.gap
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }

    /// For the unit tests of adapters, which cannot come through a gate.
    #[cfg(any(test, feature = "test-util"))]
    pub fn for_test(request: AccessRequest, gap: Gap, record: RecordId) -> Self {
        Self { request: Arc::new(request), gap, record }
    }
}

impl Permission {
    /// Its record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.record
    }
}

/// How many vaults, and which, as far as there is room beside what was asked.
fn listed(vaults: &[Named]) -> String {
    let names: Vec<_> = vaults.iter().map(|vault| format!("{} ({})", vault.name, vault.id)).collect();
    let names = crate::text::scrub(&names.join(", "), VAULTS_TEXT_MAX);
    format!("in {} vaults, {names}", vaults.len())
}

fn write_deny(record: AuditRecord, request: &AccessRequest, deny: &Deny) -> AuditRecord {
    // A handle that was to be issued will never exist; one that was presented does.
    let handle = record.handle.filter(|_| request.kind == AccessKind::Redeem);
    AuditRecord { handle, ..with_deny(record, deny) }
}

/// The refusal of what a person has to approve first.
fn awaiting(allow: &Allow, groups: &[GroupId]) -> Deny {
    Deny {
        reason: Reason::ApprovalRequired,
        policies: Arc::clone(&allow.policies),
        advice: None,
        detail: Some(awaits(groups).into()),
        revision: allow.revision,
    }
}

fn with_allow(record: AuditRecord, allow: &Allow) -> AuditRecord {
    let Allow { policies, obligations: _, revision } = allow;
    AuditRecord {
        ruling: Ruling::Allow,
        reason: Reason::PolicyPermit,
        policies: Some(Arc::clone(policies)),
        revision: Some(*revision),
        ..record
    }
}

fn with_deny(record: AuditRecord, deny: &Deny) -> AuditRecord {
    let Deny { reason, policies, advice: _, detail, revision } = deny;
    let record = match (detail, &record.detail) {
        (None, _) => record,
        (Some(why), None) => record.with_detail(why),
        (Some(why), Some(asked)) => {
            let both = format!("{asked}: {why}");
            record.with_detail(&both)
        }
    };
    AuditRecord {
        ruling: Ruling::Deny,
        reason: *reason,
        policies: Some(Arc::clone(policies)),
        revision: Some(*revision),
        ..record
    }
}

const REJECTED_ADVICE: &str = "a person has rejected this; ask that person, or wait before you ask again";
const OVER_ADVICE: &str = "authenticate again: what this call showed was revoked or has ended";
const BINDING_ADVICE: &str = "connect with a client certificate: what policy allows here is bound to its key";
/// Bytes of the names of vaults in a detail; half of it.
const VAULTS_TEXT_MAX: usize = 512;
