//! How a reference selects a field of an item, and what of it: the rules of the 1Password SDK core.

use valetkey_core::{Attribute, Facet, ResolveError};

use crate::item::{FieldKind, FieldOutline, ItemOutline, Section, is_sayable};

/// The field that `section` and `field` name in `item`; exactly one, or an error that says why not.
///
/// A label counts in any case, an id only as it stands. A named section stands for all sections of that
/// label or id. Without one, fields outside of titled sections come first; the others count only where
/// none of those matches.
pub(crate) fn select<'a>(
    item: &'a ItemOutline,
    section: Option<&str>,
    field: &str,
) -> Result<&'a FieldOutline, ResolveError> {
    let hits = item.fields.iter().filter(|candidate| is_field(candidate, field));
    let Some(section) = section else {
        let (first, rest): (Vec<_>, Vec<_>) = hits.partition(|hit| item.section_label(hit).is_empty());
        return only(if first.is_empty() { rest } else { first });
    };
    let sections: Vec<_> = item.sections.iter().filter(|candidate| is_section(candidate, section)).collect();
    if sections.is_empty() {
        return Err(ResolveError::NoMatchingSections);
    }
    let inside =
        |hit: &&FieldOutline| sections.iter().any(|section| hit.section.as_ref() == Some(&section.id));
    only(hits.filter(inside).collect())
}

/// What of a field of this kind a reference with `attribute` asks for.
pub(crate) fn facet(kind: FieldKind, attribute: Option<Attribute>) -> Result<Facet, ResolveError> {
    match (attribute, kind) {
        // The bare field is the URI with the seed: worth all codes to come, and a facet of its own.
        (None, FieldKind::OneTimePassword) => Ok(Facet::Seed),
        (None, _) => Ok(Facet::Value),
        (Some(Attribute::Otp), FieldKind::OneTimePassword) => Ok(Facet::Otp),
        (Some(Attribute::Otp), _) => Err(ResolveError::IncompatibleTotpQueryParameterField),
        (Some(Attribute::OpensshFormat), FieldKind::PrivateKey) => Ok(Facet::OpensshKey),
        (Some(Attribute::OpensshFormat), _) => Err(ResolveError::IncompatibleSshKeyQueryParameterField),
    }
}

fn is_field(field: &FieldOutline, name: &str) -> bool {
    let is_notes =
        field.kind == FieldKind::Notes && NOTES_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name));
    *field.id == *name || field.label.eq_ignore_ascii_case(name) || is_notes
}

fn is_section(section: &Section, name: &str) -> bool {
    *section.id == *name || section.label.eq_ignore_ascii_case(name)
}

/// A field whose id no reference can say is no target, but leaves its label to no other field alone.
fn only(hits: Vec<&FieldOutline>) -> Result<&FieldOutline, ResolveError> {
    match hits.as_slice() {
        [one] if is_sayable(&one.id) => Ok(one),
        [] | [_] => Err(ResolveError::FieldNotFound),
        [..] => Err(ResolveError::TooManyMatchingFields),
    }
}

/// Notes answer to both, whatever their label.
const NOTES_NAMES: [&str; 2] = ["notes", "notesPlain"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::ItemState;

    fn item() -> ItemOutline {
        let section = |id: &str, label: &str| Section { id: id.into(), label: label.into() };
        let field = |id: &str, label: &str, section: Option<&str>, kind| FieldOutline {
            id: id.into(),
            label: label.into(),
            section: section.map(Into::into),
            kind,
        };
        use FieldKind::*;
        ItemOutline {
            vault_id: "v".into(),
            id: "i".into(),
            title: "github".into(),
            state: ItemState::Active,
            sections: vec![
                section("sec1", "Admin"),
                section("sec2", "admin"),
                section("sec3", "Other"),
                section("sec4", ""),
            ],
            fields: vec![
                field("username", "username", None, Plain),
                field("tok1", "token", Some("sec1"), Plain),
                field("pin2", "PIN", Some("sec2"), Plain),
                field("pin3", "pin", Some("sec3"), Plain),
                field("usr3", "Username", Some("sec3"), Plain),
                field("deep4", "deep", Some("sec4"), Plain),
                field("dup2", "twin", Some("sec2"), Plain),
                field("dup1", "twin", Some("sec1"), Plain),
                field("notesPlain", "Remarks", None, Notes),
                field("nts3", "notes", Some("sec3"), Plain),
                field("otp1", "one-time password", Some("sec1"), OneTimePassword),
                field("file1", "key.txt", Some("sec3"), File),
                field("user[a]", "Form", None, Plain),
                field("user[b]", "twofold", None, Plain),
                field("said", "Twofold", None, Plain),
            ],
        }
    }

    #[test]
    fn selections() {
        let item = item();
        let check = |path: &str, id: Result<&str, ResolveError>| {
            let (section, field) = path.split_once('/').map_or((None, path), |(one, two)| (Some(one), two));
            assert_eq!(select(&item, section, field).map(|field| &*field.id), id, "{path}");
        };
        use ResolveError::*;
        check("token", Ok("tok1"));
        check("TOKEN", Ok("tok1"));
        check("tok1", Ok("tok1"));
        check("TOK1", Err(FieldNotFound));
        check("form", Err(FieldNotFound));
        check("twofold", Err(TooManyMatchingFields));
        check("said", Ok("said"));
        check("admin/token", Ok("tok1"));
        check("ADMIN/TOKEN", Ok("tok1"));
        check("sec1/tok1", Ok("tok1"));
        check("SEC1/tok1", Err(NoMatchingSections));
        check("sec2/token", Err(FieldNotFound));
        check("none/token", Err(NoMatchingSections));
        // Sections of one label are searched together.
        check("Admin/pin", Ok("pin2"));
        check("Admin/twin", Err(TooManyMatchingFields));
        check("sec2/twin", Ok("dup2"));
        // Without a section: what is in no titled section comes first.
        check("username", Ok("username"));
        check("other/username", Ok("usr3"));
        check("pin", Err(TooManyMatchingFields));
        check("deep", Ok("deep4"));
        check("sec4/deep", Ok("deep4"));
        // Notes.
        check("notes", Ok("notesPlain"));
        check("NotesPlain", Ok("notesPlain"));
        check("remarks", Ok("notesPlain"));
        check("other/notes", Ok("nts3"));
        // Files.
        check("KEY.txt", Ok("file1"));
        check("other/key.txt", Ok("file1"));
        check("", Err(FieldNotFound));
    }

    #[test]
    fn facets() {
        use FieldKind::*;
        let (otp, ssh) = (Some(Attribute::Otp), Some(Attribute::OpensshFormat));
        assert_eq!(facet(Plain, None), Ok(Facet::Value));
        assert_eq!(facet(OneTimePassword, None), Ok(Facet::Seed));
        assert_eq!(facet(OneTimePassword, otp), Ok(Facet::Otp));
        assert_eq!(facet(PrivateKey, None), Ok(Facet::Value));
        assert_eq!(facet(PrivateKey, ssh), Ok(Facet::OpensshKey));
        for kind in [Plain, Notes, PrivateKey, File] {
            assert_eq!(facet(kind, otp), Err(ResolveError::IncompatibleTotpQueryParameterField));
        }
        for kind in [Plain, Notes, OneTimePassword, File] {
            assert_eq!(facet(kind, ssh), Err(ResolveError::IncompatibleSshKeyQueryParameterField));
        }
    }
}
