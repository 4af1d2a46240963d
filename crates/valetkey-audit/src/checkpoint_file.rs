//! The file of checkpoints, which is best kept on another machine: each note with a blank line after it.
//!
//! A thread of its own appends and syncs. The writer never waits for it: a file that cannot be written is complained
//! of and tried again, and the log goes on. A few notes wait; where there are too many, the oldest are left out, which
//! does no harm, because each newer one covers all that they covered.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::note::{Checkpoint, NOTE_BYTES_MAX, NoteError, VerifierKey};
use crate::schema::{OpenError, open_regular};

/// The thread, as the writer sees it.
pub(crate) struct CheckpointFile {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    notes: VecDeque<String>,
    /// Nothing more comes.
    closing: bool,
    ended: bool,
}

impl CheckpointFile {
    /// Starts the thread.
    pub(crate) fn start(path: &Path) -> Result<Self, OpenError> {
        let shared =
            Arc::new(Shared { path: path.to_owned(), state: Mutex::default(), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit-checkpoints".into())
            .spawn(move || of_thread.run())
            .map_err(|source| OpenError::CheckpointFile { path: path.to_owned(), source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes a note to be appended.
    pub(crate) fn add(&self, note: &str) {
        let mut state = self.shared.lock();
        if state.notes.len() >= WAITING_MAX {
            state.notes.pop_front();
        }
        state.notes.push_back(note.to_owned());
        self.shared.changed.notify_all();
    }
}

impl Drop for CheckpointFile {
    /// Waits a little for what is left: a file on a machine that does not answer must not keep the broker from
    /// stopping. What it lacks then, it gets at the next start.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(state, CLOSE_MAX, |state| !state.ended);
        let ended = waited.map_or(true, |(state, _)| state.ended);
        if !ended {
            tracing::error!(path = %self.shared.path.display(), "the checkpoint file does not answer: it lacks the last ones");
        } else if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the checkpoint file panicked");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut failures = 0_u32;
        while let Some(note) = self.next() {
            match append(&self.path, &note) {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(path = %self.path.display(), "the checkpoint file can be written again");
                    }
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, path = %self.path.display(), "a checkpoint cannot be put into its file: what is signed from now on is not known elsewhere; will retry");
                }
            }
            failures = failures.saturating_add(1);
            if self.put_back(note, RETRY_FIRST.saturating_mul(1 << failures.min(6)).min(RETRY_LAST)) {
                break;
            }
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// The next note; `None` when there is no more to come.
    fn next(&self) -> Option<String> {
        let idle = |state: &mut State| state.notes.is_empty() && !state.closing;
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        state.notes.pop_front()
    }

    /// Keeps a note that could not be written, and waits; whether the log was closed.
    fn put_back(&self, note: String, pause: Duration) -> bool {
        let mut state = self.lock();
        if state.notes.len() < WAITING_MAX {
            state.notes.push_front(note);
        }
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.closing);
        waited.map_or(true, |(state, _)| state.closing)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends a note, durably. Where the last one broke off, on a line of its own.
fn append(path: &Path, note: &str) -> std::io::Result<()> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o644).open(path)?;
    let mut bytes = format!("{note}\n").into_bytes();
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            bytes.insert(0, b'\n');
        }
    }
    file.write_all(&bytes)?;
    file.sync_all()
}

/// The notes of an origin in a file, from the first on. What is between them is passed over, and one that broke off is
/// left out where another follows.
pub(crate) struct Notes<R> {
    lines: R,
    origin: String,
    /// The first line of the next one was read.
    begun: bool,
}

impl<R: BufRead> Notes<R> {
    /// Reads `lines`.
    pub(crate) fn new(lines: R, origin: &str) -> Self {
        Self { lines, origin: format!("{origin}\n"), begun: false }
    }

    fn next_note(&mut self) -> std::io::Result<Option<String>> {
        let mut note = String::new();
        if std::mem::take(&mut self.begun) {
            note.push_str(&self.origin);
        }
        loop {
            let mut line = Vec::new();
            (&mut self.lines).take(NOTE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line);
            let complete = note.contains("\n\n") && note.ends_with('\n');
            if complete && (line.is_empty() || line == "\n" || line == self.origin) && !note.ends_with("\n\n")
            {
                self.begun = line == self.origin;
                return Ok(Some(note));
            }
            if line.is_empty() {
                return Ok(None);
            }
            if line == self.origin || note.len() + line.len() > NOTE_BYTES_MAX {
                note.clear();
            }
            if line == self.origin || !note.is_empty() {
                note.push_str(&line);
            }
        }
    }
}

impl<R: BufRead> Iterator for Notes<R> {
    type Item = std::io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_note().transpose()
    }
}

/// The last checkpoint of a log in a file; `None` where there is none, or no file. A note that broke off is none.
pub(crate) fn newest(
    path: &Path,
    key: &VerifierKey,
) -> std::io::Result<Option<Result<Checkpoint, NoteError>>> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let begin = file.metadata()?.len().saturating_sub(2 * NOTE_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(begin))?;
    let file = file.take(2 * NOTE_BYTES_MAX as u64);
    let notes = Notes::new(std::io::BufReader::new(file), key.name()).collect::<Result<Vec<_>, _>>()?;
    Ok(notes.iter().rev().map(|note| key.open(note)).find(|opened| *opened != Err(NoteError::NoNote)))
}

const WAITING_MAX: usize = 64;
const CLOSE_MAX: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SignerKey;
    use crate::tree::Hash;

    fn notes(text: &str) -> Vec<String> {
        Notes::new(text.as_bytes(), "log").collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn whole_notes_are_found_among_anything() {
        let one = "log\n1\nroot\n\n\u{2014} log sig\n";
        let two = "log\n2\nroot\n\n\u{2014} log sig\n\u{2014} witness sig\n";
        let other = "other\n9\nroot\n\n\u{2014} other sig\n";
        let check = |text: &str, expected: &[&str]| assert_eq!(notes(text), expected, "{text}");
        check("", &[]);
        check(one, &[one]);
        check(&format!("{one}\n{two}\n"), &[one, two]);
        check(&format!("{one}{two}"), &[one, two]);
        check(&format!("junk\n\n{other}\n{one}\n{other}\n{two}"), &[one, two]);
        // One that broke off, in its text and in its signature.
        check(&format!("{one}\nlog\n2\n{two}\n"), &[one, two]);
        check("log\n1\nroot", &[]);
    }

    #[test]
    fn it_is_appended_to_durably_and_the_newest_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoints");
        let key = SignerKey::random("log");
        let found = || newest(&path, key.verifier()).unwrap().map(|opened| opened.map(|opened| opened.size));
        assert_eq!(found(), None);
        let note = |size| key.sign(size, Hash([1; 32]));
        for n in [1000, 2000] {
            let file = CheckpointFile::start(&path).unwrap();
            (0..150).for_each(|m| file.add(&note(n + m)));
            drop(file);
            assert_eq!(found(), Some(Ok(n + 149)));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for torn in [3, 10, 60, 150] {
            std::fs::write(&path, format!("{text}{}", &note(3000)[..torn])).unwrap();
            assert_eq!(found(), Some(Ok(2149)), "{torn}");
            drop_after_adding(&path, &note(4000));
            assert_eq!(found(), Some(Ok(4000)), "{torn}");
        }
        let other = SignerKey::random("log");
        drop_after_adding(&path, &other.sign(5000, Hash([1; 32])));
        assert_eq!(found(), Some(Err(NoteError::OtherKey)));
    }

    #[test]
    fn a_place_that_cannot_be_written_does_not_hold_up_the_end() {
        drop_after_adding(Path::new("/proc/nowhere/checkpoints"), "log\n");
    }

    fn drop_after_adding(path: &Path, note: &str) {
        CheckpointFile::start(path).unwrap().add(note);
    }
}
