//! `[audit]`: the log's file, how it is signed, and how long it is kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use valetkey_audit::{Retention, Signing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditSection {
    database: PathBuf,
    /// A file, or `false`.
    digest_key: Option<toml::Value>,
    signing_key: Option<PathBuf>,
    checkpoint_seconds: Option<u64>,
    checkpoint_file: Option<PathBuf>,
    keep_days: Option<u64>,
    keep_megabytes: Option<u64>,
}

/// The section, checked.
pub(super) struct Audit {
    pub(super) database: PathBuf,
    pub(super) digest_key: Option<PathBuf>,
    pub(super) signing: Signing,
    pub(super) retention: Retention,
}

impl AuditSection {
    pub(super) fn check(self, folder: &Path, faults: &mut Vec<String>) -> Option<Audit> {
        let Self {
            database,
            digest_key,
            signing_key,
            checkpoint_seconds,
            checkpoint_file,
            keep_days,
            keep_megabytes,
        } = self;
        let known = faults.len();
        let database = folder.join(database);
        let digest_key = place_of_digest_key(digest_key, folder, &database, faults);
        let mut within = |name: &str, value: Option<u64>, (least, most): (u64, u64)| {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                faults.push(format!("`audit.{name}` must be between {least} and {most}, is {value}"));
            }
        };
        within("checkpoint_seconds", checkpoint_seconds, (1, 3600));
        within("keep_days", keep_days, (1, 36_500));
        within("keep_megabytes", keep_megabytes, (16, 1 << 30));
        let key = signing_key.map(|key| folder.join(key));
        let checkpoint_file = checkpoint_file.map(|file| folder.join(file));
        let mut names: Vec<_> =
            [&key, &digest_key, &checkpoint_file].into_iter().flatten().chain([&database]).collect();
        let named = names.len();
        names.sort_unstable();
        names.dedup();
        if names.len() < named {
            faults.push(
                "`audit` names one file twice: `database`, `digest_key`, `signing_key` and `checkpoint_file` are four"
                    .into(),
            );
        }
        let usual = Signing::default();
        let every = checkpoint_seconds.map_or(usual.checkpoint_every, Duration::from_secs);
        (faults.len() == known).then_some(Audit {
            database,
            digest_key,
            signing: Signing { key, checkpoint_every: every, checkpoint_file },
            retention: Retention {
                keep_for: keep_days.map(|days| Duration::from_secs(days * 24 * 3600)),
                keep_bytes: keep_megabytes.map(|megabytes| megabytes << 20),
            },
        })
    }
}

/// Where the key of value digests is: beside the database, unless something else is said; `None` where there is to be
/// none.
fn place_of_digest_key(
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
