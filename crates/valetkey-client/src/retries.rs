//! What is asked again, by gRPC code and reason, and how: with pauses that grow, within bounds.
//!
//! | what failed | asked again |
//! | --- | --- |
//! | `UNAVAILABLE` with a reason of the broker's: nothing was done | yes, except where its source refuses the broker itself |
//! | `RESOURCE_EXHAUSTED` with `RetryInfo` | yes, then |
//! | no connection came about | yes, except where TLS says no |
//! | a connection broke in mid-call: whether it was done is not known | a lease, which is decided anew, a few times where there was none yet; nothing else |
//! | everything else: denied, invalid, unknown caller, dead handle, no answer in time | never |
//!
//! `RetryInfo` is obeyed; where it names a time beyond the bound the error is given at once.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, ConnectError, Response, Status};

use crate::connect::tls_fault;
use crate::error::CallError;

/// How long the calls of an agent and a tool, and a lease that was lost, are asked for again. The pauses between grow
/// from at most 0.1 s to at most 2 s, each a random part of that, so that a broker that restarts is not met by all at
/// once. Default: 30 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    attempts_max: u32,
    within: Duration,
}

impl Retries {
    /// One attempt, with 30 s for its answer. A lease that is lost then stays lost.
    #[must_use]
    pub const fn none() -> Self {
        Self { attempts_max: 1, within: WITHIN_USUAL }
    }

    /// As often as time allows, and so long at most: the bound of every wait, also for an answer that does not come. At
    /// most a day.
    #[must_use]
    pub const fn within(time: Duration) -> Self {
        let within = if time.as_secs() < WITHIN_MAX.as_secs() { time } else { WITHIN_MAX };
        Self { attempts_max: ATTEMPTS_USUAL, within }
    }

    /// At most so many attempts, the first included; at least that one.
    #[must_use]
    pub const fn attempts_max(self, attempts_max: u32) -> Self {
        Self { attempts_max: if attempts_max == 0 { 1 } else { attempts_max }, ..self }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::within(WITHIN_USUAL)
    }
}

/// Whether asking again can help, and harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It cannot help.
    Never,
    /// It may help, but it may have been done: a use may be spent.
    Unsure,
    /// It may help, and nothing was done.
    Safe,
}

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: CallError,
    pub(crate) again: Again,
}

impl Failed {
    pub(crate) fn for_good(error: CallError) -> Self {
        Self { error, again: Again::Never }
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let (is_tls, is_unsent) = (tls_fault(&status).is_some(), is_unsent(&status));
        let code = status.code();
        let error = CallError::from(status);
        let again = match (&error, code) {
            (CallError::Unavailable { reason, .. }, _) if reason == CREDENTIALS_REFUSED => Again::Never,
            (CallError::Unavailable { .. }, _) if is_tls => Again::Never,
            (CallError::Unavailable { reason, .. }, Code::Unavailable) if !reason.is_empty() => Again::Safe,
            (CallError::Unavailable { .. }, _) if is_unsent => Again::Safe,
            (CallError::Unavailable { .. }, _) => Again::Unsure,
            // Without a time it is for the caller to do less.
            (CallError::LimitReached { retry_after: Some(_), .. }, _) => Again::Safe,
            _ => Again::Never,
        };
        Self { error, again }
    }
}

/// The time and the attempts that are left.
pub(crate) struct Attempts {
    retries: Retries,
    left: u32,
    end: Instant,
    pause_max: Duration,
}

impl Attempts {
    pub(crate) fn new(retries: Retries) -> Self {
        let end = Instant::now() + retries.within;
        Self { retries, left: retries.attempts_max.saturating_sub(1), end, pause_max: PAUSE_FIRST }
    }

    /// The same once more, but for the attempts that were made and the pauses that have grown.
    pub(crate) fn with_fresh_time(self) -> Self {
        Self { end: Instant::now() + self.retries.within, ..self }
    }

    /// Waits for something, but not beyond the end.
    pub(crate) async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, CallError> {
        tokio::time::timeout_at(self.end, work).await.map_err(|_| CallError::TimedOut(self.retries.within))
    }

    /// Whether no other attempt may be made, however much time is left.
    pub(crate) fn are_used_up(&self) -> bool {
        self.left == 0
    }

    /// The time that is left.
    pub(crate) fn time(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Waits until another attempt may be made. False, at once, where none may be.
    pub(crate) async fn pause(&mut self, at_least: Option<Duration>) -> bool {
        let pause = part_of(self.pause_max).max(at_least.unwrap_or_default());
        self.pause_max = (self.pause_max * 2).min(PAUSE_MAX);
        if self.left == 0 || pause >= self.time() {
            return false;
        }
        self.left -= 1;
        tokio::time::sleep(pause).await;
        true
    }
}

/// One answer. Asked for again only where nothing was done.
pub(crate) async fn ask<T, F>(attempts: &mut Attempts, mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    loop {
        let Failed { error, again } = match attempts.bound(call()).await? {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status.into(),
        };
        if again != Again::Safe || !attempts.pause(retry_after(&error)).await {
            return Err(error);
        }
    }
}

/// When the broker wants to be asked again.
pub(crate) fn retry_after(error: &CallError) -> Option<Duration> {
    match error {
        CallError::Unavailable { retry_after, .. } | CallError::LimitReached { retry_after, .. } => {
            *retry_after
        }
        _ => None,
    }
}

/// Whether there was never a connection that the call could have been sent over.
fn is_unsent(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// A random part. A hasher's keys are random enough to keep clients out of step, and in the standard library.
fn part_of(bound: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

/// This does not pass by itself.
const CREDENTIALS_REFUSED: &str = "RESOLVER_CREDENTIALS_REFUSED";
/// Longer than the broker takes to give up on its log or source.
const WITHIN_USUAL: Duration = Duration::from_secs(30);
const WITHIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// More than there is time for, usually.
const ATTEMPTS_USUAL: u32 = 100;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn status(code: Code, reason: &str, retry: Option<Duration>) -> Status {
        let mut details = ErrorDetails::new();
        if !reason.is_empty() {
            details.set_error_info(reason, "valetkey", std::collections::HashMap::new());
        }
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, "the message", details)
    }

    #[test]
    fn each_code_has_its_answer() {
        let second = Some(Duration::from_secs(1));
        let check = |code, reason, retry, again| {
            assert_eq!(Failed::from(status(code, reason, retry)).again, again, "{code:?} {reason}");
        };
        check(Code::Unavailable, "AUDIT_UNAVAILABLE", second, Again::Safe);
        check(Code::Unavailable, "SHUTTING_DOWN", None, Again::Safe);
        check(Code::Unavailable, "RESOLVER_CREDENTIALS_REFUSED", None, Again::Never);
        check(Code::Unavailable, "", None, Again::Unsure);
        check(Code::Unknown, "", None, Again::Unsure);
        check(Code::Cancelled, "", None, Again::Unsure);
        check(Code::DeadlineExceeded, "CALL_TIMED_OUT", None, Again::Unsure);
        check(Code::ResourceExhausted, "RESOLVER_RATE_LIMITED", second, Again::Safe);
        check(Code::ResourceExhausted, "LEASE_LIMIT", None, Again::Never);
        for (code, reason) in [
            (Code::PermissionDenied, "ACCESS_DENIED"),
            (Code::InvalidArgument, "INVALID_TTL"),
            (Code::FailedPrecondition, "HANDLE_NOT_ACTIVE"),
            (Code::FailedPrecondition, "AMBIGUOUS_REFERENCE"),
            (Code::Unauthenticated, "AGENT_UNAUTHENTICATED"),
            (Code::NotFound, "ITEM_NOT_FOUND"),
            (Code::Internal, "INTERNAL"),
            (Code::Unimplemented, "METHOD_UNKNOWN"),
        ] {
            check(code, reason, second, Again::Never);
        }
    }

    #[test]
    fn a_connection_that_never_was() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        assert_eq!(Failed::from(status).again, Again::Safe);
        let fault = tokio_rustls::rustls::Error::DecryptError;
        let status = Status::from_error(Box::new(ConnectError(Box::new(std::io::Error::other(fault)))));
        assert_eq!(Failed::from(status).again, Again::Never, "TLS says no each time");
    }

    /// How often a call that always fails so is made, and the seconds that it takes.
    async fn attempts(retries: Retries, status: impl Fn() -> Status) -> (u32, u64) {
        let (made, begun) = (Cell::new(0), Instant::now());
        let call = || {
            made.set(made.get() + 1);
            std::future::ready(Err::<Response<()>, _>(status()))
        };
        ask(&mut Attempts::new(retries), call).await.unwrap_err();
        (made.get(), begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_and_time_are_bounded() {
        let away = || status(Code::Unavailable, "AUDIT_UNAVAILABLE", None);
        let (made, seconds) = attempts(Retries::default(), away).await;
        assert!((15..=100).contains(&made) && (20..=30).contains(&seconds), "{made} in {seconds} s");
        assert_eq!(attempts(Retries::none(), away).await, (1, 0));
        assert_eq!(attempts(Retries::default().attempts_max(3), away).await.0, 3);
        assert_eq!(attempts(Retries::within(Duration::ZERO), away).await, (1, 0));
        assert_eq!(attempts(Retries::default(), || Status::unavailable("cut")).await, (1, 0));
        let denied = || status(Code::PermissionDenied, "ACCESS_DENIED", None);
        assert_eq!(attempts(Retries::default(), denied).await, (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_broker_says_when() {
        let after = |seconds| {
            move || status(Code::ResourceExhausted, "IDENTITY_LIMIT", Some(Duration::from_secs(seconds)))
        };
        assert_eq!(attempts(Retries::default(), after(12)).await, (3, 24));
        assert_eq!(attempts(Retries::default(), after(31)).await, (1, 0), "beyond the bound");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come() {
        let call = std::future::pending::<Result<Response<()>, Status>>;
        let within = Duration::from_secs(5);
        let mut attempts = Attempts::new(Retries::within(within));
        assert_eq!(ask(&mut attempts, call).await, Err(CallError::TimedOut(within)));
    }
}
