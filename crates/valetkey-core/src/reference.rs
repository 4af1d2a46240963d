//! Secret references: `op://<vault>/<item>[/<section>]/<field>[?attribute=otp]`. An address, not a secret.
//!
//! The grammar is that of the 1Password SDK core, with refusals on top for what the core accepts and
//! nobody means: empty parts, leading or trailing blanks, `.` and `..`, parts over 256 bytes. There
//! are no escapes: a part with other characters is reachable by its id.

use std::fmt;
use std::sync::Arc;

use crate::text::holds_bearer;

/// A reference as an agent spells it, checked for form alone. What it means is a [`crate::Target`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretReference {
    /// The text as asked; the parts are ranges of it.
    text: Arc<str>,
    vault_end: usize,
    item_end: usize,
    /// Where the section ends; the end of the item where there is none.
    section_end: usize,
    field_end: usize,
    attribute: Option<Attribute>,
}

/// What the query of a reference asks for beside the plain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `?attribute=otp` or `totp`: the current code of a one-time password, rather than its seed.
    Otp,
    /// `?ssh-format=openssh`: a private key in OpenSSH's form.
    OpensshFormat,
}

/// Why a text is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Does not begin with `op://`, in lower case.
    #[error("must begin with `op://`")]
    Prefix,
    /// Fewer than three or more than four parts.
    #[error("must be `op://<vault>/<item>/[<section>/]<field>`: has {0} parts, wants 3 or 4")]
    PartCount(usize),
    /// A part is empty.
    #[error("must not have an empty part")]
    EmptyPart,
    /// A part begins or ends with a blank.
    #[error("must not have a part that begins or ends with a blank")]
    BlankEdge,
    /// A part is `.` or `..`.
    #[error("must not have `.` or `..` as a part")]
    DotPart,
    /// A part is over 256 bytes.
    #[error("must not have a part over {PART_MAX} bytes")]
    PartTooLong,
    /// A character outside the grammar.
    #[error(
        "must consist of letters, digits, blanks and `_` `.` `-`; name parts with other characters by their id"
    )]
    BadCharacter,
    /// A query other than the known ones.
    #[error("must have no query but `?attribute=otp`, `?attribute=totp` or `?ssh-format=openssh`")]
    BadQuery,
    /// Holds a bearer string: somebody confused the fields, and it would be shown and recorded.
    #[error("must not hold a handle or a token")]
    Bearer,
}

impl SecretReference {
    /// Parses a reference.
    ///
    /// # Errors
    /// [`ReferenceError`] names the first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ReferenceError::Prefix)?;
        let (path, attribute) = match rest.split_once('?') {
            None => (rest, None),
            Some((path, query)) => (path, Some(Attribute::parse(query)?)),
        };
        let count = path.split('/').count();
        if !(3..=4).contains(&count) {
            return Err(ReferenceError::PartCount(count));
        }
        let mut ends = [0; 4];
        let mut end = PREFIX.len();
        for (place, part) in ends.iter_mut().zip(path.split('/')) {
            check_part(part)?;
            *place = end + part.len();
            end = *place + 1;
        }
        // A reference is written to the log as it stands; a bearer string must not get there.
        if holds_bearer(text) {
            return Err(ReferenceError::Bearer);
        }
        let [vault_end, item_end, third, fourth] = ends;
        let (section_end, field_end) = if count == 4 { (third, fourth) } else { (item_end, third) };
        Ok(Self { text: text.into(), vault_end, item_end, section_end, field_end, attribute })
    }

    /// The vault's name or id.
    #[must_use]
    pub fn vault(&self) -> &str {
        self.part(PREFIX.len(), self.vault_end)
    }

    /// The item's title or id.
    #[must_use]
    pub fn item(&self) -> &str {
        self.part(self.vault_end + 1, self.item_end)
    }

    /// The section's label or id, where the reference names one.
    #[must_use]
    pub fn section(&self) -> Option<&str> {
        (self.section_end > self.item_end).then(|| self.part(self.item_end + 1, self.section_end))
    }

    /// The field's label or id, or the name of a file.
    #[must_use]
    pub fn field(&self) -> &str {
        self.part(self.section_end + 1, self.field_end)
    }

    /// What is asked for beside the plain value.
    #[must_use]
    pub fn attribute(&self) -> Option<Attribute> {
        self.attribute
    }

    /// The text as asked.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as asked, shared.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    fn part(&self, start: usize, end: usize) -> &str {
        self.text.get(start..end).unwrap_or_default()
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Attribute {
    fn parse(query: &str) -> Result<Self, ReferenceError> {
        match query {
            "attribute=otp" | "attribute=totp" => Ok(Self::Otp),
            "ssh-format=openssh" => Ok(Self::OpensshFormat),
            _ => Err(ReferenceError::BadQuery),
        }
    }
}

fn check_part(part: &str) -> Result<(), ReferenceError> {
    if part.is_empty() {
        return Err(ReferenceError::EmptyPart);
    }
    if part.len() > PART_MAX {
        return Err(ReferenceError::PartTooLong);
    }
    if !part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.- ".contains(&c)) {
        return Err(ReferenceError::BadCharacter);
    }
    if part.starts_with(' ') || part.ends_with(' ') {
        return Err(ReferenceError::BlankEdge);
    }
    if part == "." || part == ".." {
        return Err(ReferenceError::DotPart);
    }
    Ok(())
}

const PREFIX: &str = "op://";
const PART_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        let check = |text: &str, parts: (&str, &str, Option<&str>, &str, Option<Attribute>)| {
            let it = SecretReference::parse(text).unwrap();
            assert_eq!((it.vault(), it.item(), it.section(), it.field(), it.attribute()), parts, "{text}");
            assert_eq!(it.as_str(), text);
        };
        check("op://v/i/f", ("v", "i", None, "f", None));
        check("op://v/i/s/f", ("v", "i", Some("s"), "f", None));
        check("op://a b/c.d/e_f/g-h", ("a b", "c.d", Some("e_f"), "g-h", None));
        check("op://v/i/f?attribute=otp", ("v", "i", None, "f", Some(Attribute::Otp)));
        check("op://v/i/s/f?attribute=totp", ("v", "i", Some("s"), "f", Some(Attribute::Otp)));
        check(
            "op://v/i/private key?ssh-format=openssh",
            ("v", "i", None, "private key", Some(Attribute::OpensshFormat)),
        );
    }

    #[test]
    fn refusals() {
        use ReferenceError::*;
        let long = format!("op://v/{}/f", "a".repeat(257));
        let handle = format!("op://v/vkh_abcdefghijklmnop_{}/f", "a".repeat(40));
        for (text, error) in [
            ("", Prefix),
            ("OP://v/i/f", Prefix),
            ("https://v/i/f", Prefix),
            ("op://v/i", PartCount(2)),
            ("op://v/i/s/f/x", PartCount(5)),
            ("op:///i/f", EmptyPart),
            ("op://v//f", EmptyPart),
            ("op://v/i/", EmptyPart),
            ("op://v/ i/f", BlankEdge),
            ("op://v/i/f ", BlankEdge),
            ("op://v/../f", DotPart),
            ("op://v/./f", DotPart),
            (long.as_str(), PartTooLong),
            (handle.as_str(), Bearer),
            ("op://v/i/ops_eyJzaWduSW5B", Bearer),
            ("op://v/i%2Fx/f", BadCharacter),
            ("op://v/i/f\0", BadCharacter),
            ("op://v/*/f", BadCharacter),
            ("op://v/ü/f", BadCharacter),
            ("op://v/i\u{a0}/f", BadCharacter),
            ("op://v/i/f?", BadQuery),
            ("op://v/i/f?attribute=otp&x=y", BadQuery),
            ("op://v/i/f?Attribute=otp", BadQuery),
            ("op://v/i/f?attribute=type", BadQuery),
            ("op://v/i/f?attr=otp", BadQuery),
        ] {
            assert_eq!(SecretReference::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(op://)?\\PC{0,60}") {
            if let Ok(it) = SecretReference::parse(&text) {
                prop_assert_eq!(SecretReference::parse(&it.to_string()), Ok(it));
            }
        }

        #[test]
        fn accepted_parts_are_what_was_written(
            parts in prop::collection::vec("[a-zA-Z0-9_.-]{0,3}[a-zA-Z0-9_-][a-zA-Z0-9_. -]{0,5}[a-z]", 3..=4),
        ) {
            let it = SecretReference::parse(&format!("op://{}", parts.join("/"))).unwrap();
            let mut spelled = vec![it.vault(), it.item()];
            spelled.extend(it.section());
            spelled.push(it.field());
            prop_assert_eq!(spelled, parts);
        }
    }
}
