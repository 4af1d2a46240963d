//! The Python client: its stubs, its wheel, its tests at both ends of what it supports, and with the frameworks that
//! it has wrappers for.
//!
//! Everything is installed below `target/python`: a pinned `uv` by the machine's own `pip`, and the rest by that, from
//! the index that both know. Where it cannot be reached the step fails: a client that nobody tried is not one that works.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, anyhow, bail};

use crate::ci::{Outcome, TestCount};
use crate::command::{broker, command, output_of, run, run_apart};

/// What installs everything else: as `pip` does, in a tenth of the time.
struct Uv {
    program: PathBuf,
}

/// A folder of packages of its own.
struct Venv {
    folder: PathBuf,
}

/// Builds, checks and tests the client.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    let broker = broker()?;
    let uv = Uv::install()?;
    let newest = uv.venv(&any_of(&PYTHONS_OF_NEWEST)?, "newest")?;
    let oldest = uv.venv(&any_of(&PYTHONS_OF_OLDEST)?, "oldest")?;
    let frameworks = uv.venv(&any_of(&["python3"])?, "frameworks")?;
    newest.run_in(CLIENT, &["ruff", "format", "--check", ".", EXAMPLES])?;
    newest.run_in(CLIENT, &["ruff", "check", ".", EXAMPLES])?;
    newest.run_in(CLIENT, &["mypy"])?;
    run(&mut oldest.python(&[&format!("{CLIENT}/tools/stubs.py"), "--check"]))?;
    let (wheel, source) = uv.build(&newest)?;
    for venv in [&newest, &oldest, &frameworks] {
        let python = venv.program("python");
        let words = ["pip", "install", "--quiet", "--no-deps", "--reinstall", "--python"];
        run(uv.command(&words).arg(python).arg(&wheel))?;
    }
    newest.run_in("examples/python", &["mypy", "--strict", "--cache-dir", EXAMPLES_CACHE, "."])?;
    let broker = broker.as_path();
    // Nearly all of it is waiting: for packages, and for connections that died to be noticed.
    let suites = [(&newest, "tests"), (&oldest, "tests"), (&frameworks, "frameworks")];
    let (clean, said) = thread::scope(|scope| {
        let clean = scope.spawn(|| clean_install(&source));
        let running = suites.map(|(venv, tests)| scope.spawn(move || test(venv, tests, broker)));
        (ended(clean), running.map(ended))
    });
    let mut count = TestCount::default();
    for ((venv, _), said) in suites.iter().zip(said) {
        let (success, text) = said?;
        add(&mut count, venv, success, &text);
    }
    clean?;
    Ok(Outcome::Tests(count))
}

/// What a thread came to.
fn ended<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_panic| anyhow!("a thread of this step panicked"))?
}

/// As a newcomer installs it, into nothing.
fn clean_install(source: &Path) -> anyhow::Result<()> {
    let venv = Venv { folder: Path::new(ROOT).join("clean") };
    run(&mut command(any_of(&["python3"])?, &["-m", "venv", "--clear", &venv.folder.to_string_lossy()]))?;
    run(&mut venv.python(&["-m", "pip", "install", "--quiet", CLIENT]))?;
    run(venv.python(&[&format!("{CLIENT}/tools/look.py")]).arg(source))
}

/// Whether the suite passes, and what it says.
fn test(venv: &Venv, tests: &str, broker: &Path) -> anyhow::Result<(bool, String)> {
    let mut pytest = venv.python(&["-m", "pytest", "--quiet", "-p", "no:cacheprovider", tests]);
    run_apart(pytest.current_dir(CLIENT).env("VALETKEY_BIN", broker).env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn add(count: &mut TestCount, venv: &Venv, success: bool, text: &str) {
    println!("\nin {}:\n{text}", venv.folder.display());
    let before = count.failed;
    text.lines().for_each(|line| count.add_pytest_line(line));
    if !success && count.failed == before {
        println!("pytest did not come to an end: counted as one failure");
        count.failed += 1;
    }
}

impl Uv {
    /// Installed anew where another one is pinned.
    fn install() -> anyhow::Result<Self> {
        let folder = Path::new(ROOT).join("uv");
        let list = format!("{CLIENT}/requirements/uv.txt");
        let wanted = fs::read_to_string(&list).with_context(|| list.clone())?;
        let uv = Self { program: folder.join("bin/uv") };
        let stamp = folder.join("installed");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(uv);
        }
        let to = folder.to_string_lossy();
        let words =
            ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--upgrade", "--target", &to];
        run(command(any_of(&["python3"])?, &words).args(["--requirement", &list]))
            .context("pip cannot install what the client is tested with")?;
        fs::write(stamp, wanted)?;
        Ok(uv)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut uv = command(&self.program, words);
        // What it keeps to be quick the next time goes where all else does; and a Python is ours to bring.
        uv.env("UV_CACHE_DIR", Path::new(ROOT).join("cache")).env("UV_PYTHON_DOWNLOADS", "never");
        if let Some(index) = env::var_os("PIP_INDEX_URL") {
            uv.env("UV_DEFAULT_INDEX", index);
        }
        uv
    }

    /// One with the packages that `requirements/<name>.txt` pins; made anew where they, or the Python, have changed.
    fn venv(&self, python: &Path, name: &str) -> anyhow::Result<Venv> {
        let venv = Venv { folder: Path::new(ROOT).join(name) };
        let list = format!("{CLIENT}/requirements/{name}.txt");
        let version =
            output_of(&mut command(python, &["-VV"])).context("python3 does not say its version")?;
        let wanted = version + &fs::read_to_string(&list).with_context(|| list.clone())?;
        let stamp = venv.folder.join("installed");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(venv);
        }
        run(self.command(&["venv", "--quiet", "--clear", "--python"]).arg(python).arg(&venv.folder))?;
        let words =
            ["pip", "install", "--quiet", "--only-binary", ":all:", "--requirement", &list, "--python"];
        run(self.command(&words).arg(venv.program("python")))
            .context("what the client is tested with cannot be installed")?;
        fs::write(stamp, wanted)?;
        Ok(venv)
    }

    /// The wheel, and the source distribution that it is built from.
    fn build(&self, venv: &Venv) -> anyhow::Result<(PathBuf, PathBuf)> {
        let folder = Path::new(ROOT).join("dist");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let words = ["build", "--quiet", "--no-build-isolation", CLIENT, "--python"];
        run(self.command(&words).arg(venv.program("python")).arg("--out-dir").arg(&folder))?;
        let built: Vec<_> = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let one = |ending: &str| built.iter().find(|path| path.to_string_lossy().ends_with(ending)).cloned();
        one(".whl").zip(one(".tar.gz")).context("uv built no wheel, or no source distribution")
    }
}

impl Venv {
    fn python(&self, words: &[&str]) -> Command {
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
    let enough = "import sys; print(sys.executable if sys.version_info >= (3, 10) else '')";
    for place in names.iter().flat_map(|name| places(name)) {
        let said = output_of(&mut command(place, &["-c", enough])).unwrap_or_default();
        if !said.trim().is_empty() {
            return Ok(PathBuf::from(said.trim()));
        }
    }
    bail!("there is no Python of 3.10 or newer here under the name `{}`", names.join("`, `"))
}

/// Where `python3.10` may be: on the `PATH`, and where `pyenv` keeps those that it has not put there.
fn places(name: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(name)];
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from).or(home);
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let wanted = format!("{}.", name.trim_start_matches("python"));
    for version in versions.into_iter().flatten().filter_map(Result::ok) {
        if version.file_name().to_string_lossy().starts_with(&wanted) {
            found.push(version.path().join("bin/python"));
        }
    }
    found
}

const CLIENT: &str = "clients/python";
/// From there.
const EXAMPLES: &str = "../../examples/python";
const ROOT: &str = "target/python";
/// From the examples.
const EXAMPLES_CACHE: &str = "../../target/python/mypy";
/// What is pinned comes ready-made for these.
const PYTHONS_OF_NEWEST: [&str; 3] = ["python3.13", "python3.12", "python3"];
/// The oldest gRPC comes ready-made for these.
const PYTHONS_OF_OLDEST: [&str; 4] = ["python3.10", "python3.11", "python3.12", "python3"];
