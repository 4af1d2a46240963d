//! Leases: the bounded table of live handles, their expiry and their revocation.
//!
//! A handle is `Active -> Spent | Expired | Revoked`, and stays there. The table keeps digests and sealed
//! values, never a handle: whoever has its memory but no handle has no values.
//!
//! INVARIANT: what a change of policy forbids is never issued or released after
//! [`LeaseTable::begin_generation`] has returned. Grants of an older generation are refused under the same
//! lock that the change takes, and everything issued before it is decided again.

mod events;
mod keep;
mod notices;
mod redeem;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::audit::{AuditRecord, Reason, RecordId, RecordKind};
use crate::bearer::{BearerError, PublicId};
use crate::clock::{Clock, Timestamp};
use crate::credential::Credential;
use crate::decision::{Binding, Deny, Redeemer, Terms};
use crate::gate::Grant;
use crate::handle::{Handle, HandleId};
use crate::identity::{AgentId, ToolId};
use crate::request::{AccessKind, AccessRequest, Call};
use crate::resolver::Resolved;

use self::state::{HandleSlot, HandleState, LeaseSlot, State};

pub use self::events::{LeaseEvent, LeaseEvents};
pub(crate) use self::keep::Renewable;
pub(crate) use self::redeem::ReleaseError;

/// The id of a lease; prints as `vkl_<id>`. Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub PublicId);

/// The bounds of a [`LeaseTable`].
#[derive(Debug, Clone, Copy)]
pub struct LeaseLimits {
    /// Leases at the same time.
    pub leases_max: usize,
    /// Leases of one agent at the same time.
    pub leases_per_agent_max: usize,
    /// Live handles at the same time; renewals may go over it by as many again.
    pub handles_max: usize,
    /// Live handles of one agent at the same time, likewise.
    pub handles_per_agent_max: usize,
    /// Dead handles that are remembered, so that a replay is called a replay.
    pub dead_handles_max: usize,
}

/// Why a lease or a handle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// `EndLease` was called.
    Caller,
    /// The stream closed.
    Disconnect,
    /// Policy no longer allows it.
    Policy,
    /// No handle is alive any more.
    Expiry,
    /// The broker stops.
    Shutdown,
    /// The client did not read its events.
    Stalled,
    /// A handle could not be renewed.
    Unavailable,
    /// What it was opened with was revoked, or has had its time.
    Credential,
}

/// A handle that was just issued, on its way to the agent.
pub struct Issued {
    /// The reference as asked.
    pub reference: Arc<str>,
    /// The handle itself.
    pub handle: Handle,
    /// When it dies.
    pub expire_time: Timestamp,
    /// On what terms it was issued.
    pub terms: Terms,
    /// The record of the decision.
    pub record: RecordId,
}

/// The live leases and their handles.
pub struct LeaseTable {
    state: Mutex<State>,
    limits: LeaseLimits,
    clock: Arc<dyn Clock>,
    /// Told when something is due earlier than before, or waits to be written down.
    wake: Notify,
    /// Told when handles wait to be renewed.
    renewal: Notify,
}

/// A bound is reached; which, and how much it is.
#[derive(Debug, Clone, Copy)]
pub struct LeaseFull {
    /// `leases`, `leases_per_agent`, `handles` or `handles_per_agent`.
    pub limit: &'static str,
    /// Whether it is the agent's own: others are not at it.
    pub own: bool,
    /// The bound.
    pub max: usize,
}

/// Why a handle could not be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssueError {
    /// The policies changed since the grant: decide again.
    Stale,
    /// The lease is over.
    Ended,
    /// The cipher failed, or grant and handle do not belong together.
    Broken,
}

impl LeaseTable {
    /// An empty table.
    #[must_use]
    pub fn new(limits: LeaseLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), limits, clock, wake: Notify::new(), renewal: Notify::new() })
    }

    /// Opens a lease with places for `handles` handles. It ends when the events are dropped.
    ///
    /// # Errors
    /// [`LeaseFull`] names the bound that is reached.
    pub(crate) fn open(
        self: &Arc<Self>,
        call: &Arc<Call>,
        agent: &AgentId,
        tool: &ToolId,
        handles: usize,
    ) -> Result<LeaseEvents, LeaseFull> {
        let id = LeaseId(PublicId::random());
        let (events, received) = mpsc::channel(EVENTS_MAX + handles);
        let mut state = self.lock();
        self.check_room(&state, agent, handles)?;
        let slot = LeaseSlot {
            agent: agent.clone(),
            tool: tool.clone(),
            call: Arc::clone(call),
            places: handles,
            live: Vec::with_capacity(handles),
            end: None,
            issued: false,
            events,
        };
        state.leases.insert(id, slot);
        state.handles_taken += handles;
        state.take(agent, 1, handles);
        drop(state);
        Ok(LeaseEvents::new(Arc::clone(self), id, received))
    }

    fn check_room(&self, state: &State, agent: &AgentId, handles: usize) -> Result<(), LeaseFull> {
        let LeaseLimits {
            leases_max,
            leases_per_agent_max,
            handles_max,
            handles_per_agent_max,
            dead_handles_max: _,
        } = self.limits;
        let own = state.by_agent.get(agent).copied().unwrap_or_default();
        for (limit, own, has, max) in [
            ("leases_per_agent", true, own.leases + 1, leases_per_agent_max),
            ("handles_per_agent", true, own.handles + handles, handles_per_agent_max),
            ("leases", false, state.leases.len() + 1, leases_max),
            ("handles", false, state.handles_taken + handles, handles_max),
        ] {
            if has > max {
                return Err(LeaseFull { limit, own, max });
            }
        }
        Ok(())
    }

    /// Issues `handle` for the grant's reference: seals the value for it and keeps its digest.
    pub(crate) fn issue(
        &self,
        grant: &Grant,
        handle: Handle,
        resolved: &Resolved,
    ) -> Result<Issued, IssueError> {
        let request = grant.request_shared();
        let (Some(lease), true) = (request.lease, request.handle == Some(handle.id())) else {
            return Err(IssueError::Broken);
        };
        let sealed = Arc::new(handle.seal(&resolved.value).ok_or(IssueError::Broken)?);
        let digest = handle.digest();
        let terms = grant.terms();
        let life = self.life_of(&request, terms);
        let expires = self.clock.monotonic() + life;
        let expire_time = self.clock.now().after(life);
        let reference = request.reference.text();

        let mut state = self.lock();
        if grant.generation() < state.generation {
            return Err(IssueError::Stale);
        }
        let slot = state.leases.get_mut(&lease).ok_or(IssueError::Ended)?;
        // A renewal comes on top: the places are kept for the references that are still to come.
        let renewal = request.kind == AccessKind::Renew;
        if !renewal {
            slot.places = slot.places.checked_sub(1).ok_or(IssueError::Broken)?;
        }
        let agent = slot.agent.clone();
        slot.live.push(handle.id());
        slot.issued = true;
        state.handles_taken += usize::from(renewal);
        state.take(&agent, 0, usize::from(renewal));
        let active = HandleState::Active {
            sealed,
            provenance: resolved.provenance.clone(),
            uses_left: terms.uses,
            uses_set_aside: 0,
            expiry_cause: if life < terms.life { EndCause::Credential } else { EndCause::Expiry },
        };
        let bound_to = match (terms.binding, terms.redeemer) {
            (Binding::Certificate, Redeemer::Agent) => request.call.key,
            (Binding::Certificate, Redeemer::Tool) | (Binding::Identity, _) => None,
        };
        let slot = HandleSlot { request, digest, terms, bound_to, expires, timer: expires, state: active };
        let renew_at = slot.renew_at();
        state.handles.insert(handle.id(), slot);
        self.set_timer(&mut state, handle.id(), renew_at);
        drop(state);
        Ok(Issued { reference, handle, expire_time, terms, record: grant.record() })
    }

    /// The life of a handle: nothing outlives what its lease was opened with.
    fn life_of(&self, request: &AccessRequest, terms: Terms) -> Duration {
        let end = request.opened_by.expires();
        end.map_or(terms.life, |end| terms.life.min(end.saturating_sub(self.clock.monotonic())))
    }

    /// Ends a lease: its handles are dead when this returns. Whether there was one.
    pub(crate) fn end(&self, lease: LeaseId, cause: EndCause) -> bool {
        let mut state = self.lock();
        self.end_locked(&mut state, lease, cause)
    }

    /// Ends all leases.
    pub(crate) fn end_all(&self, cause: EndCause) {
        let mut state = self.lock();
        let all: Vec<_> = state.leases.keys().copied().collect();
        for lease in all {
            self.end_locked(&mut state, lease, cause);
        }
    }

    /// Ends the leases that were opened with a credential, the caller's own or that of the person it acts for.
    pub(crate) fn end_opened_with(&self, credential: &Credential) -> usize {
        let mut state = self.lock();
        let was = |call: &Call| {
            call.credential == *credential
                || call.behalf.as_ref().is_some_and(|it| it.credential == *credential)
        };
        let theirs = state.leases.iter().filter(|(_, slot)| was(&slot.call)).map(|(lease, _)| *lease);
        let theirs: Vec<_> = theirs.collect();
        let ended = theirs.iter().filter(|lease| self.end_locked(&mut state, **lease, EndCause::Credential));
        ended.count()
    }

    fn end_locked(&self, state: &mut State, lease: LeaseId, cause: EndCause) -> bool {
        let Some(slot) = state.remove_lease(lease) else { return false };
        for handle in &slot.live {
            state.kill(*handle, HandleState::Revoked, &self.limits);
        }
        if slot.issued {
            let detail = format!("{} live handles ended with it", slot.live.len());
            let record = AuditRecord::event(self.clock.now(), RecordKind::LeaseEnd, cause.reason());
            let record = AuditRecord {
                request: Some(slot.call.id),
                agent: Some(slot.agent),
                tool: Some(slot.tool),
                lease: Some(lease),
                ..record.with_detail(&detail)
            };
            self.note(state, record);
        }
        // A reader whose buffer is full learns of the end by the stream's.
        let _ = slot.events.try_send(Box::new(LeaseEvent::Ended(cause)));
        true
    }

    /// From now on grants of older policies are refused.
    pub(crate) fn begin_generation(&self, generation: u64) {
        let mut state = self.lock();
        state.generation = state.generation.max(generation);
    }

    /// The live handles and their terms, to be decided again.
    pub(crate) fn live(&self) -> Vec<(HandleId, Arc<AccessRequest>, Terms)> {
        let state = self.lock();
        let live = state.handles.iter().filter(|(_, slot)| matches!(slot.state, HandleState::Active { .. }));
        live.map(|(id, slot)| (*id, Arc::clone(&slot.request), slot.terms)).collect()
    }

    /// Revokes one handle because policy no longer allows it, and tells the stream.
    pub(crate) fn revoke(&self, handle: HandleId, deny: &Deny) {
        let mut state = self.lock();
        let Some(request) = state.kill(handle, HandleState::Revoked, &self.limits) else { return };
        let record =
            AuditRecord::event(self.clock.now(), RecordKind::HandleRevoke, Reason::EndPolicy).about(&request);
        let why = deny.detail.as_deref().unwrap_or(deny.reason.as_str());
        let record = AuditRecord {
            policies: Some(Arc::clone(&deny.policies)),
            revision: Some(deny.revision),
            ..record.with_detail(why)
        };
        self.note(&mut state, record);
        let reference = request.reference.text();
        if let Some(lease) = request.lease {
            self.tell(&mut state, lease, LeaseEvent::Revoked { reference, handle, cause: EndCause::Policy });
            self.end_if_empty(&mut state, lease, EndCause::Policy);
        }
    }

    /// Sends an event of work that is under way for a lease.
    pub(crate) fn send(&self, lease: LeaseId, event: LeaseEvent) {
        let mut state = self.lock();
        self.tell(&mut state, lease, event);
    }

    /// Gives back a place that no handle came for. Ends the lease where nothing is alive or to come.
    pub(crate) fn give_back_place(&self, lease: LeaseId) {
        let mut state = self.lock();
        let Some(slot) = state.leases.get_mut(&lease) else { return };
        if slot.places > 0 {
            slot.places -= 1;
            let agent = slot.agent.clone();
            state.handles_taken = state.handles_taken.saturating_sub(1);
            state.give_back(&agent, 0, 1);
        }
        self.end_if_empty(&mut state, lease, EndCause::Expiry);
    }

    /// Tells every stream that the broker is about to stop.
    pub(crate) fn announce_draining(&self, end_time: Timestamp) {
        let mut state = self.lock();
        let all: Vec<_> = state.leases.keys().copied().collect();
        for lease in all {
            self.tell(&mut state, lease, LeaseEvent::Draining { end_time });
        }
    }

    /// The agent that holds a lease.
    pub(crate) fn holder(&self, lease: LeaseId) -> Option<AgentId> {
        self.lock().leases.get(&lease).map(|slot| slot.agent.clone())
    }

    /// Open leases and live handles, for metrics.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        let places: usize = state.leases.values().map(|slot| slot.places).sum();
        (state.leases.len(), state.handles_taken.saturating_sub(places))
    }

    /// Sends an event; a reader that has not taken the last 32 is cut.
    fn tell(&self, state: &mut State, lease: LeaseId, event: LeaseEvent) {
        let Some(slot) = state.leases.get(&lease) else { return };
        if slot.events.try_send(Box::new(event)).is_err() {
            self.end_locked(state, lease, EndCause::Stalled);
        }
    }

    fn end_if_empty(&self, state: &mut State, lease: LeaseId, cause: EndCause) {
        if state.leases.get(&lease).is_some_and(|slot| slot.live.is_empty() && slot.places == 0) {
            self.end_locked(state, lease, cause);
        }
    }

    /// Moves the one timer of a live handle.
    fn set_timer(&self, state: &mut State, handle: HandleId, at: Duration) {
        if state.set_timer(handle, at) {
            self.wake.notify_one();
        }
    }

    /// Queues the record of something that happened by itself: nobody called.
    fn note(&self, state: &mut State, record: AuditRecord) {
        state.notices.push_back(AuditRecord { caller: None, client: None, ..record });
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it to happen, a table that still refuses is better
        // than a broker that hangs.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EndCause {
    /// The reason that the record of the end gives.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Caller => Reason::EndCaller,
            Self::Disconnect => Reason::EndDisconnect,
            Self::Policy => Reason::EndPolicy,
            Self::Expiry => Reason::EndExpiry,
            Self::Shutdown => Reason::EndShutdown,
            Self::Stalled => Reason::EndStalled,
            Self::Unavailable => Reason::EndUnavailable,
            Self::Credential => Reason::EndCredential,
        }
    }
}

impl LeaseId {
    /// No lease's: where policy is asked about leases in general.
    pub(crate) const NONE: Self = Self(PublicId::from_bytes([0; 10]));

    /// Parses `vkl_<id>`.
    ///
    /// # Errors
    /// [`BearerError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BearerError> {
        PublicId::parse(text.strip_prefix("vkl_").ok_or(BearerError)?).map(Self)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vkl_{}", self.0)
    }
}

/// Unread events a stream may hold, beside the first of each reference.
const EVENTS_MAX: usize = 32;

#[cfg(test)]
mod tests;
