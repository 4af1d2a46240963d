//! Files that the operator names: opened once, and judged by what was opened, never by their path.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// An open regular file. Links are followed: what counts is where they led.
pub(crate) struct OpenFile {
    file: File,
    metadata: Metadata,
}

impl OpenFile {
    /// Opens a file for reading. Does not wait for anybody, as opening a pipe would.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self { file, metadata })
    }

    /// The user whose file it is, where that is neither ours nor root's.
    pub(crate) fn foreign_owner(&self) -> Option<u32> {
        let owner = self.metadata.uid();
        (![0, rustix::process::geteuid().as_raw()].contains(&owner)).then_some(owner)
    }

    /// The permission bits, where they have any of `bits`, or where the file is neither ours nor root's.
    pub(crate) fn open_to_others(&self, bits: u32) -> Option<u32> {
        let mode = self.metadata.mode() & 0o7777;
        (mode & bits != 0 || self.foreign_owner().is_some()).then_some(mode)
    }

    /// All of it, in memory that is wiped; `None` where it has more than `bytes_max`.
    pub(crate) fn read(self, bytes_max: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        // Room for all of it from the start: a vector that grows leaves copies behind. A byte over the bound
        // is enough to see that it is too large.
        let room = self.metadata.len().min(bytes_max).saturating_add(1);
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
        let length = self.file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(u64::try_from(length).is_ok_and(|length| length <= bytes_max).then_some(bytes))
    }
}
