//! Where `read` and `inject` put what they were asked for.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};

use std::path::Path;

use crate::failure::{Exit, Failure};
use crate::output;

/// Refuses what [`write()`] would refuse, before anything is asked for.
pub(crate) fn check(file: &Path, force: bool) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        // A rename would put a file in place of a device, a pipe or a link, and with it the value.
        Ok(there) if !there.is_file() => {
            let message = format!(
                "`{}` is a link or no file; name the file itself, or redirect stdout",
                file.display()
            );
            Err(Failure::new(Exit::Usage, message))
        }
        Ok(_) if !force => {
            let message = format!("`{}` is there already; `--force` writes over it", file.display());
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

/// Writes a file that only those in `mode` can open, whole or not at all; what is there is replaced, by `force`.
pub(crate) fn write(file: &Path, mode: u32, force: bool, bytes: &[u8]) -> Result<(), Failure> {
    let failed =
        |error| Failure::new(Exit::Failed, format!("`{}` cannot be written: {error}", file.display()));
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    let mut fresh = tempfile::Builder::new()
        .prefix(".valetkey-")
        .permissions(permissions)
        .tempfile_in(folder)
        .map_err(failed)?;
    fresh.write_all(bytes).and_then(|()| fresh.as_file().sync_all()).map_err(failed)?;
    let written = if force { fresh.persist(file) } else { fresh.persist_noclobber(file) };
    written.map_err(|error| failed(error.error))?;
    Ok(())
}

/// `0600` and the like.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let wrong = || "must be an octal mode such as 0600".to_owned();
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(wrong)
}

/// Reads a whole text from stdin or a file, within a bound.
pub(crate) fn read_text(file: Option<&Path>, bytes_max: u64) -> Result<String, Failure> {
    use std::io::Read;
    let name = file.map_or("stdin".to_owned(), |file| format!("`{}`", file.display()));
    let failed = |error: std::io::Error| Failure::new(Exit::Usage, format!("{name} cannot be read: {error}"));
    let mut text = String::new();
    match file {
        Some(file) => {
            File::open(file).map_err(failed)?.take(bytes_max + 1).read_to_string(&mut text).map_err(failed)?
        }
        None => {
            let stdin = std::io::stdin().lock();
            if stdin.is_terminal() {
                output::note("the template, then Ctrl-D:");
            }
            stdin.take(bytes_max + 1).read_to_string(&mut text).map_err(failed)?
        }
    };
    match u64::try_from(text.len()) {
        Ok(length) if length <= bytes_max => Ok(text),
        _ => Err(Failure::new(Exit::Usage, format!("{name} has more than {bytes_max} bytes"))),
    }
}
