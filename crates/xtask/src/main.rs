//! The repository's own chores: `cargo xtask ci` runs exactly what CI runs, `cargo xtask bench`
//! measures. Plain text on stdout; nothing is needed but the Rust toolchain, and what a missing tool
//! leaves unchecked is said.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for people; its output is its purpose"
)]

mod bench;
mod ci;
mod command;
mod house;
mod python;
mod steps;
mod tools;
mod typescript;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> anyhow::Result<ExitCode> {
    enter_workspace()?;
    match words {
        ["ci", names @ ..] => ci::run(names),
        ["bench"] => bench::run("all", &[]),
        ["bench", name, words @ ..] => bench::run(name, words),
        ["help" | "--help" | "-h"] => {
            println!("{}", usage());
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{}", usage());
            Ok(ExitCode::from(USAGE))
        }
    }
}

/// Every path that a step names is relative to the workspace's root.
fn enter_workspace() -> anyhow::Result<()> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").context("must be run as `cargo xtask`")?;
    std::env::set_current_dir(Path::new(&own).join("../..")).context("the workspace cannot be entered")
}

fn usage() -> String {
    let steps: Vec<String> =
        steps::ALL.iter().map(|step| format!("                 {:<12} {}", step.name, step.what)).collect();
    format!(
        "usage:\n  \
         cargo xtask ci [step...]    everything that CI checks, or the steps named:\n{}\n  \
         cargo xtask bench [{}|all] [--records N]",
        steps.join("\n"),
        bench::names().replace(", ", "|"),
    )
}

/// `EX_USAGE` of sysexits.
const USAGE: u8 = 64;
