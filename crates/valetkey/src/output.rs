//! Everything that is printed: data to stdout, messages to stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};
use valetkey_audit::csv;
pub(crate) use valetkey_audit::csv::inline;

use crate::cli::Format;
use crate::failure::Exit;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// One column of a row: its name and what stands there; `Null` where nothing does.
pub(crate) type Cell = (&'static str, Value);

/// Prints one line of data, at once. Styles are dropped where stdout is no terminal.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a message for a person.
pub(crate) fn note(text: &str) {
    // Where stderr is gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Says how far something is, where a person watches: the next one takes the place of it, and an empty one of the last.
pub(crate) fn progress(text: &str) {
    let mut err = io::stderr().lock();
    if err.is_terminal() {
        // As for a message.
        let _ = write!(err, "\r\u{1b}[K{}", inline(text)).and_then(|()| err.flush());
    }
}

/// Prints bytes of data as they are.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints why a command failed.
pub(crate) fn error(text: &str) {
    note(&format!("{BAD}error:{BAD:#} {text}"));
}

/// Prints clap's message or help, and says how to end.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    exit.into()
}

/// Prints a value as it is; only a person's terminal gets a line end after it.
pub(crate) fn value(plaintext: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(plaintext)?;
    if out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Prints text as it is.
pub(crate) fn text(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints rows in a format; `shown` names the columns of a table, the other formats have all.
pub(crate) fn rows(format: Format, shown: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
    match format {
        Format::Table => text(&table(shown, rows)),
        Format::Json => {
            let all: Vec<_> = rows.iter().map(|row| object(row)).collect();
            line(&format!("{:#}", Value::Array(all)))
        }
        Format::Jsonl => rows.iter().try_for_each(|row| line(&object(row).to_string())),
        Format::Csv => text(&csv(rows)),
    }
}

/// One row as a JSON object.
pub(crate) fn object(row: &[Cell]) -> Value {
    Value::Object(row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<Map<_, _>>())
}

/// One row as `name: value` lines, without the empty ones.
pub(crate) fn record(row: &[Cell]) -> String {
    let filled = || row.iter().filter(|(_, value)| !value.is_null());
    let width = filled().map(|(name, _)| name.len()).max().unwrap_or_default();
    filled().map(|(name, value)| format!("{name:width$}  {}\n", plain(value))).collect()
}

/// Aligned text: heads in capitals, two blanks between columns, no blanks at the end of a line.
pub(crate) fn table(shown: &[&str], rows: &[Vec<Cell>]) -> String {
    fitted(shown, rows, &[], usize::MAX)
}

/// The same within a width: what is too long is cut in the columns that may be, the widest first.
pub(crate) fn fitted(shown: &[&str], rows: &[Vec<Cell>], cuttable: &[&str], width_max: usize) -> String {
    let cell = |row: &Vec<Cell>, name: &str| {
        row.iter().find(|(column, _)| *column == name).map(|(_, value)| plain(value)).unwrap_or_default()
    };
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| shown.iter().map(|name| cell(row, name)).collect()).collect();
    let heads: Vec<String> = shown.iter().map(|name| head(name)).collect();
    let width = |column: usize| {
        let lines = std::iter::once(&heads).chain(&cells);
        lines.filter_map(|line| line.get(column)).map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..shown.len()).map(width).collect();
    fit(&mut widths, |column| shown.get(column).is_some_and(|name| cuttable.contains(name)), width_max);
    let aligned = |line: &Vec<String>| {
        let padded: Vec<_> =
            line.iter().zip(&widths).map(|(text, width)| format!("{:width$}", cut(text, *width))).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = format!("{BOLD}{}{BOLD:#}\n", aligned(&heads));
    text.extend(cells.iter().map(|line| aligned(line) + "\n"));
    text
}

/// Takes from the widest columns that may be cut until all fit, or nothing is left to take.
fn fit(widths: &mut [usize], may_cut: impl Fn(usize) -> bool, width_max: usize) {
    while widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1) > width_max {
        let columns = widths.iter_mut().enumerate();
        let widest = columns.filter(|(column, _)| may_cut(*column)).map(|(_, width)| width).max();
        match widest.filter(|width| **width > CUT_MIN) {
            Some(width) => *width -= 1,
            None => return,
        }
    }
}

/// A text that is not longer than that.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['\u{2026}']).collect()
}

/// How many columns the reader's terminal has; for a pipe, as many as a page.
pub(crate) fn width() -> usize {
    told_width().unwrap_or(WIDTH_USUAL)
}

/// How many columns the reader's terminal has, where somebody says.
pub(crate) fn told_width() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    told.or_else(seen).filter(|width| *width > 0)
}

/// The head of a column: `record_id` is `RECORD`.
pub(crate) fn head(name: &str) -> String {
    name.trim_end_matches("_id").replace('_', " ").to_uppercase()
}

/// One row in columns of given widths, for rows that come one by one.
pub(crate) fn columns(shown: &[&str], widths: &[usize], row: &[Cell]) -> String {
    let cell = |name: &str| row.iter().find(|(column, _)| *column == name).map(|(_, value)| plain(value));
    let padded = |(name, width): (&&str, &usize)| format!("{:width$}", cell(name).unwrap_or_default());
    shown.iter().zip(widths).map(padded).collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// The word of a generated enum: `REDEEMER_TOOL` is `tool`; unspecified is nothing.
pub(crate) fn word(name: Option<&str>, prefix: &str) -> Value {
    let word = name.and_then(|name| name.strip_prefix(prefix)).unwrap_or("UNSPECIFIED").to_lowercase();
    if word == "unspecified" { Value::Null } else { word.into() }
}

/// A number of things in words: `1 identity`, `2 identities`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// As exports have it.
fn csv(rows: &[Vec<Cell>]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let heads: Vec<_> = first.iter().map(|(name, _)| *name).collect();
    let mut text = heads.join(",") + "\n";
    for row in rows {
        let cells: Vec<_> = row.iter().map(|(_, value)| csv::cell(&plain(value))).collect();
        text.push_str(&(cells.join(",") + "\n"));
    }
    text
}

/// A value as a cell; lists are separated by blanks.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => inline(text),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Fewer letters tell nothing.
const CUT_MIN: usize = 8;
const WIDTH_USUAL: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![("tool", "ä,\"b\"".into()), ("uses", 1.into()), ("ids", vec!["x", "y"].into())],
            vec![("tool", "long one".into()), ("uses", 12.into()), ("ids", Value::Null)],
        ]
    }

    #[test]
    fn tables_are_aligned() {
        let text = anstream::adapter::strip_str(&table(&["tool", "ids", "uses"], &rows())).to_string();
        assert_eq!(text, "TOOL      IDS  USES\nä,\"b\"     x y  1\nlong one       12\n");
    }

    #[test]
    fn long_names_are_cut_and_not_wrapped() {
        let rows = vec![vec![
            ("tool", "a tool with a long name".into()),
            ("item", "short".into()),
            ("uses", 12.into()),
        ]];
        let show = |width| {
            anstream::adapter::strip_str(&fitted(&["tool", "item", "uses"], &rows, &["tool", "item"], width))
                .to_string()
        };
        assert_eq!(show(23), "TOOL        ITEM   USES\na tool wi\u{2026}  short  12\n");
        assert_eq!(show(1), "TOOL      ITEM   USES\na tool \u{2026}  short  12\n");
        assert_eq!(
            show(99),
            table(&["tool", "item", "uses"], &rows).replace("\u{1b}[1m", "").replace("\u{1b}[0m", "")
        );
    }

    #[test]
    fn csv_quotes() {
        assert_eq!(csv(&rows()), "tool,uses,ids\n\"ä,\"\"b\"\"\",1,x y\nlong one,12,\n");
    }

    #[test]
    fn csv_runs_nothing() {
        for (purpose, cell) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("=1,\"2\"", "\"'=1,\"\"2\"\"\""),
            ("\t=1", "\u{fffd}=1"),
            ("\r=1", "\u{fffd}=1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(csv(&[vec![("purpose", purpose.into())]]), format!("purpose\n{cell}\n"));
        }
    }

    #[test]
    fn records_leave_out_what_is_empty() {
        assert_eq!(record(&rows()[1]), "tool  long one\nuses  12\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain(&"a\u{1b}[2J\nb".into()), "a\u{fffd}[2J\u{fffd}b");
        assert_eq!(plain(&"a\u{202e}b\u{2067}c\u{200f}d".into()), "a\u{fffd}b\u{fffd}c\u{fffd}d");
    }
}
