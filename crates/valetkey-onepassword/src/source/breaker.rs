//! The circuit breaker: a source that refuses is left alone for a while, and then tried once.
//!
//! It opens on a rate limit and on refused credentials at once, and on [`FAILURES_MAX`] failures in a row.
//! While it is open, everybody is answered with the last failure. When its time is over, one question goes
//! through: with its answer the breaker closes, or stays open for twice as long, up to a bound. An answer
//! that something does not exist is an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use valetkey_core::{Clock, ResolveError, ResolveFailure};

/// The breaker of one source.
pub(super) struct Breaker {
    /// The source's, for the log.
    name: Arc<str>,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

enum State {
    Closed { failures: u32 },
    Open { failure: ResolveFailure, until: Duration, trips: u32, is_probed: bool },
}

/// Leave to ask the source. Dropped soon, without an answer, it lets another try; dropped after a while, it
/// means that the source did not answer.
#[must_use = "settle it with the answer"]
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    is_probe: bool,
    is_settled: bool,
    since: Duration,
}

impl Breaker {
    pub(super) fn new(name: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self { name, state: Mutex::new(State::Closed { failures: 0 }), clock }
    }

    /// Leave to ask, or the failure for which there is none now.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Pass, ResolveFailure> {
        let now = self.clock.monotonic();
        match &mut *self.lock() {
            State::Closed { failures: _ } => Ok(self.pass(false, now)),
            State::Open { until, is_probed, .. } if now >= *until && !*is_probed => {
                *is_probed = true;
                Ok(self.pass(true, now))
            }
            State::Open { failure, until, .. } => Err(waiting(failure, *until, now)),
        }
    }

    /// The failure for which it is open, and for how long; nothing where it is closed or about to be tried.
    pub(super) fn open(&self) -> Option<(ResolveFailure, Duration)> {
        let now = self.clock.monotonic();
        match &*self.lock() {
            State::Open { failure, until, .. } if *until > now => Some((failure.clone(), *until - now)),
            State::Open { .. } | State::Closed { .. } => None,
        }
    }

    fn pass(self: &Arc<Self>, is_probe: bool, since: Duration) -> Pass {
        Pass { breaker: Arc::clone(self), is_probe, is_settled: false, since }
    }

    /// Takes what came of a question.
    fn note(&self, is_probe: bool, failure: Option<&ResolveFailure>) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let (failures, trips) = match &*state {
            State::Closed { failures } => (*failures + 1, 0),
            State::Open { trips, .. } if is_probe => (FAILURES_MAX, *trips),
            // Asked before it opened: that is told already.
            State::Open { .. } => return,
        };
        let Some((failure, severity)) = failure.and_then(|it| Some((it, Severity::of(&it.error)?))) else {
            if matches!(*state, State::Open { .. }) {
                tracing::info!(source = &*self.name, "the source answers again");
            }
            *state = State::Closed { failures: 0 };
            return;
        };
        let Some(pause) = severity.pause(failures, trips) else {
            *state = State::Closed { failures };
            return;
        };
        // Once for all the time that it is out of order, however often it is tried.
        if matches!(*state, State::Closed { .. }) {
            tracing::warn!(
                source = &*self.name,
                error = failure.error.code(),
                detail = failure.detail.as_deref(),
                "the source is left alone for a while; `valetkey doctor` looks closer"
            );
        }
        *state = State::Open {
            failure: failure.clone(),
            until: now.saturating_add(pause),
            trips: trips.saturating_add(1),
            is_probed: false,
        };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Tells the breaker what came of it.
    pub(super) fn settle(mut self, failure: Option<&ResolveFailure>) {
        self.is_settled = true;
        self.breaker.note(self.is_probe, failure);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        if self.breaker.clock.monotonic().saturating_sub(self.since) >= PATIENCE {
            let detail = Some("the source did not answer, and nobody waited any longer".into());
            let failure = ResolveFailure { error: ResolveError::Unavailable, detail };
            self.breaker.note(self.is_probe, Some(&failure));
        } else if self.is_probe
            && let State::Open { is_probed, .. } = &mut *self.breaker.lock()
        {
            *is_probed = false;
        }
    }
}

/// Whether an error says that the source did not answer, or not what it was asked.
pub(super) fn is_outage(error: &ResolveError) -> bool {
    Severity::of(error).is_some()
}

/// The failures that count.
enum Severity {
    Limited { retry_after: Duration },
    Refused,
    Unavailable,
}

impl Severity {
    /// `None` where the source did answer.
    fn of(error: &ResolveError) -> Option<Self> {
        match error {
            ResolveError::RateLimited { retry_after } => Some(Self::Limited { retry_after: *retry_after }),
            ResolveError::CredentialsRefused => Some(Self::Refused),
            ResolveError::Unavailable => Some(Self::Unavailable),
            ResolveError::VaultNotFound
            | ResolveError::TooManyVaults
            | ResolveError::ItemNotFound
            | ResolveError::TooManyItems
            | ResolveError::NoMatchingSections
            | ResolveError::FieldNotFound
            | ResolveError::TooManyMatchingFields
            | ResolveError::IncompatibleTotpQueryParameterField
            | ResolveError::UnableToGenerateTotpCode
            | ResolveError::IncompatibleSshKeyQueryParameterField
            | ResolveError::UnableToFormatPrivateKey
            | ResolveError::UnsupportedFileFormat
            | ResolveError::ItemNotActive
            | ResolveError::Changed
            // These are said on this side of the source, which was not asked.
            | ResolveError::BudgetSpent { .. }
            | ResolveError::Paused { .. } => None,
        }
    }

    /// How long to leave the source alone after this many failures in a row and as many openings.
    fn pause(&self, failures: u32, trips: u32) -> Option<Duration> {
        let growing = |first: u64, most: u64| {
            Duration::from_secs(first.saturating_mul(1_u64 << trips.min(20)).min(most))
        };
        match self {
            Self::Limited { retry_after } => {
                Some((*retry_after).max(growing(LIMITED_FIRST, LIMITED_MOST)).min(RETRY_AFTER_MOST))
            }
            Self::Refused => Some(growing(REFUSED_FIRST, REFUSED_MOST)),
            Self::Unavailable => {
                (failures >= FAILURES_MAX).then(|| growing(UNAVAILABLE_FIRST, UNAVAILABLE_MOST))
            }
        }
    }
}

/// A failure as it is told while the breaker is open.
fn waiting(failure: &ResolveFailure, until: Duration, now: Duration) -> ResolveFailure {
    let retry_after = until.saturating_sub(now).max(Duration::from_secs(1));
    let error = match &failure.error {
        ResolveError::RateLimited { retry_after: _ } => ResolveError::RateLimited { retry_after },
        error => ResolveError::Paused { error: Box::new(error.clone()), retry_after },
    };
    ResolveFailure { error, detail: failure.detail.clone() }
}

const FAILURES_MAX: u32 = 3;
/// Less than anybody waits by default, more than a service takes that is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
// All in seconds.
const LIMITED_FIRST: u64 = 5;
const LIMITED_MOST: u64 = 900;
const REFUSED_FIRST: u64 = 10;
const REFUSED_MOST: u64 = 300;
const UNAVAILABLE_FIRST: u64 = 2;
const UNAVAILABLE_MOST: u64 = 60;
/// A source that says more is tried once in a day all the same.
const RETRY_AFTER_MOST: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use valetkey_core::testing::FakeClock;

    use super::*;

    fn setup() -> (FakeClock, Arc<Breaker>) {
        let clock = FakeClock::default();
        let breaker = Arc::new(Breaker::new("test".into(), Arc::new(clock.clone())));
        (clock, breaker)
    }

    fn fail(breaker: &Arc<Breaker>, error: ResolveError) {
        breaker.admit().unwrap_or_else(|_| panic!("is open")).settle(Some(&error.into()));
    }

    fn open_for(breaker: &Breaker) -> Option<u64> {
        breaker.open().map(|(_, pause)| pause.as_secs())
    }

    #[test]
    fn what_opens_it_and_for_how_long() {
        let check = |error: ResolveError, pauses: &[u64]| {
            let (clock, breaker) = setup();
            for pause in pauses {
                fail(&breaker, error.clone());
                assert_eq!(open_for(&breaker), Some(*pause), "{error}");
                assert_eq!(breaker.admit().err().map(|failure| failure.error.code()), Some(error.code()));
                clock.advance(Duration::from_secs(*pause));
                assert_eq!(open_for(&breaker), None);
            }
            fail(&breaker, ResolveError::ItemNotFound);
            fail(&breaker, error);
            assert_eq!(open_for(&breaker), pauses.first().copied(), "an answer sets it back");
        };
        let limited = |seconds| ResolveError::RateLimited { retry_after: Duration::from_secs(seconds) };
        check(limited(0), &[5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        check(limited(60), &[60, 60, 60, 60, 80]);
        check(limited(10_000_000), &[86_400, 86_400]);
        check(ResolveError::CredentialsRefused, &[10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_dead_source_is_left_alone_after_some_failures_in_a_row() {
        let (clock, breaker) = setup();
        for _ in 0..10 {
            fail(&breaker, ResolveError::Unavailable);
            fail(&breaker, ResolveError::Unavailable);
            fail(&breaker, ResolveError::FieldNotFound);
        }
        for _ in 0..3 {
            assert_eq!(open_for(&breaker), None);
            fail(&breaker, ResolveError::Unavailable);
        }
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(open_for(&breaker), Some(pause));
            clock.advance(Duration::from_secs(pause));
            fail(&breaker, ResolveError::Unavailable);
        }
    }

    #[test]
    fn one_at_a_time_tries_again() {
        let (clock, breaker) = setup();
        let late = breaker.admit().ok().unwrap();
        fail(&breaker, ResolveError::CredentialsRefused);
        late.settle(None);
        assert!(breaker.admit().is_err(), "an answer from before does not close it");
        clock.advance(Duration::from_secs(10));
        let probe = breaker.admit().ok().unwrap();
        assert!(breaker.admit().is_err());
        drop(probe);
        let probe = breaker.admit().ok().unwrap();
        assert!(breaker.admit().is_err(), "a probe that was given up lets another one try");
        probe.settle(None);
        let both = (breaker.admit(), breaker.admit());
        assert!(both.0.is_ok() && both.1.is_ok());
    }

    #[test]
    fn a_source_that_never_answers_is_dead() {
        let (clock, breaker) = setup();
        let give_up = |after: u64| {
            let pass = breaker.admit().ok().unwrap();
            clock.advance(Duration::from_secs(after));
            drop(pass);
        };
        for _ in 0..10 {
            give_up(2);
        }
        for _ in 0..3 {
            assert_eq!(open_for(&breaker), None);
            give_up(3);
        }
        assert_eq!(open_for(&breaker), Some(2));
        clock.advance(Duration::from_secs(2));
        give_up(5);
        assert_eq!(open_for(&breaker), Some(4));
    }

    #[test]
    fn it_says_when_to_ask_again() {
        let (clock, breaker) = setup();
        fail(&breaker, ResolveError::RateLimited { retry_after: Duration::from_secs(60) });
        clock.advance(Duration::from_secs(20));
        let error = breaker.admit().err().map(|failure| failure.error);
        assert_eq!(error, Some(ResolveError::RateLimited { retry_after: Duration::from_secs(40) }));
        let (clock, breaker) = setup();
        fail(&breaker, ResolveError::CredentialsRefused);
        clock.advance(Duration::from_secs(3));
        let error = breaker.admit().err().map(|failure| failure.error);
        let retry_after = Duration::from_secs(7);
        assert_eq!(
            error,
            Some(ResolveError::Paused { error: ResolveError::CredentialsRefused.into(), retry_after })
        );
    }
}
