//! What `[audit]` says beside where the database is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the key of value digests is: beside the database, unless something else is said; `None` where there is to be
/// none.
pub(super) fn digest_key(
    given: Option<toml::Value>,
    folder: &Path,
    database: &Path,
    faults: &mut Vec<String>,
) -> Option<PathBuf> {
    match given {
        None => Some(usual_digest_key(database)),
        Some(toml::Value::String(file)) if !file.is_empty() => Some(folder.join(file)),
        Some(toml::Value::Boolean(false)) => None,
        Some(_) => {
            faults.push("`audit.digest_key` must be a file, or `false` for no digests of values".to_owned());
            None
        }
    }
}

/// Beside the database.
#[must_use]
pub fn usual_digest_key(database: &Path) -> PathBuf {
    let mut path: OsString = database.as_os_str().to_owned();
    path.push("-digest-key");
    path.into()
}
