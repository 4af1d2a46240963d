//! The rules of the house that neither the compiler nor clippy knows. Each says why it exists.

use anyhow::Context as _;

use crate::ci::Outcome;
use crate::command::{command, output_of};

mod secrets;

/// Looks at every file that is in the repository, or would be with the next `git add`.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    let words = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let Some(paths) = output_of(&mut command("git", &words)) else {
        return Ok(Outcome::NotChecked(
            "the files cannot be listed: git or its repository is not here".to_owned(),
        ));
    };
    // What is no text, or deleted but not yet committed, has no lines to look at.
    let read =
        |path: &str| std::fs::read_to_string(path).ok().map(|text| File { path: path.to_owned(), text });
    let files: Vec<File> = paths.lines().filter_map(read).collect();
    files.first().context("there are no files")?;
    let faults = faults_of(&files);
    faults.iter().for_each(|fault| println!("{fault}"));
    Ok(if faults.is_empty() {
        Outcome::Pass
    } else {
        Outcome::Fail(format!("{} faults, listed above", faults.len()))
    })
}

struct File {
    path: String,
    text: String,
}

fn faults_of(files: &[File]) -> Vec<String> {
    let each = files.iter().flat_map(|file| {
        [
            long_file(file),
            build_path(file),
            other_registry(file),
            bare_crate(file),
            lints_left_out(file),
            unsafe_let_in(file),
        ]
        .into_iter()
        .flatten()
        .map(|fault| format!("{}: {fault}", file.path))
    });
    each.chain(secrets::faults_of(files)).chain(readme(files)).collect()
}

fn long_file(File { path, text }: &File) -> Option<String> {
    let ours = (path.starts_with("crates/") || path.starts_with("tests/")) && path.ends_with(".rs");
    let lines = text.lines().count();
    (ours && lines > LINES_MAX)
        .then(|| format!("{lines} lines; over {LINES_MAX} nobody reads a file to its end, so split it"))
}

fn build_path(File { text, .. }: &File) -> Option<String> {
    let begins = |(at, _): &(usize, &str)| {
        // `~/work/` and `example.com/home/` are no absolute paths.
        !text.get(..*at).unwrap_or_default().ends_with(|c: char| c.is_alphanumeric() || "~._-/}".contains(c))
    };
    let (at, found) = BUILD_PATHS.iter().flat_map(|path| text.match_indices(path)).find(begins)?;
    let line = text.get(..at)?.lines().count();
    Some(format!("line {line} has the absolute path `{found}…`, which exists on one machine only"))
}

fn other_registry(File { path, text }: &File) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let bad_source = |line: &&str| {
        LOCKS.iter().any(|(lock, key, public)| {
            // A folder of the repository is no registry.
            let is_foreign = |source: &str| !source.starts_with(public) && !source.starts_with("../");
            *lock == name && line.trim().strip_prefix(key).is_some_and(is_foreign)
        })
    };
    let bad_setting = |line: &&str| REGISTRY_SETTINGS.iter().any(|setting| line.contains(setting));
    let line = text.lines().find(|line| bad_source(line) || bad_setting(line))?;
    Some(format!(
        "`{}` names a registry; a clone must build from the public ones, for everybody",
        line.trim()
    ))
}

fn bare_crate(File { path, text }: &File) -> Option<String> {
    let root = ["src/lib.rs", "src/main.rs", "it/main.rs"].iter().any(|root| path.ends_with(root));
    (root && !text.starts_with("//!"))
        .then(|| "must open with `//!`: what the crate is, and what it is not".to_owned())
}

fn lints_left_out(File { path, text }: &File) -> Option<String> {
    // The fuzz targets are programs of their own; their driver's macro needs what the house forbids.
    let ours = path.ends_with("Cargo.toml") && path != "fuzz/Cargo.toml";
    let strict = text.contains("unsafe_code = \"forbid\"") || text.contains("[lints]\nworkspace = true");
    // What is denied can be let in again; `unsafe_let_in` says where.
    let strict = strict || (path == UNSAFE_CRATE && text.contains("unsafe_code = \"deny\""));
    (ours && !strict)
        .then(|| "must have `[lints] workspace = true`: without it `unsafe` is allowed".to_owned())
}

fn unsafe_let_in(File { path, text }: &File) -> Option<String> {
    let lets_in = path.ends_with(".rs") && path != UNSAFE_PARENT && text.contains(LETS_UNSAFE_IN);
    lets_in.then(|| {
        format!("lets `unsafe` in; there is one module for it, and `{UNSAFE_PARENT}` is what declares it")
    })
}

fn readme(files: &[File]) -> Option<String> {
    let text = files.iter().find(|file| file.path == "README.md").map_or("", |file| &file.text);
    let missing: Vec<_> =
        ["cargo run -- demo", "cargo xtask ci"].into_iter().filter(|line| !text.contains(line)).collect();
    (!missing.is_empty()).then(|| {
        format!("README.md: must name `{}`: the first thing a newcomer looks for", missing.join("` and `"))
    })
}

const LINES_MAX: usize = 600;
/// The one crate with `unsafe`, and the file that declares the module which has it.
const UNSAFE_CRATE: &str = "crates/valetkey-onepassword/Cargo.toml";
const UNSAFE_PARENT: &str = "crates/valetkey-onepassword/src/sdk.rs";
const LETS_UNSAFE_IN: &str = concat!("(unsafe", "_code");
// Written in two pieces, so that this file keeps its own rules.
const BUILD_PATHS: [&str; 3] = [concat!("/wor", "k/"), concat!("/roo", "t/"), concat!("/hom", "e/")];
const REGISTRY_SETTINGS: [&str; 3] =
    [concat!("replace", "-with"), concat!("sparse+", "http"), concat!("index", "-url")];
/// A lock file, how a line that names a source begins, and how it must go on.
const LOCKS: [(&str, &str, &str); 3] = [
    ("Cargo.lock", "source = \"", "registry+https://github.com/rust-lang/crates.io-index\""),
    ("package-lock.json", "\"resolved\": \"", "https://registry.npmjs.org/"),
    ("uv.lock", "source = { registry = \"", "https://pypi.org/simple"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What one more file changes, in a repository that keeps all rules.
    #[track_caller]
    pub(super) fn check(path: &str, text: &str, fault: Option<&str>) {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let mut files = vec![
            file("README.md", "`cargo run -- demo`, `cargo xtask ci`"),
            file("crates/valetkey-onepassword/src/a.rs", "struct ServiceAccountToken;"),
            file(
                "crates/valetkey-core/src/a.rs",
                "/// No Debug.\npub struct SecretValue(u8);\n\npub struct Handle(u8);\n\nstruct Bearer {",
            ),
        ];
        assert_eq!(faults_of(&files), Vec::<String>::new());
        files.retain(|file| file.path != path);
        files.push(file(path, text));
        let faults = faults_of(&files);
        match fault {
            None => assert_eq!(faults, Vec::<String>::new()),
            Some(fault) => assert!(faults.iter().any(|it| it.contains(fault)), "{faults:?}"),
        }
    }

    #[test]
    fn each_rule_sees_its_fault() {
        check("crates/a/src/b.rs", &"\n".repeat(601), Some("601 lines"));
        check("crates/a/src/b.rs", &"\n".repeat(600), None);
        check("docs/a.md", &format!("\nin `{}a`", BUILD_PATHS[0]), Some("line 2 has the absolute path"));
        check("docs/a.md", &format!("~{}a b.org{}", BUILD_PATHS[0], BUILD_PATHS[2]), None);
        check("Cargo.lock", "source = \"registry+https://mirror.example/index\"", Some("names a registry"));
        check(
            "clients/x/package-lock.json",
            "  \"resolved\": \"https://mirror.example/a.tgz\"",
            Some("names a registry"),
        );
        check("examples/x/package-lock.json", "  \"resolved\": \"../../clients/x\"", None);
        check(
            ".cargo/config.toml",
            &format!("{} = \"mirror\"", REGISTRY_SETTINGS[0]),
            Some("names a registry"),
        );
        check("crates/a/src/lib.rs", "pub mod a;", Some("must open with"));
        check("crates/a/Cargo.toml", "[package]", Some("must have `[lints] workspace = true`"));
        check("Cargo.toml", "[workspace]", Some("must have `[lints] workspace = true`"));
        check("crates/a/Cargo.toml", "[lints.rust]\nunsafe_code = \"forbid\"", None);
        check(UNSAFE_CRATE, "[lints.rust]\nunsafe_code = \"deny\"", None);
        check("crates/a/Cargo.toml", "[lints.rust]\nunsafe_code = \"deny\"", Some("must have `[lints]"));
        check(
            "crates/a/src/b.rs",
            &format!("#[expect{LETS_UNSAFE_IN}, reason = \"a\")]"),
            Some("lets `unsafe` in"),
        );
        check(UNSAFE_PARENT, &format!("#[expect{LETS_UNSAFE_IN}, reason = \"a\")]"), None);
        check("README.md", "`cargo run -- demo`", Some("must name `cargo xtask ci`"));
    }
}
