//! What makes the log tamper-evident, on the writer's thread: the tree over all that is settled, its whole blocks, and
//! signed checkpoints.
//!
//! ```text
//! a caller's task: digest ──> queue ──> COMMIT ──> waiting ──(settled)──> tree ──> block ──> with a later COMMIT
//!                                                                          └─ every minute, signed ──┘
//! ```
//!
//! The tree holds what is durable alone, and is made of what was written, not of what is read back. What a crash
//! takes away of it is made again from the records at the next start. For each record the thread hashes one leaf.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use valetkey_core::{RecordKind, Timestamp};

use crate::blocks::{self, Signed};
use crate::canonical::{PartDigest, leaf_hash};
use crate::checkpoint_file::{self, CheckpointFile};
use crate::code::Code;
use crate::keys;
use crate::note::{NoteError, SignerKey, VerifierKey};
use crate::row::one;
use crate::schema::OpenError;
use crate::store::Missing;
use crate::tree::{BLOCK, Block, Tree};

/// How the log is signed. The defaults are meant for production.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The key; made where it and the checkpoints are missing and [`crate::Missing::Create`] is given. Default: the
    /// database's name with `-key`.
    pub key: Option<PathBuf>,
    /// How long a record may be without a signature. Default: 60 s.
    pub checkpoint_every: Duration,
    /// A file that each checkpoint is appended to; best on another machine. Default: none.
    pub checkpoint_file: Option<PathBuf>,
}

impl Default for Signing {
    fn default() -> Self {
        Self { key: None, checkpoint_every: Duration::from_secs(60), checkpoint_file: None }
    }
}

impl Signing {
    /// Looks at the key of a database, and makes nothing.
    ///
    /// # Errors
    /// [`OpenError`] says why a broker could not use it.
    pub fn check(&self, database: &Path) -> Result<(), OpenError> {
        keys::load(&self.key_place(database)).map(drop)
    }

    /// Where the public key of a database is put.
    #[must_use]
    pub fn public_key_place(&self, database: &Path) -> PathBuf {
        keys::public_place(&self.key_place(database))
    }

    fn key_place(&self, database: &Path) -> PathBuf {
        self.key.clone().unwrap_or_else(|| keys::usual_place(database))
    }
}

/// The tree of a log that is being written.
pub(crate) struct Evidence {
    key: SignerKey,
    every: Duration,
    file: Option<CheckpointFile>,
    /// Settled records.
    tree: Tree,
    /// Durable records after them, in order.
    waiting: VecDeque<(PartDigest, Option<PartDigest>)>,
    /// Whole blocks that are not in the database yet.
    blocks: VecDeque<Block>,
    /// What the newest checkpoint covers.
    signed: u64,
    /// When the next checkpoint is due, by the clock that never goes back.
    due: Duration,
}

impl Evidence {
    /// Opens key and checkpoint file, and refuses a log that is not the one that was signed.
    pub(crate) fn open(
        path: &Path,
        connection: &Connection,
        signing: &Signing,
        missing: Missing,
    ) -> Result<Self, OpenError> {
        let Signing { key: _, checkpoint_every, checkpoint_file } = signing;
        let database =
            |error: rusqlite::Error| OpenError::Database { path: path.to_owned(), source: error.into() };
        let newest = Signed::newest(connection).map_err(database)?;
        let place = signing.key_place(path);
        // A key made now could not have signed them.
        let key = keys::open(&place, if newest.is_some() { Missing::Refuse } else { missing })?;
        if let Some(Signed { note, .. }) = &newest {
            check(path, connection, path, key.verifier().open(note))?;
        }
        let signed = newest.as_ref().map_or(0, |newest| newest.size);
        let file = match checkpoint_file {
            None => None,
            Some(file) => {
                let failed = |source| OpenError::CheckpointFile { path: file.clone(), source };
                let known = checkpoint_file::newest(file, key.verifier()).map_err(failed)?;
                let covered = known.as_ref().map_or(0, |known| known.as_ref().map_or(0, |known| known.size));
                known.map_or(Ok(()), |known| check(path, connection, file, known))?;
                let file = CheckpointFile::start(file)?;
                newest
                    .filter(|newest| newest.size > covered)
                    .iter()
                    .for_each(|newest| file.add(&newest.note));
                Some(file)
            }
        };
        let every = *checkpoint_every;
        let (tree, waiting, blocks) = (Tree::default(), VecDeque::new(), VecDeque::new());
        Ok(Self { key, every, file, tree, waiting, blocks, signed, due: Duration::ZERO })
    }

    /// The key that verifies the checkpoints.
    pub(crate) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// Records up to here are settled, whatever else is known: they are in a block, or under a checkpoint.
    pub(crate) fn settled(&self, connection: &Connection) -> rusqlite::Result<u64> {
        Ok(self.signed.max(blocks::count(connection)?.saturating_mul(BLOCK)))
    }

    /// Takes the tree up to the last record from the database, and adds the blocks that it lacks. Of a database that
    /// had no tree, that is all of it.
    pub(crate) fn load(
        &mut self,
        connection: &mut Connection,
        settled: u64,
        last: u64,
    ) -> rusqlite::Result<()> {
        self.tree = Tree::of_blocks(blocks::frontier(connection, 0..blocks::count(connection)?)?);
        let begin = self.tree.size();
        while self.recorded() < last {
            let end = last.min(self.recorded() + LOAD_STEP);
            self.waiting.extend(blocks::parts(connection, self.recorded()..end)?);
            self.fold(settled);
            let missing = self.blocks.len();
            if missing > 0 {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                self.insert(&transaction, None)?;
                transaction.commit()?;
                self.inserted(missing, None);
            }
            if end - begin > LOAD_STEP {
                tracing::info!(records = end, of = last, "building the tree of the audit log");
            }
        }
        Ok(())
    }

    /// After a failure: takes what is in the database although nobody was told so.
    pub(crate) fn catch_up(&mut self, connection: &Connection, last: u64) -> rusqlite::Result<()> {
        if self.recorded() < last {
            self.waiting.extend(blocks::parts(connection, self.recorded()..last)?);
        }
        let known = blocks::count(connection)?;
        self.blocks.retain(|block| block.number >= known);
        self.signed = Signed::newest(connection)?.map_or(0, |newest| newest.size);
        Ok(())
    }

    /// What the newest checkpoint covers.
    pub(crate) fn signed(&self) -> u64 {
        self.signed
    }

    /// The last record that is known here.
    pub(crate) fn recorded(&self) -> u64 {
        self.tree.size() + self.waiting.len() as u64
    }

    /// Takes the next record.
    pub(crate) fn record(&mut self, digest: PartDigest) {
        self.waiting.push_back((digest, None));
    }

    /// Takes the outcome of a record that is not settled.
    pub(crate) fn outcome(&mut self, seq: u64, digest: Option<PartDigest>) {
        let place = seq.checked_sub(self.tree.size() + 1).and_then(|place| usize::try_from(place).ok());
        if let Some((_, outcome)) = place.and_then(|place| self.waiting.get_mut(place)) {
            *outcome = digest;
        }
    }

    /// Moves what is settled into the tree.
    pub(crate) fn fold(&mut self, settled: u64) {
        while self.tree.size() < settled
            && let Some((record, outcome)) = self.waiting.pop_front()
        {
            self.blocks.extend(self.tree.push(leaf_hash(record, outcome)));
        }
    }

    /// The records up to here must be settled now, or there would be too many to be held.
    pub(crate) fn overflow(&self) -> Option<u64> {
        let over = self.waiting.len().checked_sub(WAITING_MAX)? as u64;
        (over > 0).then(|| self.tree.size() + over)
    }

    /// Whether there is something to sign, and it is time.
    pub(crate) fn is_due(&self, monotonic: Duration) -> bool {
        self.tree.size() > self.signed && monotonic >= self.due
    }

    /// Signs the tree, where that is due.
    pub(crate) fn sign(&self, monotonic: Duration, now: Timestamp) -> Option<Signed> {
        let size = self.tree.size();
        let sign = || Signed { size, time: now, note: self.key.sign(size, self.tree.root()) };
        self.is_due(monotonic).then(sign)
    }

    /// Writes the whole blocks, and a checkpoint over what is in the tree.
    pub(crate) fn insert(
        &self,
        transaction: &Transaction<'_>,
        checkpoint: Option<&Signed>,
    ) -> rusqlite::Result<()> {
        for block in &self.blocks {
            blocks::insert(transaction, block)?;
        }
        if let Some(Signed { size, time, note }) = checkpoint {
            let rows = transaction
                .prepare_cached("INSERT INTO checkpoints (size, time_us, note) VALUES (?1, ?2, ?3)")?
                .execute(params![size, time.as_micros(), note])?;
            one(rows)?;
            transaction
                .prepare_cached("UPDATE tree_tail SET size = ?1, heads = ?2 WHERE one = 1")?
                .execute(params![size, self.tree.heads()])?;
        }
        Ok(())
    }

    /// How many blocks [`Evidence::insert`] writes.
    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// Notes that so many blocks and the checkpoint, which was made at this moment, are durable.
    pub(crate) fn inserted(&mut self, blocks: usize, checkpoint: Option<(Signed, Duration)>) {
        self.blocks.drain(..blocks.min(self.blocks.len()));
        if let Some((Signed { size, note, time: _ }, monotonic)) = checkpoint {
            self.signed = size;
            self.due = monotonic.saturating_add(self.every);
            self.file.iter().for_each(|file| file.add(&note));
        }
    }

    /// Whether the last run left records unsigned. Complains where a crash does not explain it.
    pub(crate) fn has_rest(&self, connection: &Connection, last: u64) -> rusqlite::Result<bool> {
        let records = last.saturating_sub(self.signed);
        if records > 0 && self.signed == 0 {
            tracing::error!(
                records,
                "no checkpoint covers any record of the audit log, and it is signed now as it is: unless it is new or \
                 an older version made it, find out who removed its checkpoints"
            );
        } else if records > 0 && is_stop(connection, self.signed)? {
            tracing::error!(
                records,
                "there are records after the last stop that were not signed: unless the broker crashed soon after its \
                 start, find out who wrote them"
            );
        }
        Ok(records > 0)
    }

    /// Begins to count the time to the next checkpoint.
    pub(crate) fn begin(&mut self, monotonic: Duration) {
        self.due = monotonic.saturating_add(self.every);
    }

    /// Signs with the next transaction.
    pub(crate) fn hurry(&mut self) {
        self.due = Duration::ZERO;
    }
}

/// Whether a record says that the broker stopped.
fn is_stop(connection: &Connection, seq: u64) -> rusqlite::Result<bool> {
    let kind =
        connection.query_row("SELECT kind FROM records WHERE seq = ?1", [seq], |row| row.get::<_, i64>(0));
    Ok(kind.optional()? == Some(RecordKind::Stop.code()))
}

/// Refuses a log that is not the one of a checkpoint.
fn check(
    path: &Path,
    connection: &Connection,
    place: &Path,
    known: Result<crate::note::Checkpoint, NoteError>,
) -> Result<(), OpenError> {
    let place = place.to_owned();
    let known = known.map_err(|fault| OpenError::Checkpoint { place: place.clone(), fault })?;
    let database =
        |error: rusqlite::Error| OpenError::Database { path: path.to_owned(), source: error.into() };
    let (covered, has) = (known.size, blocks::last_record(connection).map_err(database)?);
    if has < covered {
        return Err(OpenError::RolledBack { place, covered, has });
    }
    if blocks::is_cut(connection, covered).map_err(database)? {
        // An old one of the file: the newest of the database covers all of it.
        return Ok(());
    }
    match blocks::subtree(connection, 0..covered) {
        Ok(root) if root == known.root => Ok(()),
        Err(error) if error.sqlite_error_code().is_some() => Err(database(error)),
        // Records that are not there, or cannot be read, are others.
        Ok(_) | Err(_) => Err(OpenError::Disagree { place, covered }),
    }
}

/// Records that are read at a time.
const LOAD_STEP: u64 = 64 * BLOCK;
/// Records that may wait for an earlier one to be settled; some 65 bytes each.
const WAITING_MAX: usize = 1 << 20;
