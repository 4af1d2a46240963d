//! What was spent when.

use std::collections::VecDeque;
use std::time::Duration;

/// What was spent in each slot of five minutes, for a day. Slots count from the epoch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally(VecDeque<(u64, u32)>);

/// A span that a limit is for, in slots. One more than it has is counted: the current slot is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Hour,
    Day,
}

impl Span {
    /// The first slot that counts at the slot `now`.
    fn first(self, now: u64) -> u64 {
        now.saturating_sub(self.slots())
    }

    fn slots(self) -> u64 {
        match self {
            Self::Hour => 12,
            Self::Day => 288,
        }
    }
}

impl Tally {
    /// From slots in their order; `None` where they are in none.
    pub(super) fn from_slots(slots: Vec<(u64, u32)>) -> Option<Self> {
        slots.is_sorted_by(|one, two| one.0 < two.0).then(|| Self(slots.into()))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.iter().copied()
    }

    /// The slot of a moment, in seconds since the epoch.
    pub(super) fn slot(seconds: u64) -> u64 {
        seconds / SLOT_SECONDS
    }

    /// Adds what is spent now, and forgets what is older than a day.
    pub(super) fn add(&mut self, now: u64, cost: u32) {
        while self.0.front().is_some_and(|(slot, _)| *slot < Span::Day.first(now)) {
            self.0.pop_front();
        }
        match self.0.back_mut() {
            Some((slot, spent)) if *slot >= now => *spent = spent.saturating_add(cost),
            _ => self.0.push_back((now, cost)),
        }
    }

    /// Takes back what was not spent after all.
    pub(super) fn refund(&mut self, slot: u64, cost: u32) {
        if let Some((_, spent)) = self.0.iter_mut().rev().find(|(known, _)| *known <= slot) {
            *spent = spent.saturating_sub(cost);
        }
    }

    /// What was spent in the span before the slot `now`.
    pub(super) fn spent(&self, span: Span, now: u64) -> u32 {
        let first = span.first(now);
        let slots = self.0.iter().rev().take_while(|(slot, _)| *slot >= first);
        slots.fold(0, |sum, (_, spent)| sum.saturating_add(*spent))
    }

    /// What was spent in one slot.
    pub(super) fn at(&self, slot: u64) -> u32 {
        self.0.iter().rev().find(|(known, _)| *known == slot).map_or(0, |(_, spent)| *spent)
    }

    /// How long after `seconds` the oldest of the span have gone that make up `cost`.
    pub(super) fn frees(&self, span: Span, cost: u32, seconds: u64) -> Duration {
        let now = Self::slot(seconds);
        let mut freed = 0_u32;
        let counted = self.0.iter().filter(|(slot, _)| *slot >= span.first(now));
        let last = counted
            .map(|(slot, spent)| {
                freed = freed.saturating_add(*spent);
                (slot, freed)
            })
            .find(|(_, freed)| *freed >= cost);
        let gone = last.map_or(now + span.slots(), |(slot, _)| *slot + span.slots()) + 1;
        Duration::from_secs((gone * SLOT_SECONDS).saturating_sub(seconds).max(1))
    }

    /// Moves what seems to lie in the future to now: then a clock went back, and how long ago it was spent
    /// cannot be known. The distances stay.
    pub(super) fn pull_back(&mut self, now: u64) {
        let Some((newest, _)) = self.0.back() else { return };
        let ahead = newest.saturating_sub(now);
        if ahead > 0 {
            let moved = self.0.iter().filter(|(slot, _)| *slot >= ahead);
            self.0 = moved.map(|(slot, spent)| (slot - ahead, *spent)).collect();
        }
    }
}

const SLOT_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_counts_for_its_span() {
        let mut tally = Tally::default();
        tally.add(100, 5);
        tally.add(100, 2);
        tally.add(110, 1);
        let check = |tally: &Tally, now, hour, day| {
            assert_eq!((tally.spent(Span::Hour, now), tally.spent(Span::Day, now)), (hour, day), "{now}");
        };
        check(&tally, 110, 8, 8);
        check(&tally, 112, 8, 8);
        check(&tally, 113, 1, 8);
        check(&tally, 388, 0, 8);
        check(&tally, 389, 0, 1);
        tally.refund(100, 3);
        check(&tally, 110, 5, 5);
        tally.add(500, 1);
        assert_eq!(tally.slots().collect::<Vec<_>>(), [(500, 1)], "older than a day is forgotten");
    }

    #[test]
    fn it_frees_when_enough_of_the_oldest_has_gone() {
        let tally = Tally::from_slots(vec![(100, 5), (104, 2)]).unwrap();
        let check = |cost, minutes: u64| {
            let wait = tally.frees(Span::Hour, cost, 105 * SLOT_SECONDS);
            assert_eq!(wait, Duration::from_secs(minutes * 60), "{cost}");
        };
        check(1, 40);
        check(5, 40);
        check(6, 60);
        check(99, 65);
    }

    #[test]
    fn a_clock_that_went_back_frees_nothing() {
        let mut tally = Tally::from_slots(vec![(1_000, 5), (1_006, 2)]).unwrap();
        tally.pull_back(700);
        assert_eq!(tally.slots().collect::<Vec<_>>(), [(694, 5), (700, 2)]);
        tally.pull_back(900);
        assert_eq!(tally.spent(Span::Hour, 706), 7);
    }
}
