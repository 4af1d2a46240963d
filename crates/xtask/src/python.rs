//! The Python client: its stubs, its wheel, its tests at both ends of what it supports, and with the frameworks that
//! it has wrappers for.
//!
//! Everything is installed below `target/python`, by the machine's own `pip` from the index that it knows. Where that
//! cannot be reached the step fails: a client that nobody tried is not one that works.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::ci::{Outcome, TestCount};
use crate::command::{broker, command, output_of, run, run_seeing};

/// A folder of packages of its own.
struct Venv {
    folder: PathBuf,
}

/// Builds, checks and tests the client.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    let broker = broker()?;
    let newest = Venv::with(&any_of(&["python3"])?, "newest")?;
    let oldest = Venv::with(&any_of(&PYTHONS_OF_OLDEST)?, "oldest")?;
    let frameworks = Venv::with(&any_of(&["python3"])?, "frameworks")?;
    newest.run_in(CLIENT, &["ruff", "format", "--check", ".", EXAMPLES])?;
    newest.run_in(CLIENT, &["ruff", "check", ".", EXAMPLES])?;
    newest.run_in(CLIENT, &["mypy"])?;
    run(&mut oldest.python(&[&format!("{CLIENT}/tools/stubs.py"), "--check"]))?;
    let wheel = wheel(&newest)?;
    clean_install()?;
    for venv in [&newest, &oldest, &frameworks] {
        let words = ["-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", &wheel];
        run(&mut venv.python(&words))?;
    }
    newest.run_in("examples/python", &["mypy", "--strict", "."])?;
    let mut count = TestCount::default();
    for (venv, tests) in [(&newest, "tests"), (&oldest, "tests"), (&frameworks, "frameworks")] {
        test(venv, tests, &broker, &mut count)?;
    }
    Ok(Outcome::Tests(count))
}

fn wheel(venv: &Venv) -> anyhow::Result<String> {
    let folder = Path::new(ROOT).join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let to = folder.to_string_lossy();
    run(&mut venv.python(&[
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        &to,
        CLIENT,
    ]))?;
    let mut files = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = files.next().context("pip built no wheel")?;
    Ok(wheel.to_string_lossy().into_owned())
}

/// As a newcomer installs it, into nothing.
fn clean_install() -> anyhow::Result<()> {
    let venv = Venv { folder: Path::new(ROOT).join("clean") };
    run(&mut command(any_of(&["python3"])?, &["-m", "venv", "--clear", &venv.folder.to_string_lossy()]))?;
    run(&mut venv.python(&["-m", "pip", "install", "--quiet", CLIENT]))?;
    run(&mut venv.python(&[&format!("{CLIENT}/tools/look.py")]))
}

fn test(venv: &Venv, tests: &str, broker: &Path, count: &mut TestCount) -> anyhow::Result<()> {
    let before = count.failed;
    let mut pytest = venv.python(&["-m", "pytest", "--quiet", "-p", "no:cacheprovider", tests]);
    pytest.current_dir(CLIENT).env("VALETKEY_BIN", broker).env("PYTHONDONTWRITEBYTECODE", "1");
    let success = run_seeing(&mut pytest, |line| count.add_pytest_line(line))?;
    if !success && count.failed == before {
        println!("pytest did not come to an end: counted as one failure");
        count.failed += 1;
    }
    Ok(())
}

impl Venv {
    /// One with the packages that `requirements/<name>.txt` pins; made anew where they, or the Python, have changed.
    fn with(python: &Path, name: &str) -> anyhow::Result<Self> {
        let venv = Self { folder: Path::new(ROOT).join(name) };
        let list = format!("{CLIENT}/requirements/{name}.txt");
        let version =
            output_of(&mut command(python, &["-VV"])).context("python3 does not say its version")?;
        let wanted = version + &fs::read_to_string(&list).with_context(|| list.clone())?;
        let stamp = venv.folder.join("installed");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(venv);
        }
        run(&mut command(python, &["-m", "venv", "--clear", &venv.folder.to_string_lossy()]))?;
        let words = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--requirement", &list];
        run(&mut venv.python(&words)).context("pip cannot install what the client is tested with")?;
        fs::write(stamp, wanted)?;
        Ok(venv)
    }

    fn python(&self, words: &[&str]) -> std::process::Command {
        command(self.program("python"), words)
    }

    /// Runs a program of the environment in a folder.
    fn run_in(&self, folder: &str, words: &[&str]) -> anyhow::Result<()> {
        let (name, rest) = words.split_first().context("no program")?;
        run(command(self.program(name), rest).current_dir(folder))
    }

    /// Absolute, because the folder that it runs in is another.
    fn program(&self, name: &str) -> PathBuf {
        let program = self.folder.join("bin").join(name);
        env::current_dir().map_or(program.clone(), |here| here.join(program))
    }
}

/// The first of these that is here, and new enough.
fn any_of(names: &[&str]) -> anyhow::Result<PathBuf> {
    for name in names {
        let enough = "import sys; print(sys.version_info >= (3, 10))";
        if output_of(&mut command(name, &["-c", enough])).is_some_and(|said| said.trim() == "True") {
            return Ok(PathBuf::from(name));
        }
    }
    bail!("there is no Python of 3.10 or newer here under the name `{}`", names.join("`, `"))
}

const CLIENT: &str = "clients/python";
/// From there.
const EXAMPLES: &str = "../../examples/python";
const ROOT: &str = "target/python";
/// The oldest gRPC comes ready-made for these.
const PYTHONS_OF_OLDEST: [&str; 4] = ["python3.10", "python3.11", "python3.12", "python3"];
