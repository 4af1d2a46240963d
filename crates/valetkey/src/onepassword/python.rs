//! The machine's own Python: its `pip` knows the package index and the proxy, its `zipfile` opens the wheel.
//! Python is here anyway for `pip`; a crate that opens archives would be one more reader of hostile bytes.
//!
//! What either gives is not trusted: it is bounded, and held against the pin by the caller.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use valetkey_core::scrub;
use valetkey_server::SdkPin;

use crate::failure::{Exit, Failure};

/// Fetches the wheel of a release into a folder.
pub(super) async fn download(pin: &SdkPin, folder: &Path) -> Result<PathBuf, Failure> {
    let package = format!("onepassword-sdk=={}", pin.version);
    let mut command = python(folder);
    command.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]);
    command.args(["--disable-pip-version-check", "--no-input", "--dest", "."]);
    if pin.os == "linux" {
        // Whatever the Python here: the library is the same for all of them.
        command.args(["--implementation", "cp", "--python-version", "3.12", "--platform"]);
        command.arg(format!("manylinux_2_32_{}", pin.arch));
    }
    command.arg("--").arg(&package);
    let Output { status, stdout: _, stderr } = output(command).await?;
    if !status.success() {
        return Err(refused_by_pip(&package, &String::from_utf8_lossy(&stderr)));
    }
    let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| Failure::new(Exit::Failed, format!("pip fetched no wheel for `{package}`")))
}

/// The library out of a wheel, in memory: what is checked is what is written.
pub(super) async fn take_out(pin: &SdkPin, wheel: &Path, folder: &Path) -> Result<Vec<u8>, Failure> {
    let mut command = python(folder);
    command.args(["-I", "-c", TAKE_OUT]).arg(wheel).arg(pin.member).arg(LIBRARY_MAX.to_string());
    let Output { status, stdout, stderr } = output(command).await?;
    if status.success() {
        return Ok(stdout);
    }
    let said = last_line(&String::from_utf8_lossy(&stderr));
    Err(Failure::new(Exit::Failed, format!("`{}` is no wheel of onepassword-sdk: {said}", wheel.display())))
}

/// In the folder, because Python looks for its modules where it is started.
fn python(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // `pip` runs what packages bring: no business of theirs what signs in to 1Password.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"OP_")) {
        command.env_remove(name);
    }
    command.env_remove("CREDENTIALS_DIRECTORY").kill_on_drop(true);
    command
}

/// Runs it, for a bounded time. What it prints beyond the bound is dropped.
async fn output(mut command: Command) -> Result<Output, Failure> {
    let late = || format!("python3 did not end within {} s, and was ended", TIME_MAX.as_secs());
    let ended = timeout(TIME_MAX, bounded_output(&mut command)).await;
    ended.map_err(|_| Failure::new(Exit::Unavailable, late()))?.map_err(|error| not_started(&error))
}

async fn bounded_output(command: &mut Command) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    // One more byte of the library, so that one that is too long is not taken for whole.
    let (stdout, stderr) =
        tokio::try_join!(beginning(stdout, LIBRARY_MAX + 1), beginning(stderr, STDERR_MAX))?;
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

/// The first bytes; the rest is read, so that nobody waits for it to be, and dropped.
async fn beginning(mut pipe: impl AsyncRead + Unpin, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut pipe).take(max).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

fn not_started(error: &io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no python3 here: install it, or run this command on a like machine with \
             `--to` and copy the library"
                .to_owned()
        }
        _ => format!("cannot start python3: {error}"),
    };
    Failure::new(Exit::Failed, message)
}

fn refused_by_pip(package: &str, stderr: &str) -> Failure {
    if stderr.contains("No module named pip") {
        let message = "python3 has no pip: install it (`apt install python3-pip`), or fetch the wheel elsewhere and \
             give it by `--offline-wheel`";
        return Failure::new(Exit::Failed, message);
    }
    let said = stderr.lines().find_map(|line| line.trim().strip_prefix("ERROR: "));
    let said = said.map_or_else(|| last_line(stderr), |line| scrub(line, LINE_MAX));
    let message = format!(
        "pip cannot fetch `{package}`: {said}; is the package index reachable from here? without it, fetch the wheel \
         elsewhere and give it by `--offline-wheel`"
    );
    Failure::new(Exit::Unavailable, message)
}

fn last_line(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    scrub(line.unwrap_or("it said nothing").trim(), LINE_MAX)
}

/// Wheel, path of the file from the folder that packages are installed in, most bytes.
const TAKE_OUT: &str = r#"
import sys, zipfile
wheel, path, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ("/" + name).endswith("/" + path)]
        if len(names) != 1:
            sys.exit("it has %d files %s" % (len(names), path))
        with archive.open(names[0]) as file:
            sys.stdout.buffer.write(file.read(most + 1))
except (OSError, zipfile.BadZipFile) as error:
    sys.exit(str(error))
"#;
/// In bytes; the library has about 20 MB.
const LIBRARY_MAX: u64 = 64 << 20;
/// In bytes.
const STDERR_MAX: u64 = 64 << 10;
const LINE_MAX: usize = 300;
/// `pip` gives up by itself before.
const TIME_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_prints_is_bounded() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 1000000 /dev/zero >&2; printf end"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let Output { status, stdout, stderr } = bounded_output(&mut command).await.unwrap();
        assert!(status.success());
        assert_eq!((stdout.as_slice(), stderr.len()), (&b"end"[..], 64 << 10));
    }
}
