//! What `valetkey doctor` looks at, and what it found. The checks of a source are beside the source.

use valetkey_core::{ResolveError, ResolveFailure};

use crate::item::Vault;
use crate::upstream::{Upstream, UpstreamError};

/// One thing that was looked at. None of its texts holds a value, a token or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where it is well.
    pub next_step: String,
}

/// How a thing is that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for long.
    Warn,
    /// It does not work.
    Fail,
}

impl Check {
    /// It is as it should be.
    #[must_use]
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), next_step: String::new() }
    }

    /// It works, but something is to be done.
    #[must_use]
    pub fn warn(name: &'static str, found: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warn, found: found.into(), next_step: next_step.into() }
    }

    /// It does not work before something is done.
    #[must_use]
    pub fn fail(name: &'static str, found: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fail, found: found.into(), next_step: next_step.into() }
    }

    /// Whether it does not work.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }

    /// Found, or why not and what to do then.
    pub fn of<E: std::error::Error>(name: &'static str, found: Result<String, E>, next_step: &str) -> Self {
        match found {
            Ok(found) => Self::ok(name, found),
            Err(error) => Self::fail(name, chain(&error), next_step),
        }
    }
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// Whether an upstream answers, and has these vaults, by name or id. Costs one question. `unreachable` is what to do
/// where it does not answer.
pub(crate) async fn vault_checks(
    upstream: &dyn Upstream,
    vaults: &[String],
    unreachable: &str,
) -> Vec<Check> {
    match upstream.vaults().await {
        Ok(seen) => vaults.iter().map(|wanted| vault(wanted, &seen)).collect(),
        Err(error) => vec![failed(SIGN_IN, error, unreachable)],
    }
}

fn vault(wanted: &str, seen: &[Vault]) -> Check {
    let is_it = |vault: &&Vault| *vault.id == *wanted || vault.name.eq_ignore_ascii_case(wanted);
    match seen.iter().filter(is_it).count() {
        1 => Check::ok(VAULT, format!("`{wanted}` is there")),
        0 => Check::fail(
            VAULT,
            format!("`{wanted}` is not there"),
            "give the service account access to it, or mend its name; access is fixed when an account is made",
        ),
        _ => Check::fail(VAULT, format!("there are several `{wanted}`"), "name it by its id"),
    }
}

/// What a question came to, and what to do about it.
pub(crate) fn failed(name: &'static str, error: UpstreamError, unreachable: &str) -> Check {
    let ResolveFailure { error, detail } = error.into();
    let next_step = match error {
        ResolveError::CredentialsRefused => "make a new token, or take the right one",
        ResolveError::RateLimited { .. } => "wait until the quota is there again",
        _ => unreachable,
    };
    Check::fail(name, format!("{error}: {}", detail.unwrap_or_default()), next_step)
}

/// An error and its causes, each of which its `Display` leaves out.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// What to do where 1Password itself does not answer.
pub(crate) const UNREACHABLE: &str = "see what it said; is 1Password reachable from here?";
const SIGN_IN: &str = "sign-in";
const VAULT: &str = "vault";
