//! `[[source]]`: where values come from, and which vaults each source serves.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use valetkey_core::Name;

use super::read;

/// One source.
pub struct SourceConfig {
    /// Its name, in outcomes and in `valetkey status`; no two are the same.
    pub name: Name,
    /// The vaults that it serves, by name or id; any other vault does not exist for it. A vault file names none,
    /// and serves all that it holds.
    pub vaults: Vec<String>,
    /// What it is.
    pub kind: SourceKind,
    /// What it may cost, and how long what it said is believed.
    pub bounds: SourceBounds,
}

/// What a source is, and where it is found.
pub enum SourceKind {
    /// A vault file, for development and tests.
    File {
        /// The file.
        file: PathBuf,
        /// Whether one that others can read is taken. For throw-away vaults only.
        open_to_others: bool,
    },
    /// A service account, through the official SDK core.
    Sdk {
        /// The core's library; an absolute path.
        library: PathBuf,
        /// Its SHA-256, where it is none of the versions that this program knows.
        sha256: Option<String>,
        /// The file of the service account's token. `None` takes it from the environment.
        token_file: Option<PathBuf>,
        /// Whether the token may lead to a server on this machine. For tests with a stand-in only.
        allow_loopback: bool,
    },
    /// A Connect server.
    Connect {
        /// `https://host:port`; plain `http` to this machine only. `None` takes `OP_CONNECT_HOST`.
        host: Option<String>,
        /// The file of its token. `None` takes it from the environment.
        token_file: Option<PathBuf>,
        /// The certificate authority that signs its certificate. `None` trusts those of the system.
        ca: Option<PathBuf>,
    },
    /// A service account, through the `op` command.
    Op {
        /// The program; an absolute path.
        program: PathBuf,
        /// The file of the service account's token. `None` takes it from the environment.
        token_file: Option<PathBuf>,
        /// As for the SDK core.
        allow_loopback: bool,
    },
}

impl SourceKind {
    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Sdk { .. } => "sdk",
            Self::Connect { .. } => "connect",
            Self::Op { .. } => "op",
        }
    }

    /// What it is and where, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::File { file, open_to_others: _ } => format!("the vault file {}", file.display()),
            Self::Sdk { library, .. } => format!("the SDK core {}", library.display()),
            Self::Connect { host: Some(host), .. } => format!("the Connect server {host}"),
            Self::Connect { host: None, .. } => "the Connect server of OP_CONNECT_HOST".to_owned(),
            Self::Op { program, .. } => format!("the command {}", program.display()),
        }
    }
}

/// What a source may cost, and how long what it said is believed. Where nothing is said, the source's own
/// defaults hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct SourceBounds {
    /// Requests in an hour; below what the plan allows.
    pub requests_per_hour: Option<u32>,
    /// Requests in a day; likewise.
    pub requests_per_day: Option<u32>,
    /// How long names and fields are believed.
    pub directory_age: Option<Duration>,
    /// How long values are kept, sealed. Zero, the default, reads each time.
    pub value_cache: Option<Duration>,
    /// How long one question may take.
    pub timeout: Option<Duration>,
}

/// Reads the list.
pub(super) fn sources(
    document: &mut toml::Table,
    folder: &Path,
    faults: &mut Vec<String>,
) -> Vec<SourceConfig> {
    let entries = match document.remove("source") {
        Some(toml::Value::Array(entries)) => entries,
        Some(_) => {
            faults.push("`source` must be a list: write each as `[[source]]`".to_owned());
            return Vec::new();
        }
        None => Vec::new(),
    };
    if entries.is_empty() {
        faults.push(
            "`source` is missing: there would be no secrets; docs/sources.md has an entry for each kind"
                .to_owned(),
        );
    }
    check_names(&entries, faults);
    check_vaults(&entries, faults);
    let places = entries.into_iter().enumerate();
    places.filter_map(|(place, entry)| source(entry, folder, &format!("source[{place}]"), faults)).collect()
}

/// Looks for names that come twice; whatever else is wrong with an entry.
fn check_names(entries: &[toml::Value], faults: &mut Vec<String>) {
    let mut names = HashSet::new();
    for (place, entry) in entries.iter().enumerate() {
        if entry.get("name").and_then(toml::Value::as_str).is_some_and(|name| !names.insert(name)) {
            faults.push(format!("`source[{place}].name` is the name of an entry before it"));
        }
    }
}

/// Looks for vaults that nobody or two can mean: each word is one source's, or nobody could say which one serves it.
fn check_vaults(entries: &[toml::Value], faults: &mut Vec<String>) {
    let mut served: HashMap<String, usize> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        let vaults = entry.get("vaults").and_then(toml::Value::as_array);
        for vault in vaults.into_iter().flatten().filter_map(toml::Value::as_str) {
            let key = format!("source[{place}].vaults");
            if vault.trim().is_empty() {
                faults.push(format!("`{key}` has an empty name"));
                continue;
            }
            match served.insert(vault.to_lowercase(), place) {
                Some(before) if before == place => faults.push(format!("`{key}` has `{vault}` twice")),
                Some(before) => {
                    let name = |place: usize| entries.get(place)?.get("name")?.as_str();
                    let [one, other] = [before, place].map(|place| name(place).unwrap_or("…"));
                    faults.push(format!(
                        "`{key}` has `{vault}`, which is served twice: by `{one}` and by `{other}`; take it out of one"
                    ));
                }
                None => {}
            }
        }
    }
}

fn source(entry: toml::Value, folder: &Path, key: &str, faults: &mut Vec<String>) -> Option<SourceConfig> {
    let Section { name, vaults, kind, bounds } = Section::read(entry, key, faults)?;
    let before = faults.len();
    let name = Name::parse(&name).map_err(|error| faults.push(format!("`{key}.name` `{name}` {error}"))).ok();
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
    if name.as_ref().is_some_and(|name| name.as_str().len() > 64 || !name.as_str().bytes().all(plain)) {
        faults.push(format!(
            "`{key}.name` must have 1 to 64 characters of `a-z` `0-9` `-` `_`: it names a file too"
        ));
    }
    let bounds = bounds.check(key, faults);
    let kind = kind.check(folder, key, faults);
    (faults.len() == before).then_some(SourceConfig { name: name?, vaults, kind, bounds })
}

/// An entry as it stands, taken apart by who reads what.
struct Section {
    name: String,
    vaults: Vec<String>,
    kind: KindSection,
    bounds: BoundsSection,
}

impl Section {
    fn read(entry: toml::Value, key: &str, faults: &mut Vec<String>) -> Option<Self> {
        let toml::Value::Table(mut table) = entry else {
            faults.push(format!("`{key}` must be a table"));
            return None;
        };
        let mut part = |keys: &[&str]| {
            let taken = keys.iter().filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?)));
            toml::Value::Table(taken.collect())
        };
        let common = part(&["name", "vaults"]);
        let bounds = part(BOUNDS_KEYS);
        let common: Option<CommonSection> = read(common, key, faults);
        let bounds = read(bounds, key, faults);
        let is_file = table.get("kind").and_then(toml::Value::as_str) == Some("file");
        let kind = read(toml::Value::Table(table), key, faults);
        // Told before anything is given up, so that it comes together with the other faults.
        match (is_file, common.as_ref().is_some_and(|common: &CommonSection| common.vaults.is_empty())) {
            (true, false) if common.is_some() => {
                faults.push(format!(
                    "`{key}.vaults` is for other kinds: a vault file serves all that it holds"
                ));
            }
            (false, true) => {
                faults.push(format!("`{key}.vaults` is missing: name the vaults that this source may serve"));
            }
            _ => {}
        }
        let CommonSection { name, vaults } = common?;
        Some(Self { name, vaults, kind: kind?, bounds: bounds? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommonSection {
    name: String,
    #[serde(default)]
    vaults: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum KindSection {
    File {
        file: PathBuf,
    },
    Sdk {
        library: PathBuf,
        sha256: Option<String>,
        token_file: Option<PathBuf>,
        #[serde(default)]
        allow_loopback: bool,
    },
    Connect {
        host: Option<String>,
        token_file: Option<PathBuf>,
        ca: Option<PathBuf>,
    },
    Op {
        program: PathBuf,
        token_file: Option<PathBuf>,
        #[serde(default)]
        allow_loopback: bool,
    },
}

impl KindSection {
    fn check(self, folder: &Path, key: &str, faults: &mut Vec<String>) -> SourceKind {
        let here = |file: Option<PathBuf>| file.map(|file| folder.join(file));
        let mut absolute = |name: &str, path: PathBuf| {
            if !path.is_absolute() {
                faults.push(format!("`{key}.{name}` must be an absolute path, is `{}`", path.display()));
            }
            path
        };
        match self {
            Self::File { file } => SourceKind::File { file: folder.join(file), open_to_others: false },
            Self::Sdk { library, sha256, token_file, allow_loopback } => SourceKind::Sdk {
                library: absolute("library", library),
                sha256,
                token_file: here(token_file),
                allow_loopback,
            },
            Self::Connect { host, token_file, ca } => {
                SourceKind::Connect { host, token_file: here(token_file), ca: here(ca) }
            }
            Self::Op { program, token_file, allow_loopback } => SourceKind::Op {
                program: absolute("program", program),
                token_file: here(token_file),
                allow_loopback,
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BoundsSection {
    requests_per_hour: Option<u32>,
    requests_per_day: Option<u32>,
    directory_age_seconds: Option<u64>,
    value_cache_seconds: Option<u64>,
    timeout_seconds: Option<u64>,
}

impl BoundsSection {
    fn check(self, key: &str, faults: &mut Vec<String>) -> SourceBounds {
        let Self {
            requests_per_hour,
            requests_per_day,
            directory_age_seconds,
            value_cache_seconds,
            timeout_seconds,
        } = self;
        let mut within = |name: &str, has: Option<u64>, min: u64, max: u64| {
            if let Some(has) = has.filter(|has| !(min..=max).contains(has)) {
                faults.push(format!("`{key}.{name}` must be {min} to {max}, is {has}"));
            }
        };
        within("requests_per_hour", requests_per_hour.map(u64::from), 1, REQUESTS_MAX);
        within("requests_per_day", requests_per_day.map(u64::from), 1, REQUESTS_MAX);
        within("directory_age_seconds", directory_age_seconds, 1, 24 * 60 * 60);
        within("value_cache_seconds", value_cache_seconds, 0, 60);
        within("timeout_seconds", timeout_seconds, 1, 10);
        let seconds = |given: Option<u64>| given.map(Duration::from_secs);
        SourceBounds {
            requests_per_hour,
            requests_per_day,
            directory_age: seconds(directory_age_seconds),
            value_cache: seconds(value_cache_seconds),
            timeout: seconds(timeout_seconds),
        }
    }
}

const BOUNDS_KEYS: &[&str] = &[
    "requests_per_hour",
    "requests_per_day",
    "directory_age_seconds",
    "value_cache_seconds",
    "timeout_seconds",
];
const REQUESTS_MAX: u64 = 1_000_000;
