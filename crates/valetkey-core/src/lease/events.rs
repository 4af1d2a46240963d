//! The events of one lease, as its holder receives them. Dropping them ends the lease.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{EndCause, Issued, LeaseId, LeaseTable};
use crate::audit::RecordId;
use crate::clock::Timestamp;
use crate::handle::HandleId;

/// One event of a lease; the proto says when each comes.
pub enum LeaseEvent {
    /// The lease is open. First, once.
    Opened {
        /// The lease.
        lease: LeaseId,
        /// The references as asked.
        references: Vec<Arc<str>>,
    },
    /// A handle was issued.
    Issued(Issued),
    /// A reference was refused, in a lease that may be partial.
    Refused {
        /// The reference as asked.
        reference: Arc<str>,
        /// The stable code.
        reason: &'static str,
        /// What the agent may read.
        message: String,
        /// The record.
        record: RecordId,
    },
    /// A reference has a fresh handle.
    Renewed {
        /// The fresh handle.
        issued: Issued,
        /// The one before it.
        previous: HandleId,
    },
    /// A handle died before its time.
    Revoked {
        /// The reference as asked.
        reference: Arc<str>,
        /// The handle.
        handle: HandleId,
        /// Why.
        cause: EndCause,
    },
    /// The broker is about to stop.
    Draining {
        /// When the lease ends at the latest.
        end_time: Timestamp,
    },
    /// The lease has ended. Last.
    Ended(EndCause),
}

/// The receiving end of a lease: it lives as long as this does.
pub struct LeaseEvents {
    table: Arc<LeaseTable>,
    lease: LeaseId,
    /// Events that were there from the start.
    first: VecDeque<LeaseEvent>,
    /// Work that makes more events; driven by whoever reads, so that a lease needs no task of its own
    /// and a reader that stalls stalls its own work only.
    work: Option<Work>,
    received: mpsc::Receiver<Box<LeaseEvent>>,
}

/// Makes events while it is polled.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl LeaseEvents {
    pub(crate) fn new(
        table: Arc<LeaseTable>,
        lease: LeaseId,
        received: mpsc::Receiver<Box<LeaseEvent>>,
    ) -> Self {
        Self { table, lease, first: VecDeque::new(), work: None, received }
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(crate) fn push(&mut self, event: LeaseEvent) {
        self.first.push_back(event);
    }

    pub(crate) fn drive(&mut self, work: Work) {
        self.work = Some(work);
    }

    /// The next event; `None` after the last.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<LeaseEvent>> {
        if let Some(event) = self.first.pop_front() {
            return Poll::Ready(Some(event));
        }
        if let Some(work) = &mut self.work
            && work.as_mut().poll(context).is_ready()
        {
            self.work = None;
        }
        self.received.poll_recv(context).map(|event| event.map(|event| *event))
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<LeaseEvent> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

impl Drop for LeaseEvents {
    fn drop(&mut self) {
        self.table.end(self.lease, EndCause::Disconnect);
    }
}
