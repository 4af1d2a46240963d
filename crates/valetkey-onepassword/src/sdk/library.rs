//! Which library is the SDK core: by its SHA-256, and the bytes that were hashed are the bytes that are loaded.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::ffi::{Core, InterfaceError};
use crate::file::OpenFile;

/// A release of the SDK core that is known, for one platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdkPin {
    /// The version of the Python package `onepassword-sdk` that brings it.
    pub version: &'static str,
    /// As [`std::env::consts::OS`] has it.
    pub os: &'static str,
    /// As [`std::env::consts::ARCH`] has it.
    pub arch: &'static str,
    /// Where the package has it, from the directory that packages are installed in.
    pub member: &'static str,
    /// In lower-case hexadecimal.
    pub sha256: &'static str,
}

/// The releases of the SDK core that are known, the newest first.
#[must_use]
pub fn sdk_pins() -> &'static [SdkPin] {
    PINS
}

impl SdkPin {
    /// Whether it is for the platform that this program runs on.
    #[must_use]
    pub fn is_for_this_platform(&self) -> bool {
        (self.os, self.arch) == (std::env::consts::OS, std::env::consts::ARCH)
    }
}

/// A library whose bytes are pinned, read into memory. Nothing of it has run.
pub struct SdkLibrary {
    bytes: Vec<u8>,
    sha256: [u8; 32],
    version: Option<&'static str>,
}

/// Why a file is not used as the SDK core.
#[derive(Debug, thiserror::Error)]
pub enum SdkLibraryError {
    /// What it is would depend on the working directory.
    #[error("the SDK library's path `{}` is not absolute: give the whole path", .0.display())]
    NotAbsolute(PathBuf),
    /// The system refused, or it is no regular file.
    #[error("cannot read the SDK library `{}`: run `valetkey onepassword install`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could change it.
    #[error(
        "the SDK library `{}` can be written by others, or is neither yours nor root's (mode {mode:04o}): \
         `chmod go-w` it, and see to its owner", .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Over the bound.
    #[error("the SDK library `{}` has more than 64 MiB: run `valetkey onepassword install`", .0.display())]
    TooLarge(PathBuf),
    /// The pin in the configuration is none.
    #[error("the SDK library's pin must be a SHA-256: 64 characters of `0-9` and `a-f`")]
    MalformedPin,
    /// Not what was pinned.
    #[error(
        "the SDK library `{}` has the SHA-256 {found}, and {expected}: run `valetkey onepassword install`, or \
         pin it in the configuration", .path.display()
    )]
    NotPinned {
        /// The file.
        path: PathBuf,
        /// What its bytes have.
        found: String,
        /// What would do, as a sentence.
        expected: String,
    },
    /// No copy could be made to load it from.
    #[error("cannot place the SDK library for loading")]
    Place(#[source] io::Error),
    /// It has another interface.
    #[error("the SDK library is pinned but cannot be used: {0}; run `valetkey onepassword install`")]
    Interface(String),
}

impl SdkLibrary {
    /// Reads a file and holds it against the pins: the known ones, or `pin` alone where there is one. Runs
    /// nothing of it.
    ///
    /// # Errors
    /// [`SdkLibraryError`] says why it is not used.
    pub fn read(path: &Path, pin: Option<&str>) -> Result<Self, SdkLibraryError> {
        if !path.is_absolute() {
            return Err(SdkLibraryError::NotAbsolute(path.into()));
        }
        let pin = pin.map(parse_hash).transpose()?;
        let in_reading = |source| SdkLibraryError::Read { path: path.into(), source };
        let file = OpenFile::open(path).map_err(in_reading)?;
        if let Some(mode) = file.open_to_others(0o022) {
            return Err(SdkLibraryError::OpenToOthers { path: path.into(), mode });
        }
        let bytes = file.read(LIBRARY_MAX).map_err(in_reading)?;
        let mut bytes = bytes.ok_or_else(|| SdkLibraryError::TooLarge(path.into()))?;
        // Nothing in it is secret: wiping it would be time lost.
        let bytes = std::mem::take(&mut *bytes);
        let sha256 = Sha256::digest(&bytes).into();
        let version = pinned(&sha256, pin).map_err(|expected| SdkLibraryError::NotPinned {
            path: path.into(),
            found: HEXLOWER.encode(&sha256),
            expected,
        })?;
        Ok(Self { bytes, sha256, version })
    }

    /// The version of the package that brings it; `None` where only the operator knows it.
    #[must_use]
    pub fn version(&self) -> Option<&'static str> {
        self.version
    }

    /// Loads it, once in the life of the process, and checks its interface. It stays loaded.
    pub(super) fn load(self) -> Result<Arc<Core>, SdkLibraryError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = loaded.get(&self.sha256) {
            return Ok(Arc::clone(core));
        }
        let place = Place::new(&self).map_err(SdkLibraryError::Place)?;
        let in_interface = |error: InterfaceError| SdkLibraryError::Interface(error.to_string());
        let core = Arc::new(Core::load(&place).map_err(in_interface)?);
        loaded.insert(self.sha256, Arc::clone(&core));
        Ok(core)
    }
}

/// The version of what has this hash; what would do instead, where it is not pinned.
fn pinned(sha256: &[u8; 32], pin: Option<[u8; 32]>) -> Result<Option<&'static str>, String> {
    let known: Vec<_> = PINS.iter().filter(|known| known.is_for_this_platform()).collect();
    let found = known.iter().find(|known| parse_hash(known.sha256).is_ok_and(|known| known == *sha256));
    let version = found.map(|found| found.version);
    match pin {
        Some(pin) if pin == *sha256 => Ok(version),
        Some(pin) => Err(format!("the configuration pins {}", HEXLOWER.encode(&pin))),
        None if version.is_some() => Ok(version),
        None => {
            let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
            let versions: Vec<_> = known.iter().map(|known| known.version).collect();
            Err(match versions.as_slice() {
                [] => format!("no version is known for {os} on {arch}"),
                versions => format!("that is not known for {os} on {arch} (known: {})", versions.join(", ")),
            })
        }
    }
}

fn parse_hash(text: &str) -> Result<[u8; 32], SdkLibraryError> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| SdkLibraryError::MalformedPin)?;
    bytes.try_into().map_err(|_| SdkLibraryError::MalformedPin)
}

/// Where a pinned library can be loaded from: a path that leads to the bytes that were hashed, and to no other
/// while it lives.
pub(super) struct Place {
    path: PathBuf,
    /// To be removed once it is loaded.
    directory: Option<PathBuf>,
}

impl Place {
    #[cfg(target_os = "linux")]
    fn new(library: &SdkLibrary) -> io::Result<Self> {
        Self::in_memory(&library.bytes)
    }

    #[cfg(not(target_os = "linux"))]
    fn new(library: &SdkLibrary) -> io::Result<Self> {
        Self::in_private_directory(&library.bytes)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file without a name, sealed: nobody can change it any more, root included.
    #[cfg(target_os = "linux")]
    pub(super) fn in_memory(bytes: &[u8]) -> io::Result<Self> {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        use std::os::fd::IntoRawFd as _;

        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create("valetkey-sdk", flags)?);
        file.write_all(bytes)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // Open for ever: the loader remembers libraries by path, and would take the next one with this number
        // for this one.
        let number = file.into_raw_fd();
        Ok(Self { path: format!("/proc/self/fd/{number}").into(), directory: None })
    }

    /// A copy that only we and root can reach, for systems without files in memory. Weaker: another program of
    /// the same user could change it between the writing and the loading, as it could change this process.
    #[cfg(any(not(target_os = "linux"), test))]
    pub(super) fn in_private_directory(bytes: &[u8]) -> io::Result<Self> {
        use std::fs::{DirBuilder, File};
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let directory = std::env::temp_dir().join(format!("valetkey-{}", HEXLOWER.encode(&name)));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join("libop_uniffi_core");
        let place = Self { path, directory: Some(directory) };
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&place.path)?;
        file.write_all(bytes)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // What is loaded stays loaded; a copy left behind is of public bytes.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// The cores that are loaded, by hash: two sources with two tokens share one.
static LOADED: Mutex<BTreeMap<[u8; 32], Arc<Core>>> = Mutex::new(BTreeMap::new());

/// In bytes; releases have about 20 MB.
const LIBRARY_MAX: u64 = 64 << 20;

const PINS: &[SdkPin] = &[
    SdkPin {
        version: "0.4.2",
        os: "linux",
        arch: "x86_64",
        member: "onepassword/lib/x86_64/libop_uniffi_core.so",
        sha256: "d030d05c5dca54f82c6cf8a4c00e82b19734d1ce6f5dfa2e5702c3cd2cd060d7",
    },
    SdkPin {
        version: "0.4.2",
        os: "linux",
        arch: "aarch64",
        member: "onepassword/lib/aarch64/libop_uniffi_core.so",
        sha256: "e5238beee526bfc6cc8a59d136a95ad062a433969c5b4c5af4d74924b533eae3",
    },
    SdkPin {
        version: "0.4.2",
        os: "macos",
        arch: "aarch64",
        member: "onepassword/lib/aarch64/libop_uniffi_core.dylib",
        sha256: "3ba0983c6f4d1d666381348701fe433803d4906d4d6944b0d8acdd66ba8bc0b2",
    },
    SdkPin {
        version: "0.4.2",
        os: "macos",
        arch: "x86_64",
        member: "onepassword/lib/x86_64/libop_uniffi_core.dylib",
        sha256: "9f427cef655bb06e58ca633679113e37d217f226bd873712dacb6e800a439d1f",
    },
];
