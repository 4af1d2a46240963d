//! What is kept beside the records so that they can be read later: each policy set that was in force, and which keys
//! digests of values were made with. Insert-only.
//!
//! Not here: the keys themselves, which are never in the database, and what a policy set means.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use valetkey_core::Timestamp;

use crate::read::{AuditReader, ReadError};
use crate::schema::{self, OpenError};

/// The archive of an audit database. Its calls block on the disk: make them where that may be.
pub struct Archive(Mutex<Connection>);

/// The archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another text has the same revision: somebody made it so, or the text in the database is not what it was.
    #[error("the audit database holds another policy set as revision `{0}`")]
    OtherText(String),
    /// The database refuses.
    #[error("policy sets and digest keys cannot be kept in the audit database")]
    Database(#[from] rusqlite::Error),
}

impl Archive {
    /// Opens the archive of a database that exists.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self(Mutex::new(schema::open_writer(path)?)))
    }

    /// Keeps a policy set, once; durable when this returns. Call it before the first decision by it.
    ///
    /// # Errors
    /// [`ArchiveError`] where it is not kept: then nothing must be decided by it.
    pub fn keep_policy_set(&self, revision: &str, text: &str, now: Timestamp) -> Result<(), ArchiveError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match policy_set(&transaction, revision)? {
            Some(kept) if kept == text.as_bytes() => return Ok(()),
            Some(_) => return Err(ArchiveError::OtherText(revision.to_owned())),
            None => {}
        }
        transaction.execute(
            "INSERT INTO policy_sets (revision, time_us, text) VALUES (?1, ?2, ?3)",
            params![revision, now.as_micros(), text.as_bytes()],
        )?;
        Ok(transaction.commit()?)
    }

    /// The key that digests were last made with, by its id; `None` where there never was one.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn digest_key(&self) -> Result<Option<String>, ArchiveError> {
        Ok(last_digest_key(&self.lock())?)
    }

    /// Notes which key digests are made with from now on; durable when this returns.
    ///
    /// # Errors
    /// [`ArchiveError`] where that is not noted.
    pub fn note_digest_key(&self, id: &str, now: Timestamp) -> Result<(), ArchiveError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if last_digest_key(&transaction)?.as_deref() == Some(id) {
            return Ok(());
        }
        transaction.execute(
            "INSERT INTO digest_keys (number, id, time_us)
             SELECT coalesce(max(number), 0) + 1, ?1, ?2 FROM digest_keys",
            params![id, now.as_micros()],
        )?;
        Ok(transaction.commit()?)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditReader {
    /// The text of a policy set that was in force, by the revision that records name; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn policy_set(&self, revision: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let revision = revision.to_owned();
        self.run(move |snapshot| Ok(policy_set(snapshot.connection(), &revision)?)).await
    }
}

fn policy_set(connection: &Connection, revision: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT text FROM policy_sets WHERE revision = ?1")?
        .query_row([revision], |row| row.get(0))
        .optional()
}

fn last_digest_key(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT id FROM digest_keys ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        Archive(Mutex::new(schema::in_memory()))
    }

    #[test]
    fn a_policy_set_is_kept_once_as_it_was() {
        let (archive, at) = (archive(), Timestamp::from_micros);
        let keep = |text, time| archive.keep_policy_set("0123456789abcdef", text, at(time));
        keep("permit", 1).unwrap();
        keep("permit", 2).unwrap();
        assert!(matches!(keep("forbid", 3), Err(ArchiveError::OtherText(_))));
        let kept = policy_set(&archive.lock(), "0123456789abcdef").unwrap();
        assert_eq!(kept.as_deref(), Some(&b"permit"[..]));
        assert_eq!(policy_set(&archive.lock(), "fedcba9876543210").unwrap(), None);
    }

    #[test]
    fn each_change_of_key_is_noted() {
        let (archive, at) = (archive(), Timestamp::from_micros);
        assert_eq!(archive.digest_key().unwrap(), None);
        for (time, id) in (1..).zip(["vkd_a", "vkd_a", "vkd_b", "vkd_a"]) {
            archive.note_digest_key(id, at(time)).unwrap();
            assert_eq!(archive.digest_key().unwrap().as_deref(), Some(id));
        }
        let count = archive.lock().query_row("SELECT count(*) FROM digest_keys", [], |row| row.get(0));
        assert_eq!(count, Ok(3), "not where it stays the same");
    }

    #[test]
    fn what_is_kept_stays() {
        let (archive, now) = (archive(), Timestamp::from_micros(1));
        archive.keep_policy_set("0123456789abcdef", "permit", now).unwrap();
        archive.note_digest_key("vkd_a", now).unwrap();
        for sql in [
            "UPDATE policy_sets SET text = x'00'",
            "DELETE FROM policy_sets",
            "REPLACE INTO policy_sets SELECT * FROM policy_sets",
            "UPDATE digest_keys SET id = 'vkd_b'",
            "DELETE FROM digest_keys",
            "REPLACE INTO digest_keys SELECT * FROM digest_keys",
        ] {
            let error = archive.lock().execute(sql, []).expect_err(sql).to_string();
            assert!(error.contains("insert-only") || error.contains("without gaps"), "{sql}: {error}");
        }
    }
}
