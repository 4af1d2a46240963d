//! The broker's own tokens: which there are, and which were revoked. Digests, never tokens.
//!
//! Not here: the records of such acts, which are the log's, and the check of a token, which never waits for
//! a disk: the server keeps the live ones in memory.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row, TransactionBehavior, params};
use valetkey_core::{BearerDigest, Identity, PublicId, Timestamp};

use crate::schema::{self, OpenError};

/// The tokens in an audit database. Its calls block on the disk: make them where that may be.
pub struct TokenStore(Mutex<Connection>);

/// A token to be kept.
pub struct NewToken {
    /// The part that may be logged.
    pub id: PublicId,
    /// What recognises it.
    pub digest: BearerDigest,
    /// Whose it is.
    pub identity: Identity,
    /// What it is for.
    pub usage: TokenUsage,
    /// Who made it.
    pub creator: Identity,
    /// When.
    pub create_time: Timestamp,
    /// When it ends by itself.
    pub expire_time: Timestamp,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUsage {
    /// Calls of the API.
    Api,
    /// The Events API.
    Events,
}

/// A token as it is kept.
pub struct StoredToken {
    /// As it was made.
    pub token: NewToken,
    /// When it was revoked, and by whom.
    pub revoked: Option<(Timestamp, String)>,
    /// When it was last used, to the minute.
    pub use_time: Option<Timestamp>,
}

/// Where a page of tokens ends: the next holds those made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPlace {
    /// When the last one of the page was made.
    pub create_time: Timestamp,
    /// Its id.
    pub id: PublicId,
}

/// The tokens cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the tokens in the audit database cannot be used")]
pub struct TokenStoreError(#[from] rusqlite::Error);

impl TokenStore {
    /// Opens the tokens of a database that exists.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self(Mutex::new(schema::open_writer(path)?)))
    }

    /// Keeps a token; durable when this returns.
    ///
    /// # Errors
    /// [`TokenStoreError`] where it is not kept.
    pub fn insert(&self, token: &NewToken) -> Result<(), TokenStoreError> {
        let NewToken { id, digest, identity, usage, creator, create_time, expire_time } = token;
        self.lock()
            .prepare_cached(
                "INSERT INTO tokens (id, digest, identity, creator, create_us, expire_us, usage)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                id.as_bytes(),
                digest.as_bytes(),
                identity.to_string(),
                creator.to_string(),
                create_time.as_micros(),
                expire_time.as_micros(),
                usage.code(),
            ])?;
        Ok(())
    }

    /// Notes that a token is revoked; durable when this returns. Whether there is one that was not.
    ///
    /// # Errors
    /// [`TokenStoreError`] where that is not noted.
    pub fn revoke(&self, id: PublicId, revoker: &Identity, now: Timestamp) -> Result<bool, TokenStoreError> {
        let changed = self
            .lock()
            .prepare_cached(
                "INSERT INTO token_revocations (id, revoker, time_us) SELECT id, ?2, ?3 FROM tokens t
                 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM token_revocations r WHERE r.id = t.id)",
            )?
            .execute(params![id.as_bytes(), revoker.to_string(), now.as_micros()])?;
        Ok(changed > 0)
    }

    /// Notes uses, all or none.
    ///
    /// # Errors
    /// [`TokenStoreError`] where none is noted.
    pub fn note_uses(&self, uses: &[(PublicId, Timestamp)]) -> Result<(), TokenStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (id, time) in uses {
            transaction
                .prepare_cached(
                    "INSERT INTO token_uses (id, time_us) VALUES (?1, ?2)
                     ON CONFLICT (id) DO UPDATE SET time_us = max(time_us, excluded.time_us)",
                )?
                .execute(params![id.as_bytes(), time.as_micros()])?;
        }
        Ok(transaction.commit()?)
    }

    /// The tokens that count at `now`, the newest first; at most `limit`.
    ///
    /// # Errors
    /// [`TokenStoreError`].
    pub fn live(&self, now: Timestamp, limit: usize) -> Result<Vec<StoredToken>, TokenStoreError> {
        let condition = "WHERE r.id IS NULL AND t.expire_us > ?1";
        self.select(condition, &[&now.as_micros(), &wide(limit)], 2)
    }

    /// The tokens before `before`, the newest first; at most `limit`.
    ///
    /// # Errors
    /// [`TokenStoreError`].
    pub fn list(
        &self,
        before: Option<TokenPlace>,
        limit: usize,
    ) -> Result<Vec<StoredToken>, TokenStoreError> {
        let (micros, id) = match before {
            Some(TokenPlace { create_time, id }) => (create_time.as_micros(), *id.as_bytes()),
            None => (i64::MAX, [u8::MAX; 10]),
        };
        self.select("WHERE (t.create_us, t.id) < (?1, ?2)", &[&micros, &id, &wide(limit)], 3)
    }

    fn select(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
        limit: usize,
    ) -> Result<Vec<StoredToken>, TokenStoreError> {
        let sql = format!(
            "SELECT t.id, t.digest, t.identity, t.creator, t.create_us, t.expire_us, t.usage,
                 r.time_us, r.revoker, u.time_us
             FROM tokens t LEFT JOIN token_revocations r ON r.id = t.id LEFT JOIN token_uses u ON u.id = t.id
             {condition} ORDER BY t.create_us DESC, t.id DESC LIMIT ?{limit}"
        );
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&sql)?;
        let tokens = statement.query_map(values, StoredToken::from_row)?;
        Ok(tokens.collect::<Result<_, _>>()?)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenUsage {
    fn code(self) -> i64 {
        match self {
            Self::Api => 0,
            Self::Events => 1,
        }
    }

    fn of(code: i64) -> Result<Self, FromSqlError> {
        match code {
            0 => Ok(Self::Api),
            1 => Ok(Self::Events),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

impl StoredToken {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let identity = |column| -> rusqlite::Result<Identity> {
            let text: String = row.get(column)?;
            Ok(Identity::parse(&text).ok_or(FromSqlError::InvalidType)?)
        };
        let time =
            |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros));
        let revoked = match (time(7)?, row.get::<_, Option<String>>(8)?) {
            (Some(time), Some(revoker)) => Some((time, revoker)),
            _ => None,
        };
        Ok(Self {
            token: NewToken {
                id: PublicId::from_bytes(row.get(0)?),
                digest: BearerDigest::from_bytes(row.get(1)?),
                identity: identity(2)?,
                usage: TokenUsage::of(row.get(6)?)?,
                creator: identity(3)?,
                create_time: Timestamp::from_micros(row.get(4)?),
                expire_time: Timestamp::from_micros(row.get(5)?),
            },
            revoked,
            use_time: time(9)?,
        })
    }
}

fn wide(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use valetkey_core::Bearer;
    use valetkey_core::testing::{agent, person};

    const START: i64 = 1_000_000_000;

    fn store() -> TokenStore {
        TokenStore(Mutex::new(schema::in_memory()))
    }

    /// Made at second `n`, ends at second `n + 10`.
    fn token(n: i64) -> NewToken {
        let bearer = Bearer::random("vkt_");
        let second = |n: i64| Timestamp::from_micros(START + n * 1_000_000);
        NewToken {
            id: bearer.id(),
            digest: bearer.digest(),
            identity: Identity::Agent(agent("bot")),
            usage: TokenUsage::Events,
            creator: Identity::Person(person("omar")),
            create_time: second(n),
            expire_time: second(n + 10),
        }
    }

    fn ids(tokens: &[StoredToken]) -> Vec<PublicId> {
        tokens.iter().map(|it| it.token.id).collect()
    }

    #[test]
    fn what_is_live_is_neither_revoked_nor_over() {
        let (store, now) = (store(), Timestamp::from_micros(START + 5_000_000));
        let (old, dead, live) = (token(-6), token(1), token(2));
        [&old, &dead, &live].into_iter().for_each(|token| store.insert(token).unwrap());
        let omar = Identity::Person(person("omar"));
        assert!(store.revoke(dead.id, &omar, now).unwrap());
        assert!(!store.revoke(dead.id, &omar, now).unwrap(), "only once");
        assert!(!store.revoke(PublicId::random(), &omar, now).unwrap(), "only one that there is");
        assert_eq!(ids(&store.live(now, 9).unwrap()), [live.id]);
        let all = store.list(None, 9).unwrap();
        assert_eq!(ids(&all), [live.id, dead.id, old.id]);
        assert_eq!(all[1].revoked, Some((now, "person:omar".to_owned())));
        assert!(all[0].token.digest.matches(&live.digest));
        assert_eq!((&all[0].token.identity, all[0].token.usage), (&live.identity, TokenUsage::Events));
        let place = TokenPlace { create_time: live.create_time, id: live.id };
        assert_eq!(ids(&store.list(Some(place), 1).unwrap()), [dead.id]);
    }

    #[test]
    fn uses_move_forward_only() {
        let (store, one) = (store(), token(1));
        store.insert(&one).unwrap();
        let at = |n: i64| Timestamp::from_micros(START + n);
        for n in [60, 120, 90] {
            store.note_uses(&[(one.id, at(n))]).unwrap();
        }
        assert_eq!(store.list(None, 1).unwrap()[0].use_time, Some(at(120)));
        assert!(store.note_uses(&[(PublicId::random(), at(1))]).is_err(), "of a token that there is not");
    }

    #[test]
    fn tokens_and_revocations_stay() {
        let (store, one) = (store(), token(1));
        store.insert(&one).unwrap();
        store.revoke(one.id, &one.creator, one.create_time).unwrap();
        for sql in [
            "UPDATE tokens SET expire_us = expire_us + 1",
            "DELETE FROM tokens",
            "REPLACE INTO tokens SELECT * FROM tokens",
            "UPDATE token_revocations SET time_us = 1",
            "DELETE FROM token_revocations",
            "REPLACE INTO token_revocations SELECT * FROM token_revocations",
        ] {
            let error = store.lock().execute(sql, []).expect_err(sql).to_string();
            assert!(error.contains("insert-only"), "{sql}: {error}");
        }
    }
}
