//! Texts that callers write and people read: bounded, made harmless, never part of a decision's proof.

use std::sync::Arc;

/// The reason an agent gives. Recorded and shown to reviewers; never part of a decision, because a
/// model can be talked into any reason. At most 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose(Arc<str>);

/// The agent's own name for its run. At most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session(Arc<str>);

/// A host name in lower case: letters, digits, `.` and `-`, at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination(Arc<str>);

/// Why a text is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Required and empty, or blank.
    #[error("must not be empty")]
    Empty,
    /// Over its bound, in bytes.
    #[error("must have at most {max} bytes, has {has}")]
    TooLong {
        /// The bound.
        max: usize,
        /// What came.
        has: usize,
    },
    /// Not a host name.
    #[error("must be a host name such as `api.example.com`, without scheme, port or path")]
    NotHost,
}

impl Purpose {
    /// Takes a purpose; control characters are escaped and bearer strings masked.
    ///
    /// # Errors
    /// [`TextError`] where it is blank or over 512 bytes.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        bounded(text, PURPOSE_MAX).map(Self)
    }

    /// The purpose as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Session {
    /// Takes a session's name, made harmless like a [`Purpose`].
    ///
    /// # Errors
    /// [`TextError`] where it is blank or over 128 bytes.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        bounded(text, SESSION_MAX).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Destination {
    /// Parses a host name and puts it into lower case.
    ///
    /// # Errors
    /// [`TextError`] where it is empty, too long or no host name.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let host = bounded(text, HOST_MAX)?;
        let label = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        if !host.split('.').all(label) {
            return Err(TextError::NotHost);
        }
        Ok(Self(host.to_ascii_lowercase().into()))
    }

    /// The host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Makes outside text fit for a log: control characters become `\u{..}` escapes, everything behind the
/// public id of a bearer string (`vkh_`, `vkt_`, `vkd_`, and 1Password's `ops_`) becomes `…`, and the result
/// is cut at `bytes_max`.
#[must_use]
pub fn scrub(text: &str, bytes_max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((shown, hidden)) = bearer_at(rest) {
            clean.push_str(rest.get(..shown).unwrap_or_default());
            clean.push('…');
            rest = rest.get(hidden..).unwrap_or_default();
        } else {
            if c.is_control() || is_format(c) {
                clean.extend(c.escape_unicode());
            } else {
                clean.push(c);
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        if clean.len() > bytes_max {
            let end = (0..=bytes_max).rev().find(|end| clean.is_char_boundary(*end)).unwrap_or(0);
            clean.truncate(end);
            break;
        }
    }
    clean
}

/// Whether [`scrub`] would mask something in a text.
pub(crate) fn holds_bearer(text: &str) -> bool {
    text.char_indices().any(|(at, _)| text.get(at..).and_then(bearer_at).is_some())
}

/// Whether `rest` begins with a bearer string: how much of it may be shown, and how long it is.
/// Any case: a handle that a model has put into capitals is still a handle.
fn bearer_at(rest: &str) -> Option<(usize, usize)> {
    let begins = |known: &str| rest.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known));
    let run = || rest.bytes().take_while(|c| c.is_ascii_alphanumeric() || b"_-".contains(c)).count();
    // 1Password's token is base64 of JSON and has no public part. A mere `ops_` is in many honest names.
    if begins("ops_eyJ") {
        return Some((4, run()));
    }
    if begins("eyJ") {
        return jwt_length(rest).map(|length| (0, length));
    }
    if !["vkh_", "vkt_", "vkd_"].into_iter().any(begins) {
        return None;
    }
    let run = run();
    let public = rest.get(4..run)?.find('_').map_or(4, |id| 4 + id);
    // A bare id (`vkh_abc`) is for logs; only what follows the second underscore is secret.
    let secret = run.saturating_sub(public) > 1;
    let bare_id = public == 4 && run <= 4 + 16;
    (secret && !bare_id).then_some((public, run))
}

/// How long a signed token (JWT) at the beginning of `rest` is: parts of base64 with dots between them. A
/// header alone opens nothing, and may be an honest word.
fn jwt_length(rest: &str) -> Option<usize> {
    let base64 = |c: &u8| c.is_ascii_alphanumeric() || b"_-=".contains(c);
    let length = rest.bytes().take_while(|c| base64(c) || *c == b'.').count();
    let mut parts = rest.get(..length)?.split('.');
    let (header, claims) = (parts.next()?, parts.next()?);
    (header.len() >= JWT_PART_MIN && claims.len() >= JWT_PART_MIN).then_some(length)
}

/// Characters that show nothing or change the direction of what follows, so that a log line could read as
/// something else: Unicode's category Cf, its line separators, and what it lists as default-ignorable.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn bounded(text: &str, max: usize) -> Result<Arc<str>, TextError> {
    if text.trim().is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > max {
        return Err(TextError::TooLong { max, has: text.len() });
    }
    // Escapes are longer than what they stand for; six bytes for one at the most, plus the braces.
    Ok(scrub(text, max.saturating_mul(8)).into())
}

/// `{"alg":""}` and `{"iss":""}` in base64 have more.
const JWT_PART_MIN: usize = 10;
const PURPOSE_MAX: usize = 512;
const SESSION_MAX: usize = 128;
/// RFC 1035, section 2.3.4.
const HOST_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scrub_masks_and_escapes() {
        let secret = "a".repeat(40);
        let check = |text: &str, clean: &str| assert_eq!(scrub(text, 512), clean);
        check("plain text", "plain text");
        check("line\nbreak\u{202e}", "line\\u{a}break\\u{202e}");
        check("a\u{ad}b\u{e0041}\u{61c}", "a\\u{ad}b\\u{e0041}\\u{61c}");
        check("vkh_abcdefghijklmnop", "vkh_abcdefghijklmnop");
        check(&format!("use vkh_abcdefghijklmnop_{secret}!"), "use vkh_abcdefghijklmnop…!");
        check(&format!("VKH_ABCDEFGHIJKLMNOP_{secret}"), "VKH_ABCDEFGHIJKLMNOP…");
        check(&format!("vkt_abcdefghijklmnop_{secret}"), "vkt_abcdefghijklmnop…");
        check(&format!("vkd_abcdefghijklmnop_{secret}"), "vkd_abcdefghijklmnop…");
        check("ops_eyJzaWduSW5B", "ops_…");
        check("OPS_EYJZAWDU_SW5B-x y", "OPS_… y");
        check("devops_deploy", "devops_deploy");
        check("Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl!", "Bearer …!");
        check("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0", "…");
        check("xEYJHBGCIOIJFUZI1NIJ9.EYJZDWIIOIJHIN0.x y", "x… y");
        check("eyJhbGciOiJFUzI1NiJ9 heyJude.mp3", "eyJhbGciOiJFUzI1NiJ9 heyJude.mp3");
        check(&format!("xvkh_abcdefghijklmnop_{secret}"), "xvkh_abcdefghijklmnop…");
        assert_eq!(scrub("ääää", 3), "ä");
    }

    #[test]
    fn hosts() {
        assert_eq!(
            Destination::parse("API.Ramp.com").map(|host| host.as_str().to_owned()),
            Ok("api.ramp.com".into())
        );
        for bad in ["https://a.b", "a:1", "a/b", ".a", "a..b", "-a.b", "a b"] {
            assert!(Destination::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn scrub_is_bounded_and_harmless(text in ".{0,200}", max in 0usize..200) {
            let clean = scrub(&text, max);
            prop_assert!(clean.len() <= max);
            prop_assert!(!clean.chars().any(char::is_control));
        }

        #[test]
        fn scrub_never_shows_a_secret(before in "[ -~]{0,20}", secret in "[a-z2-7]{40}", after in "[^a-z2-7]{0,20}") {
            let text = format!("{before}vkh_abcdefghijklmnop_{secret}{after}");
            prop_assert!(!scrub(&text, 512).contains(&secret));
        }
    }
}
