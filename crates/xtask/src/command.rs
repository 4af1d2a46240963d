//! Running other programs: each is shown before it runs, and its output is never hidden.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The cargo that runs us, with `words` as its arguments.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    command(program, words)
}

/// `program` with `words` as its arguments.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// The program of the workspace, for tests that talk to it: built, unless `VALETKEY_BIN` names one.
///
/// # Errors
/// Where it cannot be built.
pub(crate) fn broker() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("VALETKEY_BIN") {
        return Ok(given.into());
    }
    run(&mut cargo(&["build", "--package", "valetkey"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(std::fs::canonicalize(target.join("debug/valetkey"))?)
}

/// Runs to the end.
///
/// # Errors
/// Where it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = show(command);
    let status = command.status().with_context(|| format!("`{line}` cannot be started"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs to the end, passes each line of stdout on as it comes and gives it to `see`. Returns whether
/// the program succeeded.
///
/// # Errors
/// Where it cannot be started or its output cannot be passed on.
pub(crate) fn run_seeing(command: &mut Command, mut see: impl FnMut(&str)) -> anyhow::Result<bool> {
    let line = show(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{line}` cannot be started"))?;
    let stdout = child.stdout.take().context("the output is not piped")?;
    for bytes in BufReader::new(stdout).split(b'\n') {
        let bytes = bytes?;
        let text = String::from_utf8_lossy(&bytes);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}")?;
        see(&text);
    }
    Ok(child.wait()?.success())
}

/// Runs to the end beside others, whose lines would mix with its own: says whether it succeeded, and all that it printed.
///
/// # Errors
/// Where it cannot be started.
pub(crate) fn run_apart(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let line = show(command);
    let output = command.output().with_context(|| format!("`{line}` cannot be started"))?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
}

/// What a program prints, where it can be started and succeeds.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Prints a line that stands out on a terminal.
pub(crate) fn heading(text: &str) {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (bold, plain) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{bold}== {text}{plain}");
}

/// Prints the command as one could type it, and returns that line.
fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let words = program.file_name().into_iter().chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = line.join(" ");
    println!("$ {line}");
    line
}
