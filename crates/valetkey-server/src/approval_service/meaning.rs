//! What an approver reads of a reference: everything in which two secrets can differ, in one line that cannot be taken
//! for another.
//!
//! Names are whoever keeps the vault's to choose, and the spelling is the agent's. So neither may draw a line of
//! its own: what separates names is quoted in them, and what shows nothing or turns text around is written out.

use valetkey_core::{Facet, FieldTarget, Named, Target, scrub};

/// The meaning of a reference, which is what is approved.
pub(super) fn of(reference: &str, target: &Target) -> String {
    let Some(FieldTarget { vault, item, field_id, field, section, facet }) = target.field() else {
        return "nothing that is there".to_owned();
    };
    let what = match facet {
        Facet::Value => "",
        Facet::Otp => " (code)",
        Facet::Seed => " (seed)",
        Facet::OpensshKey => " (OpenSSH key)",
    };
    let (label, place) = (Shown::of(field), Shown::of(section));
    let is_clear = label.is_whole && place.is_whole && is_by_label(reference, section, field);
    let place = if section.is_empty() { String::new() } else { format!("{}/", place.text) };
    let id = if is_clear { String::new() } else { bracketed(field_id) };
    format!("{}/{}/{place}{}{id}{what}", named(vault), named(item), label.text)
}

/// A name as it is shown.
struct Shown {
    text: String,
    /// Nothing of it is masked or cut, as could make two names look the same.
    is_whole: bool,
}

impl Shown {
    fn of(name: &str) -> Self {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        let clean = scrub(&escaped, NAME_MAX);
        let is_whole = clean == escaped;
        let is_plain = |c: char| c.is_alphanumeric() || "-_.@:+&".contains(c);
        let is_word = !clean.is_empty() && clean.chars().all(is_plain);
        Self { text: if is_word { clean } else { format!("\"{clean}\"") }, is_whole }
    }
}

/// A vault or an item; with its id where the name may be another's too.
fn named(thing: &Named) -> String {
    let Named { id, name, name_is_unique } = thing;
    let Shown { text, is_whole } = Shown::of(name);
    if *name_is_unique && is_whole { text } else { text + &bracketed(id) }
}

fn bracketed(id: &str) -> String {
    format!("[{}]", Shown::of(id).text)
}

/// Whether a reference selects the field by its label, and so as the only one of that label. By an id it can select one
/// of several.
fn is_by_label(reference: &str, section: &str, field: &str) -> bool {
    let path = reference.split('?').next().unwrap_or_default().to_lowercase();
    let path = path.strip_prefix("op://").unwrap_or(&path);
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [_, _, label] => *label == field,
        [_, _, place, label] => *place == section && *label == field,
        _ => false,
    }
}

/// Bytes of a name; longer ones are cut.
const NAME_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::ResolveError;

    fn of_names(item: &str, section: &str, field: &str) -> FieldTarget {
        let named = |id: &str, name: &str| Named { id: id.into(), name: name.into(), name_is_unique: true };
        FieldTarget {
            vault: named("v1", "production"),
            item: named("i1", item),
            field_id: "f1".into(),
            field: field.into(),
            section: section.into(),
            facet: Facet::Value,
        }
    }

    #[test]
    fn two_secrets_never_look_the_same() {
        let check = |reference: &str, target: FieldTarget, meaning: &str| {
            assert_eq!(of(reference, &Target::Field(target)), meaning);
        };
        let usual = || of_names("db", "", "password");
        check("op://Production/DB/Password", usual(), "production/db/password");
        check("op://v1/i1/password?attribute=value", usual(), "production/db/password");
        check("op://v1/i1/f1", usual(), "production/db/password[f1]");
        for (facet, what) in [(Facet::Otp, "code"), (Facet::Seed, "seed"), (Facet::OpensshKey, "OpenSSH key")]
        {
            let target = FieldTarget { facet, ..usual() };
            check("op://v1/i1/password", target, &format!("production/db/password ({what})"));
        }
        let section = || of_names("db", "superuser", "password");
        check("op://v1/i1/password", section(), "production/db/superuser/password");
        check("op://v1/i1/Superuser/password", section(), "production/db/superuser/password");
        check("op://v1/i1/s1/password", section(), "production/db/superuser/password[f1]");
        let twin = Named { name_is_unique: false, ..usual().item };
        check("op://v1/i1/password", FieldTarget { item: twin, ..usual() }, "production/db[i1]/password");
        let vault = Named { name_is_unique: false, ..usual().vault };
        check("op://v1/i1/password", FieldTarget { vault, ..usual() }, "production[v1]/db/password");
    }

    #[test]
    fn a_name_draws_no_line_of_its_own() {
        let check = |item: &str, shown: &str| {
            let target = Target::Field(of_names(item, "", "password"));
            assert_eq!(of("op://v/i/password", &target), format!("production/{shown}/password"));
        };
        check("größe", "größe");
        check("a b", "\"a b\"");
        check("a/b", "\"a/b\"");
        check("db[i2]", "\"db[i2]\"");
        check("db (seed)", "\"db (seed)\"");
        check("\"", "\"\\\"\"");
        check("\\", "\"\\\\\"");
        check("", "\"\"");
        check("db\u{202e}", "\"db\\u{202e}\"[i1]");
        check("db\\u{202e}", "\"db\\\\u{202e}\"");
        check("db\u{1b}[2J", "\"db\\u{1b}[2J\"[i1]");
        check(&"a".repeat(300), &format!("{}[i1]", "a".repeat(256)));
    }

    #[test]
    fn what_leads_nowhere_says_so() {
        let target = Target::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound };
        assert_eq!(of("op://a/b/c", &target), "nothing that is there");
    }
}
