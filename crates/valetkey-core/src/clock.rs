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
    /// RFC 3339 in UTC with microseconds, as in `2026-11-23T14:05:09.000123Z`; the microseconds alone where no such
    /// date can be written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000);
        // A moment after the year 9999 is somebody's; an error here would be a panic of whoever prints it.
        let Ok(moment) = moment else { return write!(f, "{}us", self.0) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_moment_can_be_printed() {
        let check = |micros, text: &str| assert_eq!(Timestamp::from_micros(micros).to_string(), text);
        check(123, "1970-01-01T00:00:00.000123Z");
        check(i64::MAX, "9223372036854775807us");
        check(i64::MIN, "-9223372036854775808us");
    }
}
