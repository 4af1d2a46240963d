//! Time that nobody sets: what a machine counts since it started, and the broker's own clock, for differences alone.
//!
//! The clock on this machine's wall is never looked at: it may be an hour wrong.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Time since some moment, that in which the machine slept included.
pub(crate) fn counted() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    // Elsewhere the monotonic clock goes on while the machine sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    clock_gettime(CLOCK).try_into().unwrap_or_default()
}

/// What the broker's clock said when ours said so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began {
    date: OffsetDateTime,
    counted: Duration,
}

impl Began {
    /// Takes the `date` of an answer, `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub(crate) fn parse(date: &str) -> Option<Self> {
        let date = OffsetDateTime::parse(date, &Rfc2822).ok()?;
        Some(Self { date, counted: counted() })
    }

    /// When, as [`counted`] counts, something dies. `None` where that would be past already: it comes from a clock that
    /// was set meanwhile, and nothing follows from it.
    pub(crate) fn dies(self, expire_time: OffsetDateTime) -> Option<Duration> {
        let life = Duration::try_from(expire_time - self.date).ok()?;
        self.counted.checked_add(life).filter(|dies| *dies > counted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_count() {
        let began = Began::parse("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let dies = |unix| began.dies(OffsetDateTime::from_unix_timestamp(unix).unwrap());
        assert_eq!(dies(784_111_777 + 60), Some(began.counted + Duration::from_secs(60)));
        assert_eq!(dies(784_111_777 - 3_600), None);
        assert!(dies(253_402_300_799).is_some(), "the last second of the year 9999");
        for bad in ["", "yesterday", "Sun, 06 Nov 1994 08:49:37"] {
            assert!(Began::parse(bad).is_none(), "{bad}");
        }
    }
}
