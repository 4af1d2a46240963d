//! Files of `KEY=VALUE` lines, as `op run --env-file` reads them; values are templates.

use std::path::Path;

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
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::Usage, format!("the file `{}` cannot be read: {error}", file.display()))
    })?;
    parse(&text, &template::environment)
        .map_err(|fault| Failure::new(Exit::Usage, format!("{}: {fault}", file.display())))
}

/// Blank lines and those that begin with `#` do not count; `export` may stand before a name; a value may be quoted. A
/// value that is one reference may have blanks in it.
fn parse(text: &str, variables: Lookup<'_>) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("line {number}: is no `KEY=VALUE`"))?;
        let name = name.trim_end();
        let good = !name.is_empty() && name.bytes().all(|c| c.is_ascii_graphic());
        if !good {
            return Err(format!("line {number}: a name has no blanks"));
        }
        let fault = |error| format!("line {number}: {error}");
        let parts = match unquoted(value.trim()) {
            (text, _) if let Ok(Some(reference)) = template::reference(text, variables) => {
                vec![Part::Reference(reference)]
            }
            (text, true) => vec![Part::Text(text.to_owned())],
            (text, false) => template::parse(text, variables).map_err(fault)?,
        };
        entries.push(Entry { name: name.to_owned(), parts });
    }
    Ok(entries)
}

/// A value, and whether it stands for itself: single quotes keep everything but a reference as it is, double quotes are
/// taken off, and behind a bare value ` #` begins a comment.
fn unquoted(value: &str) -> (&str, bool) {
    let within = |quote: char| value.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
    match (within('\''), within('"')) {
        (Some(inner), _) => (inner, true),
        (None, Some(inner)) => (inner, false),
        (None, None) => (value.split_once(" #").map_or(value, |(value, _)| value.trim_end()), false),
    }
}

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
        assert_eq!(parse("A=1\nB\n", &|_| None), Err("line 2: is no `KEY=VALUE`".to_owned()));
        assert!(parse("A B=1", &|_| None).is_err());
    }
}
