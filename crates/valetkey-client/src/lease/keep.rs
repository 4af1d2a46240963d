//! What keeps a lease: reads its events, and asks again when its stream is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use valetkey_proto::v1::EndCause;

use crate::broker::{AcquireLease, Broker};
use crate::error::CallError;
use crate::retries::{Again, Attempts, Failed, retry_after};
use crate::stream::{LeaseEvent, LeaseStream};

use super::state::State;

/// What the lease and its keeper share.
pub(super) struct Shared {
    /// Only held for the moment of a look or a change.
    pub(super) state: watch::Sender<State>,
    /// Bounded: who does not read loses the oldest.
    pub(super) events: broadcast::Sender<LeaseEvent>,
}

/// Owns the stream; dropping it closes that.
pub(super) struct Keeper {
    broker: Broker,
    request: AcquireLease,
    shared: Arc<Shared>,
}

impl Keeper {
    /// Asks until there is a lease with an answer for each reference, an error that stays, or no time left.
    pub(super) async fn open(
        broker: Broker,
        request: AcquireLease,
    ) -> Result<(Self, LeaseStream, Attempts), CallError> {
        let (state, _) = watch::channel(State::new(&request.references));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let mut attempts = Attempts::new(broker.retries);
        let keeper = Self { broker, request, shared: Arc::new(Shared { state, events }) };
        let stream = keeper.ask(&mut attempts, BREAKS_AT_FIRST_MAX).await?;
        Ok((keeper, stream, attempts))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Reads what comes, and asks again when that can help, until the lease is over.
    pub(super) async fn keep(self, mut stream: LeaseStream, mut attempts: Attempts) {
        loop {
            let since = Instant::now();
            let Failed { error, again } = self.follow(&mut stream).await;
            // Its handles die with it.
            drop(stream);
            self.interrupt();
            attempts = match since.elapsed() > STEADY {
                true => Attempts::new(self.broker.retries),
                false => attempts.with_fresh_time(),
            };
            if again == Again::Never || self.wanted().is_empty() || attempts.are_used_up() {
                return self.end(error);
            }
            self.tell(LeaseEvent::Interrupted(error.clone()));
            if !attempts.pause(None).await {
                return self.end(error);
            }
            stream = match self.ask(&mut attempts, u32::MAX).await {
                Ok(stream) => stream,
                Err(error) => return self.end(error),
            };
        }
    }

    /// Asks until there is an answer for each reference, an error that stays, or no time left; gives up, too, after so
    /// many connections that broke in mid-call.
    async fn ask(&self, attempts: &mut Attempts, breaks_max: u32) -> Result<LeaseStream, CallError> {
        let (mut before, mut breaks) = (None, 0);
        loop {
            let request = AcquireLease { references: self.wanted(), ..self.request.clone() };
            let begun = attempts.bound(self.begin(request)).await;
            let Failed { error, again } = match begun {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failed)) => failed,
                // What an attempt before it met says more.
                Err(timed_out) => Failed::for_good(before.unwrap_or(timed_out)),
            };
            self.interrupt();
            breaks += u32::from(again == Again::Unsure);
            if again == Again::Never || breaks > breaks_max || !attempts.pause(retry_after(&error)).await {
                return Err(error);
            }
            before = Some(error);
        }
    }

    /// One attempt. Returns when each reference has its answer.
    async fn begin(&self, request: AcquireLease) -> Result<LeaseStream, Failed> {
        let references = request.references.clone();
        let mut stream = self.broker.begin(request).await?;
        let id = stream.id().to_owned();
        self.shared.state.send_modify(|state| state.begin(&id, stream.began()));
        self.tell(LeaseEvent::Resumed { lease_id: id });
        while !self.shared.state.borrow().has_answers_for(&references) {
            if let Some(failed) = self.next(&mut stream).await {
                return Err(failed);
            }
        }
        Ok(stream)
    }

    /// Reads events until the stream is over.
    async fn follow(&self, stream: &mut LeaseStream) -> Failed {
        loop {
            if let Some(failed) = self.next(stream).await {
                return failed;
            }
        }
    }

    /// Takes one event in; why the stream is over, if it is.
    async fn next(&self, stream: &mut LeaseStream) -> Option<Failed> {
        let event = match stream.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Some(lost(EndCause::Disconnect)),
            Err(error) => return Some(Failed { error, again: Again::Unsure }),
        };
        match &event {
            LeaseEvent::Ended(cause) => return Some(lost(*cause)),
            // The log or the source was away when it was to be renewed: asking for it anew is the way to get it back.
            LeaseEvent::Revoked { reference: _, handle_id: _, cause: EndCause::Unavailable } => {
                return Some(lost(EndCause::Unavailable));
            }
            _ => {}
        }
        self.shared.state.send_modify(|state| state.apply(&event));
        self.tell(event);
        None
    }

    fn interrupt(&self) {
        self.shared.state.send_modify(State::interrupt);
    }

    fn wanted(&self) -> Vec<String> {
        self.shared.state.borrow().wanted(&self.request.references)
    }

    fn end(&self, error: CallError) {
        self.shared.state.send_modify(|state| state.end(error.clone()));
        self.tell(match error {
            CallError::LeaseEnded(cause) => LeaseEvent::Ended(cause),
            error => LeaseEvent::Lost(error),
        });
    }

    /// Nobody has to listen.
    fn tell(&self, event: LeaseEvent) {
        let _ = self.shared.events.send(event);
    }
}

/// However it ended, as when its runtime is shut down: what nobody keeps is not shown.
impl Drop for Keeper {
    fn drop(&mut self) {
        if self.shared.state.borrow().lost.is_none() {
            self.end(CallError::LeaseLost("nobody keeps it any more".into()));
        }
    }
}

/// Whether asking again can help after a stream that ended so.
fn lost(cause: EndCause) -> Failed {
    let again = match cause {
        EndCause::Shutdown | EndCause::Unavailable | EndCause::Stalled | EndCause::Disconnect => {
            Again::Unsure
        }
        EndCause::Caller
        | EndCause::Policy
        | EndCause::Expiry
        | EndCause::Credential
        | EndCause::Unspecified => Again::Never,
    };
    Failed { error: CallError::LeaseEnded(cause), again }
}

/// As many as the broker keeps for one stream, and as many again.
const EVENTS_MAX: usize = 64;
/// Where there was no lease yet, as many are no accident: a broker with TLS hangs up so on a certificate that it refuses.
const BREAKS_AT_FIRST_MAX: u32 = 3;
/// A stream that lived so long is no sign that the next one will not.
const STEADY: Duration = Duration::from_secs(10);
