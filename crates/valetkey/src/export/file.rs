//! The file of an export: only ever added to, and gone on with after its last whole line.
//!
//! A line that a crash has torn is cut off. A file that is no export of the format is left alone, and so is one without
//! a single whole line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use valetkey_audit::ExportFormat;
use valetkey_core::RecordId;

use crate::failure::{Exit, Failure};

/// What is there before the first line comes.
pub(crate) enum Begin {
    /// Nothing: the file is made.
    Fresh(PathBuf),
    /// A file, open and locked, that ends with the line of a record, or with a header alone. What comes after its last
    /// whole line is cut off when it is written to, and not before.
    Resumed(ExportFile, Tail),
}

/// The first and the last record of a file; absent where it has none. After a header alone the last is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: Option<RecordId>,
    pub(crate) after: Option<RecordId>,
}

/// What there is of a file already.
pub(crate) struct Tail {
    place: Place,
    /// Its last whole line, without the line feed; none where it has no record.
    line: Option<String>,
    /// Where that ends.
    end: u64,
}

/// A file that is being written, by this process alone.
pub(crate) struct ExportFile {
    path: PathBuf,
    file: File,
}

impl Begin {
    /// Looks at what is there.
    pub(crate) fn look(path: &Path, resume: bool, format: ExportFormat) -> Result<Self, Failure> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Fresh(path.to_owned())),
            Err(error) => Err(failed(path, error)),
            Ok(_) if !resume => Err(exists(path)),
            Ok(there) if !there.is_file() => Err(Failure::new(
                Exit::Failed,
                format!("`{}` is no regular file and cannot be gone on with", path.display()),
            )),
            Ok(_) => ExportFile::resume(path, format).map(|(file, tail)| Self::Resumed(file, tail)),
        }
    }

    /// Which records the file has.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Fresh(_) => Place::default(),
            Self::Resumed(_, tail) => tail.place,
        }
    }

    /// The last line of a record that the file has, and the record.
    pub(crate) fn last_line(&self) -> Option<(RecordId, String)> {
        match self {
            Self::Fresh(_) => None,
            Self::Resumed(_, Tail { place, line, end: _ }) => place.after.zip(line.clone()),
        }
    }

    /// The file, to write to.
    pub(crate) fn open(self) -> Result<ExportFile, Failure> {
        match self {
            Self::Fresh(path) => ExportFile::create(path),
            Self::Resumed(mut file, tail) => {
                let cut = file.file.set_len(tail.end).and_then(|()| file.file.seek(SeekFrom::End(0)));
                cut.map_err(|error| failed(&file.path, error))?;
                Ok(file)
            }
        }
    }
}

impl ExportFile {
    /// Makes it, for its owner alone.
    fn create(path: PathBuf) -> Result<Self, Failure> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Self { path, file }.locked(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&path)),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Opens it and looks for its last whole line.
    fn resume(path: &Path, format: ExportFormat) -> Result<(Self, Tail), Failure> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| failed(path, error))?;
        let mut this = Self { path: path.to_owned(), file }.locked()?;
        let (end, last) = last_whole_line(&mut this.file, format)
            .map_err(|error| failed(path, error))?
            .ok_or_else(|| foreign(path, format))?;
        let first = first_record(path, end, format).map_err(|error| failed(path, error))?;
        let (after, line) = last.unzip();
        let line = line.filter(|_| after > Some(RecordId(0)));
        Ok((this, Tail { place: Place { first, after }, line, end }))
    }

    fn locked(self) -> Result<Self, Failure> {
        match self.file.try_lock() {
            Ok(()) => Ok(self),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Failure::new(Exit::Failed, format!("another export writes to `{}`", self.path.display())))
            }
            Err(fs::TryLockError::Error(error)) => Err(failed(&self.path, error)),
        }
    }

    /// Adds whole lines.
    pub(crate) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        self.file.write_all(lines).map_err(|error| failed(&self.path, error))
    }

    /// Returns when all of it is on disk, its name too.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let synced = self.file.sync_all().and_then(|()| File::open(folder(&self.path))?.sync_all());
        synced.map_err(|error| failed(&self.path, error))
    }
}

/// Writes what proves an export beside it, in the place of what proved less of it.
pub(crate) fn write_proof(path: &Path, proof: &str) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".proof");
    let place = PathBuf::from(name);
    let write = || {
        let mut file = NamedTempFile::new_in(folder(path))?;
        file.write_all(proof.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&place)?;
        File::open(folder(path))?.sync_all()
    };
    write().map_err(|error| failed(&place, error))
}

/// The first record of a file, whose whole lines end there.
fn first_record(path: &Path, end: u64, format: ExportFormat) -> io::Result<Option<RecordId>> {
    let mut lines = io::BufReader::new(File::open(path)?.take(end.min(TAIL_MAX))).lines();
    if format.header().is_some() {
        lines.next().transpose()?;
    }
    Ok(lines.next().transpose()?.and_then(|line| format.record_of(&line)))
}

/// Where the last whole line ends, and which record it is about; `None` where the file is something else.
fn last_whole_line(file: &mut File, format: ExportFormat) -> io::Result<Option<(u64, LastLine)>> {
    if let Some(header) = format.header() {
        let mut start = Vec::new();
        Read::by_ref(file).take(header.len() as u64).read_to_end(&mut start)?;
        if !start.is_empty() && start != header.as_bytes() {
            return Ok(None);
        }
    }
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(TAIL_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut tail = Vec::new();
    Read::by_ref(file).take(TAIL_MAX).read_to_end(&mut tail)?;
    let Some(feed) = tail.iter().rposition(|byte| *byte == b'\n') else {
        // Not a single whole line: nobody can say whose it is, unless it is empty.
        return Ok((length == 0).then_some((0, None)));
    };
    let before = tail.get(..feed).unwrap_or_default();
    let line = match before.iter().rposition(|byte| *byte == b'\n') {
        Some(start) => before.get(start + 1..).unwrap_or_default(),
        None if skipped == 0 => before,
        None => return Ok(None),
    };
    let line = std::str::from_utf8(line).ok();
    let last = line.and_then(|line| Some((format.record_of(line)?, line.to_owned())));
    Ok(last.map(|last| (skipped + feed as u64 + 1, Some(last))))
}

/// The record and the line, where there is one.
type LastLine = Option<(RecordId, String)>;

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

fn exists(path: &Path) -> Failure {
    let path = path.display();
    Failure::new(
        Exit::Failed,
        format!("`{path}` exists; `--resume` goes on with an export, or choose another name"),
    )
}

fn foreign(path: &Path, format: ExportFormat) -> Failure {
    let (path, format) = (path.display(), format.as_str());
    Failure::new(
        Exit::Failed,
        format!("`{path}` is no {format} export, and was left alone; choose another name"),
    )
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot write `{}`: {error}", path.display()))
}

/// What is looked at of the end of a file: far more than two lines.
const TAIL_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
