//! What time does to leases: expiry and renewal.

use std::sync::Arc;

use super::state::{HandleState, State};
use super::{EndCause, Issued, LeaseEvent, LeaseId, LeaseTable};
use crate::audit::{AuditRecord, RecordKind};
use crate::handle::HandleId;
use crate::request::AccessRequest;

/// A handle that nears its end in a lease that lives on.
pub(crate) struct Renewable {
    pub(crate) previous: HandleId,
    pub(crate) lease: LeaseId,
    pub(crate) request: Arc<AccessRequest>,
}

impl LeaseTable {
    /// Expires what is due, and queues for renewal what nears its end.
    pub(crate) fn expire_due(&self) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        while let Some((at, handle)) = state.timers.first().copied().filter(|(at, _)| *at <= now) {
            state.timers.remove(&(at, handle));
            let Some(slot) = state.handles.get(&handle) else { continue };
            if now >= slot.expires {
                self.expire(&mut state, handle);
            } else {
                let expires = slot.expires;
                state.set_timer(expires, handle);
                state.renewable.push_back(handle);
            }
        }
        let renewable = !state.renewable.is_empty();
        drop(state);
        if renewable {
            self.renewal.notify_one();
        }
    }

    /// Waits for handles that are to be renewed; at most 256 at once.
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
        let count = state.renewable.len().min(RENEWALS_MAX);
        let due: Vec<_> = state.renewable.drain(..count).collect();
        let live = due.into_iter().filter_map(|previous| {
            let slot = state.handles.get(&previous)?;
            let HandleState::Active { .. } = slot.state else { return None };
            let request = Arc::clone(&slot.request);
            Some(Renewable { previous, lease: request.lease?, request })
        });
        live.collect()
    }

    fn expire(&self, state: &mut State, handle: HandleId) {
        let cause = match state.handles.get(&handle).map(|slot| &slot.state) {
            Some(HandleState::Active { renewal_failed: true, .. }) => EndCause::Unavailable,
            _ => EndCause::Expiry,
        };
        let Some(request) = state.kill(handle, HandleState::Expired, &self.limits) else { return };
        let record = AuditRecord::event(self.clock.now(), RecordKind::HandleExpire, cause.reason());
        state.notices.push(record.about(&request));
        if let Some(lease) = request.lease {
            self.end_if_empty(state, lease, cause);
        }
    }

    /// Waits until something is due or waits to be written down.
    pub(crate) async fn wait(&self) {
        let (due, busy) = {
            let state = self.lock();
            (state.timers.first().map(|(at, _)| *at), !state.notices.is_empty())
        };
        if busy {
            return;
        }
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
        self.tell(&mut state, lease, LeaseEvent::Renewed { issued, previous });
    }

    /// Remembers that a handle could not be renewed; it lives on to its own end.
    pub(crate) fn renewal_failed(&self, handle: HandleId) {
        let mut state = self.lock();
        let slot = state.handles.get_mut(&handle).map(|slot| &mut slot.state);
        if let Some(HandleState::Active { renewal_failed, .. }) = slot {
            *renewal_failed = true;
        }
    }
}

const RENEWALS_MAX: usize = 256;
