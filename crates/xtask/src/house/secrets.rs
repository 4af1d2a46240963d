//! The rule that types which carry a secret cannot be printed, compared or copied by accident.

use super::File;

/// Every definition counts; a name that is defined nowhere is a rule that guards nothing.
pub(super) fn faults_of(files: &[File]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, home) in SECRETS {
        let mut defined = false;
        for File { path, text } in files.iter().filter(|file| file.path.ends_with(".rs")) {
            let attributes = attributes_of(text, name);
            defined |= path.starts_with(home) && attributes.is_some();
            let derived =
                LEAKS.iter().filter(|leak| attributes.as_ref().is_some_and(|it| it.contains(**leak)));
            let written = text.lines().flat_map(|line| implemented(line, name));
            let fault = |leak| format!("{path}: `{name}` has `{leak}`, a way for a secret to reach a log");
            faults.extend(derived.chain(written).map(fault));
        }
        if !defined {
            faults.push(format!("`{name}` is not in {home}: if it has a new name, so must this rule"));
        }
    }
    faults
}

/// The attributes above the struct of this name, where the file defines it. Comments do not count: they
/// may name what is not derived.
fn attributes_of(text: &str, name: &str) -> Option<String> {
    let mut above = String::new();
    for line in text.lines().map(str::trim) {
        let defines = line.split_once("struct ").is_some_and(|(_, rest)| first_word(rest) == name);
        if defines && !line.starts_with("//") {
            return Some(above);
        }
        match line {
            comment if comment.starts_with("//") => {}
            end if end.is_empty() || end.ends_with([';', '}']) => above.clear(),
            attribute => above.push_str(attribute),
        }
    }
    None
}

/// The leaking traits that a line implements for this name by hand.
fn implemented(line: &str, name: &str) -> impl Iterator<Item = &'static &'static str> {
    let parts = line.strip_prefix("impl").and_then(|rest| rest.split_once(" for "));
    let type_name = |path: &str| path.split(['<', ' ']).next()?.rsplit("::").next().map(str::to_owned);
    let head =
        parts.filter(|(_, path)| type_name(path).as_deref() == Some(name)).map_or("", |(head, _)| head);
    LEAKS.iter().filter(move |leak| head.contains(**leak))
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// By name, and where each is at home.
const SECRETS: [(&str, &str); 4] = [
    ("SecretValue", "crates/valetkey-core/"),
    ("Handle", "crates/valetkey-core/"),
    ("Bearer", "crates/valetkey-core/"),
    ("ServiceAccountToken", "crates/valetkey-onepassword/"),
];
const LEAKS: [&str; 7] = ["Debug", "Display", "Serialize", "Clone", "Copy", "PartialEq", "Hash"];

#[cfg(test)]
mod tests {
    use crate::house::tests::check;

    #[test]
    fn secrets_stay_unprintable() {
        let path = "crates/a/src/b.rs";
        check(path, "#[derive(Debug)]\npub struct Handle(u8);", Some("`Handle` has `Debug`"));
        check(
            path,
            "#[derive(\n    Eq,\n    Clone,\n)]\n/// Doc.\nstruct Bearer;",
            Some("`Bearer` has `Clone`"),
        );
        check(path, "impl fmt::Display for SecretValue {", Some("`SecretValue` has `Display`"));
        check(path, "impl Clone for valetkey_core::Handle {", Some("`Handle` has `Clone`"));
        check(path, "impl<'a> serde::Serialize for Handle<'a> {", Some("`Handle` has `Serialize`"));
        check(
            path,
            "#[derive(Debug)]\nstruct HandleId;\n\nimpl Drop for Handle {\nimpl Debug for HandleId {",
            None,
        );
        check(path, "#[derive(Debug)]\nstruct A;\n/// No Debug.\nstruct Handle;", None);
        check("crates/valetkey-core/src/a.rs", "", Some("`Handle` is not in crates/valetkey-core/"));
    }
}
