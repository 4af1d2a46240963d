//! What a source has done and how it is: for metrics and `valetkey status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use valetkey_core::{ResolveError, ResolveFailure, Timestamp};

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
    pub(super) fn ask(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what came of it.
    pub(super) fn note(&self, now: Timestamp, failure: Option<&ResolveFailure>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            None => last.success = Some(now),
            Some(failure) => last.failure = Some((now, failure.error.clone())),
        }
    }

    /// All of it, with what others know.
    pub(super) fn show(
        &self,
        (name, kind): (Arc<str>, &'static str),
        state: SourceState,
        [hour, day]: [Spending; 2],
    ) -> SourceFigures {
        let Last { success, failure } = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
