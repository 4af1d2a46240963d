//! The budget of requests to a source: below its plan's limits, shared fairly, and kept through crashes.
//!
//! What was spent is counted over the last hour and the last day, in slots of five minutes, rather than as
//! tokens that flow back: so no hour and no day, wherever the service lets them begin, goes over the limit.
//!
//! *Counted.* What a question may cost at most is claimed before it; what it did cost is counted after it. A
//! question that was certainly never sent costs nothing; one of which that is not known was sent.
//!
//! *Kept.* What is spent is written down before it is spent, in a file that is replaced as a whole. To save
//! writes some more is written down ahead: one request after the start, then twice as much each time up to
//! sixteen. A crash loses what was written ahead, so a program that crashes after each request loses
//! nothing. A file that cannot be read or written stops the source: a budget that is not known is spent.
//!
//! *Shared.* An agent may use up to four times as much as is left for the others. Alone it can have four
//! fifths of the budget; the next who comes has four fifths of the rest; while all ask for more than there
//! is, all end up with the same. Whoever comes first, and however much it asks for, right or wrong, there
//! is always something left for one who has not asked yet. Who had how much is not kept through a restart.
//!
//! Time goes on by the monotonic clock; the wall clock is asked once, at the start. Where it went back
//! since the file was written, what was spent counts as if it were just spent.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use valetkey_core::{AgentId, Clock, ResolveError, ResolveFailure};

use crate::check::Check;
use file::StateFile;
use tally::{Span, Tally};

mod file;
mod tally;

/// The limits of a source's budget, in requests as the source counts them. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// In any hour.
    pub per_hour: Option<u32>,
    /// In any day.
    pub per_day: Option<u32>,
}

impl QuotaLimits {
    /// For a source that counts nothing, such as a Connect server.
    pub const NONE: Self = Self { per_hour: None, per_day: None };
}

impl Default for QuotaLimits {
    /// Nine tenths of what 1Password's smallest plans allow a service account: 900 in an hour, and 900 in a
    /// day. Teams and Business allow more in a day, for all service accounts of the account together.
    fn default() -> Self {
        Self { per_hour: Some(900), per_day: Some(900) }
    }
}

/// Why a budget cannot be kept. The source is not to be used then.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// A name of a source that is to become a file's name.
    #[error(
        "the name of a source must have 1 to 64 characters of `a-z`, `0-9`, `_` and `-`: `{0}` has others"
    )]
    Name(Arc<str>),
    /// Limits without a place for the state.
    #[error("a source with a quota needs a directory for its state")]
    NoDirectory,
    /// The system refused.
    #[error(
        "cannot open the quota's state file `{path}`; its directory must be there and be the broker's own"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system refused.
    #[error("cannot write the quota's state file `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what was written.
    #[error(
        "the quota's state file `{path}` is damaged; delete it only if you know how much of the quota is left"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// Held by another process.
    #[error("the quota's state file `{path}` is in use by another broker")]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// What was spent of a limit, and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending {
    /// Requests in the last hour or day.
    pub used: u32,
    /// Until the limit; `None` where there is none.
    pub left: Option<u32>,
}

/// The budget of one source.
pub(super) struct Quota {
    /// The source's name, for the log.
    name: Arc<str>,
    limits: QuotaLimits,
    state: Mutex<State>,
    /// `None` where there is no limit: then there is nothing to remember. Locked by the write itself: one whose
    /// payer went away still ends before the next begins.
    file: Option<Arc<tokio::sync::Mutex<Written>>>,
    clock: Arc<dyn Clock>,
    /// Seconds since the epoch at the monotonic clock's zero.
    epoch: u64,
}

#[derive(Default)]
struct State {
    all: Tally,
    /// Of agents that asked within the last day.
    by_agent: HashMap<AgentId, Tally>,
    /// The slot in which the log was told that nothing is left.
    told: Option<u64>,
}

/// What stands in the file.
struct Written {
    file: StateFile,
    /// The slot of the last write, and how much of it is covered.
    slot: u64,
    covered: u32,
    /// How much to write ahead.
    ahead: u32,
}

/// Requests that stand in the file and may be made. What is not settled stays spent.
#[must_use = "settle it with what was sent"]
pub(super) struct Paid {
    quota: Arc<Quota>,
    agent: AgentId,
    slot: u64,
    cost: u32,
}

/// Requests that may be made. Given back when dropped, unless it was paid.
#[must_use = "a claim is given back when dropped"]
pub(super) struct Claim {
    quota: Arc<Quota>,
    agent: AgentId,
    slot: u64,
    cost: u32,
}

impl Quota {
    /// The budget of the source with this name, whose state lies in `dir`.
    pub(super) fn open(
        limits: QuotaLimits,
        dir: Option<&std::path::Path>,
        source: &Arc<str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QuotaError> {
        let now = u64::try_from(clock.now().as_micros()).unwrap_or_default() / 1_000_000;
        let epoch = now.saturating_sub(clock.monotonic().as_secs());
        let mut state = State::default();
        let mut file = None;
        if limits != QuotaLimits::NONE {
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-".contains(&c);
            if !(1..=64).contains(&source.len()) || !source.bytes().all(plain) {
                return Err(QuotaError::Name(Arc::clone(source)));
            }
            let (opened, tally) = StateFile::open(dir.ok_or(QuotaError::NoDirectory)?, source)?;
            state.all = tally;
            state.all.pull_back(Tally::slot(now));
            let written = Written { file: opened, slot: 0, covered: 0, ahead: 0 };
            file = Some(Arc::new(tokio::sync::Mutex::new(written)));
        }
        Ok(Self { name: Arc::clone(source), limits, state: Mutex::new(state), file, clock, epoch })
    }

    /// Sets `cost` aside for an agent, or says when to ask again.
    pub(super) fn claim(self: &Arc<Self>, agent: &AgentId, cost: u32) -> Result<Claim, ResolveFailure> {
        let seconds = self.seconds();
        let now = Tally::slot(seconds);
        let mut state = self.lock();
        for (span, limit) in self.spans() {
            if let Some((retry_after, detail)) = state.refusal(agent, cost, (span, limit), seconds) {
                state.tell_spent(&self.name, now, &detail, self.spans());
                let error = ResolveError::BudgetSpent { retry_after };
                return Err(ResolveFailure { error, detail: Some(detail.into()) });
            }
        }
        state.tell_left(&self.name, now);
        state.spend(agent, now, cost);
        Ok(Claim { quota: Arc::clone(self), agent: agent.clone(), slot: now, cost })
    }

    /// Whether more than half of the budget is left: enough to look again for what was not there.
    pub(super) fn is_ample(&self) -> bool {
        let now = Tally::slot(self.seconds());
        let state = self.lock();
        self.spans().all(|(span, limit)| state.all.spent(span, now) < limit / 2)
    }

    /// What was spent in the last hour and the last day.
    pub(super) fn spending(&self) -> [Spending; 2] {
        let now = Tally::slot(self.seconds());
        let state = self.lock();
        let QuotaLimits { per_hour, per_day } = self.limits;
        [(Span::Hour, per_hour), (Span::Day, per_day)].map(|(span, limit)| {
            let used = state.all.spent(span, now);
            Spending { used, left: limit.map(|limit| limit.saturating_sub(used)) }
        })
    }

    /// How long until there is something left, where nothing is.
    pub(super) fn spent_for(&self) -> Option<Duration> {
        let seconds = self.seconds();
        let now = Tally::slot(seconds);
        let state = self.lock();
        let waits = self.spans().filter_map(|(span, limit)| {
            let over = (state.all.spent(span, now) + 1).checked_sub(limit).filter(|over| *over > 0)?;
            Some(state.all.frees(span, over, seconds))
        });
        waits.max()
    }

    /// Makes sure that all that was claimed stands in the file.
    async fn cover(&self) -> Result<(), ResolveFailure> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut written = Arc::clone(file).lock_owned().await;
        let slot = Tally::slot(self.seconds());
        let mut tally = self.lock().all.clone();
        let spent = tally.at(slot);
        if written.slot == slot && spent <= written.covered {
            return Ok(());
        }
        tally.add(slot, written.ahead);
        let write = move || {
            written.file.write(&tally)?;
            (written.slot, written.covered) = (slot, spent.saturating_add(written.ahead));
            written.ahead = (written.ahead * 2 + 1).min(AHEAD_MAX);
            Ok::<_, QuotaError>(())
        };
        let failed =
            |story: String| ResolveFailure { error: ResolveError::Unavailable, detail: Some(story.into()) };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| failed("the write of the quota's state file was stopped".to_owned()))?
            .map_err(|error| failed(chain(&error)))
    }

    fn spans(&self) -> impl Iterator<Item = (Span, u32)> {
        let QuotaLimits { per_hour, per_day } = self.limits;
        [(Span::Hour, per_hour), (Span::Day, per_day)]
            .into_iter()
            .filter_map(|(span, limit)| Some((span, limit?)))
    }

    fn seconds(&self) -> u64 {
        self.epoch + self.clock.monotonic().as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn spend(&mut self, agent: &AgentId, now: u64, cost: u32) {
        self.all.add(now, cost);
        if !self.by_agent.contains_key(agent) {
            self.by_agent.retain(|_, tally| tally.spent(Span::Day, now) > 0);
        }
        self.by_agent.entry(agent.clone()).or_default().add(now, cost);
    }

    fn refund(&mut self, agent: &AgentId, slot: u64, cost: u32) {
        self.all.refund(slot, cost);
        if let Some(own) = self.by_agent.get_mut(agent) {
            own.refund(slot, cost);
        }
    }

    /// Tells the log, once, that a limit is reached. That one agent's share is spent is not told.
    fn tell_spent(
        &mut self,
        name: &str,
        now: u64,
        detail: &str,
        mut limits: impl Iterator<Item = (Span, u32)>,
    ) {
        if self.told.is_none() && limits.any(|(span, limit)| self.all.spent(span, now) >= limit) {
            self.told = Some(now);
            tracing::warn!(
                source = name,
                error = "RESOLVER_RATE_LIMITED",
                detail,
                "the broker's budget for the source is spent; `valetkey doctor` looks closer"
            );
        }
    }

    /// Tells the log that there is something left again; not within one slot, for that is once too often.
    fn tell_left(&mut self, name: &str, now: u64) {
        if self.told.take_if(|told| *told < now).is_some() {
            tracing::info!(source = name, "the source is asked again: its budget is no longer spent");
        }
    }

    fn refusal(
        &self,
        agent: &AgentId,
        cost: u32,
        (span, limit): (Span, u32),
        seconds: u64,
    ) -> Option<(Duration, String)> {
        let now = Tally::slot(seconds);
        let spent = self.all.spent(span, now);
        let over = spent.saturating_add(cost).saturating_sub(limit);
        let (name, minutes) = match span {
            Span::Hour => ("hour", 60),
            Span::Day => ("day", 24 * 60),
        };
        if over > 0 {
            let story =
                format!("the broker's own budget is spent: {spent} of {limit} requests in {minutes} minutes");
            return Some((self.all.frees(span, over, seconds), story));
        }
        let own = self.by_agent.get(agent);
        let own_spent = own.map_or(0, |own| own.spent(span, now));
        let left = limit - spent - cost;
        if own_spent.saturating_add(cost) <= left.saturating_mul(SHARE) {
            return None;
        }
        let story = format!(
            "the agent's share of the broker's budget is spent: {own_spent} requests in the last {name}, and {left} are kept for others"
        );
        Some((own.unwrap_or(&self.all).frees(span, 1, seconds), story))
    }
}

impl Claim {
    /// Writes down what is about to be spent; only then it may be.
    pub(super) async fn pay(mut self) -> Result<Paid, ResolveFailure> {
        self.quota.cover().await?;
        let cost = std::mem::take(&mut self.cost);
        Ok(Paid { quota: Arc::clone(&self.quota), agent: self.agent.clone(), slot: self.slot, cost })
    }
}

impl Paid {
    /// What was set aside.
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// Counts what was sent, rather than what might have been. More than was paid is counted too, and stands in
    /// the file with the next payment.
    pub(super) fn settle(self, sent: u32) {
        let Self { quota, agent, slot, cost } = self;
        let mut state = quota.lock();
        match sent.checked_sub(cost) {
            Some(more) => state.spend(&agent, Tally::slot(quota.seconds()), more),
            None => state.refund(&agent, slot, cost.saturating_sub(sent)),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.cost > 0 {
            self.quota.lock().refund(&self.agent, self.slot, self.cost);
        }
    }
}

/// What `valetkey doctor` says of a source's budget, whose state lies in `dir`. Changes nothing, and may be asked
/// while a broker runs.
#[must_use]
pub fn quota_check(dir: &std::path::Path, source: &str) -> Check {
    let found = file::look(dir, source).map(|tally| match tally {
        None => "nothing was spent yet".to_owned(),
        Some(_) => format!("what was spent stands in `{}`", dir.join(format!("{source}.quota")).display()),
    });
    Check::of("budget", found, "the source is not used like this; docs/sources.md, Quota, has what to do")
}

/// An error and its causes, for the record.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |story, cause| format!("{story}: {cause}"))
}

/// How much more than what is left for the others an agent may have.
const SHARE: u32 = 4;
const AHEAD_MAX: u32 = 15;

#[cfg(test)]
mod tests;
