//! What the core's refusals mean: its texts to our errors.

use std::time::Duration;

use serde::Deserialize;
use valetkey_core::ResolveError;

use super::ffi::CoreError;
use crate::upstream::{Question, UpstreamError};

/// A call that came to nothing.
pub(super) struct Fault {
    pub(super) error: UpstreamError,
    /// Whether the client that was asked is of no more use.
    pub(super) client_lost: bool,
}

/// What a failed call means. `question` is `None` for the sign-in.
pub(super) fn fault(question: Option<Question>, error: &CoreError) -> Fault {
    match error {
        CoreError::Refused(text) => refusal(question, text),
        CoreError::Broken(why) => Fault {
            error: UpstreamError::new(ResolveError::Unavailable, &format!("the SDK core failed: {why}")),
            client_lost: true,
        },
    }
}

/// How the core writes most errors.
#[derive(Deserialize)]
struct Said {
    name: String,
    #[serde(default)]
    message: String,
}

fn refusal(question: Option<Question>, text: &str) -> Fault {
    let Said { name, message } =
        serde_json::from_str(text).unwrap_or_else(|_| Said { name: String::new(), message: text.to_owned() });
    let says = |known: &&str| message.contains(*known);
    let (error, client_lost) = if name == "RateLimitExceeded" || says(&RATE_LIMIT) {
        (ResolveError::RateLimited { retry_after: RETRY_AFTER }, false)
    } else if CLIENT_LOST.iter().any(says) {
        (ResolveError::Unavailable, true)
    } else if NOT_AUTHENTICATED.iter().any(says) {
        (ResolveError::CredentialsRefused, true)
    } else if OUT_OF_ORDER.iter().any(says) {
        (ResolveError::Unavailable, false)
    } else if question.is_none() && is_about_token(&name, &message) {
        (ResolveError::CredentialsRefused, true)
    } else {
        let matched = MATCHES.iter().find(|(known, _)| says(known)).map(|(_, error)| error.clone());
        (matched.or_else(|| missing(question, &message)).unwrap_or(ResolveError::Unavailable), false)
    };
    let detail = if name.is_empty() { message } else { format!("{name}: {message}") };
    Fault { error: UpstreamError::new(error, &without_tokens(&detail)), client_lost }
}

/// Whether the refusal of a sign-in is the token's fault.
fn is_about_token(name: &str, message: &str) -> bool {
    match name {
        "ServiceAccountTokenParsing" | "InvalidConfiguration" => true,
        "Auth" => NO_ACCESS.iter().any(|known| message.contains(known)),
        _ => false,
    }
}

/// What the service's "not found" and "no permission" mean. They are the same to us: it shows a vault that
/// the account may not see no more than one that does not exist.
fn missing(question: Option<Question>, message: &str) -> Option<ResolveError> {
    let is_absent = ["not found", "couldn't be found"].iter().any(|known| message.contains(known));
    let is_hidden = message.contains("right permissions");
    match question? {
        Question::Vaults => is_hidden.then_some(ResolveError::CredentialsRefused),
        Question::Items => (is_absent || is_hidden).then_some(ResolveError::VaultNotFound),
        Question::Item | Question::File if is_hidden => Some(ResolveError::VaultNotFound),
        Question::Item => is_absent.then_some(ResolveError::ItemNotFound),
        Question::File => is_absent.then_some(ResolveError::FieldNotFound),
    }
}

/// Cuts what looks like a token out of a text. The core does not repeat the token; this is for the day it does.
fn without_tokens(text: &str) -> String {
    let mut pieces = text.split("ops_");
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        clean.push_str("ops_…");
        clean.push_str(piece.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_=".contains(c)));
    }
    clean
}

/// The core never says when; the limits are of an hour, and of a day.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RATE_LIMIT: &str = "rate limit exceeded";
const CLIENT_LOST: [&str; 1] = ["invalid client id"];
const NOT_AUTHENTICATED: [&str; 3] =
    ["you are not authenticated", "failed to authenticate", "bad credentials"];
/// The answers of a service that refuses the sign-in itself.
const NO_ACCESS: [&str; 3] = ["bad request", "right permissions", "resource not found"];
const OUT_OF_ORDER: [&str; 5] = [
    "error sending request",
    "request timeout",
    "internal server error",
    "unexpected status code",
    "data conflict occurred",
];
const MATCHES: [(&str, ResolveError); 5] = [
    ("not in an active state", ResolveError::ItemNotActive),
    ("no vault matched", ResolveError::VaultNotFound),
    ("no item matched", ResolveError::ItemNotFound),
    ("specified field cannot be found", ResolveError::FieldNotFound),
    ("unsupported file format", ResolveError::UnsupportedFileFormat),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(question: Option<Question>, text: &str, error: ResolveError, client_lost: bool) {
        let found = fault(question, &CoreError::Refused(text.to_owned().into()));
        assert_eq!((found.error.error, found.client_lost), (error, client_lost), "{text}");
    }

    fn said(name: &str, message: &str) -> String {
        serde_json::json!({ "name": name, "message": message }).to_string()
    }

    /// Texts of core 0.4.2, seen.
    #[test]
    fn what_the_core_says_has_its_kind() {
        use Question::{File, Item, Items, Vaults};
        use ResolveError::*;
        let limited = || RateLimited { retry_after: RETRY_AFTER };
        let auth = |text: &str| said("Auth", &format!("authentication error: {text}"));
        check(None, &auth("you are not authenticated"), CredentialsRefused, true);
        check(None, &auth("bad request"), CredentialsRefused, true);
        check(
            None,
            &auth("you don't have the right permissions to access this resource"),
            CredentialsRefused,
            true,
        );
        check(None, &auth("resource not found"), CredentialsRefused, true);
        check(None, &auth("rate limit exceeded"), limited(), false);
        check(None, &auth("internal server error"), Unavailable, false);
        check(None, &auth("unexpected status code in response: 503 Service Unavailable"), Unavailable, false);
        let library = "request library compatibility issue, check that the your environment uses compatible \
                       versions: reqwest library: error sending request for url (<redacted URL>)";
        check(None, &auth(library), Unavailable, false);
        check(None, &said("InvalidConfiguration", "… was not specified"), CredentialsRefused, true);
        check(None, &said("ServiceAccountTokenParsing", "invalid …"), CredentialsRefused, true);
        check(Some(Vaults), &said("RateLimitExceeded", ""), limited(), false);
        let item = |text: &str| said("ItemApi", &format!("performing an item operation: {text}"));
        check(Some(Item), &item("rate limit exceeded"), limited(), false);
        check(
            Some(Item),
            &item("bad credentials, please retry: failed to authenticate"),
            CredentialsRefused,
            true,
        );
        check(Some(Items), &said("ItemApi", "vault couldn't be found"), VaultNotFound, false);
        check(Some(Item), &said("ItemApi", "item couldn't be found"), ItemNotFound, false);
        let no_file = "invalid user input: encountered the following errors: document not found in item";
        check(Some(File), &said("InvalidConfiguration", no_file), FieldNotFound, false);
        check(Some(Item), &item("item is not in an active state"), ItemNotActive, false);
        check(Some(Item), "no vault matched the secret reference query", VaultNotFound, false);
        check(Some(Item), &item("data conflict occurred on the server"), Unavailable, false);
        let hidden =
            "you do not have the right permissions to perform this action: performing a vault operation";
        check(Some(Vaults), &said("X", hidden), CredentialsRefused, false);
        check(Some(Items), &said("X", hidden), VaultNotFound, false);
        check(Some(Item), &said("X", hidden), VaultNotFound, false);
        check(Some(Item), &said("Internal", "…: invalid client id"), Unavailable, true);
        check(Some(Item), "missing field `invocation` at line 1 column 2", Unavailable, false);
        check(Some(Item), "", Unavailable, false);
    }

    #[test]
    fn a_broken_core_costs_the_client() {
        let found = fault(Some(Question::Item), &CoreError::Broken("it panicked"));
        assert!(found.client_lost && found.error.error == ResolveError::Unavailable);
    }

    #[test]
    fn nothing_that_looks_like_a_token_stays() {
        assert_eq!(without_tokens("a ops_eyJ-x_1=, ops_ b"), "a ops_…, ops_… b");
        assert_eq!(without_tokens("none"), "none");
    }
}
