//! The terms of a filter: what a qualifier's value may be, and what it then means.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};
use valetkey_core::{OutcomeResult, PublicId, Reason, RecordKind, Ruling, ValueDigest};

use crate::code::{Code, ruling_name};

/// One condition on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    /// Whether it must not hold.
    pub(crate) negated: bool,
    pub(crate) test: Test,
}

/// What is compared with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    Agent(Pattern),
    Tool(Pattern),
    Caller(Pattern),
    Person(Pattern),
    Credential(Pattern),
    Vault(Pattern),
    Item(Pattern),
    Policy(Pattern),
    Reason(Pattern),
    Source(Pattern),
    Revision(Pattern),
    Reference(Pattern),
    Session(Pattern),
    Destination(Pattern),
    Client(Pattern),
    /// Of the record or of its outcome.
    Detail(Pattern),
    Decision(Ruling),
    Kind(RecordKind),
    Request(PublicId),
    Lease(PublicId),
    Handle(PublicId),
    Record(u64),
    /// A result, or `None`: one is still to come.
    Outcome(Option<OutcomeResult>),
    Created(Span),
    /// No qualifier: asked by [`crate::AuditReader::released`] alone.
    ValueDigest(ValueDigest),
}

/// A text with a `*` at its beginning, its end, both or neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) any_before: bool,
    pub(crate) any_after: bool,
}

/// Moments from `start` on and before `end`, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// The qualifiers, in the order in which messages list them.
pub(crate) const QUALIFIERS: [&str; 24] = [
    "agent",
    "tool",
    "caller",
    "person",
    "credential",
    "client",
    "session",
    "decision",
    "kind",
    "reason",
    "vault",
    "item",
    "reference",
    "destination",
    "source",
    "lease",
    "handle",
    "record",
    "policy",
    "revision",
    "request",
    "outcome",
    "detail",
    "created",
];

impl Test {
    /// The meaning of `qualifier:value`; `literal` values have no wildcards.
    ///
    /// `Err` says what values there are; `None` means that there is no such qualifier.
    pub(crate) fn parse(qualifier: &str, value: &str, literal: bool) -> Option<Result<Self, String>> {
        let pattern = || Pattern::parse(value, literal);
        Some(match qualifier {
            "agent" => pattern().map(Self::Agent),
            "tool" => pattern().map(Self::Tool),
            "caller" => pattern().and_then(caller).map(Self::Caller),
            "person" => pattern().map(Self::Person),
            "credential" => pattern().map(Self::Credential),
            "vault" => pattern().map(|pattern| Self::Vault(pattern.lower_case())),
            "item" => pattern().map(|pattern| Self::Item(pattern.lower_case())),
            "policy" => pattern().map(Self::Policy),
            "source" => pattern().map(Self::Source),
            "revision" => pattern().map(Self::Revision),
            "reference" => pattern().map(Self::Reference),
            "session" => pattern().map(Self::Session),
            "destination" => pattern().map(Self::Destination),
            "client" => pattern().map(Self::Client),
            "detail" => pattern().map(Self::Detail),
            "reason" => reason(value, literal).map(Self::Reason),
            "decision" => one_of(value, Ruling::ALL, ruling_name).map(Self::Decision),
            "kind" => one_of(value, &RecordKind::ALL, RecordKind::as_str).map(Self::Kind),
            "outcome" if value == OPEN => Ok(Self::Outcome(None)),
            "outcome" => one_of(value, OutcomeResult::ALL, OutcomeResult::as_str)
                .map(|result| Self::Outcome(Some(result)))
                .map_err(|known| format!("{known}, {OPEN}")),
            "request" => id(value, "vkr_").map(Self::Request),
            "lease" => id(value, "vkl_").map(Self::Lease),
            "handle" => id(value, "vkh_").map(Self::Handle),
            "record" => record(value).map(Self::Record),
            "created" => Span::parse(value).map(Self::Created),
            _ => return None,
        })
    }
}

impl Pattern {
    fn parse(value: &str, literal: bool) -> Result<Self, String> {
        if literal {
            return Ok(Self::exact(value));
        }
        let (any_before, rest) = value.strip_prefix('*').map_or((false, value), |rest| (true, rest));
        let (any_after, text) = rest.strip_suffix('*').map_or((false, rest), |text| (true, text));
        if text.contains('*') {
            return Err("a name with `*` at its beginning or its end, or a name in quotes".to_owned());
        }
        Ok(Self { text: text.to_owned(), any_before, any_after })
    }

    /// This text alone.
    pub(crate) fn exact(text: &str) -> Self {
        Self { text: text.to_owned(), any_before: false, any_after: false }
    }

    pub(crate) fn lower_case(self) -> Self {
        Self { text: self.text.to_lowercase(), ..self }
    }

    /// Whether `text` is of this pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match (self.any_before, self.any_after) {
            (false, false) => text == self.text,
            (false, true) => text.starts_with(&self.text),
            (true, false) => text.ends_with(&self.text),
            (true, true) => text.contains(&self.text),
        }
    }
}

impl Span {
    fn parse(value: &str) -> Result<Self, String> {
        let found =
            OPERATORS.into_iter().find_map(|operator| Some((operator, value.strip_prefix(operator)?)));
        let (operator, moment) = found.unwrap_or(("", value));
        let Self { start, end } = Self::of(moment).ok_or_else(|| CREATED.to_owned())?;
        Ok(match operator {
            ">=" => Self { start, end: i64::MAX },
            ">" => Self { start: end, end: i64::MAX },
            "<=" => Self { start: i64::MIN, end },
            "<" => Self { start: i64::MIN, end: start },
            _ => Self { start, end },
        })
    }

    /// A whole day, or one microsecond.
    fn of(moment: &str) -> Option<Self> {
        if let Ok(day) = Date::parse(moment, format_description!("[year]-[month]-[day]")) {
            let start = micros(day.with_time(Time::MIDNIGHT).assume_utc())?;
            return Some(Self { start, end: start.checked_add(DAY)? });
        }
        let start = micros(OffsetDateTime::parse(moment, &Rfc3339).ok()?)?;
        Some(Self { start, end: start.checked_add(1)? })
    }
}

fn micros(moment: OffsetDateTime) -> Option<i64> {
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1000)).ok()
}

/// A caller has its kind before its name: without one, nothing would be found and nobody would know why.
fn caller(pattern: Pattern) -> Result<Pattern, String> {
    let Pattern { text, any_before, any_after } = &pattern;
    let fits = |kind: &&str| text.starts_with(*kind) || (*any_after && kind.starts_with(text.as_str()));
    if *any_before || CALLER_KINDS.iter().any(fits) {
        return Ok(pattern);
    }
    let name = valetkey_core::scrub(text, NAME_SHOWN_MAX);
    Err(CALLER_KINDS.map(|kind| format!("`caller:{kind}{name}`")).join(", "))
}

/// Reasons of outcomes are an open set, so any code is taken; what cannot be a code is not.
fn reason(value: &str, literal: bool) -> Result<Pattern, String> {
    let pattern = Pattern::parse(&value.to_ascii_uppercase(), literal)?;
    let code = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    if pattern.text.bytes().all(code) {
        return Ok(pattern);
    }
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    Err(format!("a code: {}, or one of an outcome such as ITEM_NOT_FOUND", known.join(", ")))
}

fn one_of<T: Copy>(value: &str, known: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    known.iter().copied().find(|word| name(*word) == value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|word| name(*word)).collect();
        format!("one of {}", names.join(", "))
    })
}

/// With or without its prefix. Of a handle, the public part alone: the rest must not get into a query.
fn id(value: &str, prefix: &str) -> Result<PublicId, String> {
    PublicId::parse(value.strip_prefix(prefix).unwrap_or(value))
        .map_err(|_| format!("`{prefix}` and 16 characters, nothing behind them"))
}

fn record(value: &str) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (1..=i64::MAX as u64).contains(number));
    number.ok_or_else(|| "a number from 1".to_owned())
}

const CALLER_KINDS: [&str; 3] = ["agent:", "tool:", "person:"];
const NAME_SHOWN_MAX: usize = 32;
/// What `outcome:` calls a record whose outcome is still to come.
const OPEN: &str = "open";
/// The longer ones first.
const OPERATORS: [&str; 4] = [">=", "<=", ">", "<"];
const CREATED: &str =
    "`2026-11-01` or `2026-11-01T08:30:00Z`, with `>=`, `>`, `<=` or `<` before it or alone";
const DAY: i64 = 24 * 60 * 60 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn created(value: &str) -> Option<(i64, i64)> {
        Span::parse(value).ok().map(|Span { start, end }| (start, end))
    }

    #[test]
    fn days_and_moments() {
        let day = 1_793_491_200_000_000; // 2026-11-01T00:00:00Z
        let check = |value: &str, span| assert_eq!(created(value), span, "{value}");
        check("2026-11-01", Some((day, day + DAY)));
        check(">=2026-11-01", Some((day, i64::MAX)));
        check(">2026-11-01", Some((day + DAY, i64::MAX)));
        check("<2026-11-01", Some((i64::MIN, day)));
        check("<=2026-11-01", Some((i64::MIN, day + DAY)));
        check("2026-11-01T00:00:01Z", Some((day + 1_000_000, day + 1_000_001)));
        check(">2026-11-01T01:00:00.5+01:00", Some((day + 500_001, i64::MAX)));
        for bad in
            ["", ">", "2026", "2026-13-01", "2026-11-01T00:00:00", ">>2026-11-01", "=2026-11-01", "now"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            let pattern = Pattern::parse(pattern, false).unwrap();
            yes.iter().for_each(|text| assert!(pattern.matches(text), "{pattern:?} {text}"));
            no.iter().for_each(|text| assert!(!pattern.matches(text), "{pattern:?} {text}"));
        };
        check("navan", &["navan"], &["navan.book", "a.navan", "Navan"]);
        check("navan*", &["navan", "navan.book"], &["a.navan"]);
        check("*navan", &["navan", "a.navan"], &["navan.book"]);
        check("*va*", &["navan", "va"], &["nav"]);
        check("*", &["", "a"], &[]);
        assert!(Pattern::parse("a*b", false).is_err());
        assert_eq!(Pattern::parse("a*b*", true).unwrap().text, "a*b*");
    }

    #[test]
    fn ids_are_taken_without_what_is_secret_in_them() {
        let handle = valetkey_core::Handle::random();
        let text = handle.id().to_string();
        assert!(
            matches!(Test::parse("handle", &text, false), Some(Ok(Test::Handle(id))) if id == handle.id().0)
        );
        assert!(matches!(Test::parse("handle", &text[4..], false), Some(Ok(Test::Handle(_)))));
        assert!(matches!(Test::parse("handle", &handle.expose_secret(), false), Some(Err(_))));
        assert!(matches!(Test::parse("lease", &text, false), Some(Err(_))));
    }

    #[test]
    fn every_qualifier_is_known() {
        for qualifier in QUALIFIERS {
            assert!(Test::parse(qualifier, "x", false).is_some(), "{qualifier}");
        }
        assert!(Test::parse("human", "x", false).is_none());
    }
}
