//! What each identity has under way: requests in a bucket that drains by time, connections, bytes of messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use valetkey_core::{Clock, Identity};

/// The bounds of one identity.
#[derive(Debug, Clone, Copy)]
pub struct IdentityLimits {
    /// Requests a second, over a longer time.
    pub requests_per_second: u32,
    /// Requests at once, before [`IdentityLimits::requests_per_second`] holds.
    pub requests_burst: u32,
    /// Connections at the same time over which it made requests.
    pub connections_max: usize,
    /// Bytes of messages at the same time whose calls have no answer yet.
    pub message_bytes_max: usize,
}

/// A bound that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Which.
    pub(crate) limit: &'static str,
    /// How much it is.
    pub(crate) max: u64,
    /// When it is worth another try.
    pub(crate) retry_after: Duration,
}

/// The table. Bounded: identities beyond [`ENTRIES_MAX`] that are busy at the same time share one entry.
pub(crate) struct Identities {
    entries: Mutex<HashMap<Option<Identity>, Entry>>,
    limits: IdentityLimits,
    clock: Arc<dyn Clock>,
}

/// What an identity has of one kind; given back when it is dropped.
pub(crate) struct Held {
    of: Option<Identity>,
    connections: usize,
    bytes: usize,
    table: Arc<Identities>,
}

#[derive(Default)]
struct Entry {
    /// When its bucket will be empty: each request adds its share of time.
    empty_at: Duration,
    /// The same of the values that it asked about.
    values_empty_at: Duration,
    connections: usize,
    bytes: usize,
}

impl Default for IdentityLimits {
    fn default() -> Self {
        Self {
            requests_per_second: 1_000,
            requests_burst: 2_000,
            connections_max: 256,
            message_bytes_max: 32 * 1024 * 1024,
        }
    }
}

impl Identities {
    pub(crate) fn new(limits: IdentityLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), limits, clock })
    }

    /// One request more.
    pub(crate) fn request(&self, who: &Identity) -> Result<(), Exceeded> {
        self.charge(who, 1, 0)
    }

    /// The references that one request asks for: each is decided and recorded, and so each counts as a request. The
    /// first is counted already. The rest may go over the bound once, or a bound below their number would refuse them
    /// for ever; what comes next waits for that long.
    pub(crate) fn references(&self, who: &Identity, count: usize) -> Result<(), Exceeded> {
        self.charge(who, 0, u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// One value more that is asked about. Few, because each answer says whether a guess was right.
    pub(crate) fn value(&self, who: &Identity) -> Result<(), Exceeded> {
        let now = self.clock.monotonic();
        let mut entries = self.lock();
        let (_, entry) = obtain(&mut entries, who, now);
        let after = entry.values_empty_at.max(now) + VALUE_SHARE;
        match after.checked_sub(now + VALUE_SHARE * VALUES_BURST) {
            Some(wait) if !wait.is_zero() => {
                let max = u64::from(VALUES_PER_MINUTE);
                Err(Exceeded { limit: "values_per_minute", max, retry_after: wait })
            }
            _ => {
                entry.values_empty_at = after;
                Ok(())
            }
        }
    }

    /// So many requests that must be within the bound, and more that need not.
    fn charge(&self, who: &Identity, within: u32, more: u32) -> Result<(), Exceeded> {
        let IdentityLimits { requests_per_second, requests_burst, .. } = self.limits;
        let share = Duration::from_secs(1) / requests_per_second.max(1);
        let room = share * requests_burst.max(1);
        let now = self.clock.monotonic();
        let mut entries = self.lock();
        let (_, entry) = obtain(&mut entries, who, now);
        let after = entry.empty_at.max(now) + share * within;
        match after.checked_sub(now + room) {
            Some(wait) if !wait.is_zero() => {
                let (limit, max) = ("requests_per_second", requests_per_second.into());
                Err(Exceeded { limit, max, retry_after: wait })
            }
            _ => {
                entry.empty_at = after.saturating_add(share.saturating_mul(more));
                Ok(())
            }
        }
    }

    /// One connection more.
    pub(crate) fn connection(self: &Arc<Self>, who: &Identity) -> Result<Held, Exceeded> {
        let mut entries = self.lock();
        let (of, entry) = obtain(&mut entries, who, self.clock.monotonic());
        let max = self.limits.connections_max;
        if entry.connections >= max {
            return Err(Exceeded {
                limit: "connections_per_identity",
                max: u64::try_from(max).unwrap_or(u64::MAX),
                retry_after: RETRY,
            });
        }
        entry.connections += 1;
        Ok(Held { of, connections: 1, bytes: 0, table: Arc::clone(self) })
    }

    /// Room for the bytes of a message to come.
    pub(crate) fn message(self: &Arc<Self>, who: &Identity) -> Held {
        let (of, _) = obtain(&mut self.lock(), who, self.clock.monotonic());
        Held { of, connections: 0, bytes: 0, table: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Identity>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// So many bytes more.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let max = self.table.limits.message_bytes_max;
        let mut entries = self.table.lock();
        let entry = entries.entry(self.of.clone()).or_default();
        if entry.bytes.saturating_add(bytes) > max {
            let max = u64::try_from(max).unwrap_or(u64::MAX);
            return Err(Exceeded { limit: "message_bytes_per_identity", max, retry_after: RETRY });
        }
        entry.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut entries = self.table.lock();
        if let Some(entry) = entries.get_mut(&self.of) {
            entry.connections = entry.connections.saturating_sub(self.connections);
            entry.bytes = entry.bytes.saturating_sub(self.bytes);
        }
    }
}

impl Entry {
    /// Whether forgetting it changes nothing.
    fn is_idle(&self, now: Duration) -> bool {
        self.empty_at <= now && self.values_empty_at <= now && self.connections == 0 && self.bytes == 0
    }
}

/// The entry of an identity, and under what it stands.
fn obtain<'a>(
    entries: &'a mut HashMap<Option<Identity>, Entry>,
    who: &Identity,
    now: Duration,
) -> (Option<Identity>, &'a mut Entry) {
    let mut of = Some(who.clone());
    if entries.len() >= ENTRIES_MAX && !entries.contains_key(&of) {
        entries.retain(|_, entry| !entry.is_idle(now));
        if entries.len() >= ENTRIES_MAX {
            of = None;
        }
    }
    let entry = entries.entry(of.clone()).or_default();
    (of, entry)
}

const ENTRIES_MAX: usize = 4_096;
const RETRY: Duration = Duration::from_secs(1);
/// Values that one identity may ask about.
const VALUES_PER_MINUTE: u32 = 30;
/// Of these at once.
const VALUES_BURST: u32 = 10;
const VALUE_SHARE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::testing::{FakeClock, agent};

    fn table(clock: &FakeClock) -> Arc<Identities> {
        let limits = IdentityLimits {
            requests_per_second: 10,
            requests_burst: 3,
            connections_max: 2,
            message_bytes_max: 100,
        };
        Identities::new(limits, Arc::new(clock.clone()))
    }

    fn bot(name: &str) -> Identity {
        Identity::Agent(agent(name))
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let clock = FakeClock::default();
        let table = table(&clock);
        let taken = |count: usize| (0..count).filter(|_| table.request(&bot("a")).is_ok()).count();
        assert_eq!(taken(10), 3);
        let refused = table.request(&bot("a")).unwrap_err();
        assert_eq!((refused.limit, refused.max), ("requests_per_second", 10));
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        assert!(table.request(&bot("b")).is_ok(), "another's bucket is another");
        clock.advance(Duration::from_millis(99));
        assert_eq!(taken(1), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(taken(5), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(taken(10), 3, "time that nobody used is not saved up");
    }

    #[test]
    fn few_values_are_asked_about() {
        let clock = FakeClock::default();
        let table = table(&clock);
        let taken = |count: usize| (0..count).filter(|_| table.value(&bot("a")).is_ok()).count();
        assert_eq!(taken(50), 10);
        let refused = table.value(&bot("a")).unwrap_err();
        assert_eq!((refused.limit, refused.max), ("values_per_minute", 30));
        assert_eq!(refused.retry_after, Duration::from_secs(2));
        assert!(table.request(&bot("a")).is_ok() && table.value(&bot("b")).is_ok());
        let minute = (0..60).map(|_| {
            clock.advance(Duration::from_secs(1));
            taken(5)
        });
        assert_eq!(minute.sum::<usize>(), 30);
    }

    #[test]
    fn each_reference_counts() {
        let clock = FakeClock::default();
        let table = table(&clock);
        assert!(table.request(&bot("a")).is_ok() && table.references(&bot("a"), 21).is_ok());
        assert!(table.request(&bot("a")).is_err());
        assert!(table.references(&bot("a"), 2).is_err(), "also where its request was let in before");
        clock.advance(Duration::from_millis(1_800));
        assert!(table.request(&bot("a")).is_err());
        clock.advance(Duration::from_millis(100));
        assert!(table.request(&bot("a")).is_ok());
    }

    #[test]
    fn what_is_held_is_given_back() {
        let table = table(&FakeClock::default());
        let (one, _two) = (table.connection(&bot("a")).unwrap(), table.connection(&bot("a")).unwrap());
        assert_eq!(table.connection(&bot("a")).err().unwrap().limit, "connections_per_identity");
        assert!(table.connection(&bot("b")).is_ok());
        drop(one);
        assert!(table.connection(&bot("a")).is_ok());

        let (mut big, mut small) = (table.message(&bot("a")), table.message(&bot("a")));
        assert!(big.add(60).is_ok() && small.add(40).is_ok());
        assert_eq!(small.add(1).unwrap_err().limit, "message_bytes_per_identity");
        drop(big);
        assert!(small.add(60).is_ok());
    }

    #[test]
    fn the_table_is_bounded() {
        let clock = FakeClock::default();
        let table = table(&clock);
        for number in 0..ENTRIES_MAX + 100 {
            let _ = table.request(&bot(&format!("bot-{number}")));
        }
        assert_eq!(table.lock().len(), ENTRIES_MAX + 1);
        assert!(table.request(&bot("late")).is_err(), "those beyond the bound share one bucket");
        clock.advance(Duration::from_secs(60));
        assert!(table.request(&bot("late")).is_ok());
        assert_eq!(table.lock().len(), 1);
    }
}
