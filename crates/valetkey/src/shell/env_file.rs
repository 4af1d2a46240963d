//! Files of `KEY=VALUE` lines, as `op run --env-file` reads them; values are templates.

use std::path::Path;

use super::out_file;
use super::template::{self, Lookup, Part};
use crate::failure::{Exit, Failure};

/// A variable, and what its value is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) parts: Vec<Part>,
}

/// Reads a file.
pub(crate) fn read(file: &Path) -> Result<Vec<Entry>, Failure> {
    let text = out_file::read_text(Some(file), FILE_BYTES_MAX)?;
    parse(&text, &template::environment)
        .map_err(|fault| Failure::new(Exit::Usage, format!("{}: {fault}", file.display())))
}

/// Blank lines and those that begin with `#` do not count; `export` may stand before a name; a value may be quoted, and
/// goes over several lines then. A value that is one reference may have blanks in it. A variable of a line before counts
/// more than one of the environment, as far as it is text.
fn parse(text: &str, variables: Lookup<'_>) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let fault = |fault: &str| {
            let line = (text.matches('\n').count() + 1).saturating_sub(rest.matches('\n').count());
            format!("line {line}: {fault}")
        };
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            rest = after;
            continue;
        }
        let (name, value) = rest
            .split_once('=')
            .filter(|(name, _)| !name.contains('\n'))
            .ok_or_else(|| fault("is no `KEY=VALUE`"))?;
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let good = !name.is_empty() && name.bytes().all(|c| c.is_ascii_graphic());
        if !good {
            return Err(fault("a name has no blanks"));
        }
        let (value, quotes, after) = unquoted(value);
        let known = |name: &str| before(&entries, name).or_else(|| variables(name));
        let parts = match quotes {
            _ if let Ok(Some(reference)) = template::reference(value, &known) => {
                vec![Part::Reference(reference)]
            }
            Quotes::Single => vec![Part::Text(value.to_owned())],
            Quotes::Double | Quotes::None => {
                template::parse(value, &known).map_err(|error| fault(&error.to_string()))?
            }
        };
        entries.push(Entry { name: name.to_owned(), parts });
        rest = after;
    }
    Ok(entries)
}

/// What a line before has set, where it is text: a value of a reference is not known yet.
fn before(entries: &[Entry], name: &str) -> Option<String> {
    let entry = entries.iter().rev().find(|entry| entry.name == name)?;
    let text = |part: &Part| match part {
        Part::Text(text) => Some(text.clone()),
        Part::Reference(_) => None,
    };
    entry.parts.iter().map(text).collect()
}

/// Single quotes keep everything but a reference as it is.
enum Quotes {
    None,
    Single,
    Double,
}

/// A value without its quotes, and the text behind its line. Behind the value, ` #` begins a comment.
fn unquoted(text: &str) -> (&str, Quotes, &str) {
    let start = text.trim_start_matches([' ', '\t']);
    for (quote, quotes) in [('\'', Quotes::Single), ('"', Quotes::Double)] {
        let Some((inner, behind)) = start.strip_prefix(quote).and_then(|inner| inner.split_once(quote))
        else {
            continue;
        };
        let (tail, after) = behind.split_once('\n').unwrap_or((behind, ""));
        if tail.trim().is_empty() || tail.trim_start().starts_with('#') {
            return (inner, quotes, after);
        }
    }
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let value = line.trim();
    (value.split_once(" #").map_or(value, |(value, _)| value.trim_end()), Quotes::None, after)
}

const FILE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let entries = parse(text, &|_| None).unwrap();
        let shown = |parts: Vec<Part>| -> String {
            let show = |part| match part {
                Part::Text(text) => text,
                Part::Reference(reference) => format!("<{reference}>"),
            };
            parts.into_iter().map(show).collect()
        };
        let entries: Vec<_> = entries.into_iter().map(|entry| (entry.name, shown(entry.parts))).collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(entries, expected, "{text}");
    }

    #[test]
    fn lines() {
        check("# c\n\nA=1\nexport B = two # c\n", &[("A", "1"), ("B", "two")]);
        check("A=\nB=\"x # y\"\nC='$x'", &[("A", ""), ("B", "x # y"), ("C", "$x")]);
        check("P=op://v/i/f\nQ=\"op://v/My Item/f\"", &[("P", "<op://v/i/f>"), ("Q", "<op://v/My Item/f>")]);
        check("U=https://u:{{ op://v/i/f }}@host", &[("U", "https://u:<op://v/i/f>@host")]);
        check("A=\"one\ntwo\" # c\nB='x' # c\nC='tis\n", &[("A", "one\ntwo"), ("B", "x"), ("C", "'tis")]);
        check("J={\"a\":\"b\"}\nK=\"a\" b", &[("J", "{\"a\":\"b\"}"), ("K", "\"a\" b")]);
        check("V=prod\nP=op://$V/i/f\nQ=$V-$P", &[("V", "prod"), ("P", "<op://prod/i/f>"), ("Q", "prod-$P")]);
        assert_eq!(parse("A=1\nB\n", &|_| None), Err("line 2: is no `KEY=VALUE`".to_owned()));
        assert_eq!(parse("A='1\n2'\n\nB\nC=1", &|_| None), Err("line 4: is no `KEY=VALUE`".to_owned()));
        assert!(parse("A B=1", &|_| None).is_err());
    }
}
