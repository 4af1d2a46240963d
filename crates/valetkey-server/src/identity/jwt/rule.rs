//! From the claims of a token to a name: conditions, and what the name is made of.

use serde_json::{Map, Value};
use valetkey_core::{Claim, Identity};

use crate::identity::known::IdentityKind;

/// Who bears a token, where its claims are such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Claims and what each must be; all of them.
    pub(crate) conditions: Vec<(String, Pattern)>,
    /// What the bearer is.
    pub(crate) kind: IdentityKind,
    /// Its name.
    pub(crate) name: Vec<Piece>,
}

/// A text in which one `*` stands for something: at least one character, and no `/` or `:`, unless it is
/// `**`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    before: String,
    wild: Option<Wild>,
    after: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wild {
    Part,
    All,
}

/// A piece of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// This.
    Text(String),
    /// `{claim}`: a whole claim.
    Whole(String),
    /// `{claim:*}`: what `*` stood for in the condition on a claim.
    Wild(String),
}

/// Why a text is no pattern or no template of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RuleError {
    #[error("may have one `*` or one `**`")]
    TwoWilds,
    #[error("must not be empty")]
    Empty,
    #[error("has a brace without its other")]
    Brace,
    #[error("has `{{…:*}}` of a claim on which no condition has a `*`")]
    NoWild,
}

impl Rule {
    /// Whom the claims make of the bearer; `None` where a condition does not hold, or what comes of it is no
    /// name.
    pub(super) fn identity(&self, claims: &Map<String, Value>) -> Option<Identity> {
        let mut wilds = Vec::new();
        for (claim, pattern) in &self.conditions {
            let found =
                texts(claims, claim).iter().find_map(|text| pattern.matched(text).map(ToOwned::to_owned))?;
            wilds.push((claim, found));
        }
        let mut name = String::new();
        for piece in &self.name {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Whole(claim) => name.push_str(find(claims, claim)?.as_str()?),
                Piece::Wild(claim) => name.push_str(&wilds.iter().find(|(of, _)| *of == claim)?.1),
            }
        }
        self.kind.named(&name).ok()
    }
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`RuleError`].
    pub(crate) fn parse(text: &str) -> Result<Self, RuleError> {
        if text.is_empty() {
            return Err(RuleError::Empty);
        }
        let Some((before, rest)) = text.split_once('*') else {
            return Ok(Self { before: text.to_owned(), wild: None, after: String::new() });
        };
        let (wild, after) = rest.strip_prefix('*').map_or((Wild::Part, rest), |after| (Wild::All, after));
        if after.contains('*') {
            return Err(RuleError::TwoWilds);
        }
        Ok(Self { before: before.to_owned(), wild: Some(wild), after: after.to_owned() })
    }

    fn has_wild(&self) -> bool {
        self.wild.is_some()
    }

    /// What the `*` stands for in `text`, nothing where there is none; `None` where the text is another.
    fn matched<'a>(&self, text: &'a str) -> Option<&'a str> {
        let Self { before, wild, after } = self;
        let Some(wild) = wild else { return (text == before).then_some("") };
        let found = text.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
        let stops = *wild == Wild::Part && found.contains(['/', ':']);
        (!found.is_empty() && !stops).then_some(found)
    }
}

impl Piece {
    /// Parses a template such as `ci/{repository}` or `{sub:*}`, for a rule with these conditions.
    ///
    /// # Errors
    /// [`RuleError`].
    pub(crate) fn parse_all(text: &str, conditions: &[(String, Pattern)]) -> Result<Vec<Self>, RuleError> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (plain, more) = rest.split_once('{').unwrap_or((rest, ""));
            if plain.contains('}') {
                return Err(RuleError::Brace);
            }
            if !plain.is_empty() {
                pieces.push(Self::Text(plain.to_owned()));
            }
            if plain.len() == rest.len() {
                break;
            }
            let (claim, after) = more.split_once('}').ok_or(RuleError::Brace)?;
            pieces.push(match claim.strip_suffix(":*") {
                None => Self::Whole(claim.to_owned()),
                Some(claim) if conditions.iter().any(|(of, it)| of == claim && it.has_wild()) => {
                    Self::Wild(claim.to_owned())
                }
                Some(_) => return Err(RuleError::NoWild),
            });
            rest = after;
        }
        if pieces.is_empty() { Err(RuleError::Empty) } else { Ok(pieces) }
    }
}

/// What a token says, for policies: these claims, each value of a list by itself. What is too long, or too
/// much, is left out: a policy that asks for it does not find it.
pub(super) fn claims_for_policy(claims: &Map<String, Value>, names: &[String]) -> Vec<Claim> {
    let of = |name: &String| {
        texts(claims, name).into_iter().filter_map(|value| Claim::new(name, &value)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = names.iter().flat_map(of).take(CLAIMS_MAX).collect();
    all.sort();
    all.dedup();
    all
}

/// The values of a claim as texts; none where it is absent, or an object.
fn texts(claims: &Map<String, Value>, name: &str) -> Vec<String> {
    match find(claims, name) {
        Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A claim by its name, or by its way through objects: `kubernetes.io/pod/name`.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    name.match_indices('/').find_map(|(at, _)| {
        let inner = claims.get(name.get(..at)?)?.as_object()?;
        find(inner, name.get(at + 1..)?)
    })
}

/// Claims of one token that policies see.
const CLAIMS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(conditions: &[(&str, &str)], name: &str) -> Result<Rule, RuleError> {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(claim, pattern)| Ok(((*claim).to_owned(), Pattern::parse(pattern)?)))
            .collect::<Result<_, RuleError>>()?;
        let name = Piece::parse_all(name, &conditions)?;
        Ok(Rule { conditions, kind: IdentityKind::Agent, name })
    }

    fn claims() -> Map<String, Value> {
        let text = r#"{"sub": "system:serviceaccount:agents:bot", "repository": "acme/app", "ok": true,
            "groups": ["dev", "ops"], "kubernetes.io": {"pod": {"name": "bot-1"}}, "odd": "a b"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rules_make_names() {
        let check = |conditions: &[(&str, &str)], name: &str, expected: Option<&str>| {
            let identity = rule(conditions, name).unwrap().identity(&claims());
            assert_eq!(
                identity.map(|it| it.to_string()),
                expected.map(|name| format!("agent:{name}")),
                "{conditions:?}"
            );
        };
        check(&[], "bot", Some("bot"));
        check(&[("sub", "system:serviceaccount:agents:*")], "{sub:*}", Some("bot"));
        check(&[("sub", "system:serviceaccount:*:bot")], "k8s/{sub:*}", Some("k8s/agents"));
        check(&[("sub", "system:*")], "{sub:*}", None);
        check(&[("sub", "system:**")], "{sub:*}", Some("serviceaccount:agents:bot"));
        check(&[("sub", "system:serviceaccount:agents:bot*")], "x", None);
        check(&[("repository", "acme/*")], "ci/{repository}", Some("ci/acme/app"));
        check(&[("repository", "acme/app"), ("ok", "true")], "app", Some("app"));
        check(&[("repository", "Acme/app")], "app", None);
        check(&[("groups", "ops")], "x", Some("x"));
        check(&[("groups", "o*")], "{groups:*}", Some("ps"));
        check(&[("groups", "admin")], "x", None);
        check(&[("absent", "**")], "x", None);
        check(&[("kubernetes.io/pod/name", "bot-*")], "{kubernetes.io/pod/name}", Some("bot-1"));
        check(&[("kubernetes.io/pod", "**")], "x", None);
        check(&[], "{groups}", None);
        check(&[], "{absent}", None);
        check(&[], "{odd}", None);
    }

    #[test]
    fn what_is_no_rule() {
        let check = |conditions: &[(&str, &str)], name: &str, error| {
            assert_eq!(rule(conditions, name), Err(error), "{conditions:?} {name}");
        };
        check(&[("sub", "a*b*")], "x", RuleError::TwoWilds);
        check(&[("sub", "a***")], "x", RuleError::TwoWilds);
        check(&[("sub", "")], "x", RuleError::Empty);
        check(&[], "", RuleError::Empty);
        check(&[], "{sub", RuleError::Brace);
        check(&[], "sub}", RuleError::Brace);
        check(&[("sub", "a")], "{sub:*}", RuleError::NoWild);
    }

    #[test]
    fn policies_see_what_fits() {
        let names = ["groups", "repository", "absent", "kubernetes.io"].map(ToOwned::to_owned);
        let seen = claims_for_policy(&claims(), &names);
        let seen: Vec<_> = seen.iter().map(Claim::as_str).collect();
        assert_eq!(seen, ["groups=dev", "groups=ops", "repository=acme/app"]);
        let long = [("a".to_owned(), Value::String("x".repeat(256)))].into_iter().collect();
        assert_eq!(claims_for_policy(&long, &["a".to_owned()]), []);
    }
}
