//! Whose signed tokens count: `[[issuer]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

use super::members::{kind_of, list};
use crate::identity::jwt::{Algorithm, Issuer, KeySource, Pattern, Piece, Rule};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerSection {
    issuer: String,
    jwks_url: Option<String>,
    jwks_ca_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    audience: String,
    algorithms: Option<Vec<String>>,
    #[serde(default)]
    rules: Vec<RuleSection>,
    #[serde(default)]
    claims: Vec<String>,
    #[serde(default)]
    single_use: bool,
    #[serde(default)]
    on_behalf_of: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    #[serde(default)]
    when: BTreeMap<String, String>,
    agent: Option<String>,
    tool: Option<String>,
    person: Option<String>,
}

/// Takes the list out of the document; paths in it are relative to `folder`.
pub(super) fn read_all(document: &mut toml::Table, folder: &Path, faults: &mut Vec<String>) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for (key, section) in list::<IssuerSection>(document, "issuer", faults) {
        match section.map(|section| issuer(section, folder)) {
            Some(Ok(issuer)) => {
                if issuers.iter().any(|it| it.issuer == issuer.issuer && it.audience == issuer.audience) {
                    faults.push(format!("`{key}` has the issuer and the audience of an entry before it"));
                }
                issuers.push(issuer);
            }
            Some(Err(fault)) => faults.push(format!("`{key}` {fault}")),
            None => {}
        }
    }
    issuers
}

fn issuer(section: IssuerSection, folder: &Path) -> Result<Issuer, String> {
    let IssuerSection {
        issuer,
        jwks_url,
        jwks_ca_file,
        jwks_file,
        audience,
        algorithms,
        rules,
        claims,
        single_use,
        on_behalf_of,
    } = section;
    for (key, text) in [("issuer", &issuer), ("audience", &audience)] {
        if text.is_empty() {
            return Err(format!("must have an `{key}` that is not empty"));
        }
    }
    let keys = match (jwks_url, jwks_ca_file, jwks_file) {
        (Some(url), ca_file, None) => KeySource::Url(url_of(&url)?, ca_file.map(|file| folder.join(file))),
        (None, None, Some(file)) => KeySource::File(folder.join(file)),
        (None, Some(_), Some(_)) => return Err("must have `jwks_ca_file` beside `jwks_url` alone".to_owned()),
        _ => return Err("must have exactly one of `jwks_url` and `jwks_file`".to_owned()),
    };
    if claims.len() > CLAIMS_MAX {
        return Err(format!("must name at most {CLAIMS_MAX} `claims`, names {}", claims.len()));
    }
    let algorithms = algorithms_of(algorithms)?;
    let rules = rules_of(rules)?;
    let issuer = Issuer { issuer, keys, audience, algorithms, rules, claims, single_use, on_behalf_of };
    if on_behalf_of && !issuer.has_people_alone() {
        return Err("must have rules for a `person` alone, because it has `on_behalf_of`".to_owned());
    }
    Ok(issuer)
}

/// Keys that come in clear text are those of whoever is on the way.
fn url_of(text: &str) -> Result<Url, String> {
    let wrong = || {
        format!("`jwks_url` must be an https URL, or an http one on loopback, is `{}`", text.escape_debug())
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_loopback = url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    match url.scheme() {
        // A password in it would stand in logs.
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("`jwks_url` must not have a user or a password".to_owned())
        }
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err(wrong()),
    }
}

fn algorithms_of(names: Option<Vec<String>>) -> Result<Vec<Algorithm>, String> {
    let names = names.unwrap_or_else(|| USUAL.map(ToOwned::to_owned).to_vec());
    if names.is_empty() {
        return Err("must have at least one of `algorithms`".to_owned());
    }
    let parse = |name: &String| {
        Algorithm::parse(name).ok_or_else(|| {
            let known: Vec<_> = Algorithm::ALL.iter().map(|(_, name)| *name).collect();
            format!("`algorithms` must be of {}, has `{}`", known.join(", "), name.escape_debug())
        })
    };
    names.iter().map(parse).collect()
}

fn rules_of(rules: Vec<RuleSection>) -> Result<Vec<Rule>, String> {
    if rules.is_empty() {
        return Err("must have `rules`: without one its tokens are nobody's".to_owned());
    }
    let rules = rules.into_iter().enumerate();
    rules.map(|(place, rule)| rule_of(rule).map_err(|fault| format!("`rules[{place}]` {fault}"))).collect()
}

fn rule_of(rule: RuleSection) -> Result<Rule, String> {
    let RuleSection { when, agent, tool, person } = rule;
    let condition = |(claim, pattern): (String, String)| match Pattern::parse(&pattern) {
        Ok(parsed) => Ok((claim, parsed)),
        Err(error) => Err(format!("`when.{claim}` {error}, is `{pattern}`")),
    };
    let conditions: Vec<_> = when.into_iter().map(condition).collect::<Result<_, _>>()?;
    let (kind, template) = kind_of(agent, tool, person)?;
    let name = Piece::parse_all(&template, &conditions).map_err(|error| format!("`{template}` {error}"))?;
    if let [Piece::Text(name)] = name.as_slice() {
        kind.named(name).map_err(|error| format!("`{name}` {error}"))?;
    }
    Ok(Rule { conditions, kind, name })
}

/// What most issuers sign by.
const USUAL: [&str; 3] = ["ES256", "RS256", "EdDSA"];
const CLAIMS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut document = toml::from_str(text).unwrap();
        read_all(&mut document, Path::new("/etc/vk"), &mut faults);
        faults
    }

    /// One entry with this in place of what stands there by default.
    fn entry(change: &[(&str, &str)]) -> String {
        let mut lines = vec![
            ("issuer", r#""https://a""#),
            ("jwks_url", r#""https://a/keys""#),
            ("audience", r#""valetkey""#),
            ("rules", r#"[{ when = { sub = "x:*" }, agent = "{sub:*}" }]"#),
        ];
        lines.retain(|(key, _)| change.iter().all(|(changed, _)| changed != key));
        lines.extend(change.iter().filter(|(_, value)| !value.is_empty()));
        let lines: Vec<_> = lines.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("[[issuer]]\n{}\n", lines.join("\n"))
    }

    #[test]
    fn what_is_no_issuer() {
        let check = |change: &[(&str, &str)], says: &str| {
            let faults = faults(&entry(change));
            match says {
                "" => assert_eq!(faults, [""; 0], "{change:?}"),
                _ => assert!(
                    matches!(faults.as_slice(), [fault] if fault.contains(says)),
                    "{change:?}: {faults:?}"
                ),
            }
        };
        check(&[], "");
        check(&[("jwks_url", r#""http://127.0.0.1:1/keys""#)], "");
        check(&[("jwks_url", ""), ("jwks_file", r#""keys.json""#)], "");
        check(&[("algorithms", r#"["PS512", "ES384"]"#), ("claims", r#"["a"]"#), ("single_use", "true")], "");
        check(&[("on_behalf_of", "true"), ("rules", r#"[{ person = "{sub}" }]"#)], "");
        check(&[("issuer", r#""""#)], "not empty");
        check(&[("audience", r#""""#)], "not empty");
        check(&[("jwks_url", "")], "exactly one of");
        check(&[("jwks_file", r#""keys.json""#)], "exactly one of");
        check(&[("jwks_url", r#""http://a/keys""#)], "must be an https URL");
        check(&[("jwks_url", r#""http://127.0.0.1.a/keys""#)], "must be an https URL");
        check(&[("jwks_url", r#""https://u:p@a/keys""#)], "user or a password");
        check(&[("algorithms", r#"["HS256"]"#)], "has `HS256`");
        check(&[("algorithms", r#"["none"]"#)], "has `none`");
        check(&[("algorithms", "[]")], "at least one");
        check(&[("rules", "[]")], "must have `rules`");
        check(&[("rules", r#"[{ when = { sub = "a*b*" }, agent = "x" }]"#)], "`when.sub` may have one `*`");
        check(&[("rules", r#"[{ agent = "{sub:*}" }]"#)], "on which no condition has a `*`");
        check(&[("rules", r#"[{ agent = "a b" }]"#)], "must consist of");
        check(&[("rules", r#"[{ agent = "a", tool = "b" }]"#)], "exactly one of `agent`");
        check(&[("on_behalf_of", "true")], "for a `person` alone");
        check(&[("colour", "1")], "unknown field");
        assert!(faults(&[entry(&[]), entry(&[])].concat())[0].contains("of an entry before it"));
        assert_eq!(faults(&[entry(&[]), entry(&[("audience", r#""other""#)])].concat()), [""; 0]);
    }
}
