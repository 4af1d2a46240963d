//! Puts the SDK core's library in place, if its bytes are those of a known release.
//!
//! Not here: where the bytes come from. Whoever brings them, nothing is written under the library's name before
//! they were held against the pin.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::SdkPin;

/// Why the library was not put in place. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Not what was pinned: damaged, or another's.
    #[error(
        "it has the SHA-256 {found}, but version {version} for this platform has {expected}: nothing was installed"
    )]
    NotPinned {
        /// The version that it should be.
        version: &'static str,
        /// What it has.
        found: String,
        /// What it should have.
        expected: &'static str,
    },
    /// The system refused.
    #[error("cannot write to `{folder}`: give another folder with `--to`, or its owner's rights")]
    Write {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SdkPin {
    /// The name of the library's file.
    #[must_use]
    pub fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }

    /// Whether these bytes are that release.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        sha256(bytes) == self.sha256
    }

    /// Puts these bytes into a folder as the library, for everybody to read and for nobody to write; gives its
    /// path. At once: a program that reads there meanwhile finds the old library or the new one.
    ///
    /// # Errors
    /// [`InstallError`] where they are another release's, or the folder cannot be written.
    pub fn install(&self, bytes: &[u8], folder: &Path) -> Result<PathBuf, InstallError> {
        if !self.is(bytes) {
            let (version, expected) = (self.version, self.sha256);
            return Err(InstallError::NotPinned { version, found: sha256(bytes), expected });
        }
        let path = folder.join(self.file_name());
        place(bytes, folder, &path)
            .map_err(|source| InstallError::Write { folder: folder.to_owned(), source })?;
        Ok(path)
    }
}

fn place(bytes: &[u8], folder: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".onepassword-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(0o444))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name too must outlive a power cut.
    File::open(folder)?.sync_all()
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SHA-256 of `abc`.
    const PIN: SdkPin = SdkPin {
        version: "1.2.3",
        os: "none",
        arch: "none",
        member: "onepassword/lib/none/libop.so",
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_pinned_is_put_in_place() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        for _ in 0..2 {
            let path = PIN.install(b"abc", &folder).unwrap();
            assert_eq!(path, folder.join("libop.so"));
            assert_eq!(fs::read(&path).unwrap(), b"abc");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
        }
        assert_eq!(names(&folder), ["libop.so"]);
    }

    #[test]
    fn what_is_not_pinned_leaves_all_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let error = PIN.install(b"abd", root.path()).unwrap_err().to_string();
        assert!(
            error.starts_with("it has the SHA-256 a52d159f") && error.ends_with("nothing was installed"),
            "{error}"
        );
        assert!(names(root.path()).is_empty());
        PIN.install(b"abc", root.path()).unwrap();
        assert!(PIN.install(b"", root.path()).is_err());
        assert_eq!(fs::read(root.path().join("libop.so")).unwrap(), b"abc", "the good one stays");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let error = PIN.install(b"abc", &root.path().join("file")).unwrap_err();
        assert!(matches!(error, InstallError::Write { .. }), "{error}");
    }
}
