//! Signed checkpoints in the order of their sizes, from the database and from the file.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use valetkey_core::Timestamp;

use super::finding::{Finding, FindingKind, Findings};
use super::{Against, VerifyError};
use crate::blocks::Signed;
use crate::checkpoint_file::Notes;
use crate::note::{NoteError, VerifierKey};
use crate::schema::open_regular;
use crate::tree::Hash;

/// A checkpoint whose signature is good.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) time: Option<Timestamp>,
    pub(crate) place: PathBuf,
}

/// The checkpoints of both places, merged.
pub(crate) struct Checkpoints<'a> {
    key: &'a VerifierKey,
    database: Option<(&'a Connection, &'a Path)>,
    /// The next of the database, once it was looked for.
    of_database: Option<Option<Known>>,
    /// The last size that was looked at.
    seen: u64,
    file: Option<(PathBuf, Notes<BufReader<File>>)>,
    of_file: Option<Known>,
    /// The last size in the file.
    file_seen: u64,
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn open(
        against: &'a Against,
        database: Option<(&'a Connection, &'a Path)>,
    ) -> Result<Self, VerifyError> {
        let Against { key, checkpoints } = against;
        let file = match checkpoints {
            None => None,
            Some(path) => {
                let file =
                    open_regular(path).map_err(|source| VerifyError::File { path: path.clone(), source })?;
                Some((path.clone(), Notes::new(BufReader::new(file), key.name())))
            }
        };
        Ok(Self { key, database, of_database: None, seen: 0, file, of_file: None, file_seen: 0 })
    }

    /// The next checkpoint, where it covers at most `size` leaves. What is no checkpoint is complained of.
    pub(crate) fn next(&mut self, size: u64, findings: &mut Findings) -> rusqlite::Result<Option<Known>> {
        if self.of_database.is_none() {
            self.of_database = Some(self.read_database(findings)?);
        }
        if self.of_file.is_none() {
            self.of_file = self.read_file(findings);
        }
        let of_database = self.of_database.as_mut().and_then(|next| next.take_if(|next| next.size <= size));
        if let Some(known) = of_database {
            if self.of_file.as_ref().is_none_or(|of_file| of_file.size >= known.size) {
                self.of_database = None;
                return Ok(Some(known));
            }
            self.of_database = Some(Some(known));
        }
        Ok(self.of_file.take_if(|next| next.size <= size))
    }

    fn read_database(&mut self, findings: &mut Findings) -> rusqlite::Result<Option<Known>> {
        let Some((connection, path)) = self.database else { return Ok(None) };
        while let Some(Signed { size, time, note }) = Signed::after(connection, self.seen)? {
            self.seen = size;
            let opened = self.key.open(&note);
            let opened = opened
                .and_then(|known| if known.size == size { Ok(known) } else { Err(NoteError::NoCheckpoint) });
            match opened {
                Ok(known) => {
                    let (root, place) = (known.root, path.to_owned());
                    return Ok(Some(Known { size, root, time: Some(time), place }));
                }
                Err(fault) => findings.add(Finding::general(
                    FindingKind::Checkpoint,
                    format!("the checkpoint over {size} records in the database {fault}"),
                )),
            }
        }
        Ok(None)
    }

    fn read_file(&mut self, findings: &mut Findings) -> Option<Known> {
        let (path, notes) = self.file.as_mut()?;
        let path = path.clone();
        let mut complain = |text: String| {
            let text = format!("{text} in the file `{}`", path.display());
            findings.add(Finding::general(FindingKind::Checkpoint, text));
        };
        for note in notes.by_ref() {
            match note.map(|note| self.key.open(&note)) {
                Ok(Ok(known)) if known.size < self.file_seen => {
                    complain(format!(
                        "there is a checkpoint over {} records after one over {}",
                        known.size, self.file_seen
                    ));
                }
                Ok(Ok(known)) => {
                    self.file_seen = known.size;
                    return Some(Known {
                        size: known.size,
                        root: known.root,
                        time: None,
                        place: path.clone(),
                    });
                }
                // It broke off.
                Ok(Err(NoteError::NoNote)) => {}
                Ok(Err(fault)) => {
                    complain(format!("a checkpoint after that over {} records {fault}", self.file_seen))
                }
                Err(error) => {
                    complain(format!(
                        "no checkpoint after that over {} records can be read ({error})",
                        self.file_seen
                    ));
                    break;
                }
            }
        }
        self.file = None;
        None
    }
}
