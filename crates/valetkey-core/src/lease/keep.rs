//! What time does to leases: expiry and renewal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::state::{HandleState, State};
use super::{EndCause, Issued, LeaseEvent, LeaseId, LeaseTable};
use crate::audit::{AuditRecord, RecordKind};
use crate::handle::HandleId;
use crate::identity::AgentId;
use crate::request::AccessRequest;

/// A handle that nears its end in a lease that lives on.
pub(crate) struct Renewable {
    pub(crate) previous: HandleId,
    pub(crate) lease: LeaseId,
    /// When the previous handle dies.
    pub(crate) expires: Duration,
    pub(crate) request: Arc<AccessRequest>,
}

impl Renewable {
    /// Whether a fresh handle would live longer than the one before it: nothing outlives what its lease was
    /// opened with.
    pub(crate) fn can_outlive_previous(&self) -> bool {
        let opened_by = &self.request.opened_by;
        !opened_by.is_revoked() && opened_by.expires().is_none_or(|end| end > self.expires)
    }
}

impl LeaseTable {
    /// Expires what is due, and queues for renewal what nears its end.
    pub(crate) fn expire_due(&self) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        while let Some((at, handle)) = state.timers.first().copied().filter(|(at, _)| *at <= now) {
            state.timers.remove(&(at, handle));
            let Some(expires) = state.handles.get(&handle).map(|slot| slot.expires) else { continue };
            if now >= expires {
                self.expire(&mut state, handle);
            } else {
                state.set_timer(handle, expires);
                state.renewable.insert((expires, handle));
            }
        }
        while let Some((_, lease)) = state.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.end_locked(&mut state, lease, EndCause::Expiry);
        }
        let renewable = !state.renewable.is_empty();
        drop(state);
        if renewable {
            self.renewal.notify_one();
        }
    }

    /// Waits for handles that are to be renewed; at most 256 at once, and of one agent at most 32, so that
    /// an agent with many short lives does not keep others from renewing theirs.
    pub(crate) async fn wait_renewable(&self) -> Vec<Renewable> {
        loop {
            let due = self.take_renewable();
            if !due.is_empty() {
                return due;
            }
            self.renewal.notified().await;
        }
    }

    fn take_renewable(&self) -> Vec<Renewable> {
        let mut state = self.lock();
        let mut of_agent: HashMap<&AgentId, usize> = HashMap::new();
        let mut due = Vec::new();
        for (expires, previous) in &state.renewable {
            let Some(slot) = state.handles.get(previous) else { continue };
            let Some(lease) = slot.request.lease else { continue };
            let count = of_agent.entry(&slot.request.agent).or_default();
            *count += 1;
            if *count <= RENEWALS_OF_AGENT_MAX {
                let request = Arc::clone(&slot.request);
                due.push(Renewable { previous: *previous, lease, expires: *expires, request });
            }
            if due.len() == RENEWALS_MAX {
                break;
            }
        }
        for Renewable { previous, expires, lease: _, request: _ } in &due {
            state.renewable.remove(&(*expires, *previous));
        }
        due
    }

    fn expire(&self, state: &mut State, handle: HandleId) {
        let Some(HandleState::Active { expiry_cause, .. }) =
            state.handles.get(&handle).map(|slot| &slot.state)
        else {
            return;
        };
        let cause = *expiry_cause;
        let Some(request) = state.kill(handle, HandleState::Expired, &self.limits) else { return };
        let record = AuditRecord::event(self.clock.now(), RecordKind::HandleExpire, cause.reason());
        self.note(state, record.about(&request));
        if let Some(lease) = request.lease {
            self.end_if_empty(state, lease, cause);
        }
    }

    /// Waits until something is due or waits to be written down. Whatever makes it so rings `wake`, which
    /// remembers it while nobody listens.
    pub(crate) async fn wait(&self) {
        let due = {
            let state = self.lock();
            let handle = state.timers.first().map(|(at, _)| *at);
            let lease = state.ends.first().map(|(at, _)| *at);
            handle.into_iter().chain(lease).min()
        };
        match due {
            None => self.wake.notified().await,
            Some(due) => tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep_until(due) => {}
            },
        }
    }

    /// Puts a renewed handle into the stream, in place of `previous`, which lives on to its own end.
    pub(crate) fn renewed(&self, lease: LeaseId, previous: HandleId, issued: Issued) {
        let mut state = self.lock();
        state.set_expiry_cause(previous, EndCause::Expiry);
        self.tell(&mut state, lease, LeaseEvent::Renewed { issued, previous });
    }

    /// Remembers why a renewal is not allowed; the handle lives on to its own end.
    pub(crate) fn renewal_denied(&self, handle: HandleId, cause: EndCause) {
        self.lock().set_expiry_cause(handle, cause);
    }

    /// Remembers that a renewal failed, and has it tried again when half of what is left has gone by; the
    /// handle lives on to its own end.
    pub(crate) fn renewal_failed(&self, handle: HandleId) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if let Some(expires) = state.set_expiry_cause(handle, EndCause::Unavailable) {
            let left = expires.saturating_sub(now);
            if left >= RENEWAL_RETRY_MIN {
                self.set_timer(&mut state, handle, now + left / 2);
            }
        }
    }
}

impl State {
    /// The end of a handle that is alive, now put down to `cause`.
    fn set_expiry_cause(&mut self, handle: HandleId, cause: EndCause) -> Option<Duration> {
        let slot = self.handles.get_mut(&handle)?;
        let HandleState::Active { expiry_cause, .. } = &mut slot.state else { return None };
        *expiry_cause = cause;
        Some(slot.expires)
    }
}

const RENEWALS_MAX: usize = 256;
const RENEWALS_OF_AGENT_MAX: usize = 32;
/// With less than this left, a renewal is not tried again.
const RENEWAL_RETRY_MIN: Duration = Duration::from_millis(500);
