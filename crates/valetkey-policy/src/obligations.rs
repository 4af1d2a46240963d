//! What stands in a policy's annotations. A word that is not known here is refused: a misspelt
//! obligation must not vanish.

use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{Effect, Policy};
use valetkey_core::{Binding, GroupId, Name, Obligations, PolicyId, Redeemer};

/// Which accesses to a secret a policy's scope takes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// Any of them.
    pub(crate) access: bool,
    /// Those by which a handle is issued.
    pub(crate) acquire: bool,
}

/// The annotations of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotations {
    pub(crate) id: PolicyId,
    pub(crate) effect: Effect,
    /// What a permit asks in return.
    pub(crate) obligations: Obligations,
    /// What the refused agent may read.
    pub(crate) advice: Option<Arc<str>>,
    /// What reviewers read.
    pub(crate) reason: Option<Arc<str>>,
}

impl Annotations {
    /// Reads a policy's annotations.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn read(policy: &Policy, scope: Scope) -> Result<Self, Vec<String>> {
        let effect = policy.effect();
        let mut read = Self {
            id: PolicyId("".into()),
            effect,
            obligations: Obligations::default(),
            advice: None,
            reason: None,
        };
        let mut annotations: Vec<_> = policy.annotations().collect();
        annotations.sort_unstable();
        let mut faults: Vec<String> =
            annotations.into_iter().filter_map(|(word, text)| read.take(word, text, scope).err()).collect();
        if policy.annotation("id").is_none() {
            faults.push("the policy has no `@id`".to_owned());
        }
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    fn take(&mut self, word: &str, text: &str, scope: Scope) -> Result<(), String> {
        let forbids = self.effect == Effect::Forbid;
        match word {
            "id" => self.id = PolicyId(id(text)?.into()),
            "reason" => self.reason = Some(sentence(word, text)?),
            "advice" if forbids => self.advice = Some(sentence(word, text)?),
            "advice" => {
                return Err("`@advice` is for those who are refused, and belongs on a forbid".to_owned());
            }
            "max_ttl" | "uses" | "redeem_by" | "bind" | "approval" if forbids => {
                return Err(format!("`@{word}` on a forbid has no effect: obligations belong on permits"));
            }
            "approval" if !scope.acquire => {
                return Err("`@approval` has no effect on a policy that does not permit acquire".to_owned());
            }
            "max_ttl" | "uses" | "redeem_by" | "bind" if !scope.access => {
                return Err(format!(
                    "`@{word}` has no effect on a policy that permits neither acquire nor redeem"
                ));
            }
            "max_ttl" => self.obligations.ttl_max = Some(ttl(text)?),
            "uses" => self.obligations.uses = uses(text)?,
            "redeem_by" => self.obligations.redeemer = redeemer(text)?,
            "bind" => self.obligations.binding = binding(text)?,
            "approval" => self.obligations.approval = Some([group(text)?].into()),
            "hosts" => return Err(format!("`@{word}` is not supported by this version")),
            _ => return Err(format!("unknown annotation `@{word}`: {KNOWN}")),
        }
        Ok(())
    }
}

fn id(text: &str) -> Result<&str, String> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let first = text.bytes().next().is_some_and(plain);
    if first && text.len() <= ID_MAX && text.bytes().all(|c| plain(c) || b"._-".contains(&c)) {
        return Ok(text);
    }
    Err(format!(
        "`@id` must have 1 to {ID_MAX} characters of `a-z 0-9 . _ -` and begin with a letter or digit, is `{}`",
        text.escape_debug()
    ))
}

fn sentence(word: &str, text: &str) -> Result<Arc<str>, String> {
    if text.trim().is_empty() || text.len() > SENTENCE_MAX || text.chars().any(char::is_control) {
        return Err(format!("`@{word}` must be one line of 1 to {SENTENCE_MAX} bytes"));
    }
    Ok(text.into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let unit =
        |unit: char, seconds: u64| text.strip_suffix(unit).and_then(digits).map(|count| (count, seconds));
    unit('s', 1)
        .or_else(|| unit('m', 60))
        .or_else(|| unit('h', 3600))
        .and_then(|(count, seconds)| count.checked_mul(seconds))
        .filter(|seconds| (1..=TTL_MAX_SECONDS).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| {
            format!("`@max_ttl` must be from `1s` to `24h`, in s, m or h, is `{}`", text.escape_debug())
        })
}

fn uses(text: &str) -> Result<u32, String> {
    digits(text)
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| (1..=USES_MAX).contains(count))
        .ok_or_else(|| format!("`@uses` must be from `1` to `{USES_MAX}`, is `{}`", text.escape_debug()))
}

fn redeemer(text: &str) -> Result<Redeemer, String> {
    match text {
        "tool" => Ok(Redeemer::Tool),
        "agent" => Ok(Redeemer::Agent),
        _ => Err(format!("`@redeem_by` must be `tool` or `agent`, is `{}`", text.escape_debug())),
    }
}

fn binding(text: &str) -> Result<Binding, String> {
    match text {
        "certificate" => Ok(Binding::Certificate),
        _ => Err(format!("`@bind` must be `certificate`, is `{}`", text.escape_debug())),
    }
}

fn group(text: &str) -> Result<GroupId, String> {
    let wrong = |error| format!("`@approval` must name a group: `{}` {error}", text.escape_debug());
    Name::parse(text).map(GroupId).map_err(wrong)
}

/// `parse` alone would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

const KNOWN: &str = "known are id, reason, advice, max_ttl, uses, redeem_by, bind and approval";
const ID_MAX: usize = 64;
const SENTENCE_MAX: usize = 512;
const TTL_MAX_SECONDS: u64 = 24 * 3600;
const USES_MAX: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives() {
        for (text, seconds) in [("1s", 1), ("120s", 120), ("15m", 900), ("24h", 86_400), ("86400s", 86_400)] {
            assert_eq!(ttl(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "s",
            "0s",
            "120",
            "25h",
            "86401s",
            "+1s",
            "-1s",
            "1.5h",
            "1 s",
            "1d",
            "99999999999999999999h",
        ] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_ids() {
        assert_eq!((uses("1"), uses("1000")), (Ok(1), Ok(1_000)));
        for bad in ["", "0", "1001", "+1", "one", "1.0"] {
            assert!(uses(bad).is_err(), "{bad}");
        }
        assert_eq!(id("navan.book-flight_2"), Ok("navan.book-flight_2"));
        for bad in ["", "-a", ".a", "A", "a b", "ä", &"a".repeat(65)] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }
}
