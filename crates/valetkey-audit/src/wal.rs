//! Moving the write-ahead log into the database file, on a thread of its own: a checkpoint is two fsyncs,
//! and in the writer all callers would wait for them.
//!
//! Beside a writer that never rests, a passive checkpoint never reaches the log's end, and the log would
//! grow without bound. Over a limit the writer therefore does the small rest itself and starts the log
//! over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use crate::schema::{self, OpenError};

/// The thread, as the writer sees it.
pub(crate) struct WalMover {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// When something is done.
#[derive(Clone, Copy)]
pub(crate) struct WalLimits {
    /// Pages to be moved that make a checkpoint worth its fsyncs.
    pub(crate) step_pages: i32,
    /// The length over which the log is started over.
    pub(crate) log_pages_max: i32,
}

/// Pages are counted from the beginning of the log.
struct State {
    limits: WalLimits,
    /// Pages that the last checkpoint has moved.
    moved: AtomicI32,
    /// Pages in the log after the last commit.
    written: AtomicI32,
    stop: AtomicBool,
}

impl Default for WalLimits {
    /// 4 MiB and 64 MiB.
    fn default() -> Self {
        Self { step_pages: 1000, log_pages_max: 16_384 }
    }
}

impl WalMover {
    /// Starts the thread with a connection of its own.
    pub(crate) fn start(path: &Path, limits: WalLimits) -> Result<Self, OpenError> {
        let connection = schema::open_writer(path)?;
        let (moved, written) = (AtomicI32::new(0), AtomicI32::new(0));
        let state = Arc::new(State { limits, moved, written, stop: AtomicBool::new(false) });
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("audit-wal".into())
            .spawn(move || run(&shared, &connection))
            .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Tells how many pages are in the log after a commit of `writer`; starts the log over where it is too
    /// long.
    pub(crate) fn note(&self, writer: &Connection, written: i32) {
        self.state.written.store(written, Ordering::Relaxed);
        if written < self.state.moved.load(Ordering::Relaxed) {
            // The log began anew.
            self.state.moved.store(0, Ordering::Relaxed);
        }
        if written >= self.state.limits.log_pages_max {
            start_over(writer);
        } else if self.state.is_due()
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for WalMover {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that moves the audit log's write-ahead log panicked");
            }
        }
    }
}

impl State {
    fn is_due(&self) -> bool {
        self.written.load(Ordering::Relaxed) - self.moved.load(Ordering::Relaxed) >= self.limits.step_pages
    }
}

fn run(state: &State, connection: &Connection) {
    while !state.stop.load(Ordering::Relaxed) {
        thread::park_timeout(IDLE);
        if !state.is_due() {
            continue;
        }
        match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            Ok((_, moved)) => state.moved.store(moved, Ordering::Relaxed),
            // A full disk stops checkpoints before it stops the log. The writer finds out by itself.
            Err(error) => tracing::warn!(%error, "the audit log could not be checkpointed; will retry"),
        }
    }
}

/// Does not wait: where a reader or a checkpoint is in the way, the next commit tries again.
fn start_over(writer: &Connection) {
    let attempt = writer
        .busy_timeout(Duration::ZERO)
        .and_then(|()| writer.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART));
    if let Err(error) = attempt {
        tracing::debug!(%error, "the write-ahead log could not be started over yet");
    }
    if let Err(error) = writer.busy_timeout(schema::BUSY_TIMEOUT) {
        tracing::warn!(%error, "the audit log's busy timeout could not be set");
    }
}

/// How long a failed checkpoint waits for the next try.
const IDLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A database, and how many pages its write-ahead log has.
    struct Written {
        directory: tempfile::TempDir,
        connection: Connection,
        pages: Arc<AtomicI32>,
    }

    impl Written {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit.db");
            schema::create(&path).unwrap();
            let mut connection = schema::open_writer(&path).unwrap();
            let pages = Arc::new(AtomicI32::new(0));
            let told = Arc::clone(&pages);
            let hook = move |_: &mut rusqlite::hooks::Wal, pages| {
                told.store(pages, Ordering::Relaxed);
                Ok(())
            };
            connection.wal_hook(Some(hook)).unwrap();
            Self { directory, connection, pages }
        }

        fn wal_mover(&self, step_pages: i32, log_pages_max: i32) -> WalMover {
            let limits = WalLimits { step_pages, log_pages_max };
            WalMover::start(&self.directory.path().join("audit.db"), limits).unwrap()
        }

        /// Commits once; how long the log is then.
        fn commit(&self, n: i64) -> i32 {
            self.connection.execute("UPDATE settled SET seq = ?1", [n]).unwrap();
            self.pages.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_log_is_bounded_although_the_writer_never_rests() {
        let written = Written::new();
        // The thread never finds anything to do: it is all up to the writer.
        let wal_mover = written.wal_mover(i32::MAX, 20);
        let lengths: Vec<i32> = (1..200)
            .map(|n| {
                let pages = written.commit(n);
                wal_mover.note(&written.connection, pages);
                pages
            })
            .collect();
        // An attempt that finds something in its way leaves it to the next commit, so it may take a few more.
        assert!(lengths.iter().all(|pages| *pages < 100), "{lengths:?}");
    }

    #[test]
    fn the_thread_moves_pages_when_there_are_enough() {
        let written = Written::new();
        let wal_mover = written.wal_mover(10, i32::MAX);
        let end = std::time::Instant::now() + Duration::from_secs(60);
        // Whatever was moved whole, the next commit begins anew: there must be more until it is seen.
        for n in 1.. {
            assert!(std::time::Instant::now() < end);
            wal_mover.note(&written.connection, written.commit(n));
            if (0..1000).any(|_| wal_mover.state.moved.load(Ordering::Relaxed) >= 10) {
                break;
            }
            thread::yield_now();
        }
    }
}
