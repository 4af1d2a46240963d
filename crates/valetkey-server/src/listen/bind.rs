//! The sockets a broker listens on: TCP, and a Unix socket whose file is its own.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// Where to listen on a Unix socket.
#[derive(Debug, Clone)]
pub struct UnixSettings {
    /// Its file.
    pub path: PathBuf,
    /// Who may connect, as a file's mode. Who they are, the kernel says.
    pub mode: u32,
}

/// Bound sockets.
pub struct Listeners {
    tcp: Option<TcpListener>,
    unix: Option<(UnixListener, SocketFile)>,
    events: Option<TcpListener>,
}

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// TCP.
    #[error("cannot listen on `{address}`: {source}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A Unix socket.
    #[error("cannot listen on `unix:{path}`: {source}")]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another broker has it.
    #[error("cannot listen on `unix:{0}`: something listens there already")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("cannot listen on `unix:{0}`: there is a file that is no socket; move it away")]
    NoSocket(PathBuf),
}

/// The file of a Unix socket; removed with it, unless it is another's by then.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Listeners {
    /// Binds them.
    ///
    /// # Errors
    /// [`BindError`] names the one that cannot be had.
    pub async fn bind(listen: Option<SocketAddr>, unix: Option<&UnixSettings>) -> Result<Self, BindError> {
        let tcp = match listen {
            None => None,
            Some(address) => {
                Some(TcpListener::bind(address).await.map_err(|source| BindError::Tcp { address, source })?)
            }
        };
        Ok(Self { tcp, unix: unix.map(bind_unix).transpose()?, events: None })
    }

    /// The TCP address that was bound: with its real port.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The file of the Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.unix.as_ref().map(|(_, file)| file.path.as_path())
    }

    /// With one for the Events API: where `[events]` says. Its clients, and no others, are served there.
    #[must_use]
    pub fn events(self, events: Option<TcpListener>) -> Self {
        Self { events, ..self }
    }

    /// The address for the Events API.
    #[must_use]
    pub fn events_address(&self) -> Option<SocketAddr> {
        self.events.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    pub(crate) fn take_events(&mut self) -> Option<TcpListener> {
        self.events.take()
    }

    pub(super) fn into_parts(self) -> (Option<TcpListener>, Option<(UnixListener, SocketFile)>) {
        let Self { tcp, unix, events: _ } = self;
        (tcp, unix)
    }
}

impl From<TcpListener> for Listeners {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp: Some(tcp), unix: None, events: None }
    }
}

/// Binds in a folder that is closed to all others, beside the path, closes the file to whom it is not for, and only
/// then moves it into place: nobody can connect in between, and what a broker that died has left there is replaced.
fn bind_unix(settings: &UnixSettings) -> Result<(UnixListener, SocketFile), BindError> {
    let UnixSettings { path, mode } = settings;
    let failed = |source| BindError::Unix { path: path.clone(), source };
    check_free(path)?;
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}", std::process::id()));
    let folder = PathBuf::from(beside);
    let file = folder.join("s");
    let clear = || {
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_dir(&folder);
    };
    clear();
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
    let placed = UnixListener::bind(&file).and_then(|listener| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode))?;
        std::fs::rename(&file, path)?;
        Ok(listener)
    });
    clear();
    let listener = placed.map_err(failed)?;
    let identity = identity_of(path);
    Ok((listener, SocketFile { path: path.clone(), identity }))
}

/// A socket that nobody listens on is a dead broker's; anything else is not ours to replace.
fn check_free(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Unix { path: path.into(), source }),
        Ok(found) if !found.file_type().is_socket() => Err(BindError::NoSocket(path.into())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(source) => Err(BindError::Unix { path: path.into(), source }),
            Ok(_) => Err(BindError::InUse(path.into())),
        },
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity_of(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own; the crate has no temporary files otherwise.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("valetkey-bind-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn a_unix_socket_is_made_taken_over_and_removed() {
        let folder = folder("life");
        let settings = UnixSettings { path: folder.join("broker.sock"), mode: 0o600 };
        let path = settings.path.clone();
        let bind = async || Listeners::bind(None, Some(&settings)).await;

        let first = bind().await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            matches!(bind().await.err(), Some(BindError::InUse(_))),
            "a broker that lives keeps its socket"
        );
        // A broker that is killed leaves its file.
        let (_, unix) = first.into_parts();
        let (listener, file) = unix.unwrap();
        drop(listener);
        let stale = identity_of(&path);
        let second = bind().await.unwrap();
        assert_ne!(identity_of(&path), stale, "the stale file is replaced");
        drop(file);
        assert!(path.exists(), "and is not the first one's to remove any more");
        drop(second);
        assert!(!path.exists(), "a broker takes its file with it");

        std::fs::write(&path, "not a socket").unwrap();
        assert!(matches!(bind().await.err(), Some(BindError::NoSocket(_))));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
