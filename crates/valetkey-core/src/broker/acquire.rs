//! Acquiring: decide and record every reference, fetch, seal, issue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{ATTEMPTS_MAX, Acquire, Broker, POLICY_CHANGED, Refusal};
use crate::approval::Want;
use crate::audit::{AuditOutcome, AuditRecord, OutcomeResult, Reason, RecordKind};
use crate::gate::{Awaited, Denial, Grant, Verdict};
use crate::handle::Handle;
use crate::lease::{EndCause, IssueError, LeaseEvent, LeaseEvents, LeaseId};
use crate::reference::SecretReference;
use crate::request::{AccessKind, AccessRequest};
use crate::resolver::{ResolveError, ResolveFailure, Resolved};
use crate::target::Target;

/// What became of the references of one ask.
struct Sorted {
    granted: Vec<(Grant, Handle)>,
    /// What a person has to approve first.
    awaited: Vec<Awaited>,
    /// The first of the others.
    refusal: Option<Refusal>,
}

impl Broker {
    /// Opens a lease: every reference is decided and recorded, and the values are fetched and sealed. The
    /// events hold the lease open. Without `partial`, one refusal or failure refuses all.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn acquire(self: &Arc<Self>, ask: Acquire) -> Result<LeaseEvents, Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(events) = self.try_acquire(&ask).await? {
                return Ok(events);
            }
        }
        Err(Refusal::PolicyInFlux)
    }

    /// `None` where the policies, or what a reference means, changed meanwhile.
    async fn try_acquire(self: &Arc<Self>, ask: &Acquire) -> Result<Option<LeaseEvents>, Refusal> {
        let mut events = self.open(ask).await?;
        let (requests, handles): (Vec<_>, Vec<_>) = ask
            .references
            .iter()
            .map(|reference| self.acquire_request(ask, reference, events.lease()))
            .unzip();
        let requests = self.locate_all(requests).await?;
        let verdicts = self.gate.admit(requests).await?;

        let references = ask.references.iter().map(SecretReference::text).collect();
        events.push(LeaseEvent::Opened { lease: events.lease(), references });
        let Sorted { granted, awaited, mut refusal } = self.sort(&mut events, verdicts, handles, ask);
        if !awaited.is_empty() && (ask.partial || refusal.is_none()) {
            // All or nothing, and something else is refused: nobody is asked to approve what will not be.
            let first = self.await_approval(&mut events, awaited);
            refusal = refusal.or(first);
        }
        if let Some(refusal) = refusal
            && (!ask.partial || granted.is_empty())
        {
            self.withhold(granted.into_iter().map(|(grant, _)| grant), LEASE_REFUSED);
            return Err(refusal);
        }
        if ask.partial {
            let (broker, lease) = (Arc::clone(self), events.lease());
            events.drive(Box::pin(async move { broker.issue_each(lease, granted).await }));
            return Ok(Some(events));
        }
        Ok(self.issue_all(&mut events, granted).await?.then_some(events))
    }

    /// Tells the verdicts apart; what is refused for good is told at once.
    fn sort(
        &self,
        events: &mut LeaseEvents,
        verdicts: Vec<Verdict>,
        handles: Vec<Handle>,
        ask: &Acquire,
    ) -> Sorted {
        let (mut granted, mut awaited, mut refusal) = (Vec::with_capacity(handles.len()), Vec::new(), None);
        for ((verdict, handle), reference) in verdicts.into_iter().zip(handles).zip(&ask.references) {
            match verdict {
                Verdict::Allow(grant) => granted.push((grant, handle)),
                Verdict::Await(it) => awaited.push(it),
                Verdict::Deny(denial) => {
                    self.leases.give_back_place(events.lease());
                    events.push(denied(reference, &denial));
                    refusal.get_or_insert(Refusal::Denied { denial, reference: Some(reference.text()) });
                }
                Verdict::Unknown { record, error } => {
                    let reference = reference.text();
                    self.leases.give_back_place(events.lease());
                    events.push(LeaseEvent::Refused {
                        reference: Arc::clone(&reference),
                        reason: error.code(),
                        message: error.to_string(),
                        record,
                    });
                    refusal.get_or_insert(Refusal::Unresolved { error, reference, record });
                }
            }
        }
        Sorted { granted, awaited, refusal }
    }

    /// Has what was refused until a person approves it wait for that person. The refusal of the first.
    fn await_approval(&self, events: &mut LeaseEvents, awaited: Vec<Awaited>) -> Option<Refusal> {
        let first = awaited.first()?;
        let (reference, record) = (first.request.reference.text(), first.record);
        let want = |it: &Awaited| Want {
            reference: it.request.reference.text(),
            target: Arc::clone(&it.request.target),
            record: it.record,
        };
        let groups: BTreeSet<_> = awaited.iter().flat_map(|it| it.groups.iter().cloned()).collect();
        let wants = awaited.iter().map(want).collect();
        let waits =
            self.gate.approvals().wait(events.lease(), &first.request, wants, groups.into_iter().collect());
        let (reason, message) = match &waits {
            Ok(ask) => (APPROVAL_REQUIRED, approval_message(ask.id)),
            Err(full) => (APPROVAL_LIMIT, full.to_string()),
        };
        for it in &awaited {
            self.leases.give_back_place(events.lease());
            events.push(LeaseEvent::Refused {
                reference: it.request.reference.text(),
                reason,
                message: message.clone(),
                record: it.record,
            });
        }
        Some(match waits {
            Ok(ask) => Refusal::ApprovalRequired { id: ask.id, reference, record },
            Err(full) => Refusal::AskLimit { full, record },
        })
    }

    async fn open(&self, ask: &Acquire) -> Result<LeaseEvents, Refusal> {
        let refusal = |reason| {
            let record = AuditRecord::refusal(self.clock.now(), RecordKind::Acquire, reason).by(&ask.call);
            AuditRecord {
                tool: Some(ask.tool.clone()),
                purpose: Some(ask.purpose.as_str().into()),
                reference: ask.references.first().map(SecretReference::text),
                ..record
            }
        };
        let opened = self.leases.open(&ask.call, &ask.agent, &ask.tool, ask.references.len());
        // Asked when the lease is in the table: either this sees the revocation or the stop, or they see the
        // lease.
        if ask.call.is_revoked() {
            drop(opened);
            self.gate.note(refusal(Reason::CredentialRevoked)).await?;
            return Err(Refusal::CredentialRevoked);
        }
        if self.draining.load(Ordering::Acquire) {
            drop(opened);
            let record = self.gate.note(refusal(Reason::Draining)).await?;
            return Err(Refusal::Draining { record });
        }
        match opened {
            Ok(events) => Ok(events),
            // Whoever asks knows how often this happens to one agent, and when to write it down.
            Err(full) if full.own => Err(Refusal::AgentLimit { full }),
            Err(full) => {
                let detail = format!("{} is at its bound of {}", full.limit, full.max);
                let record = self.gate.note(refusal(Reason::LeaseLimit).with_detail(&detail)).await?;
                Err(Refusal::LeaseLimit { full, record })
            }
        }
    }

    fn acquire_request(
        &self,
        ask: &Acquire,
        reference: &SecretReference,
        lease: LeaseId,
    ) -> (AccessRequest, Handle) {
        let handle = Handle::random();
        let request = AccessRequest {
            call: Arc::clone(&ask.call),
            opened_by: Arc::clone(&ask.call),
            kind: AccessKind::Acquire,
            agent: ask.agent.clone(),
            tool: ask.tool.clone(),
            reference: reference.clone(),
            target: Arc::new(Target::not_located()),
            life: ask.life,
            purpose: Some(ask.purpose.clone()),
            session: ask.session.clone(),
            destination: ask.destination.clone(),
            lease: Some(lease),
            handle: Some(handle.id()),
        };
        (request, handle)
    }

    /// Issues all or nothing; `false` where the policies, or what a reference means, changed meanwhile.
    async fn issue_all(
        &self,
        events: &mut LeaseEvents,
        granted: Vec<(Grant, Handle)>,
    ) -> Result<bool, Refusal> {
        let grants: Vec<_> = granted.iter().map(|(grant, _)| grant).collect();
        let fetched = self.fetch(&grants).await;
        let changed = |result: &Result<_, ResolveFailure>| {
            result.as_ref().is_err_and(|failure| failure.error == ResolveError::Changed)
        };
        let is_overtaken = fetched.iter().any(changed);
        let failure = fetched.iter().zip(&grants).find_map(|(result, grant)| {
            let error = result.as_ref().err()?.error.clone();
            Some(Refusal::Unresolved {
                error,
                reference: grant.request().reference.text(),
                record: grant.record(),
            })
        });
        if let Some(failure) = failure {
            for ((grant, _), result) in granted.into_iter().zip(fetched) {
                match result {
                    Ok(_) => self.withhold([grant], LEASE_REFUSED),
                    Err(failure) => self.settle_failed(grant, &failure),
                }
            }
            if is_overtaken {
                self.leases.end(events.lease(), EndCause::Unavailable);
                return Ok(false);
            }
            return Err(failure);
        }
        let mut failed = None;
        for ((grant, handle), resolved) in granted.into_iter().zip(fetched.into_iter().flatten()) {
            if let Some(error) = failed {
                self.withhold([grant], IssueError::code(error));
                continue;
            }
            match self.issue(grant, handle, resolved) {
                Ok(event) => events.push(event),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(IssueError::Broken) => Err(Refusal::Broken),
            Some(IssueError::Stale) => {
                self.leases.end(events.lease(), EndCause::Policy);
                Ok(false)
            }
            // Where the lease was ended meanwhile, its events say so.
            Some(IssueError::Ended) | None => Ok(true),
        }
    }

    /// Issues each as soon as its value is there; item by item, so that one read serves one item, and all
    /// items at once, so that none waits for another's source.
    async fn issue_each(&self, lease: LeaseId, granted: Vec<(Grant, Handle)>) {
        let mut reads: FuturesUnordered<_> = by_item(granted)
            .into_iter()
            .map(|of_item| async {
                if self.leases.holder(lease).is_none() {
                    self.withhold(of_item.into_iter().map(|(grant, _)| grant), LEASE_ENDED);
                    return (Vec::new(), Vec::new());
                }
                let fetched = self.fetch(&of_item.iter().map(|(grant, _)| grant).collect::<Vec<_>>()).await;
                (of_item, fetched)
            })
            .collect();
        while let Some((of_item, fetched)) = reads.next().await {
            for ((grant, handle), result) in of_item.into_iter().zip(fetched) {
                let event = self.issue_or_refuse(grant, handle, result);
                let refused = matches!(event, LeaseEvent::Refused { .. });
                self.leases.send(lease, event);
                if refused {
                    self.leases.give_back_place(lease);
                }
            }
        }
    }

    pub(super) fn issue_or_refuse(
        &self,
        grant: Grant,
        handle: Handle,
        result: Result<Resolved, ResolveFailure>,
    ) -> LeaseEvent {
        let (reference, record) = (grant.request().reference.text(), grant.record());
        let refused = |reason, message| LeaseEvent::Refused { reference, reason, message, record };
        match result {
            Err(failure) => {
                self.settle_failed(grant, &failure);
                refused(failure.error.code(), failure.error.to_string())
            }
            Ok(resolved) => match self.issue(grant, handle, resolved) {
                Ok(event) => event,
                Err(error) => {
                    refused(error.code(), "the policies or the lease changed meanwhile; ask again".to_owned())
                }
            },
        }
    }

    /// Puts one value on lease and settles its grant.
    fn issue(&self, grant: Grant, handle: Handle, resolved: Resolved) -> Result<LeaseEvent, IssueError> {
        match self.leases.issue(&grant, handle, &resolved) {
            Ok(issued) => {
                let outcome = AuditOutcome::new(self.clock.now(), OutcomeResult::Issued);
                self.gate.settle(grant, AuditOutcome { provenance: Some(resolved.provenance), ..outcome });
                Ok(LeaseEvent::Issued(issued))
            }
            Err(error) => {
                self.withhold([grant], error.code());
                Err(error)
            }
        }
    }

    /// Fetches the targets that exist; the others have their error already.
    pub(super) async fn fetch(&self, grants: &[&Grant]) -> Vec<Result<Resolved, ResolveFailure>> {
        let known: Vec<&Grant> =
            grants.iter().copied().filter(|grant| grant.request().target.field().is_some()).collect();
        let mut fetched = match known.is_empty() {
            true => Vec::new(),
            false => self.resolver.resolve(&known).await,
        }
        .into_iter();
        let result = |grant: &&Grant| match grant.request().target.error() {
            Some(error) => Err(error.clone().into()),
            None => fetched.next().unwrap_or(Err(ResolveError::Unavailable.into())),
        };
        grants.iter().map(result).collect()
    }
}

fn by_item(granted: Vec<(Grant, Handle)>) -> Vec<Vec<(Grant, Handle)>> {
    let mut items: Vec<Vec<(Grant, Handle)>> = Vec::new();
    for (grant, handle) in granted {
        let item = |grant: &Grant| grant.request().target.item().map(|item| Arc::clone(&item.id));
        let same = items
            .iter_mut()
            .find(|of_item| of_item.first().is_some_and(|(first, _)| item(first) == item(&grant)));
        match same {
            Some(of_item) => of_item.push((grant, handle)),
            None => items.push(vec![(grant, handle)]),
        }
    }
    items
}

impl IssueError {
    fn code(self) -> &'static str {
        match self {
            Self::Stale => POLICY_CHANGED,
            Self::Ended => LEASE_ENDED,
            Self::Broken => INTERNAL,
        }
    }
}

fn denied(reference: &SecretReference, denial: &Denial) -> LeaseEvent {
    LeaseEvent::Refused {
        reference: reference.text(),
        reason: ACCESS_DENIED,
        message: denial.message(),
        record: denial.record,
    }
}

/// What the refused agent may read of what waits: whom to ask, and with which words.
#[must_use]
pub fn approval_message(id: LeaseId) -> String {
    format!(
        "a person has to approve this first: have one run `valetkey approval approve {id}`, then ask again"
    )
}

const APPROVAL_REQUIRED: &str = "APPROVAL_REQUIRED";
const APPROVAL_LIMIT: &str = "APPROVAL_LIMIT";
const ACCESS_DENIED: &str = "ACCESS_DENIED";
const LEASE_REFUSED: &str = "LEASE_REFUSED";
const LEASE_ENDED: &str = "LEASE_ENDED";
const INTERNAL: &str = "INTERNAL";
