//! The files of the key that signs checkpoints: `<file>`, its owner's alone, and `<file>.pub` for reviewers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use valetkey_core::PublicId;
use zeroize::Zeroizing;

use crate::note::SignerKey;
use crate::schema::{OpenError, directory, sibling};
use crate::store::Missing;

/// Where the key of a database is, where nothing else is said.
pub(crate) fn usual_place(database: &Path) -> PathBuf {
    sibling(database, "-key")
}

/// Where the public key of a signing key is.
pub(crate) fn public_place(key: &Path) -> PathBuf {
    sibling(key, ".pub")
}

/// Reads the key, or makes it where it is missing and that was asked for; sees to it that the public one is beside it.
pub(crate) fn open(place: &Path, missing: Missing) -> Result<SignerKey, OpenError> {
    let key = match load(place) {
        Err(OpenError::KeyAbsent(_)) if missing == Missing::Create => {
            create(place).map_err(|source| OpenError::KeyFile { path: place.to_owned(), source })?
        }
        loaded => loaded?,
    };
    let public = public_place(place);
    let line = format!("{}\n", key.verifier());
    if fs::read_to_string(&public).is_ok_and(|there| there == line) {
        return Ok(key);
    }
    // The broker can do without it.
    if let Err(error) = write(&public, 0o644, line.as_bytes()) {
        tracing::warn!(%error, path = %public.display(), "the public key of the audit log cannot be put beside its key");
    }
    Ok(key)
}

/// Reads the key.
pub(crate) fn load(place: &Path) -> Result<SignerKey, OpenError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => OpenError::KeyAbsent(place.to_owned()),
        _ => OpenError::KeyFile { path: place.to_owned(), source },
    };
    let text = read(place).map_err(failed)?;
    if fs::metadata(place).map_err(failed)?.permissions().mode() & 0o007 != 0 {
        return Err(OpenError::Key {
            path: place.to_owned(),
            fault: "everybody can open it: `chmod 600` it",
        });
    }
    let none = |_| OpenError::Key { path: place.to_owned(), fault: "it is no signing key" };
    SignerKey::parse(text.trim_end()).map_err(none)
}

fn read(place: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES_MAX));
    File::open(place)?.take(KEY_BYTES_MAX as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn create(place: &Path) -> std::io::Result<SignerKey> {
    // Letters and digits, whatever it stands for.
    let key = SignerKey::random(&format!("valetkey/{}", PublicId::random()));
    let text = key.expose_secret();
    write(place, 0o600, Zeroizing::new(format!("{}\n", *text)).as_bytes())?;
    tracing::info!(path = %place.display(), key = %key.verifier(), "made the key that signs the audit log");
    Ok(key)
}

/// Whole or not at all, also if the power fails.
fn write(place: &Path, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let new = sibling(place, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, place)?;
    File::open(directory(place))?.sync_all()
}

/// More than a key has.
const KEY_BYTES_MAX: usize = 4096;
