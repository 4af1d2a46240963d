//! The outcomes that are waited for, and those that wait to be written.

use std::collections::BTreeMap;
use std::time::Duration;

use valetkey_core::{AuditOutcome, OutcomeResult, Timestamp};

use crate::canonical::{PartDigest, digest_outcome};

/// A record that allowed something is open until its outcome is durable.
#[derive(Default)]
pub(crate) struct Outcomes {
    /// Open records and when each is given up. The deadlines grow with the records' numbers, because all
    /// have the same grace.
    open: BTreeMap<u64, Duration>,
    /// Outcomes of open records, not durable yet.
    waiting: BTreeMap<u64, NewOutcome>,
    /// Records up to here were given up already, where they had no outcome.
    given_up: u64,
}

/// An outcome to be written, and what its record's leaf is made of.
pub(crate) struct NewOutcome {
    pub(crate) outcome: AuditOutcome,
    pub(crate) digest: PartDigest,
}

impl NewOutcome {
    /// Computes the digest.
    pub(crate) fn new(outcome: AuditOutcome) -> Self {
        Self { digest: digest_outcome(&outcome), outcome }
    }
}

impl Outcomes {
    /// Waits for the outcome of a record that was just made durable.
    pub(crate) fn expect(&mut self, seq: u64, deadline: Duration) {
        self.open.insert(seq, deadline);
    }

    /// Takes an outcome; whether its record is open. Takes the place of an `interrupted` that is not
    /// written yet.
    pub(crate) fn bring(&mut self, seq: u64, outcome: NewOutcome) -> bool {
        let open = self.open.contains_key(&seq);
        if open {
            self.waiting.insert(seq, outcome);
        }
        open
    }

    /// Gives up on outcomes that are overdue at `monotonic`, and on those of records up to `until`: they are
    /// `interrupted`. How many.
    pub(crate) fn give_up(&mut self, monotonic: Duration, until: u64, now: Timestamp) -> usize {
        let mut overdue = 0;
        let is_over = |(seq, end): &(&u64, &Duration)| **end <= monotonic || **seq <= until;
        for (seq, _) in self.open.range(self.given_up + 1..).take_while(is_over) {
            self.given_up = *seq;
            self.waiting.entry(*seq).or_insert_with(|| {
                overdue += 1;
                NewOutcome::new(AuditOutcome::new(now, OutcomeResult::Interrupted))
            });
        }
        overdue
    }

    /// How many records are open.
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many outcomes wait to be written.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The end of what one transaction takes of those that wait.
    pub(crate) fn batch_end(&self) -> u64 {
        self.waiting.keys().nth(BATCH_MAX).copied().unwrap_or(u64::MAX)
    }

    /// Those that wait, before `end`.
    pub(crate) fn batch(&self, end: u64) -> impl Iterator<Item = (u64, &NewOutcome)> {
        self.waiting.range(..end).map(|(seq, outcome)| (*seq, outcome))
    }

    /// Notes that what waited before `end` is durable.
    pub(crate) fn written(&mut self, end: u64) {
        let later = self.waiting.split_off(&end);
        for seq in std::mem::replace(&mut self.waiting, later).into_keys() {
            self.open.remove(&seq);
        }
    }

    /// The last record, up to `last`, that has nothing open before it once what waits before `end` is
    /// written.
    pub(crate) fn settled(&self, end: u64, last: u64) -> u64 {
        let written = |seq: &u64| *seq < end && self.waiting.contains_key(seq);
        self.open.keys().find(|seq| !written(seq)).map_or(last, |open| open - 1)
    }
}

/// Outcomes in one transaction.
const BATCH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use OutcomeResult::{Interrupted, Issued};

    const NOW: Timestamp = Timestamp::from_micros(1);
    const END: u64 = u64::MAX;

    /// Records 3, 5 and 6 are open, until second 3, 5 and 6.
    fn three() -> Outcomes {
        let mut outcomes = Outcomes::default();
        [3, 5, 6].into_iter().for_each(|seq| outcomes.expect(seq, Duration::from_secs(seq)));
        outcomes
    }

    fn issued() -> NewOutcome {
        NewOutcome::new(AuditOutcome::new(NOW, Issued))
    }

    fn waiting(outcomes: &Outcomes) -> Vec<(u64, OutcomeResult)> {
        outcomes.batch(END).map(|(seq, new)| (seq, new.outcome.result)).collect()
    }

    #[test]
    fn an_outcome_counts_once_and_only_for_an_open_record() {
        let mut outcomes = three();
        assert!(outcomes.bring(5, issued()));
        assert!(!outcomes.bring(4, issued()));
        assert_eq!((outcomes.open_count(), outcomes.waiting_count()), (3, 1), "open until it is durable");
        outcomes.written(END);
        assert!(!outcomes.bring(5, issued()), "too late");
        assert_eq!((outcomes.open_count(), outcomes.waiting_count()), (2, 0));
    }

    #[test]
    fn what_is_overdue_is_interrupted_once_unless_its_outcome_is_there() {
        let mut outcomes = three();
        outcomes.bring(5, issued());
        assert_eq!(outcomes.give_up(Duration::from_secs(2), 0, NOW), 0);
        assert_eq!(outcomes.give_up(Duration::from_secs(5), 0, NOW), 1);
        assert_eq!(outcomes.give_up(Duration::from_secs(5), 0, NOW), 0);
        assert_eq!(waiting(&outcomes), [(3, Interrupted), (5, Issued)]);
        // It came just in time.
        outcomes.bring(3, issued());
        assert_eq!(waiting(&outcomes), [(3, Issued), (5, Issued)]);
        outcomes.written(END);
        assert_eq!(outcomes.give_up(Duration::from_secs(9), 0, NOW), 1);
        assert_eq!(waiting(&outcomes), [(6, Interrupted)]);
    }

    #[test]
    fn the_oldest_can_be_given_up_before_they_are_overdue() {
        let mut outcomes = three();
        assert_eq!(outcomes.give_up(Duration::ZERO, 2, NOW), 0);
        assert_eq!(outcomes.give_up(Duration::ZERO, 5, NOW), 2);
        assert_eq!(waiting(&outcomes), [(3, Interrupted), (5, Interrupted)]);
    }

    #[test]
    fn settled_is_before_the_first_that_stays_open() {
        let mut outcomes = three();
        assert_eq!(outcomes.settled(END, 9), 2);
        outcomes.bring(5, issued());
        assert_eq!(outcomes.settled(END, 9), 2);
        outcomes.bring(3, issued());
        assert_eq!((outcomes.settled(END, 9), outcomes.settled(5, 9), outcomes.settled(0, 9)), (5, 4, 2));
        outcomes.bring(6, issued());
        assert_eq!(outcomes.settled(END, 9), 9);
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut outcomes = Outcomes::default();
        for seq in 1..=BATCH_MAX as u64 + 1 {
            outcomes.expect(seq, Duration::ZERO);
        }
        assert_eq!(outcomes.give_up(Duration::ZERO, 0, NOW), BATCH_MAX + 1);
        let end = outcomes.batch_end();
        assert_eq!(outcomes.batch(end).count(), BATCH_MAX);
        outcomes.written(end);
        assert_eq!(waiting(&outcomes), [(BATCH_MAX as u64 + 1, Interrupted)]);
    }
}
