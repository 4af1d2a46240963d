//! The records that allowed something and have no outcome yet.

use std::collections::BTreeMap;
use std::time::Duration;

/// Open records and when each is given up.
#[derive(Default)]
pub(crate) struct OpenRecords {
    /// Deadlines by record. They grow with the records' numbers, because all have the same grace.
    deadlines: BTreeMap<u64, Duration>,
    /// Records up to here were reported overdue already; they stay open until their outcome is durable.
    reported: u64,
}

impl OpenRecords {
    /// Adds a record that was just made durable.
    pub(crate) fn add(&mut self, seq: u64, deadline: Duration) {
        self.deadlines.insert(seq, deadline);
    }

    /// Removes a record whose outcome is durable.
    pub(crate) fn remove(&mut self, seq: u64) {
        self.deadlines.remove(&seq);
    }

    /// Whether a record is open.
    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.deadlines.contains_key(&seq)
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// The open ones in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.deadlines.keys().copied()
    }

    /// Those that are overdue, each once.
    pub(crate) fn take_overdue(&mut self, now: Duration) -> Vec<u64> {
        let unreported = self.deadlines.range(self.reported + 1..);
        let overdue: Vec<u64> =
            unreported.take_while(|(_, deadline)| **deadline <= now).map(|(seq, _)| *seq).collect();
        self.reported = overdue.last().copied().unwrap_or(self.reported);
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_overdue_once_and_open_until_removed() {
        let second = Duration::from_secs;
        let mut open = OpenRecords::default();
        for seq in [3, 5, 6] {
            open.add(seq, second(seq));
        }
        assert_eq!(open.take_overdue(second(2)), []);
        assert_eq!(open.take_overdue(second(5)), [3, 5]);
        assert_eq!(open.take_overdue(second(5)), []);
        assert_eq!((open.len(), open.contains(3)), (3, true));
        open.remove(3);
        assert_eq!((open.len(), open.contains(3)), (2, false));
        assert_eq!(open.take_overdue(second(6)), [6]);
        assert_eq!(open.iter().collect::<Vec<_>>(), [5, 6]);
    }
}
