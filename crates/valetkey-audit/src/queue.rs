//! What waits to be written: bounded, and taken in as large pieces as one transaction should hold.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use valetkey_core::{AuditError, AuditRecord, RecordId, RecordKind};

use crate::canonical::{PartDigest, digest_record};
use crate::outcomes::NewOutcome;

/// The records of one call and whoever waits for them.
pub(crate) struct Submission {
    /// All or none; each with what its leaf is made of.
    pub(crate) records: Vec<(AuditRecord, PartDigest)>,
    /// Takes the ids, or why there are none. Nobody may be there any more: the records are written all
    /// the same, so that hanging up does not keep a refusal out of the log.
    pub(crate) reply: oneshot::Sender<Result<Vec<RecordId>, AuditError>>,
}

/// What the writer takes at a time.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) submissions: Vec<Submission>,
    pub(crate) outcomes: Vec<(RecordId, NewOutcome)>,
    /// Whether nothing more will come.
    pub(crate) closed: bool,
}

/// Why a submission was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The bound is reached.
    Full,
    /// The log is closed.
    Closed,
}

/// The queue between callers and the writer.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Told when there is work, or no more to come.
    wake: Condvar,
    records_max: usize,
}

#[derive(Default)]
struct State {
    submissions: VecDeque<Submission>,
    /// Records in `submissions`.
    records: usize,
    /// Submissions that somebody waits for.
    urgent: usize,
    /// Never more than grants under way, so without a bound of their own.
    outcomes: Vec<(RecordId, NewOutcome)>,
    closed: bool,
}

impl Submission {
    /// Computes the digests: on the caller's own task, because the writer has only one thread.
    pub(crate) fn new(
        records: Vec<AuditRecord>,
        reply: oneshot::Sender<Result<Vec<RecordId>, AuditError>>,
    ) -> Self {
        let digested = |record| {
            let digest = digest_record(&record);
            (record, digest)
        };
        let records = records.into_iter().map(digested).collect();
        Self { records, reply }
    }

    fn is_urgent(&self) -> bool {
        let by_itself = [RecordKind::LeaseEnd, RecordKind::HandleExpire, RecordKind::HandleRevoke];
        !self.records.iter().all(|(record, _)| by_itself.contains(&record.kind))
    }
}

impl Queue {
    /// An empty queue for so many records.
    pub(crate) fn new(records_max: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), records_max }
    }

    /// Queues the records of one call. What happened to leases by itself does not wake the writer: nobody
    /// waits for it, and with an fsync of its own it would hold up the next caller's.
    pub(crate) fn push(&self, submission: Submission) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        let records = state.records + submission.records.len();
        if records > self.records_max {
            return Err(Rejected::Full);
        }
        state.records = records;
        let urgent = submission.is_urgent();
        state.urgent += usize::from(urgent);
        state.submissions.push_back(submission);
        drop(state);
        if urgent {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues an outcome; whether it was taken. Does not wake the writer: outcomes travel with the next
    /// records, or with the next tick.
    pub(crate) fn push_outcome(&self, record: RecordId, outcome: NewOutcome) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.outcomes.push((record, outcome));
        }
        !state.closed
    }

    /// Takes what is there, up to the bound of a batch; waits for something at most `pause`.
    pub(crate) fn take(&self, pause: Duration) -> Work {
        let idle = |state: &mut State| state.urgent == 0 && !state.closed;
        let (mut state, _) =
            self.wake.wait_timeout_while(self.lock(), pause, idle).unwrap_or_else(PoisonError::into_inner);
        let mut work = Work { outcomes: std::mem::take(&mut state.outcomes), ..Work::default() };
        let mut taken = 0;
        while taken < BATCH_MAX
            && let Some(submission) = state.submissions.pop_front()
        {
            taken += submission.records.len().max(1);
            state.urgent -= usize::from(submission.is_urgent());
            state.records = state.records.saturating_sub(submission.records.len());
            work.submissions.push(submission);
        }
        work.closed = state.closed && state.submissions.is_empty();
        work
    }

    /// Takes nothing more; what is queued is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// Takes nothing more and drops what is queued: its callers learn that the log is not available.
    pub(crate) fn abandon(&self) {
        let dropped = {
            let mut state = self.lock();
            state.closed = true;
            state.records = 0;
            state.urgent = 0;
            (std::mem::take(&mut state.submissions), std::mem::take(&mut state.outcomes))
        };
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records in one transaction, give or take those of its last call. Some ten milliseconds of work: more
/// would let all wait longer and save nothing, because the fsync is long paid for.
const BATCH_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use valetkey_core::{AuditOutcome, OutcomeResult, Reason, Timestamp};

    const NOW: Timestamp = Timestamp::from_micros(1);

    fn submission(records: usize) -> Submission {
        submission_of(RecordKind::Start, records)
    }

    fn submission_of(kind: RecordKind, records: usize) -> Submission {
        let record = AuditRecord::event(NOW, kind, Reason::Done);
        Submission::new(vec![record; records], oneshot::channel().0)
    }

    #[test]
    fn it_is_bounded_in_records() {
        let queue = Queue::new(5);
        assert_eq!(queue.push(submission(3)), Ok(()));
        assert_eq!(queue.push(submission(3)), Err(Rejected::Full));
        assert_eq!(queue.push(submission(2)), Ok(()));
        assert_eq!(queue.take(Duration::ZERO).submissions.len(), 2);
        assert_eq!(queue.push(submission(5)), Ok(()));
        assert_eq!(queue.push(submission(6)), Err(Rejected::Full));
    }

    #[test]
    fn what_happens_by_itself_waits_for_company() {
        let (queue, pause) = (Queue::new(5), Duration::from_millis(20));
        let ends = || submission_of(RecordKind::LeaseEnd, 1);
        queue.push(ends()).unwrap();
        let begin = Instant::now();
        assert_eq!(queue.take(pause).submissions.len(), 1);
        assert!(begin.elapsed() >= pause);

        queue.push(ends()).unwrap();
        queue.push(submission(1)).unwrap();
        assert_eq!(queue.take(Duration::from_secs(60)).submissions.len(), 2);
        queue.push(ends()).unwrap();
        queue.close();
        assert!(queue.take(Duration::from_secs(60)).closed);
    }

    #[test]
    fn a_batch_is_bounded_and_nothing_is_lost_between_batches() {
        let queue = Queue::new(BATCH_MAX * 3);
        for _ in 0..BATCH_MAX + 1 {
            queue.push(submission(2)).unwrap();
        }
        assert_eq!(queue.take(Duration::ZERO).submissions.len(), BATCH_MAX / 2);
        queue.close();
        let second = queue.take(Duration::ZERO);
        assert_eq!((second.submissions.len(), second.closed), (BATCH_MAX / 2, false));
        let last = queue.take(Duration::ZERO);
        assert_eq!((last.submissions.len(), last.closed), (1, true));
    }

    #[test]
    fn a_closed_queue_takes_nothing() {
        let queue = Queue::new(5);
        queue.push(submission(1)).unwrap();
        let outcome = || NewOutcome::new(AuditOutcome::new(NOW, OutcomeResult::Issued));
        assert!(queue.push_outcome(RecordId(1), outcome()));
        queue.abandon();
        assert_eq!(queue.push(submission(1)), Err(Rejected::Closed));
        assert!(!queue.push_outcome(RecordId(1), outcome()));
        let work = queue.take(Duration::from_secs(60));
        assert!(work.closed && work.submissions.is_empty() && work.outcomes.is_empty());
    }
}
