//! Tools that are not of the Rust toolchain: pinned, installed below `target/tools` where they are
//! missing. `Err` says why a tool cannot be had; the step is then left out, and says so.

use std::path::PathBuf;

use crate::command::{cargo, command, output_of, run};

/// cargo-deny, from the machine where it has the pinned version.
pub(crate) fn cargo_deny() -> Result<PathBuf, String> {
    let installed = PathBuf::from(ROOT).join("bin/cargo-deny");
    for program in [installed.clone(), "cargo-deny".into()] {
        if has_version(&program, DENY_VERSION) {
            return Ok(program);
        }
    }
    println!("cargo-deny {DENY_VERSION} is not here; building it once takes some minutes");
    run(&mut cargo(&["install", "cargo-deny", "--locked", "--version", DENY_VERSION, "--root", ROOT]))
        .map_err(|error| format!("cargo-deny cannot be installed: {error:#}"))?;
    Ok(installed)
}

/// buf, which npm brings as a ready program.
pub(crate) fn buf() -> Result<PathBuf, String> {
    let installed = PathBuf::from(ROOT).join("node_modules/.bin/buf");
    if has_version(&installed, BUF_VERSION) {
        return Ok(installed);
    }
    if output_of(&mut command("npm", &["--version"])).is_none() {
        return Err(format!("buf {BUF_VERSION} is not here, and neither is npm to install it"));
    }
    let package = format!("@bufbuild/buf@{BUF_VERSION}");
    run(&mut command(
        "npm",
        &["install", "--prefix", ROOT, "--ignore-scripts", "--no-save", "--no-audit", "--no-fund", &package],
    ))
    .map_err(|error| format!("buf cannot be installed: {error:#}"))?;
    Ok(installed)
}

/// Whether the program is there and the last word of what it says of itself is `version`.
fn has_version(program: &PathBuf, version: &str) -> bool {
    output_of(&mut command(program, &["--version"]))
        .is_some_and(|text| text.split_whitespace().next_back() == Some(version))
}

const ROOT: &str = "target/tools";
const DENY_VERSION: &str = "0.20.2";
const BUF_VERSION: &str = "1.75.0";
