//! What is alive in a lease, as far as its streams have said.

use std::collections::BTreeMap;
use std::time::Duration;

use valetkey_proto::v1::EndCause;

use crate::clock::{Began, counted};
use crate::error::CallError;
use crate::stream::{Issued, LeaseEvent, Refused};

/// What one stream after another has said.
pub(super) struct State {
    /// Empty before the first stream.
    pub(super) id: String,
    /// Whether there is a stream now.
    pub(super) is_open: bool,
    pub(super) draining: bool,
    /// Why the lease is over, once it is.
    pub(super) lost: Option<CallError>,
    /// Why a handle of it died before its time, the first one that did.
    pub(super) revoked: Option<CallError>,
    slots: BTreeMap<String, Slot>,
    began: Option<Began>,
}

/// One reference.
#[derive(Default)]
struct Slot {
    live: Option<Live>,
    /// Why it has no handle and will get none from this stream.
    end: Option<End>,
    /// How often its handle was redeemed here.
    redeemed: u32,
}

/// A handle, as long as nothing was heard of its end.
struct Live {
    issued: Issued,
    /// When it is dead, by [`counted`], though nothing was heard: this machine slept, or did not come to read.
    dies: Option<Duration>,
}

enum End {
    Refused(Refused),
    Revoked(EndCause),
}

/// Why there is no handle.
pub(super) enum Missing {
    /// None will come.
    ForGood(CallError),
    /// One may come; the error is for those who do not wait.
    Yet(CallError),
}

impl State {
    pub(super) fn new(references: &[String]) -> Self {
        let slots = references.iter().map(|reference| (reference.clone(), Slot::default())).collect();
        Self {
            id: String::new(),
            is_open: false,
            draining: false,
            lost: None,
            revoked: None,
            slots,
            began: None,
        }
    }

    /// A stream has begun.
    pub(super) fn begin(&mut self, id: &str, began: Option<Began>) {
        self.id = id.to_owned();
        self.is_open = true;
        self.began = began;
    }

    /// Takes an event in.
    pub(super) fn apply(&mut self, event: &LeaseEvent) {
        match event {
            LeaseEvent::Issued(issued) | LeaseEvent::Renewed { issued, previous_handle_id: _ } => {
                let dies = self.began.and_then(|began| began.dies(issued.expire_time));
                if let Some(slot) = self.slots.get_mut(&issued.reference) {
                    *slot =
                        Slot { live: Some(Live { issued: issued.clone(), dies }), end: None, redeemed: 0 };
                }
            }
            LeaseEvent::Refused(refused) => {
                if let Some(slot) = self.slots.get_mut(&refused.reference) {
                    slot.end = Some(End::Refused(refused.clone()));
                }
            }
            LeaseEvent::Revoked { reference, handle_id, cause } => self.revoke(reference, handle_id, *cause),
            LeaseEvent::Draining { end_time: _ } => self.draining = true,
            LeaseEvent::Ended(_)
            | LeaseEvent::Interrupted(_)
            | LeaseEvent::Resumed { .. }
            | LeaseEvent::Lost(_)
            | LeaseEvent::Missed(_) => {}
        }
    }

    /// The handle before a renewal does not take the fresh one along.
    fn revoke(&mut self, reference: &str, handle_id: &str, cause: EndCause) {
        let Some(slot) = self.slots.get_mut(reference) else { return };
        if slot.live.as_ref().is_some_and(|live| live.issued.handle_id == handle_id) {
            slot.live = None;
            slot.end = Some(End::Revoked(cause));
            self.revoked.get_or_insert(CallError::LeaseEnded(cause));
        }
    }

    /// Whether the stream has answered for each of these.
    pub(super) fn has_answers_for(&self, references: &[String]) -> bool {
        references.iter().all(|reference| {
            self.slots.get(reference).is_some_and(|slot| slot.live.is_some() || slot.end.is_some())
        })
    }

    /// The stream is lost: from now on no handle of it is given out.
    pub(super) fn interrupt(&mut self) {
        self.is_open = false;
        self.draining = false;
        for slot in self.slots.values_mut().filter(|slot| slot.is_wanted()) {
            *slot = Slot::default();
        }
    }

    /// Which of these are worth asking for again.
    pub(super) fn wanted(&self, references: &[String]) -> Vec<String> {
        let is_wanted = |reference: &&String| self.slots.get(*reference).is_some_and(Slot::is_wanted);
        references.iter().filter(is_wanted).cloned().collect()
    }

    /// The lease is over.
    pub(super) fn end(&mut self, error: CallError) {
        self.interrupt();
        self.revoked.get_or_insert_with(|| error.clone());
        self.lost = Some(error);
    }

    /// The handle to use for a reference now.
    pub(super) fn handle(&self, reference: &str) -> Result<Issued, Missing> {
        if let Some(lost) = &self.lost {
            return Err(Missing::ForGood(lost.clone()));
        }
        let Some(slot) = self.slots.get(reference) else {
            let message = format!("`{reference}` is no reference of this lease");
            let (reason, violations) = (String::new(), Vec::new());
            return Err(Missing::ForGood(CallError::Invalid {
                reason,
                message,
                violations,
                record_id: None,
            }));
        };
        match (&slot.end, &slot.live) {
            (Some(End::Refused(refused)), _) => Err(Missing::ForGood(refused.error())),
            (Some(End::Revoked(cause)), _) => Err(Missing::ForGood(CallError::LeaseEnded(*cause))),
            (None, _) if slot.is_spent() => Err(Missing::ForGood(used())),
            (None, Some(live)) if live.is_past() => Err(Missing::Yet(used())),
            (None, Some(live)) => Ok(live.issued.clone()),
            (None, None) => Err(Missing::Yet(away())),
        }
    }

    /// All handles to use now.
    pub(super) fn handles(&self) -> Vec<Issued> {
        self.slots.keys().filter_map(|reference| self.handle(reference).ok()).collect()
    }

    /// What a partial lease did not get.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let refused = |slot: &Slot| match &slot.end {
            Some(End::Refused(refused)) => Some(refused.clone()),
            _ => None,
        };
        self.slots.values().filter_map(refused).collect()
    }

    /// Counts a use.
    pub(super) fn spend(&mut self, used: &Issued) {
        if let Some(slot) = self.slots.get_mut(&used.reference)
            && slot.holds(used)
        {
            slot.redeemed = slot.redeemed.saturating_add(1);
        }
    }

    /// Whether this is still the handle of its reference.
    pub(super) fn holds(&self, issued: &Issued) -> bool {
        self.slots.get(&issued.reference).is_some_and(|slot| slot.holds(issued))
    }
}

impl Slot {
    /// Not what was used, and not what was taken back, which would have all the rest refused.
    fn is_wanted(&self) -> bool {
        !self.is_spent() && !matches!(self.end, Some(End::Revoked(_)))
    }

    /// Of these no fresh one comes.
    fn is_spent(&self) -> bool {
        self.live.as_ref().is_some_and(|live| self.redeemed >= live.issued.uses)
    }

    fn holds(&self, issued: &Issued) -> bool {
        self.live.as_ref().is_some_and(|live| live.issued.handle_id == issued.handle_id)
    }
}

impl Live {
    fn is_past(&self) -> bool {
        self.dies.is_some_and(|dies| counted() >= dies)
    }
}

fn used() -> CallError {
    CallError::HandleNotActive { record_id: None }
}

fn away() -> CallError {
    let message = "the broker went away, and the lease is being asked for again".to_owned();
    CallError::Unavailable { reason: String::new(), message, retry_after: None }
}
