//! Parses what reports are asked about: somebody or something, and whole days in UTC.

use time::{Date, Month};
use valetkey_audit::{Day, Days, Subject, Thing, Usage};
use valetkey_core::{AgentId, Broker, KnownItem, Name, ToolId};
use valetkey_proto::v1;
use valetkey_proto::v1::get_usage_report_request::Subject as Asked;

use crate::convert::Violation;

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    Everybody,
    Agent(AgentId),
    Vault(String),
    Item {
        /// By id or name.
        vault: Option<String>,
        item: String,
    },
    Tool(ToolId),
}

/// Days from the first to the last, both counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) first: Date,
    pub(super) last: Date,
}

impl About {
    fn parse(asked: Option<Asked>) -> Result<Self, Violation> {
        Ok(match asked {
            None => Self::Everybody,
            Some(Asked::Agent(text)) => Self::Agent(AgentId(name("agent", &text)?)),
            Some(Asked::Tool(text)) => Self::Tool(ToolId(name("tool", &text)?)),
            Some(Asked::Vault(text)) => Self::Vault(word("vault", &text)?),
            Some(Asked::Item(text)) => match text.split_once('/') {
                Some((vault, item)) => {
                    Self::Item { vault: Some(word("item", vault)?), item: word("item", item)? }
                }
                None => Self::Item { vault: None, item: word("item", &text)? },
            },
        })
    }

    /// As the log counts it.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Everybody => Subject::Everybody,
            Self::Agent(agent) => Subject::Agent(agent.to_string()),
            Self::Vault(vault) => Subject::Vault(vault.clone()),
            Self::Item { vault: _, item } => Subject::Item(item.clone()),
            Self::Tool(tool) => Subject::Tool(tool.to_string()),
        }
    }

    /// Whether a row of this subject is meant: an item's vault is no part of the subject.
    pub(super) fn has(&self, usage: &Usage) -> bool {
        match self {
            Self::Item { vault: Some(word), item: _ } => usage.vault.as_ref().is_some_and(|vault| {
                let Thing { id, name } = vault;
                is(word, id, name)
            }),
            Self::Item { vault: None, .. }
            | Self::Everybody
            | Self::Agent(_)
            | Self::Vault(_)
            | Self::Tool(_) => true,
        }
    }

    /// Whether an item is one of those that it is about.
    pub(super) fn covers(&self, known: &KnownItem) -> bool {
        let KnownItem { vault, item } = known;
        match self {
            Self::Everybody | Self::Agent(_) | Self::Tool(_) => true,
            Self::Vault(word) => is(word, &vault.id, &vault.name),
            Self::Item { vault: of, item: word } => {
                is(word, &item.id, &item.name)
                    && of.as_ref().is_none_or(|word| is(word, &vault.id, &vault.name))
            }
        }
    }
}

impl Period {
    /// The month before today, unless something else is asked.
    pub(super) fn parse(period: Option<v1::ReportPeriod>, today: Date) -> Result<Self, Vec<Violation>> {
        let v1::ReportPeriod { first_day, last_day } = period.unwrap_or_default();
        let last = day("period.last_day", &last_day);
        let first = day("period.first_day", &first_day);
        let (first, last) = match (first, last) {
            (Ok(first), Ok(last)) => (first, last.unwrap_or(today)),
            (first, last) => return Err(first.err().into_iter().chain(last.err()).collect()),
        };
        let first = first.unwrap_or_else(|| month_before(last));
        if first > last {
            return Err(vec![wrong("period.first_day", "must not be after the last day")]);
        }
        Ok(Self { first, last })
    }

    /// As the log counts them.
    pub(super) fn days(&self) -> Days {
        Day(number(self.first))..Day(number(self.last).saturating_add(1))
    }

    pub(super) fn print(&self) -> v1::ReportPeriod {
        v1::ReportPeriod { first_day: print(self.first), last_day: print(self.last) }
    }

    /// Its first microsecond since 1970.
    pub(super) fn start_us(&self) -> i64 {
        number(self.first).saturating_mul(DAY_US)
    }
}

/// Parses a request for a report.
pub(super) fn usage(
    request: v1::GetUsageReportRequest,
    today: Date,
) -> Result<(About, Period), Vec<Violation>> {
    let v1::GetUsageReportRequest { subject, period } = request;
    both(About::parse(subject), Period::parse(period, today))
}

/// Parses an optional agent, and a period.
pub(super) fn agent_and_period(
    agent: &str,
    period: Option<v1::ReportPeriod>,
    today: Date,
) -> Result<(Option<AgentId>, Period), Vec<Violation>> {
    both(optional_agent(agent), Period::parse(period, today))
}

/// Parses an optional agent, and so many days up to today.
pub(super) fn unused(
    days: i32,
    agent: &str,
    today: Date,
) -> Result<(Option<AgentId>, Period), Vec<Violation>> {
    let days = if days == 0 { UNUSED_DAYS_USUAL } else { days };
    let period = match (1..=UNUSED_DAYS_MAX).contains(&days) {
        true => today.checked_sub(time::Duration::days(i64::from(days) - 1)),
        false => None,
    };
    let period = period.map(|first| Period { first, last: today });
    let period = period.ok_or_else(|| vec![wrong("days", "must be 1 to 365, or absent for 90")]);
    both(optional_agent(agent), period)
}

/// What is asked, for the record.
pub(super) fn story_of_usage(request: &v1::GetUsageReportRequest) -> String {
    let v1::GetUsageReportRequest { subject, period } = request;
    let subject = match subject {
        None => "on everybody".to_owned(),
        Some(Asked::Agent(name)) => format!("on agent {name}"),
        Some(Asked::Vault(name)) => format!("on vault {name}"),
        Some(Asked::Item(name)) => format!("on item {name}"),
        Some(Asked::Tool(name)) => format!("on tool {name}"),
    };
    format!("report {subject} {}", story_of_period(period.as_ref()))
}

/// Likewise.
pub(super) fn story_of_period(period: Option<&v1::ReportPeriod>) -> String {
    match period {
        None => "of the last month".to_owned(),
        Some(v1::ReportPeriod { first_day, last_day }) => format!("from {first_day} to {last_day}"),
    }
}

/// The day by the broker's clock.
pub(super) fn today(broker: &Broker) -> Date {
    let days = broker.clock().now().as_micros().div_euclid(DAY_US);
    let julian = i32::try_from(days.saturating_add(EPOCH)).ok();
    julian.and_then(|julian| Date::from_julian_day(julian).ok()).unwrap_or(Date::MIN)
}

fn both<A, B>(one: Result<A, Violation>, other: Result<B, Vec<Violation>>) -> Result<(A, B), Vec<Violation>> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (one, other) => Err(one.err().into_iter().chain(other.err().into_iter().flatten()).collect()),
    }
}

fn optional_agent(text: &str) -> Result<Option<AgentId>, Violation> {
    if text.is_empty() { Ok(None) } else { name("agent", text).map(|name| Some(AgentId(name))) }
}

fn name(field: &str, text: &str) -> Result<Name, Violation> {
    Name::parse(text).map_err(|error| Violation::new(field, "INVALID_NAME", error))
}

/// An id or a name of a vault or an item.
fn word(field: &str, text: &str) -> Result<String, Violation> {
    let fits = !text.is_empty() && text.len() <= WORD_MAX && !text.contains(char::is_control);
    let problem = format!("must have 1 to {WORD_MAX} bytes, without control characters");
    fits.then(|| text.to_owned()).ok_or_else(|| Violation::new(field, "INVALID_NAME", problem))
}

/// Ids count as they stand, names in any case.
fn is(word: &str, id: &str, name: &str) -> bool {
    word == id || word.to_lowercase() == name
}

fn day(field: &str, text: &str) -> Result<Option<Date>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    let date = || {
        let is_plain = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|digit| digit.is_ascii_digit())
        };
        let (year, rest) = text.split_once('-')?;
        let (month, day) = rest.split_once('-')?;
        let are_plain = is_plain(year, 4) && is_plain(month, 2) && is_plain(day, 2);
        let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
        are_plain.then_some(date)
    };
    date().map(Some).ok_or_else(|| wrong(field, "must be a day such as `2026-11-01`"))
}

fn wrong(field: &str, problem: &str) -> Violation {
    Violation::new(field, "INVALID_PERIOD", problem)
}

/// The same day of the month before, or its last.
fn month_before(date: Date) -> Date {
    let (year, month, day) = date.to_calendar_date();
    let (year, month) = match month {
        Month::January => (year - 1, Month::December),
        month => (year, month.previous()),
    };
    let day = day.min(month.length(year));
    Date::from_calendar_date(year, month, day).unwrap_or(date)
}

fn number(date: Date) -> i64 {
    i64::from(date.to_julian_day()) - EPOCH
}

fn print(date: Date) -> String {
    let (year, month, day) = date.to_calendar_date();
    format!("{year:04}-{:02}-{day:02}", u8::from(month))
}

/// The Julian day of 1970-01-01.
const EPOCH: i64 = 2_440_588;
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
const WORD_MAX: usize = 256;
const UNUSED_DAYS_USUAL: i32 = 90;
const UNUSED_DAYS_MAX: i32 = 365;

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        day("", text).unwrap().unwrap()
    }

    #[test]
    fn periods() {
        let check = |first: &str, last: &str, expected: Result<(&str, &str), &str>| {
            let asked = v1::ReportPeriod { first_day: first.into(), last_day: last.into() };
            let period = Period::parse(Some(asked), date("2026-03-31"));
            let shown = period.map(|period| (print(period.first), print(period.last)));
            let shown = shown.map_err(|violations| {
                violations.into_iter().map(|it| it.field).collect::<Vec<_>>().join(" ")
            });
            let expected = expected.map(|(first, last)| (first.to_owned(), last.to_owned()));
            assert_eq!(shown, expected.map_err(str::to_owned), "{first} {last}");
        };
        check("", "", Ok(("2026-02-28", "2026-03-31")));
        check("", "2026-01-05", Ok(("2025-12-05", "2026-01-05")));
        check("2026-03-01", "", Ok(("2026-03-01", "2026-03-31")));
        check("2026-03-31", "2026-03-31", Ok(("2026-03-31", "2026-03-31")));
        check("2026-04-01", "", Err("period.first_day"));
        check("2026-3-01", "", Err("period.first_day"));
        check("2026-02-30", "yesterday", Err("period.first_day period.last_day"));
        check("+026-02-01", "", Err("period.first_day"));
    }

    #[test]
    fn days_are_counted_from_1970() {
        let period = Period { first: date("1970-01-01"), last: date("1970-01-02") };
        assert_eq!((period.days(), period.start_us()), (Day(0)..Day(2), 0));
        assert_eq!(number(date("2026-11-25")), 20_782);
    }

    #[test]
    fn unused_days() {
        let first = |days| unused(days, "", date("2026-03-31")).map(|(_, period)| print(period.first));
        assert_eq!(first(1).unwrap(), "2026-03-31");
        assert_eq!(first(0).unwrap(), "2026-01-01");
        assert_eq!(first(365).unwrap(), "2025-04-01");
        assert!(first(-1).is_err() && first(366).is_err());
    }
}
