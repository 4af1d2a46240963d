//! Asking an upstream: shared, in turn, past the breaker, paid for, and noted in the directory.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use valetkey_core::{AgentId, Clock, ResolveError, ResolveFailure, SecretValue};

use super::SourceOptions;
use super::breaker::Breaker;
use super::directory::SourceDirectory;
use super::figures::{Counters, SourceFigures, SourceState};
use super::flights::{Answer, Departure, Flights, ItemRead, Key, Landing, Sharing};
use super::quota::{Claim, Quota, QuotaError};
use super::sealed::Sealed;
use super::turns::{Place, Turns};
use crate::upstream::{Progress, Question, Upstream, UpstreamError};

/// An upstream and all that stands before it.
pub(super) struct Asking {
    pub(super) directory: SourceDirectory,
    pub(super) quota: Arc<Quota>,
    pub(super) name: Arc<str>,
    kind: &'static str,
    upstream: Box<dyn Upstream>,
    flights: Flights,
    turns: Turns,
    breaker: Arc<Breaker>,
    counters: Counters,
    clock: Arc<dyn Clock>,
}

impl Asking {
    pub(super) fn new(
        upstream: Box<dyn Upstream>,
        kind: &'static str,
        directory: SourceDirectory,
        options: &SourceOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QuotaError> {
        let quota =
            Quota::open(options.quota, options.state_dir.as_deref(), &options.name, Arc::clone(&clock))?;
        let keep = options.share_window.max(options.value_cache.unwrap_or_default());
        Ok(Self {
            directory,
            quota: Arc::new(quota),
            name: Arc::clone(&options.name),
            kind,
            upstream,
            flights: Flights::new(keep),
            turns: Turns::new(options.concurrency_max),
            breaker: Arc::new(Breaker::new(Arc::clone(&options.name), Arc::clone(&clock))),
            counters: Counters::default(),
            clock,
        })
    }

    /// Asks, or shares what another has asked. Whoever asks pays; whoever shares does not.
    pub(super) async fn ask(self: &Arc<Self>, agent: &AgentId, key: Key, sharing: Sharing) -> Landing {
        let now = self.clock.monotonic();
        let (flight, via) = self.flights.join(agent, &key, sharing, now, || {
            // In this order: who is over the bound does not pay for it.
            let place = self.turns.line_up(agent)?;
            let cost = self.upstream.cost(key.question()).saturating_add(self.upstream.sign_in_cost());
            let claim = self.quota.claim(agent, cost)?;
            Ok(Arc::clone(self).fly(key.clone(), now, place, claim))
        })?;
        self.counters.count(via);
        flight.await
    }

    /// How it is, and what it has done.
    pub(super) fn figures(&self) -> SourceFigures {
        let state = match (self.breaker.open(), self.quota.spent_for(), self.counters.failing()) {
            (Some((failure, remaining)), _, _) => SourceState::Paused { error: failure.error, remaining },
            (None, Some(retry_after), _) => SourceState::Spent { retry_after },
            (None, None, Some(error)) => SourceState::Failing { error },
            (None, None, None) => SourceState::Ready,
        };
        self.counters.show((Arc::clone(&self.name), self.kind), state, self.quota.spending())
    }

    /// How many answers are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.flights.kept()
    }

    fn fly(self: Arc<Self>, key: Key, started: Duration, place: Place, claim: Claim) -> Departure {
        let is_airborne = Arc::new(AtomicBool::new(false));
        let departed = Arc::clone(&is_airborne);
        let flight = async move {
            let turn = place.turn().await?;
            if let Some(answer) = self.flights.overtaken(&key, started) {
                return Ok(answer);
            }
            departed.store(true, Ordering::Release);
            // From here on it is paid for: it ends in a task of its own, also where nobody waits any longer, and
            // whoever asks meanwhile shares it.
            let held = self.flights.hold(&key, started);
            let task = tokio::spawn(async move {
                let landing = self.pay_and_put(&key, claim).await.map(Arc::new);
                if self.flights.land(key, started, &landing, self.clock.monotonic()) {
                    tokio::spawn(sweep(Arc::downgrade(&self), Arc::clone(&self.clock)));
                }
                drop((turn, held));
                landing
            });
            task.await.unwrap_or_else(|_| Err(ResolveError::Unavailable.into()))
        };
        Departure { flight: flight.boxed(), is_airborne }
    }

    async fn pay_and_put(&self, key: &Key, claim: Claim) -> Result<Answer, ResolveFailure> {
        let pass = self.breaker.admit()?;
        let paid = claim.pay().await?;
        let attempt = self.counters.ask(&*self.clock);
        let cost = self.upstream.cost(key.question());
        let (answer, progress) = match self.put_in_time(key).await {
            Ok(answer) => (Ok(answer), Progress::Answered),
            Err(Miss { failure, progress }) => (Err(failure), progress),
        };
        let asked = match (&answer, progress) {
            (Err(_), Progress::Unsent) => 0,
            // A sign-in may go on behind it: all that was set aside counts.
            (Err(_), Progress::Sent) => paid.cost().max(cost),
            (Ok(_), _) | (Err(_), Progress::Answered) => cost,
        };
        paid.settle(asked.saturating_add(self.upstream.take_sign_in_spending()));
        let failure = answer.as_ref().err();
        attempt.note(failure);
        // One item that cannot be read is no reason to leave the others alone.
        pass.settle(failure.filter(|_| progress != Progress::Answered));
        answer
    }

    /// Puts the question, for a bounded time, whatever the upstream does.
    async fn put_in_time(&self, key: &Key) -> Result<Answer, Miss> {
        let deadline = self.clock.monotonic().saturating_add(PUT_MAX);
        match select(pin!(self.put(key)), self.clock.sleep_until(deadline)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => {
                let late = UpstreamError::new(ResolveError::Unavailable, "the source did not answer in time");
                Err(late.into())
            }
        }
    }

    /// Puts the question, and what is answered into the directory.
    async fn put(&self, key: &Key) -> Result<Answer, Miss> {
        let now = self.clock.monotonic();
        match key {
            Key::Vaults => {
                let vaults = self.upstream.vaults().await?;
                self.directory.put_vaults(vaults, now)?;
                Ok(Answer::Listed)
            }
            Key::Items(vault) => {
                let items = self.upstream.items(vault).await?;
                self.directory.put_items(vault, &items, now)?;
                Ok(Answer::Listed)
            }
            Key::Item(vault, item) => self.put_item(vault, item, now).await,
            Key::File(vault, item, file) => {
                let content = self.upstream.file(vault, item, file).await?;
                Ok(Answer::File(sealed([(Arc::clone(file), content)])?))
            }
        }
    }

    async fn put_item(&self, vault: &str, item: &str, started: Duration) -> Result<Answer, Miss> {
        let read_time = self.clock.now();
        let (outline, values) = match self.upstream.item(vault, item).await {
            Ok(read) => read,
            Err(failure) => {
                if is_gone(&failure.error) {
                    self.directory.put_gone(vault, item, &failure.error, started);
                }
                return Err(failure.into());
            }
        };
        if *outline.vault_id != *vault || *outline.id != *item {
            let detail = "the source answered with another item than it was asked for";
            return Err(UpstreamError::unusable(detail).into());
        }
        let outline = Arc::new(outline);
        self.directory.put_outline(Arc::clone(&outline), started);
        let crate::item::ItemValues { version, by_field } = values;
        let values = sealed(by_field)?;
        Ok(Answer::Item(ItemRead { outline, version, values, read_time, started }))
    }
}

/// Drops answers when they are due, for as long as there are any. Keeps nothing in use by itself.
async fn sweep(asking: Weak<Asking>, clock: Arc<dyn Clock>) {
    while let Some(due) = asking.upgrade().and_then(|asking| asking.flights.sweep(clock.monotonic())) {
        clock.sleep_until(due).await;
    }
}

/// A question that came to nothing.
struct Miss {
    failure: ResolveFailure,
    progress: Progress,
}

impl From<UpstreamError> for Miss {
    fn from(error: UpstreamError) -> Self {
        let progress = error.progress;
        Self { failure: error.into(), progress }
    }
}

impl From<ResolveFailure> for Miss {
    /// A failure on this side, to take what was answered.
    fn from(failure: ResolveFailure) -> Self {
        Self { failure, progress: Progress::Answered }
    }
}

fn sealed(values: impl IntoIterator<Item = (Arc<str>, SecretValue)>) -> Result<Sealed, ResolveFailure> {
    Ok(Sealed::new(values)?)
}

/// Whether an error says that an item cannot be had where it was looked for.
pub(super) fn is_gone(error: &ResolveError) -> bool {
    matches!(error, ResolveError::VaultNotFound | ResolveError::ItemNotFound | ResolveError::ItemNotActive)
}

impl Key {
    fn question(&self) -> Question {
        match self {
            Self::Vaults => Question::Vaults,
            Self::Items(_) => Question::Items,
            Self::Item(..) => Question::Item,
            Self::File(..) => Question::File,
        }
    }
}

/// More than any upstream takes by itself; those bound their questions by seconds.
const PUT_MAX: Duration = Duration::from_mins(2);
