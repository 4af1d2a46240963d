//! What the lease table holds, and the few moves that keep it consistent. Always under its lock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{EndCause, LeaseEvent, LeaseId, LeaseLimits};
use crate::audit::AuditRecord;
use crate::bearer::BearerDigest;
use crate::decision::Terms;
use crate::handle::{HandleId, Sealed};
use crate::identity::{AgentId, KeyThumbprint, ToolId};
use crate::request::{AccessRequest, Call};
use crate::resolver::Provenance;

#[derive(Default)]
pub(super) struct State {
    pub(super) generation: u64,
    pub(super) leases: HashMap<LeaseId, LeaseSlot>,
    pub(super) handles: HashMap<HandleId, HandleSlot>,
    pub(super) by_agent: HashMap<AgentId, Taken>,
    /// Live handles, and places kept for handles to come.
    pub(super) handles_taken: usize,
    /// When each live handle is next to be looked at: one timer each.
    pub(super) timers: BTreeSet<(Duration, HandleId)>,
    /// When each lease whose handles are all spent ends: with the life of the last of them.
    pub(super) ends: BTreeSet<(Duration, LeaseId)>,
    /// Live handles that are to be renewed, with their ends, the soonest first.
    pub(super) renewable: BTreeSet<(Duration, HandleId)>,
    /// Dead handles, oldest first.
    pub(super) dead: VecDeque<HandleId>,
    /// What happened and is not yet written down. At most one a lease and one a handle that ever lived;
    /// with a log that cannot be written no new ones live.
    pub(super) notices: VecDeque<AuditRecord>,
}

/// One agent's leases, and the live handles and kept places in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) leases: usize,
    pub(super) handles: usize,
}

pub(super) struct LeaseSlot {
    pub(super) agent: AgentId,
    pub(super) tool: ToolId,
    pub(super) call: Arc<Call>,
    /// Places kept for handles that are still to come.
    pub(super) places: usize,
    pub(super) live: Vec<HandleId>,
    /// Its entry in [`State::ends`].
    pub(super) end: Option<Duration>,
    /// Whether anything was ever issued: only then is its end worth a record.
    pub(super) issued: bool,
    /// Boxed: a channel keeps room for 32 from the start, and most leases never use it.
    pub(super) events: mpsc::Sender<Box<LeaseEvent>>,
}

pub(super) struct HandleSlot {
    pub(super) request: Arc<AccessRequest>,
    pub(super) digest: BearerDigest,
    pub(super) terms: Terms,
    /// The one key that can redeem it, once that is known; only where its terms bind it to a certificate.
    pub(super) bound_to: Option<KeyThumbprint>,
    pub(super) expires: Duration,
    /// Its entry in [`State::timers`].
    pub(super) timer: Duration,
    pub(super) state: HandleState,
}

pub(super) enum HandleState {
    Active {
        sealed: Arc<Sealed>,
        provenance: Provenance,
        uses_left: u32,
        uses_set_aside: u32,
        /// What its expiry, should it come to that, will be put down to.
        expiry_cause: EndCause,
    },
    Spent,
    Expired,
    Revoked,
}

impl State {
    /// Moves a handle's timer. Whether it became the first to be due.
    pub(super) fn set_timer(&mut self, handle: HandleId, at: Duration) -> bool {
        let Some(slot) = self.handles.get_mut(&handle) else { return false };
        self.timers.remove(&(slot.timer, handle));
        slot.timer = at;
        self.timers.insert((at, handle));
        self.timers.first() == Some(&(at, handle))
    }

    pub(super) fn remove_lease(&mut self, lease: LeaseId) -> Option<LeaseSlot> {
        let slot = self.leases.remove(&lease)?;
        self.handles_taken = self.handles_taken.saturating_sub(slot.places);
        self.give_back(&slot.agent, 1, slot.places + slot.live.len());
        if let Some(end) = slot.end {
            self.ends.remove(&(end, lease));
        }
        Some(slot)
    }

    pub(super) fn take(&mut self, agent: &AgentId, leases: usize, handles: usize) {
        let own = self.by_agent.entry(agent.clone()).or_default();
        own.leases += leases;
        own.handles += handles;
    }

    pub(super) fn give_back(&mut self, agent: &AgentId, leases: usize, handles: usize) {
        let Some(own) = self.by_agent.get_mut(agent) else { return };
        own.leases = own.leases.saturating_sub(leases);
        own.handles = own.handles.saturating_sub(handles);
        if *own == Taken::default() {
            self.by_agent.remove(agent);
        }
    }

    /// Moves a live handle to a state at the end of its life, forgetting its value. `None` where it was
    /// not alive.
    pub(super) fn kill(
        &mut self,
        handle: HandleId,
        end: HandleState,
        limits: &LeaseLimits,
    ) -> Option<Arc<AccessRequest>> {
        let slot = self.handles.get_mut(&handle)?;
        if !matches!(slot.state, HandleState::Active { .. }) {
            return None;
        }
        slot.state = end;
        let request = Arc::clone(&slot.request);
        self.timers.remove(&(slot.timer, handle));
        self.renewable.remove(&(slot.expires, handle));
        self.handles_taken = self.handles_taken.saturating_sub(1);
        if let Some(lease) = request.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.live.retain(|live| *live != handle);
            let agent = lease.agent.clone();
            self.give_back(&agent, 0, 1);
        }
        self.dead.push_back(handle);
        while self.dead.len() > limits.dead_handles_max {
            if let Some(oldest) = self.dead.pop_front() {
                self.handles.remove(&oldest);
            }
        }
        Some(request)
    }
}

impl State {
    /// Has a lease end at `end` if it has nothing left to live for until then; whether that is the first
    /// such end.
    pub(super) fn end_spent(&mut self, lease: LeaseId, end: Duration) -> bool {
        let Some(slot) = self.leases.get_mut(&lease) else { return false };
        if !slot.live.is_empty() || slot.places > 0 || slot.end.is_some() {
            return false;
        }
        slot.end = Some(end);
        self.ends.insert((end, lease));
        self.ends.first() == Some(&(end, lease))
    }
}

impl HandleSlot {
    /// When it is to be renewed.
    pub(super) fn renew_at(&self) -> Duration {
        self.expires.saturating_sub(self.terms.life / RENEWAL_SHARE)
    }
}

/// A handle is renewed when one part in so many of its life is left.
const RENEWAL_SHARE: u32 = 5;
