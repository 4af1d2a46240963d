//! What `valetkey doctor` says of this source. Costs one request: the list of vaults.

use super::{Op, OpOptions, OpRateLimit};
use crate::check::{Check, UNREACHABLE, failed, vault_checks};
use crate::token::Hosts;

/// Looks at the program, its version, whether 1Password takes the token, what is left of the quotas, and whether
/// `vaults`, by name or id, are there. What depends on something that failed is left out.
pub async fn op_checks(options: OpOptions, vaults: &[String]) -> Vec<Check> {
    let program = options.program.display().to_string();
    let is_it = format!("is this 1Password's CLI? `{program} --version` should print a version");
    if let Err(error) = options.token.read(Hosts::of(options.allow_loopback)) {
        return vec![Check::of(TOKEN, Err(error), "docs/sources.md says where a token comes from")];
    }
    let op = match Op::open(options) {
        Ok(op) => op,
        Err(error) => return vec![Check::of(PROGRAM, Err(error), "name the program that should be run")],
    };
    let mut checks = Vec::new();
    match op.version().await {
        Ok(version) => checks.push(Check::ok(PROGRAM, format!("`{program}`, version {version}"))),
        Err(error) => {
            checks.push(failed(PROGRAM, error, &is_it));
            return checks;
        }
    }
    match op.rate_limits().await {
        Ok(limits) => {
            checks.push(Check::ok(SIGN_IN, "1Password takes the token"));
            checks.push(quota(&limits));
        }
        Err(error) => {
            checks.push(failed(SIGN_IN, error, UNREACHABLE));
            return checks;
        }
    }
    checks.extend(vault_checks(&op, vaults, UNREACHABLE).await);
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

const PROGRAM: &str = "op program";
const TOKEN: &str = "token";
const SIGN_IN: &str = "sign-in";
const QUOTA: &str = "quota";
