//! The genuine SDK core of 1Password, for tests: fetched once with the machine's own `pip`, and kept.
//!
//! Where it cannot be had, tests say so with [`skip`] and pass, and `cargo xtask ci` counts them.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// The absolute path of the library, or why there is none. Found or fetched once in the life of the process.
///
/// # Errors
/// Where the platform has none, where `pip` cannot fetch it, or where it is not the one that is known.
pub fn sdk_library() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone()
}

/// Says that a test is skipped, in a line of its own that the test harness does not swallow:
/// `SKIPPED: <name>: <why>`.
pub fn skip(test: &str, why: &str) {
    // Where nobody reads it, nobody is told.
    let _ = writeln!(std::io::stdout(), "\nSKIPPED: {test}: {}", why.replace('\n', " "));
}

fn find() -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let known = KNOWN.iter().find(|(known, _)| std::env::consts::OS == "linux" && *known == arch);
    let (_, sha256) = known.context("no version is known for this platform")?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onepassword-sdk");
    fs::create_dir_all(&target)?;
    let path = target.canonicalize()?.join(format!("libop_uniffi_core-{VERSION}-{arch}.so"));
    if !path.exists() {
        fetch(arch, &target, &path)?;
    }
    let found = HEXLOWER.encode(&Sha256::digest(fs::read(&path)?));
    if found != *sha256 {
        bail!("the library has the SHA-256 {found}, and {sha256} is known");
    }
    Ok(path)
}

/// Has `pip` unpack the wheel, without running anything of it, and moves the library to `path`.
fn fetch(arch: &str, target: &Path, path: &Path) -> Result<()> {
    // A directory of its own: other test programs may be at the same.
    let unpacked = target.join(format!("unpacked-{}", std::process::id()));
    let outcome = run_pip(arch, &unpacked).and_then(|()| {
        let library = unpacked.join(format!("onepassword/lib/{arch}/libop_uniffi_core.so"));
        fs::set_permissions(&library, Permissions::from_mode(0o644)).context("the wheel has no library")?;
        Ok(fs::rename(&library, path)?)
    });
    let _ = fs::remove_dir_all(&unpacked);
    outcome
}

fn run_pip(arch: &str, unpacked: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip.args(["--retries", "1", "--timeout", "15"]);
    pip.args(["--no-deps", "--no-compile", "--only-binary", ":all:"]);
    // The library is the same for every Python; this one it was seen with.
    pip.args(["--python-version", "3.11", "--platform", &format!("manylinux_2_32_{arch}")]);
    pip.arg("--target").arg(unpacked).arg(format!("onepassword-sdk=={VERSION}"));
    let output = pip.stdin(Stdio::null()).output().context("`python3 -m pip` cannot be run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("pip cannot fetch it: {}", said.lines().last().unwrap_or("it does not say why"));
    }
    Ok(())
}

const VERSION: &str = "0.4.2";
/// By architecture, the SHA-256.
const KNOWN: [(&str, &str); 2] = [
    ("x86_64", "d030d05c5dca54f82c6cf8a4c00e82b19734d1ce6f5dfa2e5702c3cd2cd060d7"),
    ("aarch64", "e5238beee526bfc6cc8a59d136a95ad062a433969c5b4c5af4d74924b533eae3"),
];
