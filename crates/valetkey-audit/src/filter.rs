//! The filter language: `agent:travel-bot decision:deny -item:CI created:>=2026-11-01`.
//!
//! Terms stand side by side and must all hold; `-` before a term turns it round. A value with blanks or
//! quotes is written in quotes, with `\"` and `\\` inside. Outside of quotes, `*` at the beginning or the
//! end of a name stands for anything. `docs/audit.md` lists the qualifiers.

use sha2::{Digest, Sha256};
use valetkey_core::ValueDigest;

use crate::term::{QUALIFIERS, Term, Test};

/// A parsed filter. The empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

/// Where a filter is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the filter: {fault}")]
pub struct FilterError {
    /// The byte, from 0.
    pub at: usize,
    /// What is wrong there.
    pub fault: FilterFault,
}

/// What is wrong in a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterFault {
    /// Over 1,024 bytes.
    #[error("a filter has at most {LENGTH_MAX} bytes")]
    TooLong,
    /// Over 32 terms.
    #[error("a filter has at most {TERMS_MAX} terms")]
    TooManyTerms,
    /// Not `qualifier:value`.
    #[error("`{0}` is no term; a term is `qualifier:value`, such as `agent:travel-bot`")]
    NotTerm(String),
    /// A qualifier that does not exist.
    #[error("there is no qualifier `{0}`; there are {known}", known = QUALIFIERS.join(", "))]
    UnknownQualifier(String),
    /// Nothing behind the colon.
    #[error("`{0}` has no value")]
    ValueAbsent(&'static str),
    /// A quote that is not closed, or that stands in the middle of a value.
    #[error("a value with a quote is quoted from its beginning to its end, as in `item:\"Visa card\"`")]
    Quote,
    /// A value that the qualifier cannot have.
    #[error("`{qualifier}` cannot be `{value}`; it is {expected}")]
    BadValue {
        /// The qualifier.
        qualifier: &'static str,
        /// The value, made fit for a log.
        value: String,
        /// What it can be.
        expected: String,
    },
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// [`FilterError`] for the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > LENGTH_MAX {
            return Err(FilterError { at: LENGTH_MAX, fault: FilterFault::TooLong });
        }
        let mut parser = Parser { text, at: 0 };
        let mut terms = Vec::new();
        parser.skip_blanks();
        while !parser.rest().is_empty() {
            if terms.len() == TERMS_MAX {
                return Err(parser.fault(FilterFault::TooManyTerms));
            }
            terms.push(parser.term()?);
            parser.skip_blanks();
        }
        Ok(Self { text: text.trim().to_owned(), terms })
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What asks for the releases of a value; nobody can write it.
    pub(crate) fn of_value(digest: ValueDigest) -> Self {
        Self { text: String::new(), terms: vec![Term { negated: false, test: Test::ValueDigest(digest) }] }
    }

    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Tells filters apart in page tokens.
    pub(crate) fn fingerprint(&self) -> [u8; 8] {
        let hash: [u8; 32] = Sha256::digest(self.text.as_bytes()).into();
        hash.first_chunk().copied().unwrap_or_default()
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// `[-]qualifier:value`, from its first byte.
    fn term(&mut self) -> Result<Term, FilterError> {
        let start = self.at;
        let negated = self.eat('-');
        let name_at = self.at;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() || !self.eat(':') {
            self.take_while(|c| !c.is_whitespace());
            let term = self.text.get(start..self.at).unwrap_or_default();
            return Err(FilterError { at: start, fault: FilterFault::NotTerm(shown(term)) });
        }
        let Some(qualifier) = QUALIFIERS.into_iter().find(|known| *known == name) else {
            return Err(FilterError { at: name_at, fault: FilterFault::UnknownQualifier(shown(name)) });
        };
        let value_at = self.at;
        let (value, literal) = self.value()?;
        let fault = |fault| FilterError { at: value_at, fault };
        if value.is_empty() {
            return Err(fault(FilterFault::ValueAbsent(qualifier)));
        }
        match Test::parse(qualifier, &value, literal) {
            Some(Ok(test)) => Ok(Term { negated, test }),
            Some(Err(expected)) => {
                Err(fault(FilterFault::BadValue { qualifier, value: shown(&value), expected }))
            }
            None => Err(fault(FilterFault::UnknownQualifier(shown(name)))),
        }
    }

    /// A value, and whether it was quoted.
    fn value(&mut self) -> Result<(String, bool), FilterError> {
        let start = self.at;
        let quote = FilterError { at: start, fault: FilterFault::Quote };
        if !self.eat('"') {
            let value = self.take_while(|c| !c.is_whitespace());
            return if value.contains('"') { Err(quote) } else { Ok((value.to_owned(), false)) };
        }
        let mut value = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    let ends = self.rest().chars().next().is_none_or(char::is_whitespace);
                    return if ends { Ok((value, true)) } else { Err(quote) };
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(quote),
                },
                other => value.push(other),
            }
        }
        Err(quote)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn fault(&self, fault: FilterFault) -> FilterError {
        FilterError { at: self.at, fault }
    }
}

/// Somebody may have pasted a handle: it must not come back in a message.
fn shown(text: &str) -> String {
    valetkey_core::scrub(text, SHOWN_MAX)
}

const LENGTH_MAX: usize = 1024;
const TERMS_MAX: usize = 32;
const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term::Pattern;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, String) {
        let error = Filter::parse(text).unwrap_err();
        (error.at, error.fault.to_string())
    }

    #[test]
    fn terms_are_read() {
        let filter =
            Filter::parse("  agent:travel-bot -item:\"Visa \\\"x\\\" \\\\*\"\ttool:navan* ").unwrap();
        let pattern = |text: &str, any_after| Pattern { text: text.into(), any_before: false, any_after };
        let expected = [
            Term { negated: false, test: Test::Agent(pattern("travel-bot", false)) },
            Term { negated: true, test: Test::Item(pattern("visa \"x\" \\*", false)) },
            Term { negated: false, test: Test::Tool(pattern("navan", true)) },
        ];
        assert_eq!(filter.terms(), expected);
        assert_eq!(Filter::parse("").unwrap(), Filter::default());
        assert_eq!(Filter::parse(" ").unwrap(), Filter::default());
        for caller in ["agent:travel-bot", "*ana", "*", "per*", "person:*", "tool:navan*"] {
            assert!(Filter::parse(&format!("caller:{caller}")).is_ok(), "{caller}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, at: usize, part: &str| {
            let (place, message) = error(text);
            assert!(place == at && message.contains(part), "{text}: {place} {message}");
        };
        check("travel-bot", 0, "`travel-bot` is no term");
        check("agent:a -", 8, "`-` is no term");
        check("agent:a :b", 8, "is no term");
        check("agent:a agnet:b", 8, "no qualifier `agnet`; there are agent, tool");
        check("-agnet:b", 1, "no qualifier");
        check("agent:", 6, "`agent` has no value");
        check("agent:\"\"", 6, "`agent` has no value");
        check("agent:\"a", 6, "quote");
        check("agent:\"a\"b", 6, "quote");
        check("agent:a\"b\"", 6, "quote");
        check("agent:\"a\\n\"", 6, "quote");
        check("agent:a*b", 6, "`*` at its beginning or its end");
        check("caller:ana", 7, "it is `caller:agent:ana`, `caller:tool:ana`, `caller:person:ana`");
        check("caller:ana*", 7, "`caller:person:ana`");
        check("decision:no", 9, "one of allow, deny, event");
        check("kind:x", 5, "acquire, renew, redeem");
        check("outcome:x", 8, "issued, released, failed, withheld, interrupted, open");
        check("reason:no-permit", 7, "POLICY_NO_PERMIT");
        check("record:0", 7, "a number from 1");
        check("created:yesterday", 8, "2026-11-01");
        check(&"a".repeat(1025), 1024, "at most 1024 bytes");
        check(&"agent:a ".repeat(33), 256, "at most 32 terms");
        assert!(Filter::parse(&"agent:a ".repeat(32)).is_ok());
    }

    #[test]
    fn a_handle_does_not_come_back() {
        let handle = valetkey_core::Handle::random().expose_secret();
        let secret = &handle[22..];
        for text in [format!("handle:{}", *handle), handle.to_string(), format!("{}:a", *handle)] {
            let message = Filter::parse(&text).unwrap_err().to_string();
            assert!(!message.contains(secret), "{message}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_points_into_the_text(text in "\\PC{0,60}") {
            if let Err(error) = Filter::parse(&text) {
                prop_assert!(text.is_char_boundary(error.at));
            }
        }

        #[test]
        fn terms_of_known_words_never_panic(
            text in "((-?(agent|reason|created|record|outcome|handle|vault):[-a-zA-Z0-9*\"\\\\<>=:]{0,12})[ \t]{0,2}){0,40}"
        ) {
            if let Err(error) = Filter::parse(&text) {
                prop_assert!(text.is_char_boundary(error.at));
            }
        }
    }
}
