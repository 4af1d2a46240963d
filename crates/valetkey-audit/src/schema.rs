//! Opening the database file: what it must be, how it is created, and the pragmas of each connection.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

/// Why an audit database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and none was to be made.
    #[error(
        "there is no audit database at `{0}`; `valetkey serve --create-database` makes it, once, on purpose"
    )]
    Absent(PathBuf),
    /// Its directory does not exist. It is never created: a typing error must not begin a new log.
    #[error("the directory of the audit database `{0}` does not exist")]
    DirectoryAbsent(PathBuf),
    /// Another process writes to it.
    #[error("the audit database `{0}` is open in another broker")]
    Locked(PathBuf),
    /// Not a database, or somebody else's.
    #[error("`{0}` is not an audit database of valetkey")]
    Foreign(PathBuf),
    /// Made by a newer version.
    #[error(
        "the audit database `{path}` has schema version {has}, and this version of valetkey knows up to {knows}"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        has: i64,
        /// The newest known.
        knows: i64,
    },
    /// A table, an index or a trigger is not as this version makes it.
    #[error(
        "the {object} of the audit database `{path}` is not as valetkey makes it: somebody added, changed or removed it; \
         `valetkey audit verify --database` says what else was changed; restore the database from a backup"
    )]
    Changed {
        /// The database.
        path: PathBuf,
        /// What was added, changed or removed.
        object: String,
    },
    /// Made by an older version, and to be read only.
    #[error("the audit database `{0}` has an older schema; a broker brings it up to date when it starts")]
    Older(PathBuf),
    /// The file system refuses.
    #[error("cannot open the audit database `{path}`")]
    File {
        /// The database, or the lock beside it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no key to sign the log with, and none was to be made.
    #[error(
        "there is no signing key of the audit log at `{0}`; `valetkey serve --create-database` makes it, once, on \
         purpose, where nothing was signed yet; otherwise bring back the one that signed it"
    )]
    KeyAbsent(PathBuf),
    /// The file of the key cannot be read or made.
    #[error("cannot use the signing key of the audit log `{path}`")]
    KeyFile {
        /// The key.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it is not to be used.
    #[error("cannot use the signing key of the audit log `{path}`: {fault}")]
    Key {
        /// The key.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Something was signed by another key, or is not as it was signed.
    #[error(
        "the newest checkpoint in `{place}` {fault}; find out who changed it, or bring back the key that signed it"
    )]
    Checkpoint {
        /// The database, or the checkpoint file.
        place: PathBuf,
        /// What is wrong with it.
        fault: crate::note::NoteError,
    },
    /// There were more records.
    #[error(
        "the audit log was rolled back: the newest checkpoint in `{place}` covers {covered} records, and the database \
         has {has}; bring back the newer database, or, if an older one was restored on purpose, move the checkpoint \
         file away and keep it"
    )]
    RolledBack {
        /// The database, or the checkpoint file.
        place: PathBuf,
        /// Records that were signed.
        covered: u64,
        /// Records that there are.
        has: u64,
    },
    /// There were other records.
    #[error(
        "the audit log is not what was signed: the newest checkpoint in `{place}` is of another log of {covered} \
         records; `valetkey audit verify --database` says what was changed; restore the database from a backup"
    )]
    Disagree {
        /// The database, or the checkpoint file.
        place: PathBuf,
        /// Records that were signed.
        covered: u64,
    },
    /// The checkpoint file cannot be read.
    #[error("cannot use the checkpoint file `{path}` of the audit log")]
    CheckpointFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database refuses.
    #[error("cannot use the audit database `{path}`")]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Opens the database for writing, and brings its schema up to date.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = check(path, &connection)?;
    let prepare = |connection: &mut Connection| {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // Every commit is on disk before it returns; this is what `record` promises.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
        migrate(connection, version)
    };
    prepare(&mut connection).map_err(|error| refused(path, error))?;
    let found = changed_object(&connection).map_err(|error| refused(path, error))?;
    match found {
        None => Ok(connection),
        Some(object) => Err(OpenError::Changed { path: path.to_owned(), object }),
    }
}

/// What is not as this version makes it: a trigger that was added could swallow records, one that is gone protects none.
fn changed_object(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let (has, must) = (objects(connection)?, objects(&fresh()?)?);
    let differs = |name: &&String| has.get(*name) != must.get(*name);
    Ok(must.keys().chain(has.keys()).find(differs).cloned())
}

/// The definitions of tables, indexes, triggers and views, by what and how they are called. Left out is only what SQLite
/// makes by itself: a name that begins like those of its own protects nobody.
pub(crate) fn objects(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Option<String>>> {
    let mut statement = connection.prepare(
        "SELECT type || ' `' || name || '`', sql FROM sqlite_schema
         WHERE NOT (type = 'table' AND (name = 'sqlite_sequence' OR name GLOB 'sqlite_stat[0-9]'))
             AND NOT (type = 'index' AND name GLOB 'sqlite_autoindex_*' AND sql IS NULL)",
    )?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Opens the database for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if check(path, &connection)? < MIGRATIONS.len() {
        return Err(OpenError::Older(path.to_owned()));
    }
    Ok(connection)
}

/// Makes the empty file that [`open_writer`] fills, readable and writable by its owner alone; SQLite gives
/// the files beside it the same mode.
pub(crate) fn create(path: &Path) -> Result<(), OpenError> {
    check_directory(path)?;
    let failed = |source| OpenError::File { path: path.to_owned(), source };
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    // The name too must outlive a power failure.
    File::open(directory(path)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Refuses a path where no database can be, and warns of one that others can read.
pub(crate) fn check_place(path: &Path) -> Result<(), OpenError> {
    check_directory(path)?;
    match fs::metadata(path) {
        Ok(file) if !file.is_file() => Err(OpenError::Foreign(path.to_owned())),
        Ok(file) if file.permissions().mode() & 0o077 != 0 => {
            tracing::warn!(path = %path.display(), "others than its owner can open the audit database");
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(OpenError::Absent(path.to_owned())),
        Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
    }
}

fn check_directory(path: &Path) -> Result<(), OpenError> {
    if directory(path).is_dir() { Ok(()) } else { Err(OpenError::DirectoryAbsent(path.to_owned())) }
}

/// Opens a file for reading that is a file: a pipe or a device would keep whoever opens it waiting.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let regular = |file: fs::Metadata| match file.is_file() {
        true => Ok(()),
        false => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

/// The file that is called as `path` is, and `suffix`.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut sibling = path.as_os_str().to_owned();
    sibling.push(suffix);
    sibling.into()
}

pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, OpenError> {
    // Neither CREATE nor URI: a path is a path, and it exists. NO_MUTEX: each connection has one owner.
    let prepare = || {
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(connection)
    };
    prepare().map_err(|error| refused(path, error))
}

/// The database's schema version, where it is ours; 0 where it is still empty.
fn check(path: &Path, connection: &Connection) -> Result<usize, OpenError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let read = || {
        let application = number("SELECT application_id FROM pragma_application_id")?;
        let version = number("SELECT user_version FROM pragma_user_version")?;
        Ok((application, version, number("SELECT count(*) FROM sqlite_schema")?))
    };
    let (application, version, objects) = read().map_err(|error| refused(path, error))?;
    let empty = (application, version, objects) == (0, 0, 0);
    if application != APPLICATION_ID && !empty {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    match usize::try_from(version) {
        Ok(known) if known <= MIGRATIONS.len() => Ok(known),
        _ => {
            let knows = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
            Err(OpenError::Newer { path: path.to_owned(), has: version, knows })
        }
    }
}

/// Applies what the database lacks, each step whole or not at all.
fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (number, sql) in (1..).zip(MIGRATIONS).skip(version) {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", number)?;
        step.commit()?;
    }
    Ok(())
}

fn refused(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::Foreign(path.to_owned()),
        _ => OpenError::Database { path: path.to_owned(), source: error.into() },
    }
}

/// A database in memory with the newest schema.
pub(crate) fn fresh() -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    migrate(&mut connection, 0)?;
    Ok(connection)
}

/// The same, for tests.
#[cfg(test)]
pub(crate) fn in_memory() -> Connection {
    fresh().unwrap()
}

/// The migrations in order; the position of each, from 1, is the schema version that it leads to.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/0001_init.sql"),
    include_str!("../../../migrations/0002_add_value_age.sql"),
    include_str!("../../../migrations/0003_add_tokens.sql"),
    include_str!("../../../migrations/0004_add_evidence.sql"),
];
/// `vklg` in ASCII: marks the file as ours, also for file(1).
const APPLICATION_ID: i64 = 0x766B_6C67;
/// Between our own threads; nobody else writes.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// What the write-ahead log is cut back to.
const WAL_BYTES_KEPT: i64 = 64 << 20;

#[cfg(test)]
mod tests;
