//! Who may call: `[[identity]]` and `[[spiffe_rule]]`.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use valetkey_core::{Identity, SpiffeId, SpiffePattern, Timestamp};

use super::read;
use crate::identity::known::{IdentityKind, Member, Proof, SpiffeRule};
use crate::token::TokenDigest;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentitySection {
    agent: Option<String>,
    tool: Option<String>,
    person: Option<String>,
    token: Option<String>,
    expires: Option<toml::value::Datetime>,
    spiffe: Option<String>,
    uid: Option<u32>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpiffeRuleSection {
    pattern: String,
    agent: Option<String>,
    tool: Option<String>,
    person: Option<String>,
}

/// Takes both lists out of the document.
pub(super) fn read_all(
    document: &mut toml::Table,
    faults: &mut Vec<String>,
) -> (Vec<Member>, Vec<SpiffeRule>) {
    let entries = list::<IdentitySection>(document, "identity", faults);
    let rules = list::<SpiffeRuleSection>(document, "spiffe_rule", faults);
    let mut seen = HashSet::new();
    let mut members = Vec::with_capacity(entries.len());
    for (key, entry) in entries {
        match entry.map(members_of) {
            Some(Ok(entry)) => {
                for member in entry {
                    let (field, known_by) = known_by(&member.shows);
                    if !seen.insert(known_by) {
                        faults.push(format!("`{key}.{field}` is the {field} of an entry before it"));
                    }
                    members.push(member);
                }
            }
            Some(Err(fault)) => faults.push(format!("`{key}` {fault}")),
            None => {}
        }
    }
    let mut spiffe_rules = Vec::with_capacity(rules.len());
    for (key, rule) in rules {
        match rule.map(spiffe_rule) {
            Some(Ok(rule)) => spiffe_rules.push(rule),
            Some(Err(fault)) => faults.push(format!("`{key}` {fault}")),
            None => {}
        }
    }
    (members, spiffe_rules)
}

/// The entries of a list with their keys; one that cannot be read has left its fault, and is `None`.
pub(super) fn list<T: DeserializeOwned>(
    document: &mut toml::Table,
    name: &str,
    faults: &mut Vec<String>,
) -> Vec<(String, Option<T>)> {
    let entries = match document.remove(name) {
        Some(toml::Value::Array(entries)) => entries,
        Some(_) => {
            faults.push(format!("`{name}` must be a list: write each as `[[{name}]]`"));
            return Vec::new();
        }
        None => return Vec::new(),
    };
    let entries = entries.into_iter().enumerate().map(|(place, entry)| {
        let key = format!("{name}[{place}]");
        let entry = read(entry, &key, faults);
        (key, entry)
    });
    entries.collect()
}

fn members_of(entry: IdentitySection) -> Result<Vec<Member>, String> {
    let IdentitySection { agent, tool, person, token, expires, spiffe, uid, user } = entry;
    let (kind, name) = kind_of(agent, tool, person)?;
    let identity = kind.named(&name).map_err(|error| format!("`{name}` {error}"))?;
    let mut shows = Vec::new();
    if let Some(token) = token {
        let digest = TokenDigest::parse(&token).map_err(|_| {
            "`token` must be a digest, `vkt_<id>:<64 hexadecimal digits>`, as `valetkey token create` prints it"
        })?;
        shows.push(Proof::Token(match expires {
            Some(expires) => digest.until(moment(expires)?),
            None => digest,
        }));
    } else if expires.is_some() {
        return Err("must have `expires` beside `token` alone".to_owned());
    }
    if let Some(id) = spiffe {
        shows.push(Proof::Spiffe(
            SpiffeId::parse(&id).map_err(|error| format!("`spiffe` {error}, is `{id}`"))?,
        ));
    }
    match (uid, user) {
        (None, None) => {}
        (Some(uid), None) => shows.push(Proof::User(uid)),
        (None, Some(user)) => shows.push(Proof::User(uid_of(&user)?)),
        (Some(_), Some(_)) => return Err("must not have both `uid` and `user`".to_owned()),
    }
    if shows.is_empty() {
        return Err("must have at least one of `token`, `spiffe`, `uid` and `user`".to_owned());
    }
    let member = |shows| Member { identity: Identity::clone(&identity), shows };
    Ok(shows.into_iter().map(member).collect())
}

/// A moment with its place on the earth, such as `2027-01-31T00:00:00Z`.
fn moment(expires: toml::value::Datetime) -> Result<Timestamp, String> {
    let parsed = OffsetDateTime::parse(&expires.to_string(), &Rfc3339).ok();
    let micros = parsed.and_then(|moment| i64::try_from(moment.unix_timestamp_nanos() / 1000).ok());
    let wrong = || format!("`expires` must be a moment such as `2027-01-31T00:00:00Z`, is `{expires}`");
    micros.map(Timestamp::from_micros).ok_or_else(wrong)
}

fn spiffe_rule(rule: SpiffeRuleSection) -> Result<SpiffeRule, String> {
    let SpiffeRuleSection { pattern, agent, tool, person } = rule;
    let (kind, name) = kind_of(agent, tool, person)?;
    let pattern =
        SpiffePattern::parse(&pattern).map_err(|error| format!("`pattern` {error}, is `{pattern}`"))?;
    let (prefix, suffix) = name
        .split_once(PLACE)
        .filter(|(_, suffix)| !suffix.contains(PLACE))
        .ok_or_else(|| format!("`{name}` must have `{PLACE}` exactly once"))?;
    kind.named(&format!("{prefix}any{suffix}")).map_err(|error| format!("`{name}` {error}"))?;
    Ok(SpiffeRule { pattern, kind, prefix: prefix.to_owned(), suffix: suffix.to_owned() })
}

pub(super) fn kind_of(
    agent: Option<String>,
    tool: Option<String>,
    person: Option<String>,
) -> Result<(IdentityKind, String), String> {
    match (agent, tool, person) {
        (Some(name), None, None) => Ok((IdentityKind::Agent, name)),
        (None, Some(name), None) => Ok((IdentityKind::Tool, name)),
        (None, None, Some(name)) => Ok((IdentityKind::Person, name)),
        _ => Err("must have exactly one of `agent`, `tool` and `person`".to_owned()),
    }
}

/// The field of a proof, and what must not stand in two entries.
fn known_by(proof: &Proof) -> (&'static str, String) {
    match proof {
        Proof::Token(digest) => ("token", digest.id().to_string()),
        Proof::Spiffe(id) => ("spiffe", id.to_string()),
        Proof::User(uid) => ("uid", uid.to_string()),
    }
}

/// The number of a user of this machine. Users of a directory service do not stand in the file: they are given
/// by their number.
fn uid_of(user: &str) -> Result<u32, String> {
    let users = std::fs::read_to_string(Path::new(USERS)).unwrap_or_default();
    let mut found = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid) = (fields.next()?, fields.next()?, fields.next()?);
        (name == user).then(|| uid.parse().ok())?
    });
    found.next().ok_or_else(|| format!("`user` `{}` is not in {USERS}; give its `uid`", user.escape_debug()))
}

const PLACE: &str = "{name}";
const USERS: &str = "/etc/passwd";
