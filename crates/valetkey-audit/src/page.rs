//! Page tokens: a position in the log, bound to the filter that it was found with.
//!
//! Opaque to clients, and no permission: whoever makes one up gets what a query may give anyway. The
//! checksum is there so that a mangled token is an error and not another page.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use valetkey_core::RecordId;

use crate::filter::Filter;

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageToken {
    /// All records of the page are older than this one.
    pub before: RecordId,
}

/// Why a text is not the token of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// Not from here, or mangled.
    #[error("is not a page token")]
    Malformed,
    /// From a query with another filter.
    #[error("belongs to another filter")]
    OtherFilter,
}

impl PageToken {
    /// The text that stands for it: 28 characters that need no escaping in a URL.
    #[must_use]
    pub fn encode(self, filter: &Filter) -> String {
        let mut body = Vec::with_capacity(TOKEN_BYTES);
        body.push(VERSION);
        body.extend(self.before.0.to_be_bytes());
        body.extend(filter.fingerprint());
        body.extend(checksum(&body));
        BASE64URL_NOPAD.encode(&body)
    }

    /// Parses what [`PageToken::encode`] made with the same filter.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse(text: &str, filter: &Filter) -> Result<Self, PageTokenError> {
        if text.len() > 2 * TOKEN_BYTES {
            return Err(PageTokenError::Malformed);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| PageTokenError::Malformed)?;
        let (before, fingerprint) = Self::take_apart(&bytes).ok_or(PageTokenError::Malformed)?;
        if fingerprint != filter.fingerprint() {
            return Err(PageTokenError::OtherFilter);
        }
        Ok(Self { before })
    }

    fn take_apart(bytes: &[u8]) -> Option<(RecordId, [u8; 8])> {
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        let (version, body_rest) = body.split_first()?;
        let (before, fingerprint) = body_rest.split_first_chunk::<8>()?;
        let whole = *version == VERSION && *sum == checksum(body);
        let before = u64::from_be_bytes(*before);
        whole.then_some((RecordId(before), fingerprint.try_into().ok()?))
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash: [u8; 32] = Sha256::digest(body).into();
    hash.first_chunk().copied().unwrap_or_default()
}

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const TOKEN_BYTES: usize = 1 + 8 + 8 + CHECKSUM_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_belongs_to_its_filter() {
        let (filter, other) = (Filter::parse("agent:a").unwrap(), Filter::parse("agent:b").unwrap());
        let text = PageToken { before: RecordId(77) }.encode(&filter);
        assert_eq!(text.len(), 28);
        assert_eq!(PageToken::parse(&text, &other), Err(PageTokenError::OtherFilter));
        assert_eq!(PageToken::parse("", &filter), Err(PageTokenError::Malformed));
        let spaced = Filter::parse(" agent:a ").unwrap();
        assert!(PageToken::parse(&text, &spaced).is_ok());
    }

    proptest! {
        #[test]
        fn tokens_round_trip(before in any::<u64>()) {
            let token = PageToken { before: RecordId(before) };
            let filter = Filter::parse("decision:deny").unwrap();
            prop_assert_eq!(PageToken::parse(&token.encode(&filter), &filter), Ok(token));
        }

        #[test]
        fn every_changed_character_is_noticed(before in any::<u64>(), place in 0usize..28, other in "[-_A-Za-z0-9]") {
            let filter = Filter::default();
            let text = PageToken { before: RecordId(before) }.encode(&filter);
            let mut changed = text.clone();
            changed.replace_range(place..=place, &other);
            prop_assert_eq!(PageToken::parse(&changed, &filter).is_ok(), changed == text);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            prop_assert_eq!(PageToken::parse(&text, &Filter::default()), Err(PageTokenError::Malformed));
        }
    }
}
