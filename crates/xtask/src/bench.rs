//! `cargo xtask bench`: the measurements, each in a release build and under its own heading.

use std::process::ExitCode;

use anyhow::bail;

use crate::command;

/// What can be measured: its name, package, bench and a heading.
pub(crate) const ALL: [(&str, &str, &str, &str); 3] = [
    ("decide", "valetkey-policy", "decide", "a decision, beside Cedar's own"),
    ("audit", "valetkey-audit", "append", "a durable record, beside the bare disk"),
    ("broker", "valetkey-tests", "broker", "the whole broker, beside a bare gRPC echo"),
];

/// Runs the measurement of this name, or all.
pub(crate) fn run(chosen: &str) -> anyhow::Result<ExitCode> {
    if chosen != "all" && ALL.iter().all(|(name, ..)| *name != chosen) {
        bail!("there is no bench `{chosen}`; there are {}, all", names());
    }
    for (name, package, bench, what) in ALL {
        if chosen == "all" || chosen == name {
            command::heading(&format!("{name}: {what}"));
            command::run(&mut command::cargo(&["bench", "--quiet", "--package", package, "--bench", bench]))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All names, for messages.
pub(crate) fn names() -> String {
    ALL.map(|(name, ..)| name).join(", ")
}
