//! The clock, as a port: nothing here reads the machine's time, so tests own it.

use std::time::Duration;

use async_trait::async_trait;

/// Where time comes from. The broker judges lives by [`Clock::monotonic`] alone, so a wall clock that
/// jumps neither kills nor prolongs a handle; [`Clock::now`] is for what people read.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;

    /// Returns when [`Clock::monotonic`] has reached `instant`.
    async fn sleep_until(&self, instant: Duration);
}

/// A wall-clock moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This moment and `life` later, held at the end of representable time.
    #[must_use]
    pub fn after(self, life: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(life.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Timestamp {
    /// How long before this moment `earlier` was; zero where it was later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

impl std::fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds, as in `2026-11-23T14:05:09.000123Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .map_err(|_| std::fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second(),
            moment.microsecond()
        )
    }
}
