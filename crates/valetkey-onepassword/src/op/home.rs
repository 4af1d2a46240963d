//! The program's home and configuration: an empty folder, so that no other sign-in is found there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// The home. Goes with this.
pub(super) struct Home(Mutex<Made>);

struct Made {
    folder: TempDir,
    device: u64,
    inode: u64,
}

impl Home {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(Made::new()?)))
    }

    /// Where it is. What lies in a folder for temporary files may be cleared away while the broker runs, and its
    /// name be taken by somebody else, who would find the program's configuration in it, or put one there: what
    /// is no longer what was made is left, and another one made.
    pub(super) fn path(&self) -> io::Result<PathBuf> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.is_there() {
            *made = Made::new()?;
        }
        Ok(made.folder.path().to_owned())
    }
}

impl Made {
    fn new() -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("valetkey-op-").permissions(Permissions::from_mode(0o700)).tempdir()?;
        let metadata = fs::symlink_metadata(folder.path())?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), folder })
    }

    fn is_there(&self) -> bool {
        let path: &Path = self.folder.path();
        fs::symlink_metadata(path).is_ok_and(|found| {
            found.is_dir()
                && (found.dev(), found.ino()) == (self.device, self.inode)
                && found.uid() == rustix::process::geteuid().as_raw()
                && found.mode() & 0o7777 == 0o700
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What stands there instead is not ours to remove.
        self.folder.disable_cleanup(!self.is_there());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_any_more_is_made_anew() {
        let check = |what: &str, change: fn(&Path), is_same: bool, is_left: bool| {
            let home = Home::new().unwrap();
            let before = home.path().unwrap();
            change(&before);
            let after = home.path().unwrap();
            assert_eq!(before == after, is_same, "{what}");
            assert_eq!(fs::metadata(&after).unwrap().mode() & 0o7777, 0o700, "{what}");
            drop(home);
            assert!(!after.exists());
            // What is not ours was left alone.
            assert_eq!(fs::symlink_metadata(&before).is_ok(), is_left, "{what}");
            let _ = fs::remove_dir(&before).or_else(|_| fs::remove_file(&before));
        };
        check("untouched", |_| (), true, false);
        check("removed", |path| fs::remove_dir(path).unwrap(), false, false);
        check(
            "opened",
            |path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap(),
            false,
            true,
        );
        let replace = |path: &Path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
            fs::remove_dir(path.with_extension("away")).unwrap();
        };
        check("another in its place", replace, false, true);
        let link = |path: &Path| {
            fs::remove_dir(path).unwrap();
            std::os::unix::fs::symlink("/", path).unwrap();
        };
        check("a link in its place", link, false, true);
    }
}
