//! The one item model, whatever the source: outlines say what exists, values are kept apart.

use std::collections::HashMap;
use std::sync::Arc;

use valetkey_core::{Facet, ResolveError, SecretReference, SecretValue, Timestamp};

use crate::{ssh, totp};

/// A vault.
pub(crate) struct Vault {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// An item without its values: all that matching needs.
pub(crate) struct ItemOutline {
    pub(crate) vault_id: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) title: Arc<str>,
    pub(crate) state: ItemState,
    pub(crate) sections: Vec<Section>,
    /// Fields, notes and files; ids are unique among all of them.
    pub(crate) fields: Vec<FieldOutline>,
}

/// Whether an item is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemState {
    Active,
    /// Archived or deleted: its title leads nowhere, its id to a refusal.
    Inactive,
}

/// A section of an item.
pub(crate) struct Section {
    pub(crate) id: Arc<str>,
    /// Empty for the default section.
    pub(crate) label: Arc<str>,
}

/// What the last part of a reference can name, without its value.
#[derive(Debug)]
pub(crate) struct FieldOutline {
    pub(crate) id: Arc<str>,
    /// A file's name, where it is a file. Empty where there is none: then only the id names it.
    pub(crate) label: Arc<str>,
    /// The id of its section; built-in fields have none.
    pub(crate) section: Option<Arc<str>>,
    pub(crate) kind: FieldKind,
}

/// The kinds of field that the rules tell apart. Sources make it from their type, purpose and category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldKind {
    /// Any field with a value and nothing more to it.
    Plain,
    /// The item's notes.
    Notes,
    /// The seed of a one-time password.
    OneTimePassword,
    /// The private key of an SSH key item, as PKCS#8 PEM.
    PrivateKey,
    /// A file.
    File,
}

/// The values of one item at one version. Wiped when dropped; no `Debug`, no `Clone`.
pub(crate) struct ItemValues {
    pub(crate) version: Option<u64>,
    /// By field id; the content, for a file.
    pub(crate) by_field: HashMap<Arc<str>, SecretValue>,
}

impl ItemOutline {
    /// The field, the notes or the file with this id.
    pub(crate) fn field(&self, id: &str) -> Option<&FieldOutline> {
        self.fields.iter().find(|field| *field.id == *id)
    }

    /// The label of a field's section; empty where it has none, or an untitled one.
    pub(crate) fn section_label(&self, field: &FieldOutline) -> &str {
        let section =
            field.section.as_ref().and_then(|id| self.sections.iter().find(|section| section.id == *id));
        section.map_or("", |section| &section.label)
    }
}

impl ItemValues {
    /// What `facet` asks of `field` at the time `now`.
    ///
    /// A facet that the field's kind does not have is refused here too, although no reference leads to
    /// it: a plain read must never give the seed of a one-time password.
    pub(crate) fn give(
        &self,
        field: &FieldOutline,
        facet: Facet,
        now: Timestamp,
    ) -> Result<SecretValue, ResolveError> {
        let value = self.by_field.get(&field.id).ok_or(ResolveError::FieldNotFound)?;
        let text =
            std::str::from_utf8(value.expose_secret()).map_err(|_| ResolveError::UnsupportedFileFormat)?;
        match (facet, field.kind) {
            (Facet::Value, FieldKind::OneTimePassword) => Err(ResolveError::FieldNotFound),
            (Facet::Value, _) | (Facet::Seed, FieldKind::OneTimePassword) => {
                Ok(SecretValue::new(text.into()))
            }
            (Facet::Seed, _) => Err(ResolveError::FieldNotFound),
            (Facet::Otp, FieldKind::OneTimePassword) => totp::code(text, now),
            (Facet::Otp, _) => Err(ResolveError::IncompatibleTotpQueryParameterField),
            (Facet::OpensshKey, FieldKind::PrivateKey) => ssh::openssh(text),
            (Facet::OpensshKey, _) => Err(ResolveError::IncompatibleSshKeyQueryParameterField),
        }
    }
}

/// Whether a text has the form of a vault's or an item's id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Whether a reference can have `text` as a part.
pub(crate) fn is_sayable(text: &str) -> bool {
    SecretReference::parse(&format!("op://{text}/i/f")).is_ok_and(|reference| reference.vault() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_sayable_texts() {
        assert!(is_id("abcdefghijklmnopqrstuvwxy0"));
        for text in
            ["", "abcdefghijklmnopqrstuvwxy", "Abcdefghijklmnopqrstuvwxy0", "abcdefghijklmnopqrstuvwx-0"]
        {
            assert!(!is_id(text), "{text}");
        }
        assert!(is_sayable("Travel Card") && is_sayable("a_b.c-d"));
        for text in ["", " a", "a ", ".", "..", "a/b", "a?attribute=otp", "ä", "a\tb", "a:b"] {
            assert!(!is_sayable(text), "{text}");
        }
    }

    #[test]
    fn a_facet_is_given_only_by_its_kind() {
        let check = |kind, facet, text: &[u8]| {
            let field = FieldOutline { id: "f".into(), label: "f".into(), section: None, kind };
            let values =
                ItemValues { version: None, by_field: [("f".into(), SecretValue::new(text.into()))].into() };
            let now = Timestamp::from_micros(59_000_000);
            values
                .give(&field, facet, now)
                .map(|value| String::from_utf8(value.expose_secret().into()).unwrap())
        };
        let seed = b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(check(FieldKind::Plain, Facet::Value, b""), Ok(String::new()));
        assert_eq!(check(FieldKind::Plain, Facet::Seed, b"x"), Err(ResolveError::FieldNotFound));
        assert_eq!(check(FieldKind::Notes, Facet::Value, b"two\nlines"), Ok("two\nlines".into()));
        assert_eq!(check(FieldKind::OneTimePassword, Facet::Otp, seed), Ok("287082".into()));
        assert_eq!(
            check(FieldKind::OneTimePassword, Facet::Seed, seed),
            Ok(String::from_utf8_lossy(seed).into())
        );
        assert_eq!(check(FieldKind::OneTimePassword, Facet::Value, seed), Err(ResolveError::FieldNotFound));
        assert_eq!(
            check(FieldKind::Plain, Facet::Otp, seed),
            Err(ResolveError::IncompatibleTotpQueryParameterField)
        );
        let no_key = Err(ResolveError::IncompatibleSshKeyQueryParameterField);
        assert_eq!(check(FieldKind::Plain, Facet::OpensshKey, b"x"), no_key);
        assert_eq!(
            check(FieldKind::PrivateKey, Facet::OpensshKey, b"x"),
            Err(ResolveError::UnableToFormatPrivateKey)
        );
        assert_eq!(
            check(FieldKind::File, Facet::Value, b"\xff\xfe"),
            Err(ResolveError::UnsupportedFileFormat)
        );
        assert_eq!(check(FieldKind::File, Facet::Value, b"text"), Ok("text".into()));
    }
}
