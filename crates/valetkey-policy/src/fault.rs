//! What is wrong with a policy directory, and where.

use std::error::Error;
use std::fmt;

use miette::Diagnostic;

use crate::error::chain;

/// Why policies could not be loaded: every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    faults: Vec<Fault>,
}

/// One fault, or one warning, of one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, as the loader was told to find it.
    pub file: String,
    /// Where in the file; absent where it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
}

/// A place in a text file. Both count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A file of the policy directory, in memory.
#[derive(Debug)]
pub(crate) struct Source {
    /// As shown in faults.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl LoadError {
    /// Faults become an error; no faults, none.
    pub(crate) fn unless_empty(mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort();
        faults.dedup();
        Err(Self { faults })
    }

    /// One fault.
    pub(crate) fn of(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }

    /// Every fault, by file and place.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl Fault {
    /// A fault of no file in particular.
    pub(crate) fn of_no_place(message: String) -> Self {
        Self { file: "policies".to_owned(), place: None, message: one_line(message) }
    }
}

impl Source {
    /// `policies/travel.cedar:12:3`
    pub(crate) fn position(&self, offset: usize) -> String {
        let Place { line, column } = place(&self.text, offset);
        format!("{}:{line}:{column}", self.name)
    }

    /// A fault of the file as a whole.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { file: self.name.clone(), place: None, message: one_line(message.into()) }
    }

    /// A fault at a byte offset.
    pub(crate) fn fault_at(&self, offset: usize, message: impl Into<String>) -> Fault {
        Fault { place: Some(place(&self.text, offset)), ..self.fault(message) }
    }

    /// A fault that Cedar found, at its first label; at `otherwise` where it has none.
    pub(crate) fn fault_of(&self, error: &dyn Diagnostic, otherwise: Option<usize>) -> Fault {
        let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        match offset.or(otherwise) {
            Some(offset) => self.fault_at(offset, describe(error)),
            None => self.fault(describe(error)),
        }
    }
}

impl fmt::Display for Fault {
    /// `policies/travel.cedar:12:3: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        match place {
            Some(Place { line, column }) => write!(f, "{file}:{line}:{column}: {message}"),
            None => write!(f, "{file}: {message}"),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "{count} {} in the policies", if count == 1 { "fault" } else { "faults" })?;
        for (index, fault) in self.faults.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{} {fault}", if index == 0 { ":" } else { ";" })?;
        }
        if count > SHOWN_MAX { write!(f, "; and {} more", count - SHOWN_MAX) } else { Ok(()) }
    }
}

impl Error for LoadError {}

/// An error with its causes and Cedar's hint.
fn describe(error: &dyn Diagnostic) -> String {
    let text = chain(error);
    match error.help() {
        Some(help) => format!("{text} ({help})"),
        None => text,
    }
}

fn place(text: &str, offset: usize) -> Place {
    let before: Vec<char> = text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, c)| c).collect();
    let line = before.iter().filter(|c| **c == '\n').count() + 1;
    let column = before.iter().rev().take_while(|c| **c != '\n').count() + 1;
    Place { line, column }
}

fn one_line(message: String) -> String {
    if message.contains(['\n', '\r']) {
        message.split_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        message
    }
}

/// How many faults the error's own text shows; [`LoadError::faults`] has all.
const SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_in_characters() {
        let check = |offset: usize, line: usize, column: usize| {
            assert_eq!(place("ab\nüx\n", offset), Place { line, column }, "{offset}");
        };
        check(0, 1, 1);
        check(2, 1, 3);
        check(3, 2, 1);
        check(5, 2, 2);
        check(7, 3, 1);
        check(99, 3, 1);
    }

    #[test]
    fn an_error_shows_the_first_faults_and_counts_the_rest() {
        let source = Source { name: "a.cedar".into(), text: "x".into() };
        let faults = (0..30).map(|n| source.fault_at(0, format!("fault\n{n:02}"))).collect();
        let error = LoadError::unless_empty(faults).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("30 faults in the policies: a.cedar:1:1: fault 00; "), "{text}");
        assert!(text.ends_with("fault 19; and 10 more"), "{text}");
        assert_eq!(error.faults().len(), 30);
    }
}
