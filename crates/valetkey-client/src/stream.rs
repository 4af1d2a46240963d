//! The stream of one lease: its events, and what is alive in it.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use time::OffsetDateTime;
use tokio_stream::Stream;
use tonic::{Response, Streaming};
use valetkey_proto::v1;
use valetkey_proto::v1::acquire_lease_response::Event;

use crate::broker::Broker;
use crate::clock::Began;
use crate::error::{CallError, approval_in};
use crate::retries::{Again, Failed};
use crate::secret::Handle;

/// The stream of a lease, which lives as long as this value: dropping it closes the stream, and its handles are dead
/// within seconds. For those who read every event themselves; [`Lease`](crate::Lease) does so in the background.
#[must_use = "the lease lives as long as its stream"]
pub struct LeaseStream {
    id: String,
    references: Vec<String>,
    /// The handle to use for each reference; a renewal replaces the one before it.
    handles: BTreeMap<String, Issued>,
    /// Absent once the lease has ended.
    events: Option<Streaming<v1::AcquireLeaseResponse>>,
    broker: Broker,
    /// Absent where the broker does not say what time it is.
    began: Option<Began>,
}

/// What happens to a lease. May grow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LeaseEvent {
    /// A handle was issued for a reference.
    Issued(Issued),
    /// A reference was refused, in a lease that asked for `partial`.
    Refused(Refused),
    /// A reference has a fresh handle.
    Renewed {
        /// The fresh handle.
        issued: Issued,
        /// The id of the handle before it, which dies at its own expiry.
        previous_handle_id: String,
    },
    /// A handle died before its expiry.
    Revoked {
        /// The reference as asked.
        reference: String,
        /// The handle's id.
        handle_id: String,
        /// Why.
        cause: v1::EndCause,
    },
    /// The broker is about to stop.
    Draining {
        /// When the lease ends at the latest.
        end_time: OffsetDateTime,
    },
    /// The lease has ended; there are no more events.
    Ended(v1::EndCause),
    /// Of a [`Lease`](crate::Lease) alone: the stream is lost, its handles are dead, and it is being asked for again.
    Interrupted(CallError),
    /// Of a [`Lease`](crate::Lease) alone: it was asked for again, and granted. Its handles follow.
    Resumed {
        /// The id of the lease that takes its place.
        lease_id: String,
    },
    /// Of a [`Lease`](crate::Lease) alone: it is over, and was not got back. There are no more events.
    Lost(CallError),
    /// Of a [`Lease`](crate::Lease) alone: so many events were not read in time. Look at what is alive now.
    Missed(u64),
}

/// A handle and its terms. Its `Debug` form shows no handle.
#[derive(Clone)]
pub struct Issued {
    /// The reference as asked.
    pub reference: String,
    /// The handle, to be given to the tool.
    pub handle: Arc<Handle>,
    /// The part of the handle that may be logged: `vkh_<id>`.
    pub handle_id: String,
    /// When the handle dies by itself.
    pub expire_time: OffsetDateTime,
    /// How often it can be redeemed.
    pub uses: u32,
    /// Who can redeem it.
    pub redeemer: v1::Redeemer,
    /// The audit record of the decision.
    pub record_id: String,
    /// Whether it is good over mutual TLS only, and for one key.
    pub certificate_bound: bool,
}

/// A reference that gets no handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reference as asked.
    pub reference: String,
    /// The stable code, such as `ACCESS_DENIED`.
    pub reason: String,
    /// What happened and what to do next.
    pub message: String,
    /// The audit record.
    pub record_id: String,
}

impl Refused {
    /// The same as the error that a whole request would have got for it.
    #[must_use]
    pub fn error(&self) -> CallError {
        let Self { reference, reason, message, record_id } = self.clone();
        let (about, record) = (Some(reference), Some(record_id));
        match reason.as_str() {
            "ACCESS_DENIED" => {
                let advice = message.strip_prefix(NOT_ALLOWED).map(str::to_owned);
                CallError::Denied { reason, advice, reference: about, record_id: record }
            }
            "APPROVAL_REQUIRED" if let Some(approval_id) = approval_in(&message) => {
                CallError::ApprovalRequired { approval_id, url: None, reference: about, record_id: record }
            }
            "RESOLVER_RATE_LIMITED" => CallError::LimitReached { reason, message, retry_after: None },
            "RESOLVER_UNAVAILABLE"
            | "RESOLVER_CREDENTIALS_REFUSED"
            | "REFERENCE_CHANGED"
            | "POLICY_CHANGED" => CallError::Unavailable { reason, message, retry_after: None },
            _ if reason.ends_with("_NOT_FOUND") => {
                CallError::NotFound { reason, message, reference: about, record_id: record }
            }
            _ => CallError::Precondition { reason, message, reference: about, record_id: record },
        }
    }
}

impl LeaseStream {
    /// Waits for `opened`, which is the first message of every lease.
    pub(crate) async fn open(
        answer: Response<Streaming<v1::AcquireLeaseResponse>>,
        broker: Broker,
    ) -> Result<Self, Failed> {
        let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
        let began = date.and_then(Began::parse);
        let mut events = answer.into_inner();
        let lost = |why: &str| CallError::LeaseLost(why.to_owned());
        let Some(v1::AcquireLeaseResponse { event }) = events.message().await? else {
            return Err(Failed { error: lost("its stream closed at once"), again: Again::Unsure });
        };
        let Some(Event::Opened(v1::LeaseOpened { lease_id: id, references })) = event else {
            return Err(Failed::for_good(lost("its stream does not begin with `opened`")));
        };
        Ok(Self { id, references, handles: BTreeMap::new(), events: Some(events), broker, began })
    }

    /// The lease's id, `vkl_…`; not a secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The references as asked, in the order asked.
    #[must_use]
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// The handle to use for a reference now, as far as [`LeaseStream::next`] has been told.
    #[must_use]
    pub fn handle(&self, reference: &str) -> Option<&Issued> {
        self.handles.get(reference)
    }

    /// The handles to use now, by reference.
    pub fn handles(&self) -> impl Iterator<Item = &Issued> {
        self.handles.values()
    }

    /// Waits for the next event; `None` after [`LeaseEvent::Ended`]. Keep calling it: the broker ends a
    /// lease whose events nobody reads. Cancel safe.
    ///
    /// # Errors
    /// [`CallError::LeaseLost`], once, where the stream closes without saying why.
    pub async fn next(&mut self) -> Result<Option<LeaseEvent>, CallError> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// What the broker's clock said when the stream began.
    pub(crate) fn began(&self) -> Option<Began> {
        self.began
    }

    /// Ends the lease: its handles are dead when this returns.
    ///
    /// # Errors
    /// [`CallError`] where the broker does not answer; the stream is closed all the same.
    pub async fn end(self) -> Result<(), CallError> {
        if self.events.is_none() {
            return Ok(());
        }
        self.broker.end_lease(&self.id).await
    }

    fn lose(&mut self, why: String) -> CallError {
        self.close();
        CallError::LeaseLost(why)
    }

    fn close(&mut self) {
        self.events = None;
        self.handles.clear();
    }

    fn apply(&mut self, event: &LeaseEvent) {
        match event {
            LeaseEvent::Issued(issued) | LeaseEvent::Renewed { issued, previous_handle_id: _ } => {
                self.handles.insert(issued.reference.clone(), issued.clone());
            }
            LeaseEvent::Revoked { reference: _, handle_id, cause: _ } => {
                self.handles.retain(|_, issued| issued.handle_id != *handle_id);
            }
            LeaseEvent::Ended(_) => self.close(),
            LeaseEvent::Refused(_)
            | LeaseEvent::Draining { .. }
            | LeaseEvent::Interrupted(_)
            | LeaseEvent::Resumed { .. }
            | LeaseEvent::Lost(_)
            | LeaseEvent::Missed(_) => {}
        }
    }
}

/// As [`LeaseStream::next`]: an error is the last item.
impl Stream for LeaseStream {
    type Item = Result<LeaseEvent, CallError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while let Some(events) = &mut this.events {
            let event = match ready!(Pin::new(events).poll_next(context)) {
                Some(Ok(v1::AcquireLeaseResponse { event })) => event.and_then(from_wire),
                None => return Poll::Ready(Some(Err(this.lose("the stream closed".into())))),
                Some(Err(status)) => {
                    return Poll::Ready(Some(Err(this.lose(CallError::from(status).to_string()))));
                }
            };
            // Events that this version does not know are skipped, as the contract says.
            if let Some(event) = event {
                this.apply(&event);
                return Poll::Ready(Some(Ok(event)));
            }
        }
        Poll::Ready(None)
    }
}

/// `None` for what breaks the contract: it is treated like an event from the future.
fn from_wire(event: Event) -> Option<LeaseEvent> {
    match event {
        Event::Opened(_) => None,
        Event::Issued(issued) => Some(LeaseEvent::Issued(issued_from(issued))),
        Event::Refused(v1::ReferenceRefused { reference, reason, message, record_id }) => {
            Some(LeaseEvent::Refused(Refused { reference, reason, message, record_id }))
        }
        Event::Renewed(v1::HandleRenewed { issued, previous_handle_id }) => {
            Some(LeaseEvent::Renewed { issued: issued_from(issued?), previous_handle_id })
        }
        Event::Revoked(revoked) => {
            let cause = revoked.cause();
            let v1::HandleRevoked { reference, handle_id, cause: _ } = revoked;
            Some(LeaseEvent::Revoked { reference, handle_id, cause })
        }
        Event::Draining(v1::LeaseDraining { end_time }) => {
            Some(LeaseEvent::Draining { end_time: moment(end_time) })
        }
        Event::Ended(ended) => Some(LeaseEvent::Ended(ended.cause())),
    }
}

fn issued_from(issued: v1::HandleIssued) -> Issued {
    let redeemer = issued.redeemer();
    let v1::HandleIssued {
        reference,
        handle,
        handle_id,
        expire_time,
        uses,
        redeemer: _,
        record_id,
        certificate_bound,
    } = issued;
    Issued {
        reference,
        handle: Arc::new(Handle::new(handle)),
        handle_id,
        expire_time: moment(expire_time),
        uses,
        redeemer,
        record_id,
        certificate_bound,
    }
}

/// A time that is absent or out of range counts as long past: nobody will rely on it.
fn moment(time: Option<prost_types::Timestamp>) -> OffsetDateTime {
    let prost_types::Timestamp { seconds, nanos } = time.unwrap_or_default();
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// What stands before a policy's advice.
const NOT_ALLOWED: &str = "policy does not allow this: ";

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reference,
            handle: _,
            handle_id,
            expire_time,
            uses,
            redeemer,
            record_id,
            certificate_bound,
        } = self;
        f.debug_struct("Issued")
            .field("reference", reference)
            .field("handle", &"[redacted]")
            .field("handle_id", handle_id)
            .field("expire_time", expire_time)
            .field("uses", uses)
            .field("redeemer", redeemer)
            .field("record_id", record_id)
            .field("certificate_bound", certificate_bound)
            .finish()
    }
}
