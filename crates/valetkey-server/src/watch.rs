//! Watching folders for changes.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Watches what is directly in some folders, until the watcher is dropped.
///
/// # Errors
/// Where one of them cannot be watched.
pub(crate) fn watch(
    folders: impl IntoIterator<Item = impl AsRef<Path>>,
    changed: mpsc::Sender<()>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too; only changes matter. A full channel has told it already.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })?;
    for folder in folders {
        watcher.watch(folder.as_ref(), RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// An editor writes a file in several steps: waits until it has been quiet for a moment, but no longer than
/// a second, so that nobody can put off a change by making more.
pub(crate) async fn settle(changes: &mut mpsc::Receiver<()>) {
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    while tokio::time::Instant::now() < deadline {
        match tokio::time::timeout(QUIET, changes.recv()).await {
            Ok(Some(())) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

const SETTLE_MAX: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(100);
