//! What is asked: the body of a request, as lenient as the clients that are about.

use serde::Deserialize;
use serde_json::Number;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use valetkey_core::{Timestamp, scrub};

use super::Feature;
use super::cursor::Cursor;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To go on.
    On(Cursor),
    /// To begin at a time.
    Since {
        /// Where it begins.
        start: Timestamp,
        /// Where it ends.
        end: Option<Timestamp>,
        /// How many events at most.
        limit: u16,
    },
}

/// `null` is as good as nothing. What else there may be is passed over, as clients of other versions send it.
#[derive(Deserialize, Default)]
struct Body {
    cursor: Option<String>,
    limit: Option<Number>,
    start_time: Option<String>,
    end_time: Option<String>,
}

impl Ask {
    /// Parses a body.
    ///
    /// # Errors
    /// A sentence about what is wrong, for the caller and the record.
    pub(crate) fn parse(body: &[u8], feature: Feature, now: Timestamp) -> Result<Self, String> {
        let body = match body.trim_ascii() {
            b"" => Body::default(),
            text => serde_json::from_slice(text).map_err(|error| scrub(&no_body(&error), MESSAGE_MAX))?,
        };
        let Body { cursor, limit, start_time, end_time } = body;
        let limit = limit.map(|limit| parse_limit(&limit)).transpose()?;
        if let Some(text) = cursor.filter(|text| !text.is_empty()) {
            let cursor = Cursor::parse(&text, feature)
                .ok_or("`cursor` is not one that this path has given out; begin with a `start_time`")?;
            return Ok(Self::On(Cursor { limit: limit.unwrap_or(cursor.limit), ..cursor }));
        }
        let moment = |name: &str, text: Option<String>| text.map(|text| moment(name, &text)).transpose();
        let (start, end) = (moment("start_time", start_time)?, moment("end_time", end_time)?);
        let start = start.unwrap_or_else(|| before(end.unwrap_or(now)));
        if end.is_some_and(|end| end < start) {
            return Err("`end_time` must not be before `start_time`".to_owned());
        }
        Ok(Self::Since { start, end, limit: limit.unwrap_or(LIMIT_USUAL) })
    }
}

fn no_body(error: &serde_json::Error) -> String {
    format!("the body must be a JSON object with `limit`, `start_time` and `end_time`, or `cursor`: {error}")
}

/// Published as a number: 20.0 is one too.
fn parse_limit(limit: &Number) -> Result<u16, String> {
    let whole = limit.as_u64().or_else(|| {
        let written = limit.to_string();
        written.split_once('.').filter(|(_, rest)| rest.bytes().all(|c| c == b'0'))?.0.parse().ok()
    });
    let limit = whole.and_then(|limit| u16::try_from(limit).ok());
    limit
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| format!("`limit` must be 1 to {LIMIT_MAX}"))
}

fn moment(name: &str, text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{name}` must be a time as in RFC 3339, such as `2026-11-01T08:30:00Z`");
    let moment = OffsetDateTime::parse(text.trim(), &Rfc3339).map_err(|_| wrong())?;
    let micros = moment.unix_timestamp_nanos().div_euclid(1_000);
    // A time with an offset can lie beyond the years that can be printed in UTC.
    let micros =
        i64::try_from(micros).ok().filter(|micros| (YEAR_0_MICROS..YEAR_10000_MICROS).contains(micros));
    micros.map(Timestamp::from_micros).ok_or_else(wrong)
}

/// Where an answer begins by itself: an hour before it ends.
fn before(end: Timestamp) -> Timestamp {
    Timestamp::from_micros(end.as_micros().saturating_sub(HOUR_MICROS))
}

const LIMIT_USUAL: u16 = 100;
const LIMIT_MAX: u16 = 1000;
const HOUR_MICROS: i64 = 3_600_000_000;
const YEAR_0_MICROS: i64 = -62_167_219_200_000_000;
const YEAR_10000_MICROS: i64 = 253_402_300_800_000_000;
const MESSAGE_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use valetkey_core::RecordId;

    const NOW: Timestamp = Timestamp::from_micros(1_793_491_200_000_000); // 2026-11-01T00:00:00Z

    fn check(body: &str, expected: Result<(i64, Option<i64>, u16), &str>) {
        let expected = expected.map_err(ToOwned::to_owned).map(|(start, end, limit)| Ask::Since {
            start: Timestamp::from_micros(NOW.as_micros() + start * 1_000_000),
            end: end.map(|end| Timestamp::from_micros(NOW.as_micros() + end * 1_000_000)),
            limit,
        });
        let parsed = Ask::parse(body.as_bytes(), Feature::ItemUsages, NOW);
        let parsed = parsed.map_err(|message| message.split(": ").next().unwrap_or_default().to_owned());
        assert_eq!(parsed, expected, "{body}");
    }

    #[test]
    fn bodies() {
        let no_body = "the body must be a JSON object with `limit`, `start_time` and `end_time`, or `cursor`";
        let no_limit = "`limit` must be 1 to 1000";
        let no_time = "`start_time` must be a time as in RFC 3339, such as `2026-11-01T08:30:00Z`";
        check("", Ok((-3600, None, 100)));
        check(" \t\r\n", Ok((-3600, None, 100)));
        check("{}", Ok((-3600, None, 100)));
        check("{\n\t\"limit\": 20,\r\n\t\"start_time\": \"2026-11-01T00:00:05Z\"\n}\n", Ok((5, None, 20)));
        check(r#"{"limit":20.0,"start_time":"2026-11-01T02:00:00+02:00"}"#, Ok((0, None, 20)));
        check(r#"{"limit":null,"cursor":null,"cursor_":[],"other":{}}"#, Ok((-3600, None, 100)));
        check(r#"{"cursor":"","end_time":"2026-11-01T01:00:00.000Z"}"#, Ok((0, Some(3600), 100)));
        check(r#"{"start_time":"2020-01-01T00:00:00Z","limit":1000}"#, Ok((-215_654_400, None, 1000)));
        for limit in ["0", "1001", "-1", "1.5", "99999999999999999999"] {
            check(&format!(r#"{{"limit":{limit}}}"#), Err(no_limit));
        }
        for body in ["[]", "null", "1", "{", "{}{}", r#"{"limit":"20"}"#, r#"{"cursor":7}"#, "\u{feff}{}"] {
            check(body, Err(no_body));
        }
        check(r#"{"start_time":"yesterday"}"#, Err(no_time));
        check(r#"{"start_time":""}"#, Err(no_time));
        check(r#"{"start_time":"9999-12-31T23:59:59-23:59"}"#, Err(no_time));
        check(r#"{"start_time":"0000-01-01T00:00:00+23:59"}"#, Err(no_time));
        check(
            r#"{"start_time":"2026-11-01T00:00:00Z","end_time":"2026-10-01T00:00:00Z"}"#,
            Err("`end_time` must not be before `start_time`"),
        );
        check(
            r#"{"cursor":"made up"}"#,
            Err("`cursor` is not one that this path has given out; begin with a `start_time`"),
        );
    }

    #[test]
    fn a_cursor_keeps_its_limit_unless_another_comes_with_it() {
        let cursor = Cursor { seen: RecordId(7), end: None, limit: 20 };
        let text = cursor.encode(Feature::ItemUsages);
        let parse = |body: String| Ask::parse(body.as_bytes(), Feature::ItemUsages, NOW);
        assert_eq!(parse(format!(r#"{{"cursor":"{text}"}}"#)), Ok(Ask::On(cursor)));
        let other = Cursor { limit: 3, ..cursor };
        assert_eq!(parse(format!(r#"{{"cursor":"{text}","limit":3}}"#)), Ok(Ask::On(other)));
    }

    proptest! {
        #[test]
        fn what_anybody_sends_never_panics(body in "\\PC{0,80}", deep in 0usize..5_000) {
            let _ = Ask::parse(body.as_bytes(), Feature::AuditEvents, NOW);
            prop_assert!(Ask::parse("[".repeat(deep + 1).as_bytes(), Feature::AuditEvents, NOW).is_err());
            let within = format!("{{\"x\":{}", "[".repeat(deep));
            prop_assert!(Ask::parse(within.as_bytes(), Feature::AuditEvents, NOW).is_err());
        }
    }
}
