//! What `op` says on stderr when it fails, in our words. Its exit code is 1 whatever happened.

use std::time::Duration;

use valetkey_core::ResolveError;

use crate::upstream::UpstreamError;

/// The failure behind a text. A text that is not known is that the source is not available; what it quotes is
/// left out, because nobody can say what that is.
pub(super) fn from_text(stderr: &str) -> UpstreamError {
    let line = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("`op` failed and said nothing");
    let text = without_head(line);
    let lower = text.to_lowercase();
    let known = |(words, error): &(&[&str], ResolveError)| {
        words.iter().any(|word| lower.contains(word)).then(|| error.clone())
    };
    if LIMIT_WORDS.iter().any(|word| lower.contains(word)) {
        return UpstreamError::new(ResolveError::RateLimited { retry_after: retry_after(&lower) }, text);
    }
    match KNOWN.iter().find_map(known) {
        Some(error) => UpstreamError::new(error, text),
        None => UpstreamError::new(ResolveError::Unavailable, &without_quoted(text)),
    }
}

/// Without `[ERROR] 2026/01/01 00:00:00 `.
fn without_head(line: &str) -> &str {
    let rest = line.trim().strip_prefix("[ERROR] ");
    rest.and_then(|rest| rest.splitn(3, ' ').nth(2)).unwrap_or(line).trim()
}

/// From "try again in 42 seconds"; a minute where it does not say.
fn retry_after(lower: &str) -> Duration {
    let mut words = lower.split_once(" again in ").map_or("", |(_, rest)| rest).split_whitespace();
    let number = words.next().and_then(|word| word.parse::<u64>().ok());
    let unit = match words.next().unwrap_or_default() {
        word if word.starts_with("minute") => 60,
        word if word.starts_with("hour") => 3_600,
        _ => 1,
    };
    let seconds = number.map_or(RETRY_USUAL, |number| number.saturating_mul(unit));
    Duration::from_secs(seconds.clamp(1, RETRY_MAX))
}

fn without_quoted(text: &str) -> String {
    let outside = text.split('"').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "…" });
    let words = outside.collect::<Vec<_>>().join("\"");
    let shown = |word: &str| if word.len() > WORD_MAX { "…".to_owned() } else { word.to_owned() };
    words.split_whitespace().map(shown).collect::<Vec<_>>().join(" ")
}

const LIMIT_WORDS: &[&str] = &["too many requests", "(429)", "rate limit"];
/// In lower case. Only ids are asked for, so that nothing a person has named can be among these words.
const KNOWN: &[(&[&str], ResolveError)] = &[
    (
        &["(401)", "invalid bearer token", "decodesacredentials", "you are not currently signed in"],
        ResolveError::CredentialsRefused,
    ),
    (&["isn't a vault"], ResolveError::VaultNotFound),
    (&["isn't an item"], ResolveError::ItemNotFound),
    (&["does not have a field", "isn't a field"], ResolveError::FieldNotFound),
    (&["more than one vault"], ResolveError::TooManyVaults),
    (&["more than one item"], ResolveError::TooManyItems),
    (&["more than one field", "multiple matches"], ResolveError::TooManyMatchingFields),
];
/// In seconds.
const RETRY_USUAL: u64 = 60;
/// In seconds; the longest quota is a day's.
const RETRY_MAX: u64 = 24 * 60 * 60;
/// Keys and tokens are long words.
const WORD_MAX: usize = 32;
