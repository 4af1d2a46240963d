//! How often a token may ask: so many requests a minute, and so many an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use valetkey_core::Clock;

use crate::limits::Exceeded;

/// The bounds of one token. The default is what 1Password publishes.
#[derive(Debug, Clone, Copy)]
pub struct EventsRate {
    /// Requests within a minute of the first.
    pub per_minute_max: u32,
    /// Requests within an hour of the first.
    pub per_hour_max: u32,
}

/// The counts.
pub(crate) struct Rates {
    /// At most [`TOKENS_MAX`], by credential.
    tokens: Mutex<HashMap<Arc<str>, [Window; 2]>>,
    limits: EventsRate,
    clock: Arc<dyn Clock>,
}

/// Requests since `begin`.
#[derive(Clone, Copy)]
struct Window {
    begin: Duration,
    count: u32,
}

impl Default for EventsRate {
    fn default() -> Self {
        Self { per_minute_max: 600, per_hour_max: 30_000 }
    }
}

impl Rates {
    pub(crate) fn new(limits: EventsRate, clock: Arc<dyn Clock>) -> Self {
        Self { tokens: Mutex::default(), limits, clock }
    }

    /// One request more. What is refused does not count.
    pub(crate) fn take(&self, credential: &Arc<str>) -> Result<(), Exceeded> {
        let now = self.clock.monotonic();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX && !tokens.contains_key(credential) {
            tokens.retain(|_, [_, hour]| now < hour.begin + HOUR);
        }
        let full = tokens.len() >= TOKENS_MAX && !tokens.contains_key(credential);
        // More tokens than there can be: those beyond share a count.
        let key = if full { Arc::from("") } else { Arc::clone(credential) };
        let fresh = Window { begin: now, count: 0 };
        let windows = tokens.entry(key).or_insert([fresh; 2]);
        let EventsRate { per_minute_max, per_hour_max } = self.limits;
        let bounds = [("events_per_minute", MINUTE, per_minute_max), ("events_per_hour", HOUR, per_hour_max)];
        for (window, (limit, length, max)) in windows.iter_mut().zip(bounds) {
            let end = window.begin + length;
            if now >= end {
                *window = fresh;
            } else if window.count >= max {
                return Err(Exceeded { limit, max: max.into(), retry_after: end - now });
            }
        }
        windows.iter_mut().for_each(|window| window.count += 1);
        Ok(())
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// As many as there can be tokens.
const TOKENS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::testing::FakeClock;

    #[test]
    fn so_many_a_minute_and_so_many_an_hour() {
        let clock = FakeClock::default();
        let rates = Rates::new(EventsRate { per_minute_max: 3, per_hour_max: 5 }, Arc::new(clock.clone()));
        let (one, other) = (Arc::from("vke_1"), Arc::from("vke_2"));
        let taken = |token: &Arc<str>, count: usize| (0..count).filter(|_| rates.take(token).is_ok()).count();
        assert_eq!((taken(&one, 9), taken(&other, 1)), (3, 1));
        clock.advance(Duration::from_secs(59));
        let refused = rates.take(&one).unwrap_err();
        assert_eq!((refused.limit, refused.retry_after), ("events_per_minute", Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&one, 9), 2, "what is left of the hour");
        let refused = rates.take(&one).unwrap_err();
        assert_eq!((refused.limit, refused.retry_after), ("events_per_hour", Duration::from_secs(3540)));
        clock.advance(Duration::from_secs(3540));
        assert_eq!(taken(&one, 9), 3);
    }

    #[test]
    fn the_table_is_bounded() {
        let clock = FakeClock::default();
        let rates = Rates::new(EventsRate::default(), Arc::new(clock.clone()));
        for number in 0..TOKENS_MAX + 50 {
            assert!(rates.take(&format!("vke_{number}").into()).is_ok());
        }
        assert_eq!(rates.tokens.lock().unwrap().len(), TOKENS_MAX + 1);
    }
}
