//! SPIFFE ids: the name of a workload in its certificate, `spiffe://<trust domain>/<path>`.
//!
//! Read as the SPIFFE-ID specification writes them, and no looser: whatever else a URI may hold (capitals in the
//! domain, a port, a query, percent signs, empty or dotted segments) is refused, so that one workload has one
//! spelling.

use std::fmt;
use std::sync::Arc;

use crate::identity::Name;

/// The id of a workload. It has a path: an id without one names a trust domain, and nobody who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    domain_length: usize,
}

/// A domain of trust: 1 to 255 characters of `a-z 0-9 . - _`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Arc<str>);

/// Ids whose paths differ in one segment: `spiffe://example.org/agent/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffePattern {
    before: Arc<str>,
    after: Arc<str>,
}

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Over 2,048 bytes.
    #[error("must have at most {LENGTH_MAX} bytes")]
    TooLong,
    /// Another scheme, or none.
    #[error("must begin with `spiffe://`")]
    Scheme,
    /// The trust domain is empty, too long, or has other characters.
    #[error("must have a trust domain of 1 to {DOMAIN_MAX} characters of `a-z 0-9 . - _`")]
    TrustDomain,
    /// No path: the id of a trust domain, not of a workload.
    #[error("must have a path: without one it names no workload")]
    NoPath,
    /// A segment is empty, `.` or `..`, or has other characters.
    #[error("must have a path of segments of `A-Z a-z 0-9 . - _`, none of them empty, `.` or `..`")]
    Path,
    /// A pattern without its one place.
    #[error("must have `{PLACE}` exactly once, as a whole segment of the path")]
    Place,
}

impl SpiffeId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`SpiffeError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > LENGTH_MAX {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        TrustDomain::parse(domain)?;
        let path = path.ok_or(SpiffeError::NoPath)?;
        if !path.split('/').all(is_segment) {
            return Err(SpiffeError::Path);
        }
        Ok(Self { text: text.into(), domain_length: domain.len() })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..SCHEME.len() + self.domain_length).unwrap_or_default()
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TrustDomain {
    /// Parses the name of a trust domain, without a scheme.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`].
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
        match (1..=DOMAIN_MAX).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Self(text.into())),
            false => Err(SpiffeError::TrustDomain),
        }
    }

    /// Whether an id is of this domain.
    #[must_use]
    pub fn holds(&self, id: &SpiffeId) -> bool {
        id.trust_domain() == &*self.0
    }
}

impl SpiffePattern {
    /// Parses a pattern: an id in which `{name}` stands for one segment of the path.
    ///
    /// # Errors
    /// [`SpiffeError`] where it would match no id, or more than that.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let (before, after) = text.split_once(PLACE).ok_or(SpiffeError::Place)?;
        // The domain is fixed: what comes before ends with a slash that is not the scheme's own.
        let whole = before.ends_with('/') && before.len() > SCHEME.len();
        if !whole || !(after.is_empty() || after.starts_with('/')) {
            return Err(SpiffeError::Place);
        }
        // What is left must be an id with any name in its place; a second place is no such name.
        SpiffeId::parse(&format!("{before}any{after}"))?;
        Ok(Self { before: before.into(), after: after.into() })
    }

    /// What stands in the place of `{name}`, where the id is of this pattern and it can be a name.
    #[must_use]
    pub fn name(&self, id: &SpiffeId) -> Option<Name> {
        let segment = id.text.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        if segment.contains('/') {
            return None;
        }
        Name::parse(segment).ok()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
}

const SCHEME: &str = "spiffe://";
const PLACE: &str = "{name}";
const LENGTH_MAX: usize = 2048;
const DOMAIN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids() {
        for good in [
            "spiffe://example.org/agent/travel-bot",
            "spiffe://a/b",
            "spiffe://my_domain-1.test/ns/prod/sa/Bot_1.x",
            "spiffe://example.org/...",
        ] {
            assert_eq!(SpiffeId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for (bad, error) in [
            ("", SpiffeError::Scheme),
            ("https://example.org/a", SpiffeError::Scheme),
            ("SPIFFE://example.org/a", SpiffeError::Scheme),
            ("spiffe:/example.org/a", SpiffeError::Scheme),
            ("spiffe:///a", SpiffeError::TrustDomain),
            ("spiffe://Example.org/a", SpiffeError::TrustDomain),
            ("spiffe://example.org:443/a", SpiffeError::TrustDomain),
            ("spiffe://user@example.org/a", SpiffeError::TrustDomain),
            ("spiffe://ex\0mple.org/a", SpiffeError::TrustDomain),
            ("spiffe://example.org", SpiffeError::NoPath),
            ("spiffe://example.org/", SpiffeError::Path),
            ("spiffe://example.org/a/", SpiffeError::Path),
            ("spiffe://example.org//a", SpiffeError::Path),
            ("spiffe://example.org/./a", SpiffeError::Path),
            ("spiffe://example.org/a/..", SpiffeError::Path),
            ("spiffe://example.org/a%2fb", SpiffeError::Path),
            ("spiffe://example.org/a?b", SpiffeError::Path),
            ("spiffe://example.org/a#b", SpiffeError::Path),
            ("spiffe://example.org/ä", SpiffeError::Path),
            (" spiffe://example.org/a", SpiffeError::Scheme),
        ] {
            assert_eq!(SpiffeId::parse(bad), Err(error), "{bad}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://a/{}", "a".repeat(2036))).is_ok());
        let long = format!("spiffe://a/{}", "a".repeat(2038));
        assert_eq!(SpiffeId::parse(&long), Err(SpiffeError::TooLong));
        let domain = format!("spiffe://{}/a", "a".repeat(256));
        assert_eq!(SpiffeId::parse(&domain), Err(SpiffeError::TrustDomain));
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, id: &str, name: Option<&str>| {
            let pattern = SpiffePattern::parse(pattern).unwrap();
            let found = pattern.name(&SpiffeId::parse(id).unwrap());
            assert_eq!(found.as_ref().map(Name::as_str), name, "{id}");
        };
        let agents = "spiffe://example.org/agent/{name}";
        check(agents, "spiffe://example.org/agent/bot", Some("bot"));
        check(agents, "spiffe://example.org/agent/bot/more", None);
        check(agents, "spiffe://example.org/agent2/bot", None);
        check(agents, "spiffe://example.org.evil/agent/bot", None);
        check(agents, "spiffe://other.org/agent/bot", None);
        check("spiffe://a/ns/{name}/agent", "spiffe://a/ns/prod/agent", Some("prod"));
        check("spiffe://a/ns/{name}/agent", "spiffe://a/ns/prod/x/agent", None);
        check("spiffe://a/ns/{name}/agent", "spiffe://a/ns/agent", None);
        for bad in [
            "spiffe://a/agent",
            "spiffe://a/{name}/{name}",
            "spiffe://a/x{name}",
            "spiffe://a/{name}x",
            "spiffe://{name}/a",
            "spiffe://{name}",
            "{name}",
        ] {
            assert!(SpiffePattern::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever is taken is in the one spelling, and made of its parts.
        #[test]
        fn nothing_loose_is_taken(text in "(spiffe://)?[a-z/.%A-Z0-9@:?#{}-]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                let path = text.strip_prefix(&format!("spiffe://{}/", id.trust_domain())).unwrap_or("");
                prop_assert!(path.split('/').all(is_segment));
                prop_assert!(!text.contains(['%', '?', '#', '@', ':'].as_slice()) || text.matches(':').count() == 1);
            }
        }

        #[test]
        fn any_text_has_an_answer(text in ".*") {
            let _ = (SpiffeId::parse(&text), SpiffePattern::parse(&text));
        }

        #[test]
        fn a_pattern_gives_back_the_name(name in "[a-zA-Z0-9_-]{1,20}") {
            let pattern = SpiffePattern::parse("spiffe://example.org/agent/{name}").unwrap();
            let id = SpiffeId::parse(&format!("spiffe://example.org/agent/{name}")).unwrap();
            let found = pattern.name(&id);
            prop_assert_eq!(found.as_ref().map(Name::as_str), Some(name.as_str()));
        }
    }
}
