//! The program itself: where it is, and whether it may be given the token.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why `op` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpProgramError {
    /// None of the folders has it.
    #[error(
        "there is no program `op` in the folders of PATH: install the 1Password CLI, or give its absolute path"
    )]
    Missing,
    /// A relative path would depend on where the broker was started.
    #[error("the program `{0}` must be given by its absolute path")]
    Relative(PathBuf),
    /// The system refused.
    #[error("cannot use the program `{path}`")]
    Inaccessible {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, or a file that cannot be run.
    #[error("`{0}` is no program")]
    NotExecutable(PathBuf),
    /// Somebody else than root and the broker's own user could put another program there, and it would be
    /// given the token.
    #[error(
        "`{0}` can be changed by others than root and this user: `chmod go-w` or `chown` it, or move `op`"
    )]
    ChangeableByOthers(PathBuf),
}

/// Looks for `op` in the folders of a PATH; relative folders are passed over.
///
/// # Errors
/// [`OpProgramError::Missing`] where none has it.
pub fn find_op(path: &OsStr) -> Result<PathBuf, OpProgramError> {
    env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("op"))
        .find(|program| fs::metadata(program).is_ok_and(|metadata| is_executable(&metadata)))
        .ok_or(OpProgramError::Missing)
}

/// The program behind a path, with every symbolic link followed, so that what was checked is what is run.
pub(super) fn checked(path: &Path) -> Result<PathBuf, OpProgramError> {
    if !path.is_absolute() {
        return Err(OpProgramError::Relative(path.to_owned()));
    }
    let inaccessible = |source| OpProgramError::Inaccessible { path: path.to_owned(), source };
    let program = path.canonicalize().map_err(inaccessible)?;
    let metadata = fs::metadata(&program).map_err(inaccessible)?;
    if !is_executable(&metadata) {
        return Err(OpProgramError::NotExecutable(program));
    }
    for place in program.ancestors() {
        if is_changeable_by_others(&fs::metadata(place).map_err(inaccessible)?) {
            return Err(OpProgramError::ChangeableByOthers(place.to_owned()));
        }
    }
    Ok(program)
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.mode() & 0o111 != 0
}

/// In a folder with the sticky bit, like `/tmp`, others can add files but not replace those that are there.
fn is_changeable_by_others(metadata: &Metadata) -> bool {
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    !ours || (metadata.mode() & 0o022 != 0 && !sticky)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_what_nobody_else_can_change_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (inner, program, link) = (root.join("bin"), root.join("bin/op"), root.join("link"));
        fs::create_dir(&inner).unwrap();
        fs::write(&program, "#!/bin/sh\n").unwrap();
        symlink(&program, &link).unwrap();
        let check = |inner_mode, mode, path: &Path| {
            fs::set_permissions(&inner, fs::Permissions::from_mode(inner_mode)).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
            checked(path).map_err(|error| error.to_string().replace(root.to_str().unwrap(), "R"))
        };
        let refused = |what: &str| {
            Err(format!(
                "`R/{what}` can be changed by others than root and this user: `chmod go-w` or `chown` it, or move `op`"
            ))
        };
        assert_eq!(check(0o755, 0o755, &program), Ok(program.clone()));
        assert_eq!(check(0o700, 0o500, &program), Ok(program.clone()));
        assert_eq!(check(0o755, 0o755, &link), Ok(program.clone()), "links are followed");
        assert_eq!(check(0o1777, 0o755, &program), Ok(program.clone()), "others cannot replace it");
        assert_eq!(check(0o755, 0o757, &program), refused("bin/op"));
        assert_eq!(check(0o755, 0o775, &program), refused("bin/op"));
        assert_eq!(check(0o755, 0o757, &link), refused("bin/op"));
        assert_eq!(check(0o757, 0o755, &program), refused("bin"));
        assert_eq!(check(0o775, 0o755, &program), refused("bin"));
        assert_eq!(check(0o755, 0o644, &program), Err("`R/bin/op` is no program".to_owned()));
        assert_eq!(check(0o755, 0o755, &inner), Err("`R/bin` is no program".to_owned()));
        assert!(matches!(checked(Path::new("op")), Err(OpProgramError::Relative(_))));
        assert!(matches!(checked(&root.join("none")), Err(OpProgramError::Inaccessible { .. })));
    }

    #[test]
    fn it_is_looked_for_in_absolute_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for inner in [&first, &second] {
            fs::create_dir(inner).unwrap();
            fs::write(inner.join("op"), "").unwrap();
        }
        fs::set_permissions(second.join("op"), fs::Permissions::from_mode(0o755)).unwrap();
        let path = env::join_paths([Path::new("."), &first, &second]).unwrap();
        assert_eq!(find_op(&path).ok(), Some(second.join("op")), "the first cannot be run");
        assert!(matches!(find_op(first.as_os_str()), Err(OpProgramError::Missing)));
        assert!(matches!(find_op(OsStr::new("")), Err(OpProgramError::Missing)));
    }
}
