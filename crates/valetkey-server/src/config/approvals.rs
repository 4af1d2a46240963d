//! `[approvals]`: where people approve, and for how long.

use std::time::Duration;

use serde::Deserialize;
use valetkey_core::{ApprovalLimits, LeaseId};

/// What the broker is told of approvals.
#[derive(Debug, Clone, Default)]
pub struct ApprovalSettings {
    /// How long an ask waits, and an approval is good.
    pub limits: ApprovalLimits,
    /// The page that an agent is told to show to a person; `None` where there is none.
    pub link: Option<ApprovalLink>,
}

/// The address of a page to approve at: an agent's error names it, with the id put in.
#[derive(Debug, Clone)]
pub struct ApprovalLink {
    before: String,
    after: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalsSection {
    url: Option<String>,
    wait_seconds: Option<u64>,
    good_seconds: Option<u64>,
}

impl ApprovalsSection {
    pub(super) fn check(self, faults: &mut Vec<String>) -> Option<ApprovalSettings> {
        let Self { url, wait_seconds, good_seconds } = self;
        let before = faults.len();
        let usual = ApprovalLimits::default();
        let mut seconds = |key: &str, given: Option<u64>, usual: Duration| {
            let has = given.map_or(usual, Duration::from_secs);
            if !(SECONDS_MIN..=SECONDS_MAX).contains(&has.as_secs()) {
                faults.push(format!(
                    "`approvals.{key}` must be between {SECONDS_MIN} and {SECONDS_MAX}, is {}",
                    has.as_secs()
                ));
            }
            has
        };
        let wait = seconds("wait_seconds", wait_seconds, usual.wait);
        let good_for = seconds("good_seconds", good_seconds, usual.good_for);
        let link = match url.as_deref().map(ApprovalLink::parse) {
            Some(Err(problem)) => {
                faults.push(format!("`approvals.url` {problem}"));
                None
            }
            Some(Ok(link)) => Some(link),
            None => None,
        };
        let limits = ApprovalLimits { wait, good_for, ..usual };
        (faults.len() == before).then_some(ApprovalSettings { limits, link })
    }
}

impl ApprovalLink {
    /// Takes an address with `{id}` in it, once.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '|');
        if text.len() > URL_MAX || !text.chars().all(plain) {
            return Err("must have at most 512 bytes, without blanks and quotes");
        }
        let rest = text.strip_prefix("https://");
        let loopback = |host: &str| {
            text.strip_prefix("http://").and_then(|rest| rest.strip_prefix(host)).filter(ends_a_host)
        };
        let loopback = ["127.0.0.1", "[::1]", "localhost"].into_iter().find_map(loopback);
        let has_host =
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#', '{']));
        if !has_host && loopback.is_none() {
            return Err("must begin with `https://` and a host, or `http://` and this machine's own address");
        }
        let authority =
            rest.or(loopback).unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains(['@', '{']) {
            return Err("must have no `@` or `{id}` in its host");
        }
        match text.split_once("{id}") {
            Some((before, after)) if !before.contains(['{', '}']) && !after.contains(['{', '}']) => {
                Ok(Self { before: before.to_owned(), after: after.to_owned() })
            }
            _ => Err("must contain `{id}` once, and no other brace"),
        }
    }

    /// With the id put in.
    pub(crate) fn to(&self, id: LeaseId) -> String {
        format!("{}{id}{}", self.before, self.after)
    }
}

/// Whether a host ends where `rest` begins: `127.0.0.1.example.com` is another's.
fn ends_a_host(rest: &&str) -> bool {
    rest.is_empty() || rest.starts_with(['/', ':', '?', '#'])
}

const URL_MAX: usize = 512;
const SECONDS_MIN: u64 = 60;
const SECONDS_MAX: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check =
            |text: &str| ApprovalLink::parse(text).map(|link| format!("{}ID{}", link.before, link.after));
        for good in
            ["https://a.example/{id}", "https://a.example:8443/x?ask={id}#y", "http://127.0.0.1:80/{id}"]
        {
            assert_eq!(check(good).as_deref(), Ok(good.replace("{id}", "ID").as_str()));
        }
        for bad in [
            "",
            "{id}",
            "https://a.example/",
            "https://a.example/{id}/{id}",
            "https://a.example/{id}{x}",
            "https:///{id}",
            "https://{id}",
            "https://{id}.example/",
            "https://a.{id}.example/",
            "https://user@a.example/{id}",
            "http://a.example/{id}",
            "http://127.0.0.1.example/{id}",
            "http://localhost@a.example/{id}",
            "http://localhost:1@a.example/{id}",
            "javascript:alert({id})",
            "https://a.example/ {id}",
            "https://a.example/{id}\n",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
