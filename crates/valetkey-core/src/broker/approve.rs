//! Approving: what waits is shown to whoever may decide it, and decided.

use std::sync::Arc;

use super::{Broker, Refusal};
use crate::approval::{Ask, Choice};
use crate::audit::{AuditRecord, Reason, RecordId, RecordKind};
use crate::clock::Timestamp;
use crate::lease::LeaseId;
use crate::request::Call;

/// Asks that wait, and where the next of them are.
pub struct AskPage {
    /// The oldest first.
    pub asks: Vec<Arc<Ask>>,
    /// What to go on after; `None` at the end.
    pub next: Option<u64>,
}

/// What was decided.
pub struct Chosen {
    /// What it was about.
    pub ask: Arc<Ask>,
    /// Until when it holds.
    pub expire_time: Timestamp,
    /// The record of the decision; the first where there are several.
    pub record: RecordId,
}

impl Broker {
    /// Shows the asks that a caller may decide, from after a place on (0: from the oldest): at most `limit` of them,
    /// and fewer where they have many references.
    ///
    /// # Errors
    /// [`Refusal::Denied`] or [`Refusal::AuditUnavailable`].
    pub async fn asks(&self, call: &Arc<Call>, after: u64, limit: usize) -> Result<AskPage, Refusal> {
        let waiting = self.gate.approvals().waiting(after);
        let seen = self.gate.admit_asks(call, waiting).await?;
        let seen = seen.map_err(|denial| Refusal::Denied { denial, reference: None })?;
        let (mut asks, mut references, mut last) = (Vec::new(), 0, 0);
        let more = seen.len();
        for (place, ask) in seen {
            references += ask.wants.len();
            if asks.len() == limit || (references > REFERENCES_MAX && !asks.is_empty()) {
                break;
            }
            last = place;
            asks.push(ask);
        }
        let next = (asks.len() < more).then_some(last);
        Ok(AskPage { asks, next })
    }

    /// Approves or rejects an ask for a person, or takes an approval back. What it means for the agent counts from when
    /// this returns, and the handles that it takes away are dead; who drops the call before that may have the record
    /// and not the effect, and can call again.
    ///
    /// # Errors
    /// [`Refusal::Denied`] also where there is no such ask and the caller may not decide any;
    /// [`Refusal::AskNotFound`], [`Refusal::AskLimit`], [`Refusal::AuditUnavailable`].
    pub async fn choose(&self, call: &Arc<Call>, choice: Choice, id: LeaseId) -> Result<Chosen, Refusal> {
        let ask = self.gate.approvals().find(id, choice);
        let admitted = self.gate.admit_choice(call, choice, id, ask.as_deref()).await?;
        let records = admitted.map_err(|denial| Refusal::Denied { denial, reference: None })?;
        // From here on the decision is durable.
        let record = records.first().copied().ok_or(Refusal::Broken)?;
        let decided = match &ask {
            Some(ask) => self.gate.approvals().decide(ask, choice, call, &records),
            None => Ok(false),
        };
        let (why, refusal) = match (decided, ask) {
            (Ok(true), Some(ask)) => {
                if choice == Choice::Reject {
                    self.decide_again();
                }
                let expire_time = self.clock.now().after(self.gate.approvals().good_for());
                return Ok(Chosen { ask, expire_time, record });
            }
            (Ok(_), _) => ("APPROVAL_NOT_FOUND", Refusal::AskNotFound { record }),
            (Err(full), _) => ("APPROVAL_LIMIT", Refusal::AskLimit { full, record }),
        };
        let kind = match choice {
            Choice::Approve => RecordKind::Approve,
            Choice::Reject => RecordKind::Reject,
        };
        let event = AuditRecord::event(self.clock.now(), kind, Reason::Failed).by(call).with_detail(why);
        self.note(AuditRecord { lease: Some(id), ..event }).await?;
        Err(refusal)
    }
}

/// References of one page: a page must fit into a message.
const REFERENCES_MAX: usize = 1_000;
