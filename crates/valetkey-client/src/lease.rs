//! A lease that is held: its handles stay current by themselves, and it ends with its value.

mod keep;
mod state;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::broker::{AcquireLease, Broker};
use crate::error::CallError;
use crate::retries::{Attempts, Retries};
use crate::secret::SecretValue;
use crate::stream::{Issued, LeaseEvent, Refused};

use self::keep::{Keeper, Shared};
use self::state::{Missing, State};

/// A lease that is renewed in the background, and asked for again where its broker dies, restarts, drains or is cut off.
///
/// It lives as long as this value: dropping it closes its stream, and its handles are dead within seconds; after
/// [`end`](Self::end) they are dead at once. It is not asked for again once policy, its holder, an operator or the end of
/// a token has ended it, nor longer than the broker's [`Retries`] say, which bound every wait here too. No decision looks
/// at this machine's wall clock.
///
/// All methods take `&self`: share it in an `Arc`, or by reference.
#[must_use = "the lease lives as long as this value"]
pub struct Lease {
    broker: Broker,
    references: Vec<String>,
    /// Where the values will be sent, as the lease says.
    destination: String,
    shared: Arc<Shared>,
    /// Owns the stream; aborted when this is dropped.
    keeper: JoinHandle<()>,
}

/// What happens to a [`Lease`] from now on. Ends when the lease is over or dropped.
///
/// Nobody has to read it: who does not keep up is told of it by [`LeaseEvent::Missed`].
#[must_use = "events come to whoever reads them"]
pub struct LeaseEvents(Option<BroadcastStream<LeaseEvent>>);

impl Broker {
    /// Acquires a lease, as an agent, and keeps it. Returns when there is a handle, or in a `partial` lease a refusal,
    /// for each reference. Must be called within a tokio runtime, whose task reads the lease's stream.
    ///
    /// # Errors
    /// [`CallError`] where the request as a whole is refused, or nobody grants it within the bounds of
    /// [`retries`](Self::retries).
    pub async fn lease(&self, request: AcquireLease) -> Result<Lease, CallError> {
        let references = request.references.clone();
        let destination = request.destination.clone().unwrap_or_default();
        let (keeper, stream, attempts) = Keeper::open(self.clone(), request).await?;
        let shared = keeper.shared();
        let keeper = tokio::spawn(keeper.keep(stream, attempts));
        Ok(Lease { broker: self.clone(), references, destination, shared, keeper })
    }
}

impl Lease {
    /// The lease's id, `vkl_…`; not a secret. Another one once it was asked for again.
    #[must_use]
    pub fn id(&self) -> String {
        self.state(|state| state.id.clone())
    }

    /// The references as asked, in the order asked.
    #[must_use]
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// The handle to use for a reference now. Ask anew each time: a renewal replaces it. Waits while the lease is being
    /// asked for again. Cancel safe.
    ///
    /// # Errors
    /// Why there is none: [`CallError::LeaseEnded`], what refused it, [`CallError::HandleNotActive`] for one that was
    /// redeemed here, or [`CallError::Unavailable`] where the broker stays away for as long as may be waited.
    pub async fn handle(&self, reference: &str) -> Result<Issued, CallError> {
        self.handle_within(&Attempts::new(self.broker.retries), reference).await
    }

    /// The handles to use now, by reference; none while the lease is being asked for again.
    #[must_use]
    pub fn handles(&self) -> Vec<Issued> {
        self.state(State::handles)
    }

    /// Waits until there is a handle for each reference that was not refused. Cancel safe.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub async fn ready(&self) -> Result<(), CallError> {
        let attempts = Attempts::new(self.broker.retries);
        let refused = self.refused();
        for reference in &self.references {
            if !refused.iter().any(|refused| refused.reference == *reference) {
                self.handle_within(&attempts, reference).await?;
            }
        }
        Ok(())
    }

    /// The value of a reference, redeemed as the agent itself: policy must say `@redeem_by("agent")`.
    ///
    /// Redeemed again only where no use can have been spent, or with a fresh handle: where the broker restarts
    /// meanwhile, that one is waited for.
    ///
    /// # Errors
    /// As [`handle`](Self::handle) and [`Broker::redeem`].
    pub async fn redeem(&self, reference: &str) -> Result<SecretValue, CallError> {
        self.redeem_as(&self.broker, reference).await
    }

    /// The value of a reference, redeemed as the tool, whose own connection this is.
    ///
    /// # Errors
    /// As [`redeem`](Self::redeem).
    pub async fn redeem_as(&self, tool: &Broker, reference: &str) -> Result<SecretValue, CallError> {
        let mut attempts = Attempts::new(tool.retries);
        loop {
            let issued = self.handle_within(&attempts, reference).await?;
            let redeemed = tool.redeem_within(&mut attempts, &issued.handle, &self.destination).await;
            let (error, notice) = match redeemed {
                Ok(value) => {
                    self.shared.state.send_modify(|state| state.spend(&issued));
                    return Ok(value);
                }
                // The stream may not have told yet that it is dead.
                Err(error @ CallError::HandleNotActive { .. }) => (error, NOTICE_DEAD_MAX),
                Err(error @ CallError::Unavailable { .. }) => (error, NOTICE_LOST_MAX),
                Err(error) => return Err(error),
            };
            // With the same handle it is not redeemed again: a use may be spent.
            if !self.is_replaced(&issued, notice.min(attempts.time())).await {
                return Err(error);
            }
        }
    }

    /// What a `partial` lease did not get.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.state(State::refused)
    }

    /// Whether the broker has said that it is about to stop. The lease is asked for again when it has.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state(|state| state.draining)
    }

    /// Why the lease is over; `None` while it lives, or is being asked for again.
    #[must_use]
    pub fn lost(&self) -> Option<CallError> {
        self.state(|state| state.lost.clone())
    }

    /// Waits until a handle was revoked, or the lease is over: why. What was given out is dead by then, so stop using it.
    /// Cancel safe: for `tokio::select!` beside the work.
    pub async fn revoked(&self) -> CallError {
        let mut state = self.shared.state.subscribe();
        let revoked = state.wait_for(|state| state.revoked.is_some()).await;
        // The sender is here, so it is not gone.
        revoked.ok().and_then(|state| state.revoked.clone()).unwrap_or_else(gone)
    }

    /// What happens from now on.
    pub fn events(&self) -> LeaseEvents {
        let events = BroadcastStream::new(self.shared.events.subscribe());
        // After its end nothing comes. Looked at afterwards, so that no end falls between.
        LeaseEvents(self.lost().is_none().then_some(events))
    }

    /// Ends the lease: its handles are dead when this returns.
    ///
    /// # Errors
    /// [`CallError`] where the broker does not answer within 5 s; the stream is closed all the same, so that its handles
    /// are dead within seconds.
    pub async fn end(self) -> Result<(), CallError> {
        let (id, is_open) = self.state(|state| (state.id.clone(), state.is_open));
        if !is_open {
            return Ok(());
        }
        let mut attempts = Attempts::new(Retries::within(END_MAX).attempts_max(1));
        match self.broker.end_within(&mut attempts, &id).await {
            // It has ended meanwhile.
            Err(_) if !self.state(|state| state.is_open) => Ok(()),
            ended => ended,
        }
    }

    fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.borrow())
    }

    async fn handle_within(&self, attempts: &Attempts, reference: &str) -> Result<Issued, CallError> {
        let mut state = self.shared.state.subscribe();
        loop {
            let missing = match state.borrow_and_update().handle(reference) {
                Ok(issued) => return Ok(issued),
                Err(Missing::ForGood(error)) => return Err(error),
                Err(Missing::Yet(error)) => error,
            };
            match attempts.bound(state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(watch::error::RecvError { .. })) | Err(_) => return Err(missing),
            }
        }
    }

    /// Waits a little until this handle is another one, or gone; whether it is.
    async fn is_replaced(&self, issued: &Issued, notice: Duration) -> bool {
        let mut state = self.shared.state.subscribe();
        let replaced = state.wait_for(|state| !state.holds(issued));
        tokio::time::timeout(notice, replaced).await.is_ok()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl LeaseEvents {
    /// Waits for the next event; `None` once the lease is over or dropped. Cancel safe.
    pub async fn next(&mut self) -> Option<LeaseEvent> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for LeaseEvents {
    type Item = LeaseEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LeaseEvent>> {
        let Some(events) = &mut self.0 else { return Poll::Ready(None) };
        let event = ready!(Pin::new(events).poll_next(context));
        let event = event.map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(missed)) => LeaseEvent::Missed(missed),
        });
        if matches!(event, None | Some(LeaseEvent::Ended(_) | LeaseEvent::Lost(_))) {
            self.0 = None;
        }
        Poll::Ready(event)
    }
}

fn gone() -> CallError {
    CallError::LeaseLost("nobody keeps it any more".into())
}

/// Long enough to hear of a revocation that the broker has made already.
const NOTICE_DEAD_MAX: Duration = Duration::from_millis(250);
/// As long as a dead connection takes to be noticed, and a little more.
const NOTICE_LOST_MAX: Duration = Duration::from_secs(6);
/// What it was for is done: nobody wants to wait long.
const END_MAX: Duration = Duration::from_secs(5);
