//! The walk over an export: its lines are what the leaves are made of.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::checkpoints::{Checkpoints, Known};
use super::finding::{Finding, FindingKind, Findings};
use super::{Against, Proven, Verdict, VerifyError};
use crate::canonical::{self, leaf_hash};
use crate::prove::RangeProof;
use crate::schema::sibling;
use crate::tree::{BLOCK, Frontier, Hash, around};

/// Verifies an export.
pub(crate) fn verify(
    path: &Path,
    against: &Against,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, VerifyError> {
    let failed = |source| VerifyError::File { path: path.to_owned(), source };
    let lines = BufReader::new(File::open(path).map_err(failed)?);
    let (place, mut findings) = (sibling(path, ".proof"), Findings::default());
    let proof = read_proof(&place, against, &mut findings)?;
    let checkpoints = Checkpoints::open(against, None)?;
    let mut walk = Walk {
        checkpoints,
        proof,
        place,
        findings,
        frontier: None,
        next: 0,
        first: 0,
        good: 0,
        count: 0,
        proven: None,
    };
    let mut lines = Lines(lines);
    while let Some(line) = lines.next().map_err(failed)? {
        if !walk.take(&line)? {
            break;
        }
        if walk.next.is_multiple_of(BLOCK) {
            progress(walk.next, 0);
        }
    }
    walk.end(path)
}

/// The proof beside an export, where there is one, with the checkpoint that it leads to.
fn read_proof(
    place: &Path,
    against: &Against,
    findings: &mut Findings,
) -> Result<Option<(RangeProof, u64, Hash)>, VerifyError> {
    let text = match std::fs::read_to_string(place) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(VerifyError::File { path: place.to_owned(), source }),
    };
    let proof = RangeProof::parse(&text);
    let opened = proof.and_then(|proof| against.key.open(&proof.note).map(|known| (proof, known)));
    match opened {
        Ok((proof, known)) => Ok(Some((proof, known.size, known.root))),
        Err(fault) => {
            let text = format!("the proof in `{}` {fault}", place.display());
            findings.add(Finding::general(FindingKind::Checkpoint, text));
            Ok(None)
        }
    }
}

struct Walk<'a> {
    checkpoints: Checkpoints<'a>,
    proof: Option<(RangeProof, u64, Hash)>,
    /// Where the proof is.
    place: PathBuf,
    findings: Findings,
    /// What is known from the first record of the log on; `None` before the first line, and after a hole.
    frontier: Option<Frontier>,
    /// The record that must come next; 0 before the first.
    next: u64,
    first: u64,
    good: u64,
    count: u64,
    proven: Option<Proven>,
}

impl Walk<'_> {
    /// Takes a line; whether to go on.
    fn take(&mut self, line: &str) -> Result<bool, VerifyError> {
        let (record, leaf) = match canonical::read_line(line) {
            Ok((record, part, outcome)) => (record, leaf_hash(part, outcome)),
            Err(fault) => {
                let what = format!("was changed: its line {fault}");
                self.findings.add(Finding::record(FindingKind::Changed, self.next.max(1), what));
                return Ok(false);
            }
        };
        if self.next == 0 {
            self.begin(record)?;
        }
        if record > self.next {
            self.findings.add_missing(self.next, record - 1);
            return Ok(false);
        }
        if record < self.next {
            let what = format!("stands a second time, where record {} belongs", self.next);
            self.findings.add(Finding::record(FindingKind::Inserted, record, what));
            return Ok(false);
        }
        self.frontier.iter_mut().for_each(|frontier| frontier.push(1, leaf));
        self.next += 1;
        self.compare(leaf);
        Ok(true)
    }

    /// Begins with the first record of the export.
    fn begin(&mut self, record: u64) -> Result<(), VerifyError> {
        (self.first, self.next, self.good) = (record, record, record - 1);
        let mut frontier = Frontier::default();
        if let Some((proof, size, _)) = self.proof.take_if(|(proof, _, _)| proof.first != record) {
            let text = format!(
                "the proof is of records {} to {}, and the export begins with record {record}",
                proof.first, proof.last
            );
            let finding = Finding::general(FindingKind::Checkpoint, format!("{text} of {size}"));
            self.findings.add(finding);
        }
        match &self.proof {
            Some((proof, size, _)) => {
                let before = around(&proof.leaves(), *size)
                    .into_iter()
                    .filter(|part| part.end <= proof.leaves().start);
                before
                    .zip(&proof.hashes)
                    .for_each(|(part, hash)| frontier.push(part.end - part.start, *hash));
            }
            None if record > 1 => {
                return Err(VerifyError::Nothing(format!(
                    "the export begins with record {record}: it can only be verified from record 1 on, or with its \
                     proof `{}` beside it",
                    self.place.display()
                )));
            }
            None => {}
        }
        self.frontier = Some(frontier);
        Ok(())
    }

    fn compare(&mut self, leaf: Hash) {
        let Some(frontier) = &self.frontier else { return };
        let last = self.next - 1;
        // From the database nothing comes, so nothing fails.
        while self.first == 1
            && let Ok(Some(Known { size, root, time, place })) =
                self.checkpoints.next(last, &mut self.findings)
        {
            if size == last && frontier.root() == root {
                self.good = size;
                self.count += 1;
                self.proven = Some(Proven { size, time, place });
            } else if self.findings.list.iter().all(|finding| finding.records.is_none()) {
                let what =
                    format!("are not those that were signed: the checkpoint over {size} does not match");
                self.findings.add(Finding::records(FindingKind::Between, (self.good + 1, size), what));
            }
        }
        if let Some((proof, size, root)) = &mut self.proof {
            proof.suspect(last, leaf);
            if last == proof.last {
                let mut whole = frontier.clone();
                let parts = around(&proof.leaves(), *size);
                let after = parts.iter().zip(&proof.hashes).filter(|(part, _)| part.start >= proof.last);
                after.for_each(|(part, hash)| whole.push(part.end - part.start, *hash));
                if parts.len() == proof.hashes.len() && whole.root() == *root {
                    (self.good, self.count) = (last, self.count + 1);
                    let covered = self.proven.as_ref().map_or(0, |proven| proven.size);
                    if covered < last {
                        self.proven = Some(Proven { size: last, time: None, place: self.place.clone() });
                    }
                } else if let Some(record) = proof.suspect {
                    self.findings.add(Finding::record(FindingKind::Changed, record, "was changed"));
                } else {
                    let what =
                        format!("are not those that were signed: the checkpoint over {size} does not match");
                    self.findings.add(Finding::records(FindingKind::Between, (proof.first, last), what));
                }
            }
        }
    }

    fn end(mut self, path: &Path) -> Result<Verdict, VerifyError> {
        let last = self.next.saturating_sub(1);
        if let Some((proof, _, _)) = &self.proof
            && last < proof.last
            && self.findings.list.is_empty()
        {
            self.findings.add_missing(last + 1, proof.last);
        }
        if self.proof.is_none() && self.count == 0 && self.findings.list.is_empty() {
            return Err(VerifyError::Nothing(format!(
                "there is no checkpoint to verify `{}` against: give `--checkpoints`, or put its proof beside it as `{}`",
                path.display(),
                self.place.display()
            )));
        }
        let Self { findings: Findings { list, more }, first, count, proven, .. } = self;
        Ok(Verdict {
            first,
            last,
            proven,
            checkpoints: count,
            checkpoints_passed_over: 0,
            findings: list,
            more,
        })
    }
}

/// Lines of bounded length.
struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        (&mut self.0).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() && line.is_empty() {
            return Ok(None);
        }
        String::from_utf8(line)
            .map(Some)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    }
}

/// Far more than a record has.
const LINE_BYTES_MAX: u64 = 1 << 20;
