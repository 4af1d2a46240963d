//! Moving the write-ahead log into the database file, on a thread of its own: a checkpoint is two fsyncs,
//! and in the writer all callers would wait for them.
//!
//! Beside a writer that never rests, a passive checkpoint never reaches the log's end, and the log would
//! grow without bound. Over [`LOG_PAGES_MAX`] the writer therefore does the small rest itself and starts
//! the log over.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use crate::schema::{self, OpenError};

/// The thread, as the writer sees it.
pub(crate) struct Checkpointer {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// Pages are counted from the beginning of the log.
#[derive(Default)]
struct State {
    /// Pages that the last checkpoint has moved.
    moved: AtomicI32,
    /// Pages in the log after the last commit.
    written: AtomicI32,
    stop: AtomicBool,
}

impl Checkpointer {
    /// Starts the thread with a connection of its own.
    pub(crate) fn start(path: &Path) -> Result<Self, OpenError> {
        let connection = schema::open_writer(path)?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("audit-checkpoint".into())
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
        if written >= LOG_PAGES_MAX {
            start_over(writer);
        } else if self.state.is_due()
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the audit log's checkpoint thread panicked");
            }
        }
    }
}

impl State {
    fn is_due(&self) -> bool {
        self.written.load(Ordering::Relaxed) - self.moved.load(Ordering::Relaxed) >= STEP_PAGES
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

/// Pages to be moved that make a checkpoint worth its fsyncs: 4 MiB.
const STEP_PAGES: i32 = 1000;
/// The length over which the log is started over: 64 MiB.
const LOG_PAGES_MAX: i32 = 16_384;
/// How long a failed checkpoint waits for the next try.
const IDLE: Duration = Duration::from_secs(1);
