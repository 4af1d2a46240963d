//! Conceals values in what a command prints, wherever the pieces are cut, and in the forms that programs give them:
//! as they are, in JSON strings, percent-encoded, and in base64 wherever in a longer text they stand.
//!
//! Not a wall: a program that means to show a value can write it backwards. It keeps values out of logs by mistake.

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::noncontiguous::NFA;
use data_encoding::{BASE64, BASE64URL};
use std::collections::HashMap;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::{Exit, Failure};

/// Looks for values in a stream of bytes. The values live in it for as long as it does.
pub(crate) struct Masker {
    automaton: NFA,
    /// How many bytes of what was read may still become a value.
    depths: HashMap<StateID, usize>,
    state: StateID,
    /// What was read and not passed on: each byte, and whether it is part of a value.
    held: Vec<(u8, bool)>,
    /// Whether what was passed on last was concealed.
    concealing: bool,
}

/// What is to be concealed: all forms of all values.
pub(crate) struct Forms(Vec<Zeroizing<Vec<u8>>>);

impl Forms {
    /// The forms of these values; empty ones have none.
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for value in values {
            // Programs print values line by line, and drop the last line end.
            let value = value.trim_ascii_end();
            if value.is_empty() {
                continue;
            }
            forms.push(Zeroizing::new(value.to_vec()));
            if value.len() < ENCODED_LENGTH_MIN {
                continue;
            }
            forms.extend(lines(value));
            forms.push(in_json(value));
            for encoding in [BASE64, BASE64URL] {
                forms.extend((0..3).map(|place| in_base64(value, place, &encoding)));
            }
            for (space, upper) in [("%20", true), ("%20", false), ("+", true), ("+", false)] {
                forms.push(percent_encoded(value, space, upper));
            }
        }
        forms.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        forms.dedup();
        Self(forms)
    }
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
        let automaton =
            NFA::new(forms.0.iter().map(|form| form.as_slice())).map_err(|error| failed(&error))?;
        let start = automaton.start_state(Anchored::No).map_err(|error| failed(&error))?;
        let mut depths = HashMap::new();
        for form in &forms.0 {
            let mut state = start;
            for (depth, byte) in (1..).zip(form.iter()) {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.insert(state, depth);
            }
        }
        Ok(Self { automaton, depths, state: start, held: Vec::new(), concealing: false })
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

/// The lines of a value of several, where they are long enough to be nothing else.
fn lines(value: &[u8]) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
    let several = value.contains(&b'\n');
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(move |line| several && line.len() >= LINE_LENGTH_MIN)
        .map(|line| Zeroizing::new(line.to_vec()))
}

/// As it stands within the quotes of a JSON string.
fn in_json(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let text = String::from_utf8_lossy(value);
    let mut json = serde_json::to_vec(&text).unwrap_or_default();
    json.pop();
    json.drain(..json.len().min(1));
    Zeroizing::new(json)
}

/// The characters of base64 that depend on the value alone, where it begins `place` bytes into a group of three.
fn in_base64(value: &[u8], place: usize, encoding: &data_encoding::Encoding) -> Zeroizing<Vec<u8>> {
    let mut group = Zeroizing::new(vec![0; place]);
    group.extend_from_slice(value);
    let encoded = Zeroizing::new(encoding.encode(&group));
    // Six bits a character: the first may hold bits of what comes before, the last of what comes after.
    let (first, end) = ((place * 8).div_ceil(6), group.len() * 8 / 6);
    Zeroizing::new(encoded.as_bytes().get(first..end).unwrap_or_default().to_vec())
}

/// As it stands in a URL or a form.
fn percent_encoded(value: &[u8], space: &str, upper: bool) -> Zeroizing<Vec<u8>> {
    let mut encoded = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    for byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(*byte),
            b' ' => encoded.extend_from_slice(space.as_bytes()),
            _ if upper => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => encoded.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    encoded
}

const CONCEALED: &[u8] = b"<concealed by valetkey>";
/// Of shorter values only the plain form is looked for: their encodings could be anything.
const ENCODED_LENGTH_MIN: usize = 4;
const LINE_LENGTH_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
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
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----";
        check(&[key], "x MIIEvQIBADANBgkqhkiG y", "x *** y");
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
                2 => String::from_utf8(percent_encoded(whole.as_bytes(), "%20", true).to_vec()).unwrap(),
                _ => serde_json::to_string(&whole).unwrap(),
            };
            let value = value.trim_ascii_end();
            prop_assume!(value.len() >= 4);
            let pieces: Vec<_> = text.as_bytes().chunks(cut).collect();
            let shown = masked(&[value.as_bytes()], &pieces);
            prop_assert!(shown.contains("***"), "{} in {}", value, shown);
            prop_assert!(!shown.contains(value) || "***".contains(value), "{} in {}", value, shown);
        }
    }
}
