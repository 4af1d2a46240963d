//! What `valetkey doctor` says of this source. Costs one request: the list of vaults.

use super::{Op, OpOptions, OpRateLimit};
use crate::check::Check;
use crate::item::Vault;
use crate::upstream::{Upstream as _, UpstreamError};
use valetkey_core::{ResolveError, ResolveFailure};

/// Looks at the program, its version, whether 1Password takes the token, what is left of the quotas, and whether
/// `vaults`, by name or id, are there. What depends on something that failed is left out.
pub async fn op_checks(options: OpOptions, vaults: &[String]) -> Vec<Check> {
    let program = options.program.display().to_string();
    let op = match Op::open(options) {
        Ok(op) => op,
        Err(error) => return vec![Check::of(PROGRAM, Err(error), "name the program that should be run")],
    };
    let mut checks = Vec::new();
    match op.version().await {
        Ok(version) => checks.push(Check::ok(PROGRAM, format!("`{program}`, version {version}"))),
        Err(error) => {
            checks.push(failed(PROGRAM, error));
            return checks;
        }
    }
    match op.rate_limits().await {
        Ok(limits) => {
            checks.push(Check::ok(TOKEN, "1Password takes it"));
            checks.push(quota(&limits));
        }
        Err(error) => {
            checks.push(failed(TOKEN, error));
            return checks;
        }
    }
    match op.vaults().await {
        Ok(seen) => checks.extend(vaults.iter().map(|wanted| vault(wanted, &seen))),
        Err(error) => checks.push(failed(VAULT, error)),
    }
    checks
}

pub(super) fn quota(limits: &[OpRateLimit]) -> Check {
    let words = |limit: &OpRateLimit| {
        let OpRateLimit { scope, action, limit, remaining, reset_seconds } = limit;
        format!("{scope} {action}: {remaining} of {limit} left, all again in {reset_seconds} s")
    };
    let found = limits.iter().map(words).collect::<Vec<_>>().join("; ");
    // Writing is nothing that a broker does.
    let is_low = |limit: &&OpRateLimit| limit.action != "write" && limit.remaining < limit.limit / 10;
    match limits.iter().any(|limit| is_low(&limit)) {
        false => Check::ok(QUOTA, found),
        true => Check::warn(QUOTA, found, "wait, ask less often, or lower the source's `requests_per_hour`"),
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

fn failed(name: &'static str, error: UpstreamError) -> Check {
    let ResolveFailure { error, detail } = error.into();
    let next_step = match error {
        ResolveError::CredentialsRefused => "make a new token, or take the right one",
        ResolveError::RateLimited { .. } => "wait until the quota is there again",
        _ => "see what it said; is 1Password reachable from here?",
    };
    Check::fail(name, format!("{error}: {}", detail.unwrap_or_default()), next_step)
}

const PROGRAM: &str = "op program";
const TOKEN: &str = "token";
const QUOTA: &str = "quota";
const VAULT: &str = "vault";
