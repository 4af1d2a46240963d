//! A disk without room, really: no file of this process can grow beyond a bound.

use anyhow::Result;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Takes the signal that a write over the bound sends, which would end the process; the write then fails,
/// as it does on a full disk.
///
/// # Errors
/// Where the signal cannot be taken.
pub fn survive_file_size_limit() -> Result<()> {
    // The handler stays for the life of the process, also when this listener is gone.
    let _listener = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
    Ok(())
}

/// Sets the bound of every file of this process, or takes it away.
///
/// # Errors
/// Where the system refuses.
pub fn limit_file_size(bytes: Option<u64>) -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    Ok(setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum })?)
}
