//! Redeeming: one use of a handle is set aside, decided and recorded, and then released or given back.

use std::sync::Arc;
use std::time::Duration;

use super::LeaseTable;
use super::state::{HandleSlot, HandleState};
use crate::audit::Reason;
use crate::decision::{Binding, Redeemer};
use crate::gate::Grant;
use crate::handle::Handle;
use crate::identity::{Identity, KeyThumbprint};
use crate::request::{AccessKind, AccessRequest, Call};
use crate::resolver::Resolved;

/// Why a handle cannot be redeemed, and what it was for where that is known.
pub(crate) struct Inactive {
    pub(crate) reason: Reason,
    pub(crate) request: Option<Arc<AccessRequest>>,
    /// More for the reviewer.
    pub(crate) detail: Option<String>,
}

/// One use of a handle, set aside while the redeem is decided and recorded. Given back when dropped.
pub(crate) struct Use<'a> {
    table: &'a LeaseTable,
    handle: &'a Handle,
    request: Arc<AccessRequest>,
    /// Whether the use is still to be given back.
    open: bool,
}

/// Why a set-aside use came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseError {
    /// The policies changed since the grant: decide again.
    Stale,
    /// The handle died meanwhile.
    Inactive(Reason),
}

impl LeaseTable {
    /// Sets one use of a handle aside for the caller, so that racing redeems cannot share it.
    pub(crate) fn set_aside<'a>(&'a self, handle: &'a Handle, call: &Call) -> Result<Use<'a>, Inactive> {
        let digest = handle.digest();
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let unknown = Inactive { reason: Reason::HandleUnknown, request: None, detail: None };
        let slot = state.handles.get_mut(&handle.id()).ok_or(unknown)?;
        if !slot.digest.matches(&digest) {
            return Err(Inactive { reason: Reason::HandleForged, request: None, detail: None });
        }
        let request = Arc::clone(&slot.request);
        let inactive = |reason| Inactive { reason, request: Some(Arc::clone(&request)), detail: None };
        if !slot.may_be_redeemed_by(&call.caller) {
            return Err(inactive(Reason::HandleRedeemer));
        }
        if slot.refuses_key(call.key) {
            let shown =
                |key: Option<KeyThumbprint>| key.map_or_else(|| "none".to_owned(), |key| key.to_string());
            let detail = format!("bound to the key {}, shown was {}", shown(slot.bound_to), shown(call.key));
            return Err(Inactive { detail: Some(detail), ..inactive(Reason::HandleBinding) });
        }
        // Whoever redeems need not say on whose behalf; who does must not say another thing than the lease.
        let person = |call: &Call| call.behalf.as_ref().map(|behalf| behalf.person.clone());
        if call.behalf.is_some() && person(call) != person(&request.opened_by) {
            return Err(inactive(Reason::BehalfMismatch));
        }
        let (uses_left, set_aside) = slot.uses(now).map_err(inactive)?;
        if *uses_left == *set_aside {
            return Err(inactive(Reason::HandleSpent));
        }
        *set_aside += 1;
        Ok(Use { table: self, handle, request, open: true })
    }
}

impl Use<'_> {
    /// What the handle was issued for.
    pub(crate) fn request(&self) -> &Arc<AccessRequest> {
        &self.request
    }

    /// Opens the value, given proof that this redeem was allowed and recorded. Spends the use.
    pub(crate) fn release(mut self, grant: &Grant) -> Result<Resolved, ReleaseError> {
        let asked = grant.request();
        if asked.kind != AccessKind::Redeem || asked.handle != Some(self.handle.id()) {
            return Err(ReleaseError::Inactive(Reason::HandleForged));
        }
        let table = self.table;
        let now = table.clock.monotonic();
        // Again: writing the record took its time.
        if let Some(reason) = asked.call.over(now) {
            return Err(ReleaseError::Inactive(reason));
        }
        let mut state = table.lock();
        if grant.generation() < state.generation {
            drop(state);
            return Err(ReleaseError::Stale);
        }
        self.open = false;
        let slot =
            state.handles.get_mut(&self.handle.id()).ok_or(ReleaseError::Inactive(Reason::HandleUnknown))?;
        // Two first redeems may race with two keys: the first release decides.
        let refused = slot.refuses_key(asked.call.key);
        let (uses_left, set_aside) = slot.uses(now).map_err(ReleaseError::Inactive)?;
        *set_aside = set_aside.saturating_sub(1);
        if refused {
            return Err(ReleaseError::Inactive(Reason::HandleBinding));
        }
        *uses_left = uses_left.saturating_sub(1);
        let last = *uses_left == 0;
        let HandleState::Active { sealed, provenance, .. } = &slot.state else {
            return Err(ReleaseError::Inactive(Reason::HandleRevoked));
        };
        let (sealed, provenance) = (Arc::clone(sealed), provenance.clone());
        if slot.terms.binding == Binding::Certificate {
            slot.bound_to = asked.call.key;
        }
        if last {
            let end = slot.expires;
            let lease = state
                .kill(self.handle.id(), HandleState::Spent, &table.limits)
                .and_then(|request| request.lease);
            // A lease with nothing left outlives its last redeem, for a client that ends it in good form,
            // but not the life of its handles.
            if lease.is_some_and(|lease| state.end_spent(lease, end)) {
                table.wake.notify_one();
            }
        }
        drop(state);
        let value = self.handle.open(&sealed).ok_or(ReleaseError::Inactive(Reason::HandleForged))?;
        Ok(Resolved { value, provenance })
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let mut state = self.table.lock();
        if let Some(HandleState::Active { uses_set_aside, .. }) =
            state.handles.get_mut(&self.handle.id()).map(|slot| &mut slot.state)
        {
            *uses_set_aside = uses_set_aside.saturating_sub(1);
        }
    }
}

impl HandleSlot {
    fn may_be_redeemed_by(&self, caller: &Identity) -> bool {
        match (self.terms.redeemer, caller) {
            (Redeemer::Tool, Identity::Tool(tool)) => *tool == self.request.tool,
            (Redeemer::Agent, Identity::Agent(agent)) => *agent == self.request.agent,
            (
                Redeemer::Tool | Redeemer::Agent,
                Identity::Agent(_) | Identity::Tool(_) | Identity::Person(_),
            ) => false,
        }
    }

    /// Whether the handle is bound to a certificate's key and this is not the one. Until a tool has redeemed, any key
    /// of the tool's will do; none at all never does.
    fn refuses_key(&self, key: Option<KeyThumbprint>) -> bool {
        match self.terms.binding {
            Binding::Identity => false,
            Binding::Certificate => key.is_none() || self.bound_to.is_some_and(|bound| Some(bound) != key),
        }
    }

    /// The uses left and set aside, of a handle that is alive.
    fn uses(&mut self, now: Duration) -> Result<(&mut u32, &mut u32), Reason> {
        match &mut self.state {
            HandleState::Active { .. } if now >= self.expires => Err(Reason::HandleExpired),
            HandleState::Active { uses_left, uses_set_aside, .. } => Ok((uses_left, uses_set_aside)),
            HandleState::Spent => Err(Reason::HandleSpent),
            HandleState::Expired => Err(Reason::HandleExpired),
            HandleState::Revoked => Err(Reason::HandleRevoked),
        }
    }
}
