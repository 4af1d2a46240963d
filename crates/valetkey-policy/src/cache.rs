//! A bounded map from keys to shared values, for many threads.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps what was used last. Each shard has two halves: what is used moves to the young half; when that
/// is full, the old half is forgotten and the young one grows old. So nothing is counted or ordered, and
/// what is asked for often stays.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: RandomState,
    half_max: usize,
}

#[derive(Debug)]
struct Shard<K, V> {
    young: HashMap<K, Arc<V>>,
    old: HashMap<K, Arc<V>>,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    /// A cache of at most `entries_max` entries, rounded down to what the shards can share evenly.
    pub(crate) fn new(entries_max: usize) -> Self {
        let shard = || Mutex::new(Shard { young: HashMap::new(), old: HashMap::new() });
        let half_max = (entries_max / SHARDS / 2).max(1);
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new(), half_max }
    }

    /// The value of a key; made where it is not there. Threads that miss the same key at the same time
    /// each make it, and nobody waits for another.
    pub(crate) fn obtain<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let Some(shard) = self.shard(&key) else { return make().map(Arc::new) };
        if let Some(value) = self.find(shard, &key) {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        self.keep(&mut shard.lock().unwrap_or_else(PoisonError::into_inner), key, Arc::clone(&value));
        Ok(value)
    }

    fn find(&self, shard: &Mutex<Shard<K, V>>, key: &K) -> Option<Arc<V>> {
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = shard.young.get(key) {
            return Some(Arc::clone(value));
        }
        let (key, value) = shard.old.remove_entry(key)?;
        self.keep(&mut shard, key, Arc::clone(&value));
        Some(value)
    }

    fn keep(&self, shard: &mut Shard<K, V>, key: K, value: Arc<V>) {
        if shard.young.len() >= self.half_max {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, value);
    }

    fn shard(&self, key: &K) -> Option<&Mutex<Shard<K, V>>> {
        let place = self.hasher.hash_one(key) % (SHARDS as u64);
        usize::try_from(place).ok().and_then(|place| self.shards.get(place))
    }
}

const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn obtain(cache: &Cache<u32, u32>, key: u32, made: &mut u32) -> u32 {
        let value = cache.obtain(key, || {
            *made += 1;
            Ok::<_, Infallible>(key * 2)
        });
        *value.unwrap()
    }

    #[test]
    fn a_value_is_made_once_and_a_failure_is_not_kept() {
        let cache = Cache::new(64);
        assert!(cache.obtain(1, || Err("no")).is_err());
        let mut made = 0;
        assert_eq!((obtain(&cache, 1, &mut made), obtain(&cache, 1, &mut made), made), (2, 2, 1));
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_used() {
        let cache = Cache::new(320);
        let mut made = 0;
        for key in 0..10_000 {
            obtain(&cache, key, &mut made);
            obtain(&cache, 0, &mut made);
            let kept: usize = cache
                .shards
                .iter()
                .map(|shard| shard.lock().unwrap())
                .map(|shard| shard.young.len() + shard.old.len())
                .sum();
            assert!(kept <= 320, "{kept}");
        }
        assert_eq!(made, 10_000, "each key once: the one in use was never forgotten");
    }
}
