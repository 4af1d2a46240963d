//! Tokens for one use, remembered until they are over.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What was used.
#[derive(Default)]
pub(super) struct Replays(Mutex<Used>);

#[derive(Default)]
struct Used {
    seen: HashSet<[u8; 32]>,
    /// The same by when each is over, on the monotonic clock.
    ends: BTreeSet<(Duration, [u8; 32])>,
}

impl Replays {
    /// Takes note of a use of `id` from `issuer`, which is over at `end`. Whether it is the first, and there
    /// is room to remember it: what cannot be remembered could be replayed.
    pub(super) fn is_first(&self, issuer: &str, id: &str, now: Duration, end: Duration) -> bool {
        let mut hash = Sha256::new();
        hash.update(u64::try_from(issuer.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(issuer);
        hash.update(id);
        let key: [u8; 32] = hash.finalize().into();
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, over)) = used.ends.first().copied().filter(|(at, _)| *at < now) {
            used.ends.remove(&(at, over));
            used.seen.remove(&over);
        }
        if used.seen.len() >= USED_MAX || !used.seen.insert(key) {
            return false;
        }
        used.ends.insert((end, key));
        true
    }
}

/// Tokens for one use that are remembered at the same time.
const USED_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_remembered_until_its_token_is_over() {
        let replays = Replays::default();
        let check = |issuer, id, now, first| {
            let (now, end) = (Duration::from_secs(now), Duration::from_secs(10));
            assert_eq!(replays.is_first(issuer, id, now, end), first, "{issuer} {id} at {now:?}");
        };
        check("a", "1", 0, true);
        check("a", "1", 10, false);
        check("a", "2", 10, true);
        check("b", "1", 10, true);
        check("a1", "", 10, true);
        check("a", "1", 11, true);
    }

    #[test]
    fn what_cannot_be_remembered_is_refused() {
        let (replays, end) = (Replays::default(), Duration::from_secs(10));
        assert!((0..USED_MAX).all(|n| replays.is_first("a", &n.to_string(), Duration::ZERO, end)));
        assert!(!replays.is_first("a", "one more", Duration::ZERO, end));
        assert!(replays.is_first("a", "one more", Duration::from_secs(11), end));
    }
}
