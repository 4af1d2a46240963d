//! `[audit]`: the log's file, how it is signed, and how long it is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use valetkey_audit::{Retention, Signing};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditSection {
    database: PathBuf,
    signing_key: Option<PathBuf>,
    checkpoint_seconds: Option<u64>,
    checkpoint_file: Option<PathBuf>,
    keep_days: Option<u64>,
    keep_megabytes: Option<u64>,
}

/// The section, checked.
pub(super) struct Audit {
    pub(super) database: PathBuf,
    pub(super) signing: Signing,
    pub(super) retention: Retention,
}

impl AuditSection {
    pub(super) fn check(self, folder: &Path, faults: &mut Vec<String>) -> Option<Audit> {
        let Self { database, signing_key, checkpoint_seconds, checkpoint_file, keep_days, keep_megabytes } =
            self;
        let known = faults.len();
        let mut within = |name: &str, value: Option<u64>, (least, most): (u64, u64)| {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                faults.push(format!("`audit.{name}` must be between {least} and {most}, is {value}"));
            }
        };
        within("checkpoint_seconds", checkpoint_seconds, (1, 3600));
        within("keep_days", keep_days, (1, 36_500));
        within("keep_megabytes", keep_megabytes, (16, 1 << 30));
        let database = folder.join(database);
        let key = signing_key.map(|key| folder.join(key));
        let checkpoint_file = checkpoint_file.map(|file| folder.join(file));
        let mut names: Vec<_> = [&key, &checkpoint_file].into_iter().flatten().chain([&database]).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < 1 + usize::from(key.is_some()) + usize::from(checkpoint_file.is_some()) {
            faults.push(
                "`audit` names one file twice: `database`, `signing_key` and `checkpoint_file` are three"
                    .into(),
            );
        }
        let usual = Signing::default();
        let every = checkpoint_seconds.map_or(usual.checkpoint_every, Duration::from_secs);
        (faults.len() == known).then_some(Audit {
            database,
            signing: Signing { key, checkpoint_every: every, checkpoint_file },
            retention: Retention {
                keep_for: keep_days.map(|days| Duration::from_secs(days * 24 * 3600)),
                keep_bytes: keep_megabytes.map(|megabytes| megabytes << 20),
            },
        })
    }
}
