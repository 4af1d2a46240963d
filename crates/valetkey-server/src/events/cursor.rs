//! Cursors: a place in the log, where the answer ends, and how much of it comes at once.
//!
//! Opaque to clients, and no permission: whoever makes one up gets what their token gives anyway. They do not expire.
//! The checksum is there so that a mangled one is an error and not another place.

use data_encoding::BASE64URL_NOPAD;
use valetkey_core::{RecordId, Timestamp};

use super::Feature;
use crate::digest::sha256;

/// Where to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Everything up to here was given out, or was not asked for.
    pub(crate) seen: RecordId,
    /// Nothing from here on is asked for.
    pub(crate) end: Option<Timestamp>,
    /// How many events at most.
    pub(crate) limit: u16,
}

impl Cursor {
    /// The text that stands for it: 32 characters.
    pub(crate) fn encode(self, feature: Feature) -> String {
        let Self { seen, end, limit } = self;
        let mut body = vec![VERSION, code(feature)];
        body.extend(seen.0.to_be_bytes());
        body.extend(end.map_or(i64::MAX, Timestamp::as_micros).to_be_bytes());
        body.extend(limit.to_be_bytes());
        body.extend(checksum(&body));
        BASE64URL_NOPAD.encode(&body)
    }

    /// Parses what [`Cursor::encode`] made for the same feature; `None` for any other text.
    pub(crate) fn parse(text: &str, feature: Feature) -> Option<Self> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        let rest = body.strip_prefix(&[VERSION, code(feature)]).filter(|_| *sum == checksum(body))?;
        let (seen, rest) = rest.split_first_chunk::<8>()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        let end = Some(i64::from_be_bytes(*end)).filter(|end| *end != i64::MAX);
        Some(Self {
            seen: RecordId(u64::from_be_bytes(*seen)),
            end: end.map(Timestamp::from_micros),
            limit: u16::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

fn code(feature: Feature) -> u8 {
    match feature {
        Feature::ItemUsages => 1,
        Feature::AuditEvents => 2,
        Feature::SignInAttempts => 3,
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    sha256(body).first_chunk().copied().unwrap_or_default()
}

const VERSION: u8 = 1;
const TEXT_LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_round_trip(seen in any::<u64>(), end in any::<Option<i32>>(), limit in any::<u16>()) {
            let end = end.map(|end| Timestamp::from_micros(end.into()));
            let cursor = Cursor { seen: RecordId(seen), end, limit };
            let text = cursor.encode(Feature::ItemUsages);
            prop_assert_eq!(Cursor::parse(&text, Feature::ItemUsages), Some(cursor));
            prop_assert_eq!(Cursor::parse(&text, Feature::AuditEvents), None);
        }

        #[test]
        fn every_changed_character_is_noticed(seen in any::<u64>(), place in 0usize..32, other in "[-_A-Za-z0-9]") {
            let text = Cursor { seen: RecordId(seen), end: None, limit: 20 }.encode(Feature::AuditEvents);
            let mut changed = text.clone();
            changed.replace_range(place..=place, &other);
            prop_assert_eq!(Cursor::parse(&changed, Feature::AuditEvents).is_some(), changed == text);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            prop_assert_eq!(Cursor::parse(&text, Feature::SignInAttempts), None);
        }
    }
}
