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
        unread: false,
        good: 0,
        count: 0,
        proven: None,
    };
    let mut lines = Lines(lines);
    while let Some(line) = lines.next().map_err(failed)? {
        match walk.take(&line)? {
            Step::On => {}
            Step::End => break,
            Step::Ahead(record) => {
                let is_there = comes_later(&mut lines, walk.next).map_err(failed)?;
                walk.complain_of_order(record, is_there);
                break;
            }
        }
        if walk.next.is_multiple_of(BLOCK) {
            progress(walk.next, 0);
        }
    }
    walk.end(path)
}

/// What to do after a line.
enum Step {
    On,
    /// Nothing more can be said.
    End,
    /// This record stands where an earlier one belongs.
    Ahead(u64),
}

/// Whether a record stands in one of the lines to come.
fn comes_later<R: BufRead>(lines: &mut Lines<R>, wanted: u64) -> std::io::Result<bool> {
    while let Some(line) = lines.next()? {
        if canonical::read_line(&line).is_ok_and(|(record, _, _)| record == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
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
    /// Whether the first line is no record.
    unread: bool,
    good: u64,
    count: u64,
    proven: Option<Proven>,
}

impl Walk<'_> {
    /// Takes a line.
    fn take(&mut self, line: &str) -> Result<Step, VerifyError> {
        let (record, leaf) = match canonical::read_line(line) {
            Ok((record, part, outcome)) => (record, leaf_hash(part, outcome)),
            Err(_) if self.next == 0 && self.proof.is_none() && !self.unread => {
                // The next one tells whether it is a file of something else.
                self.unread = true;
                return Ok(Step::On);
            }
            Err(_) if self.next == 0 && self.unread => return Ok(Step::End),
            Err(fault) => {
                let first = self.proof.as_ref().map_or(1, |(proof, _, _)| proof.first);
                let what = format!("was changed: its line {fault}");
                self.findings.add(Finding::record(FindingKind::Changed, self.next.max(first), what));
                return Ok(Step::End);
            }
        };
        if self.unread {
            let what = "was changed: its line is none of a record";
            let before = record.saturating_sub(1).max(1);
            self.findings.add(Finding::record(FindingKind::Changed, before, what));
            return Ok(Step::End);
        }
        if self.next == 0 {
            self.begin(record)?;
        }
        if record > self.next {
            return Ok(Step::Ahead(record));
        }
        if record < self.next {
            let what = format!("stands a second time, where record {} belongs", self.next);
            self.findings.add(Finding::record(FindingKind::Inserted, record, what));
            return Ok(Step::End);
        }
        self.frontier.iter_mut().for_each(|frontier| frontier.push(1, leaf));
        self.next += 1;
        self.compare(leaf);
        Ok(Step::On)
    }

    /// Says of a record that comes too early whether the one that belongs there is missing, or only comes later.
    fn complain_of_order(&mut self, record: u64, is_there: bool) {
        if is_there {
            let what = format!("was moved: it stands where record {} belongs, which comes later", self.next);
            self.findings.add(Finding::record(FindingKind::Moved, record, what));
        } else {
            self.findings.add_missing(self.next, record - 1);
        }
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
                let why = format!("the checkpoint over {size} does not match");
                self.findings.add(Finding::between((self.good + 1, size), why));
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
                    let why = format!("the checkpoint over {size} does not match");
                    self.findings.add(Finding::between((proof.first, last), why));
                }
            }
        }
    }

    fn end(mut self, path: &Path) -> Result<Verdict, VerifyError> {
        let last = self.next.saturating_sub(1);
        if last == 0 && self.findings.list.is_empty() {
            return Err(VerifyError::Nothing(format!(
                "`{}` has no records as lines of JSON: only exports as `jsonl` can be verified",
                path.display()
            )));
        }
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
        let beyond = self.known_beyond(last);
        let Self { findings: Findings { list, more }, first, count, proven, .. } = self;
        Ok(Verdict {
            first,
            last,
            proven,
            checkpoints: count,
            checkpoints_passed_over: 0,
            beyond,
            findings: list,
            more,
        })
    }

    /// How many records the checkpoints that are left know of, where the export was read to its end.
    fn known_beyond(&mut self, last: u64) -> Option<u64> {
        if self.findings.list.iter().any(|finding| finding.records.is_some()) {
            return None;
        }
        let mut beyond = None;
        // From the database nothing comes, so nothing fails.
        while let Ok(Some(known)) = self.checkpoints.next(u64::MAX, &mut self.findings) {
            beyond = beyond.max(Some(known.size).filter(|size| *size > last));
        }
        beyond
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
        // What is no text is no JSON, and said to be none like an empty line.
        Ok(Some(String::from_utf8(line).unwrap_or_default()))
    }
}

/// Far more than a record has.
const LINE_BYTES_MAX: u64 = 1 << 20;
