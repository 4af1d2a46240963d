//! What a source has done and how it is: for metrics and `valetkey status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use valetkey_core::{Clock, ResolveError, ResolveFailure, Timestamp};

use super::breaker::{PATIENCE, is_outage};
use super::flights::Via;
use super::quota::Spending;

/// How a source is, and what it has done since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFigures {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What it is: `sdk`, `connect`, `op` or `embedded`.
    pub kind: &'static str,
    /// How it is now.
    pub state: SourceState,
    /// Requests in the last hour, and what is left.
    pub hour: Spending,
    /// Requests in the last day, and what is left.
    pub day: Spending,
    /// Questions that were put to the source.
    pub reads: u64,
    /// Questions that shared another's on its way.
    pub shared_reads: u64,
    /// Questions that were answered from what was kept of an answer.
    pub cache_hits: u64,
    /// When the source last answered.
    pub last_success: Option<Timestamp>,
    /// When it last did not, and how: the error without its story.
    pub last_failure: Option<(Timestamp, ResolveError)>,
}

/// Whether a source can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// As far as is known.
    Ready,
    /// It did not answer the last time, nor since, and is asked all the same.
    Failing {
        /// The failure.
        error: ResolveError,
    },
    /// Left alone after a failure.
    Paused {
        /// The failure.
        error: ResolveError,
        /// For how long yet.
        remaining: Duration,
    },
    /// The broker's own budget is spent.
    Spent {
        /// When there is something left again.
        retry_after: Duration,
    },
}

#[derive(Default)]
pub(super) struct Counters {
    reads: AtomicU64,
    shared: AtomicU64,
    kept: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Default, Clone)]
struct Last {
    success: Option<Timestamp>,
    failure: Option<(Timestamp, ResolveError)>,
    is_failing: bool,
}

/// A question that was put. Dropped after a while without an answer, it means that the source gave none.
pub(super) struct Attempt<'a> {
    counters: &'a Counters,
    clock: &'a dyn Clock,
    since: Duration,
    is_noted: bool,
}

impl Counters {
    pub(super) fn count(&self, via: Via) {
        let counter = match via {
            Via::Own => return,
            Via::Shared => &self.shared,
            Via::Kept => &self.kept,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the source is asked.
    pub(super) fn ask<'a>(&'a self, clock: &'a dyn Clock) -> Attempt<'a> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Attempt { counters: self, clock, since: clock.monotonic(), is_noted: false }
    }

    /// How the source fails, where it has not answered since.
    pub(super) fn failing(&self) -> Option<ResolveError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.failure.as_ref().filter(|_| last.is_failing).map(|(_, error)| error.clone())
    }

    /// Notes what came of a question; that something does not exist is an answer.
    fn note(&self, now: Timestamp, error: Option<&ResolveError>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = error.filter(|error| is_outage(error));
        last.is_failing = outage.is_some();
        match outage {
            None => last.success = Some(now),
            Some(error) => last.failure = Some((now, error.clone())),
        }
    }

    /// All of it, with what others know.
    pub(super) fn show(
        &self,
        (name, kind): (Arc<str>, &'static str),
        state: SourceState,
        [hour, day]: [Spending; 2],
    ) -> SourceFigures {
        let Last { success, failure, is_failing: _ } =
            self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SourceFigures {
            name,
            kind,
            state,
            hour,
            day,
            reads: self.reads.load(Ordering::Relaxed),
            shared_reads: self.shared.load(Ordering::Relaxed),
            cache_hits: self.kept.load(Ordering::Relaxed),
            last_success: success,
            last_failure: failure,
        }
    }
}

impl Attempt<'_> {
    /// Notes what came of it.
    pub(super) fn note(mut self, failure: Option<&ResolveFailure>) {
        self.is_noted = true;
        self.counters.note(self.clock.now(), failure.map(|failure| &failure.error));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_noted && self.clock.monotonic().saturating_sub(self.since) >= PATIENCE {
            self.counters.note(self.clock.now(), Some(&ResolveError::Unavailable));
        }
    }
}
