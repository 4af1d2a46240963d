//! The key of value digests, in a file of its own: read at the start, and made once, when there never was one.
//!
//! The database knows which key it was, by an id that opens nothing. So a key that has gone missing is noticed, and no
//! other one is put in its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use valetkey_audit::{Archive, ArchiveError};
use valetkey_core::{Timestamp, ValueDigester};
use zeroize::Zeroizing;

/// Why there is no digest key to work with.
#[derive(Debug, thiserror::Error)]
pub enum DigestKeyError {
    /// It was there once.
    #[error(
        "there is no digest key at `{path}`, and the log has digests made with `{id}`: put it back or name its place in \
         `audit.digest_key`; if it is lost, `valetkey audit new-digest-key` makes another"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the log calls it.
        id: String,
    },
    /// The file holds something else.
    #[error("`{0}` holds no digest key: it is one line that begins with `vkd_` and ends in a checksum")]
    Malformed(PathBuf),
    /// Everybody on the machine can read it.
    #[error("everybody on this machine can open the digest key `{0}`: `chmod 600` it")]
    Open(PathBuf),
    /// It can be neither read nor made.
    #[error("the digest key `{path}` can be neither read nor made")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database does not say which key it was.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Reads the key; makes it where the database never had one. The database knows it when this returns.
pub(crate) fn open(path: &Path, archive: &Archive, now: Timestamp) -> Result<ValueDigester, DigestKeyError> {
    let failed = |source| DigestKeyError::File { path: path.to_owned(), source };
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match archive.digest_key()? {
            Some(id) => return Err(DigestKeyError::Missing { path: path.to_owned(), id }),
            None => make(path).map_err(failed)?,
        },
        Err(error) => return Err(failed(error)),
    };
    if is_open_to_all(path).map_err(failed)? {
        return Err(DigestKeyError::Open(path.to_owned()));
    }
    let digester =
        ValueDigester::parse(text.trim_end()).map_err(|_| DigestKeyError::Malformed(path.to_owned()))?;
    if let Some(before) = archive.digest_key()?.filter(|before| *before != digester.id()) {
        tracing::warn!(%before, now = %digester.id(), "the key of value digests is another: what was released before is no longer found");
    }
    archive.note_digest_key(&digester.id(), now)?;
    Ok(digester)
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    // Room for all of it: what grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX));
    File::open(path)?.take(FILE_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the file, for its owner alone. It is on disk when this returns: digests that outlive their key are lost.
fn make(path: &Path) -> io::Result<Zeroizing<String>> {
    let key = ValueDigester::random_key();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    tracing::info!(path = %path.display(), "made the key of value digests; keep it apart from the database");
    Ok(key)
}

/// A group may read it: that is how secrets are mounted into containers.
fn is_open_to_all(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o007 != 0)
}

const FILE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use valetkey_audit::{AuditStore, Missing, StoreOptions};
    use valetkey_core::SecretValue;
    use valetkey_core::testing::FakeClock;

    fn store(folder: &Path) -> AuditStore {
        let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
        AuditStore::open(&folder.join("audit.db"), options, Arc::new(FakeClock::default())).unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_missed_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = (store(folder.path()), folder.path().join("key"));
        let open = || open(&path, store.archive(), Timestamp::from_micros(1));
        let digest = |digester: &ValueDigester| digester.digest(&SecretValue::new(b"value".to_vec()));
        let made = open().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = open().unwrap();
        assert_eq!((digest(&made), made.id()), (digest(&again), again.id()), "the same key");

        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let missing = open().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(missing.contains(&made.id()) && !missing.contains(text.trim()), "{missing}");
        assert!(!path.exists(), "none is put in its place");

        for bad in ["", "vkd_", &text.to_uppercase(), &"x".repeat(2000)] {
            std::fs::write(&path, bad).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(open(), Err(DigestKeyError::Malformed(_))), "{bad}");
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(open().map(|it| it.id()).ok(), Some(made.id()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(open(), Err(DigestKeyError::Open(_))));
    }
}
