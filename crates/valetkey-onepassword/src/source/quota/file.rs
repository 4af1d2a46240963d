//! The state file of a budget: small text, replaced as a whole, and only one process's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::QuotaError;
use super::tally::Tally;

/// The file, held for as long as this lives.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// The lock on it is given back when this is dropped, also by a crash.
    _lock: File,
}

impl StateFile {
    /// Opens the state of a source in a directory, which must be there; a state that is not yet there is
    /// empty.
    pub(super) fn open(dir: &Path, source: &str) -> Result<(Self, Tally), QuotaError> {
        let path = dir.join(format!("{source}.quota"));
        let in_reading = |source| QuotaError::Read { path: path.clone(), source };
        let lock = private(&path.with_extension("quota.lock"), false).map_err(in_reading)?;
        if lock.try_lock().is_err() {
            return Err(QuotaError::InUse { path });
        }
        let tally = read(&path)?.unwrap_or_default();
        let file = Self { path, _lock: lock };
        // Now, rather than when the first secret is asked for, it shows whether it can be written.
        file.write(&tally)?;
        Ok((file, tally))
    }

    /// Replaces the state. It is on disk when this returns: first the new file, then its name.
    pub(super) fn write(&self, tally: &Tally) -> Result<(), QuotaError> {
        self.replace(tally).map_err(|source| QuotaError::Write { path: self.path.clone(), source })
    }

    fn replace(&self, tally: &Tally) -> io::Result<()> {
        let new = self.path.with_extension("quota.new");
        let mut file = private(&new, true)?;
        file.write_all(print(tally).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// Looks at the state of a source, without holding it: a broker may run. `None` where there is none yet.
pub(super) fn look(dir: &Path, source: &str) -> Result<Option<Tally>, QuotaError> {
    read(&dir.join(format!("{source}.quota")))
}

fn read(path: &Path) -> Result<Option<Tally>, QuotaError> {
    let in_reading = |source| QuotaError::Read { path: path.to_owned(), source };
    let damaged = || QuotaError::Corrupt { path: path.to_owned() };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(in_reading(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => damaged(),
        _ => in_reading(error),
    })?;
    parse(&text).map(Some).ok_or_else(damaged)
}

fn private(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn print(tally: &Tally) -> String {
    let lines = tally.slots().map(|(slot, spent)| format!("{slot} {spent}\n"));
    let count = tally.slots().count();
    format!("{HEAD}\n{}end {count}\n", lines.collect::<String>())
}

fn parse(text: &str) -> Option<Tally> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next() != Some(HEAD) {
        return None;
    }
    let end = lines.next_back()?.strip_prefix("end ")?;
    let slots: Vec<_> = lines
        .map(|line| {
            let (slot, spent) = line.split_once(' ')?;
            Some((slot.parse().ok()?, spent.parse().ok()?))
        })
        .collect::<Option<_>>()?;
    (end.parse() == Ok(slots.len())).then(|| Tally::from_slots(slots)).flatten()
}

/// A day has 289 slots, of less than 40 bytes each.
const FILE_MAX: u64 = 64 << 10;
const HEAD: &str = "valetkey quota v1: slots of 300 s since 1970, and what was spent in each";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check =
            |body: &str, good: bool| assert_eq!(parse(&format!("{HEAD}\n{body}")).is_some(), good, "{body}");
        check("end 0\n", true);
        check("1 2\n3 4\nend 2\n", true);
        for body in [
            "",
            "\n",
            "1 2\n",
            "1 2\nend 2\n",
            "end 0",
            "3 4\n1 2\nend 2\n",
            "1 2\n1 2\nend 2\n",
            "1 x\nend 1\n",
        ] {
            check(body, false);
        }
        check("-1 2\nend 1\n", false);
        check("1 2\nend 1\nend 1\n", false);
        assert!(parse("end 0\n").is_none());
        let tally = Tally::from_slots(vec![(5, 1), (9, 4)]).unwrap();
        assert_eq!(parse(&print(&tally)), Some(tally));
    }
}
