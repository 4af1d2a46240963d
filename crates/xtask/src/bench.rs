//! `cargo xtask bench`: the measurements, each in a release build and under its own heading.

use std::process::ExitCode;

use anyhow::bail;

use crate::command;

/// What can be measured: its name, package, bench and a heading.
pub(crate) const ALL: [(&str, &str, &str, &str); 4] = [
    ("decide", "valetkey-policy", "decide", "a decision, beside Cedar's own"),
    ("audit", "valetkey-audit", "append", "a durable record, beside the bare disk"),
    (
        "audit",
        "valetkey-audit",
        "scale",
        "queries and reports in a long log; `--records N`, 10 million by default",
    ),
    ("broker", "valetkey-tests", "broker", "the whole broker, beside a bare gRPC echo"),
];

/// Runs the measurements of this name, or all; `words` are theirs to read.
pub(crate) fn run(chosen: &str, words: &[&str]) -> anyhow::Result<ExitCode> {
    if chosen != "all" && ALL.iter().all(|(name, ..)| *name != chosen) {
        bail!("there is no bench `{chosen}`; there are {}, all", names());
    }
    for (name, package, bench, what) in ALL {
        if chosen == "all" || chosen == name {
            command::heading(&format!("{name}: {what}"));
            let cargo = ["bench", "--quiet", "--package", package, "--bench", bench, "--"];
            command::run(command::cargo(&cargo).args(words))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All names, for messages.
pub(crate) fn names() -> String {
    let mut names = ALL.map(|(name, ..)| name).to_vec();
    names.dedup();
    names.join(", ")
}
