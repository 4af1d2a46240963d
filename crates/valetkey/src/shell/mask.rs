//! Conceals values in what a command prints, wherever the pieces are cut, and in the forms that programs give them:
//! as they are, in JSON strings, percent-encoded, and in base64 wherever in a longer text they stand.
//!
//! Not a wall: a program that means to show a value can write it backwards. It keeps values out of logs by mistake.

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::noncontiguous::NFA;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroize;

use super::forms::Forms;
use crate::failure::{Exit, Failure};

/// Looks for values in a stream of bytes. The values live in it for as long as it does.
pub(crate) struct Masker {
    automaton: Arc<NFA>,
    /// How many bytes of what was read may still become a value.
    depths: Arc<HashMap<StateID, usize>>,
    state: StateID,
    /// What was read and not passed on: each byte, and whether it is part of a value.
    held: Vec<(u8, bool)>,
    /// Whether what was passed on last was concealed.
    concealing: bool,
}

impl Masker {
    /// Looks for these.
    ///
    /// # Errors
    /// Where they are too many or too long altogether: then nothing may be printed.
    pub(crate) fn new(forms: &Forms) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Exit::Failed, format!("the values cannot be concealed: {error}"))
        };
        let automaton = NFA::new(forms.iter()).map_err(|error| failed(&error))?;
        let start = automaton.start_state(Anchored::No).map_err(|error| failed(&error))?;
        let mut depths = HashMap::new();
        for form in forms.iter() {
            let mut state = start;
            for (depth, byte) in (1..).zip(form.iter()) {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state, depth);
            }
        }
        let (automaton, depths) = (Arc::new(automaton), Arc::new(depths));
        Ok(Self { automaton, depths, state: start, held: Vec::new(), concealing: false })
    }

    /// One for another stream, before this one has read anything.
    pub(crate) fn twin(&self) -> Self {
        let Self { automaton, depths, state, held: _, concealing: _ } = self;
        let (automaton, depths) = (Arc::clone(automaton), Arc::clone(depths));
        Self { automaton, depths, state: *state, held: Vec::new(), concealing: false }
    }

    /// Takes the next bytes of the stream; passes on what cannot be part of a value any more.
    pub(crate) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.held.push((*byte, false));
            self.state = self.automaton.next_state(Anchored::No, self.state, *byte);
            if self.automaton.is_match(self.state) {
                let length = (0..self.automaton.match_len(self.state))
                    .map(|place| self.automaton.pattern_len(self.automaton.match_pattern(self.state, place)))
                    .max()
                    .unwrap_or_default();
                self.held.iter_mut().rev().take(length).for_each(|(_, hidden)| *hidden = true);
            }
        }
        let open = self.depths.get(&self.state).copied().unwrap_or_default();
        self.pass(self.held.len().saturating_sub(open), out);
    }

    /// Passes on what is left: the stream has ended.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.pass(self.held.len(), out);
    }

    fn pass(&mut self, count: usize, out: &mut Vec<u8>) {
        for (byte, hidden) in self.held.drain(..count) {
            match hidden {
                true if self.concealing => {}
                true => out.extend_from_slice(CONCEALED),
                false => out.push(byte),
            }
            self.concealing = hidden;
        }
    }
}

impl Drop for Masker {
    fn drop(&mut self) {
        self.held.iter_mut().for_each(|(byte, _)| byte.zeroize());
    }
}

const CONCEALED: &[u8] = b"<concealed by valetkey>";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::forms;
    use data_encoding::BASE64;
    use proptest::prelude::*;

    fn masked(values: &[&[u8]], pieces: &[&[u8]]) -> String {
        let forms = Forms::of(values.iter().copied());
        let mut masker = Masker::new(&forms).ok().unwrap();
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| masker.take(piece, &mut out));
        masker.finish(&mut out);
        String::from_utf8_lossy(&out).replace("<concealed by valetkey>", "***")
    }

    fn check(values: &[&str], text: &str, expected: &str) {
        let values: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(&values, &[text.as_bytes()]), expected, "{text} at once");
        assert_eq!(masked(&values, &bytes), expected, "{text} byte by byte");
    }

    #[test]
    fn values_as_they_are() {
        check(&["hunter2"], "a hunter2 b hunter2hunter2 hunter", "a *** b *** hunter");
        check(&["abcd", "bcdefg"], "abcdefg abcdx", "*** ***x");
        check(&["aaaa"], "aaaaaaa aaa", "*** aaa");
        check(&["123"], "0123456", "0***456");
        check(&["", "\n"], "as it is\n", "as it is\n");
        check(&["secret\n"], "secret\n", "***\n");
        check(&[], "anything", "anything");
    }

    #[test]
    fn values_in_other_forms() {
        check(&["p\"w\\d"], r#"{"x":"p\"w\\d"}"#, r#"{"x":"***"}"#);
        check(&["a b&c"], "x=a%20b%26c&y=a+b%26c", "x=***&y=***");
        check(&["ü/?x"], "%C3%BC%2F%3Fx %c3%bc%2f%3fx", "*** ***");
        // As Python, JavaScript, Java, and Go where it writes a user into a URL, do it.
        check(&["p/w d!"], "p/w%20d%21 p%2Fw%20d! p%2Fw+d%21", "*** *** ***");
        check(&["a=b&c@~"], "a=b&c%40~ a%3Db%26c%40%7E", "*** ***");
        // As Python, Go and PHP write JSON.
        check(&["ä<b>/c"], r#""\u00e4<b>/c" "ä\u003cb\u003e/c" "\u00e4<b>\/c""#, r#""***" "***" "***""#);
        check(&["  blanks  "], "[blanks]", "[***]");
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----";
        check(&[key], "x MIIEvQIBADANBgkqhkiG y", "x *** y");
        let wrapped = "LS0tLS1CRUdJTiBLRVktLS0tLQpNSUlFdlFJQkFEQU5CZ2txaGtpRwotLS0tLUVORCBLRVktLS0t\nLQ==";
        check(&[key], wrapped, "***\nLQ==");
    }

    #[test]
    fn what_may_become_a_value_is_held_back_and_nothing_else() {
        let mut masker = Masker::new(&Forms::of([&b"secret"[..]])).ok().unwrap();
        let mut out = Vec::new();
        masker.take(b"password: sec", &mut out);
        assert_eq!(out, b"password: ");
        masker.take(b"ond", &mut out);
        assert_eq!(out, b"password: second");
    }

    proptest! {
        #[test]
        fn no_value_gets_through_however_it_is_cut(
            value in "[ -~]{4,24}", before in "[ -~]{0,20}", after in "[ -~]{0,20}", form in 0usize..4, cut in 1usize..9,
        ) {
            let whole = format!("{before}{value}{after}");
            let text = match form {
                0 => whole.clone(),
                1 => BASE64.encode(whole.as_bytes()),
                2 => String::from_utf8(forms::percent_encoded(whole.as_bytes(), forms::RFC_3986).to_vec()).unwrap(),
                _ => serde_json::to_string(&whole).unwrap(),
            };
            let value = value.trim_ascii();
            prop_assume!(value.len() >= 4);
            let pieces: Vec<_> = text.as_bytes().chunks(cut).collect();
            let shown = masked(&[value.as_bytes()], &pieces);
            prop_assert!(shown.contains("***"), "{} in {}", value, shown);
            prop_assert!(!shown.contains(value) || "***".contains(value), "{} in {}", value, shown);
        }
    }
}
