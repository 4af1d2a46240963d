//! Proofs as texts: of one record (c2sp.org/tlog-proof), and of a range of records, in the same manner.
//!
//! ```text
//! valetkey/range-proof@v1
//! records 257 1000
//! <hash of each subtree around the range, from left to right, in base64, one a line>
//!
//! <checkpoint>
//!
//! <heads of up to 256 records, in base64, one block a line>
//! ```
//!
//! The heads prove nothing; they name the record that was changed. They may be left out, and are for more than 131,072
//! records.

use std::ops::Range;

use data_encoding::BASE64;
use rusqlite::Connection;
use valetkey_core::RecordId;

use crate::blocks::{self, Signed};
use crate::canonical::{self, leaf_hash};
use crate::note::{Checkpoint, NoteError, VerifierKey, decimal, hash};
use crate::stored::StoredRecord;
use crate::tree::{BLOCK, HEAD_BYTES, Hash, root_of_inclusion};

/// What a proof of one record proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRecord {
    /// The record, in canonical form.
    pub line: String,
    /// The checkpoint that it is proven by.
    pub checkpoint: Checkpoint,
}

/// Why a proof is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It has not the form of a proof.
    #[error("it is no proof of a record")]
    Malformed,
    /// Its checkpoint is not to be believed.
    #[error("its checkpoint {0}")]
    Checkpoint(NoteError),
    /// The record is not what is in the log.
    #[error("it does not prove the record that is in it: record, proof or checkpoint was changed")]
    Mismatch,
}

/// Proves a record under a checkpoint that covers it. `None` where the proof would prove nothing, because the record,
/// or what stands around it, is not what was signed.
pub(crate) fn prove(
    connection: &Connection,
    record: &StoredRecord,
    checkpoint: &Signed,
) -> rusqlite::Result<Option<String>> {
    let hashes = match blocks::prove(connection, record.id, checkpoint.size) {
        Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
        hashes => hashes?,
    };
    let index = record.id.0 - 1;
    let (part, outcome) = canonical::digest_stored(record);
    let root = root_of_inclusion(leaf_hash(part, outcome), index, checkpoint.size, &hashes);
    // Whether the signature is good is for whoever has the key to say.
    if root.is_none() || root != checkpoint.note.lines().nth(2).and_then(hash) {
        return Ok(None);
    }
    let extra = BASE64.encode(canonical::line(record).as_bytes());
    Ok(Some(format!("{HEADER}\nextra {extra}\nindex {index}\n{}\n{}", lines(&hashes), checkpoint.note)))
}

/// Reads and checks the proof of a record.
///
/// # Errors
/// [`ProofError`] says what is wrong with it.
pub fn check_proof(text: &str, key: &VerifierKey) -> Result<ProvenRecord, ProofError> {
    let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n'));
    let (extra, rest) = rest.and_then(|rest| rest.split_once('\n')).ok_or(ProofError::Malformed)?;
    let (index, rest) = rest.split_once('\n').ok_or(ProofError::Malformed)?;
    let line = extra.strip_prefix("extra ").and_then(|extra| BASE64.decode(extra.as_bytes()).ok());
    let line = line.and_then(|line| String::from_utf8(line).ok()).ok_or(ProofError::Malformed)?;
    let index = index.strip_prefix("index ").and_then(decimal).ok_or(ProofError::Malformed)?;
    let (hashes, note) = split_hashes(rest).ok_or(ProofError::Malformed)?;
    let checkpoint = key.open(note).map_err(ProofError::Checkpoint)?;
    let (record, part, outcome) = canonical::read_line(&line).map_err(|_| ProofError::Malformed)?;
    let root = root_of_inclusion(leaf_hash(part, outcome), index, checkpoint.size, &hashes);
    if record == index.saturating_add(1) && root == Some(checkpoint.root) {
        Ok(ProvenRecord { line, checkpoint })
    } else {
        Err(ProofError::Mismatch)
    }
}

/// A proof of the records of an export.
pub(crate) struct RangeProof {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) hashes: Vec<Hash>,
    pub(crate) note: String,
    heads: Vec<u8>,
    /// The first record that has not its head.
    pub(crate) suspect: Option<u64>,
}

impl RangeProof {
    /// Reads a proof; whether it proves anything is found out later.
    pub(crate) fn parse(text: &str) -> Result<Self, NoteError> {
        Self::read(text).ok_or(NoteError::NoNote)
    }

    fn read(text: &str) -> Option<Self> {
        let (records, rest) = text.strip_prefix(RANGE_HEADER)?.strip_prefix('\n')?.split_once('\n')?;
        let (first, last) = records.strip_prefix("records ")?.split_once(' ')?;
        let (first, last) = (decimal(first)?, decimal(last)?);
        let (hashes, rest) = split_hashes(rest)?;
        // A note has one blank line in it; what follows the next one is ours.
        let end = rest.match_indices("\n\n").nth(1).map_or(rest.len(), |(end, _)| end + 1);
        let (note, heads) = rest.split_at_checked(end)?;
        let heads =
            heads.lines().map(|line| BASE64.decode(line.as_bytes()).ok()).collect::<Option<Vec<_>>>()?;
        let sane = (1..=last).contains(&first);
        sane.then(|| Self {
            first,
            last,
            hashes,
            note: note.to_owned(),
            heads: heads.concat(),
            suspect: None,
        })
    }

    /// The leaves.
    pub(crate) fn leaves(&self) -> Range<u64> {
        self.first - 1..self.last
    }

    /// Compares a record with what is kept to name it.
    pub(crate) fn suspect(&mut self, record: u64, leaf: Hash) {
        let (heads, _) = self.heads.as_chunks::<HEAD_BYTES>();
        let place = record.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if self.suspect.is_none()
            && place.and_then(|place| heads.get(place)).is_some_and(|head| *head != leaf.head())
        {
            self.suspect = Some(record);
        }
    }
}

/// Proves the records `first` to `last`, as far as the newest checkpoint covers them: which is the last one that it
/// proves, and the text. `None` where it covers none of them, and where retention took away what that needs.
pub(crate) fn prove_range(
    connection: &Connection,
    (first, last): (RecordId, RecordId),
) -> rusqlite::Result<Option<(RecordId, String)>> {
    let Some(checkpoint) = Signed::newest(connection)? else { return Ok(None) };
    let (first, last) = (first.0.max(1), last.0.min(checkpoint.size));
    if first > last {
        return Ok(None);
    }
    let is_gone = first <= blocks::retired(connection)?;
    let hashes = match blocks::prove_range(connection, &(first - 1..last), checkpoint.size) {
        // Amid a block whose records were retired: what stands before the first is not known any more.
        Err(rusqlite::Error::QueryReturnedNoRows) if is_gone => return Ok(None),
        hashes => hashes?,
    };
    let mut text =
        format!("{RANGE_HEADER}\nrecords {first} {last}\n{}\n{}\n", lines(&hashes), checkpoint.note);
    // The heads of retired records are gone with them.
    let mut begin = if last - first < HEADS_MAX && !is_gone { first - 1 } else { last };
    while begin < last {
        let end = last.min((begin / BLOCK + 1) * BLOCK);
        let heads: Vec<u8> = blocks::heads(connection, begin..end)?;
        text.push_str(&format!("{}\n", BASE64.encode(&heads)));
        begin = end;
    }
    Ok(Some((RecordId(last), text)))
}

fn lines(hashes: &[Hash]) -> String {
    hashes.iter().map(|hash| format!("{}\n", BASE64.encode(&hash.0))).collect()
}

/// Lines with a hash each, and what follows the blank line after them.
fn split_hashes(text: &str) -> Option<(Vec<Hash>, &str)> {
    let (hashes, rest) = match text.strip_prefix('\n') {
        Some(rest) => ("", rest),
        None => text.split_once("\n\n")?,
    };
    Some((hashes.lines().map(hash).collect::<Option<_>>()?, rest))
}

const HEADER: &str = "c2sp.org/tlog-proof@v1";
const RANGE_HEADER: &str = "valetkey/range-proof@v1";
/// Records whose heads a proof has, so that it fits into a message; a longer one proves as much, but names no record.
const HEADS_MAX: u64 = 1 << 17;
