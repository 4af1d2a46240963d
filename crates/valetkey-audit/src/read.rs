//! Reading the log: connections of its own, and a bound on everything a query may cost.

mod counting;
mod pages;
mod places;
mod pool;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tokio::sync::Semaphore;
use valetkey_core::{AuditScope, RecordId};

pub(crate) use self::pages::select;
pub(crate) use self::pool::Snapshot;
use self::pool::{Pool, Reading};
use crate::blocks::Signed;
use crate::filter::Filter;
use crate::index::{IndexState, Order};
use crate::prove;
use crate::query::Seqs;
use crate::schema::{self, OpenError};
use crate::stored::StoredRecord;
use crate::vaults::Vaults;

/// Reads the log; clones share its connections. Needs no writer: a log can be read while no broker runs.
#[derive(Clone)]
pub struct AuditReader(Arc<Pool>);

/// Records, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records that match. May be empty although there is a next page: a page looks through a bounded
    /// part of the log.
    pub records: Vec<StoredRecord>,
    /// Where the next page begins; absent at the end of the log alone.
    pub next: Option<RecordId>,
}

/// Records, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The records that match.
    pub records: Vec<StoredRecord>,
    /// Everything up to here was looked at: where to go on.
    pub seen: RecordId,
}

/// The proof of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// There is no such record.
    NoRecord,
    /// No checkpoint covers it yet.
    NotSigned,
    /// The record, or what is needed of those around it, is not what was signed: there is nothing that would prove it.
    Changed,
    /// The text: a C2SP tlog-proof.
    Text(String),
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Other queries are under way.
    #[error("too many audit queries at the same time")]
    Busy,
    /// It took too long.
    #[error("the audit query took too long; a narrower filter helps")]
    TooLong,
    /// The log has more vaults than are decided on one by one.
    #[error("the audit log has more than {VAULTS_MAX} vaults: it can only be read as a whole")]
    TooManyVaults,
    /// The database refuses.
    #[error("the audit database cannot be read")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is asked of the records.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) scope: AuditScope,
}

impl AuditReader {
    /// Opens a log for reading alone.
    ///
    /// # Errors
    /// [`OpenError`] where there is none, or none of this version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        schema::check_place(path)?;
        let pool = Pool::new(path, Arc::new(Semaphore::new(CONNECTIONS_MAX)), TIME_MAX);
        pool.keep(Reading::open(&pool)?);
        Ok(Self(Arc::new(pool)))
    }

    /// Every record up to here is in the index, as far as this process keeps it; 0 where another one does, or none.
    #[must_use]
    pub fn indexed(&self) -> RecordId {
        RecordId(self.0.index.indexed())
    }

    /// What the readers and the follower of the index tell each other.
    pub(crate) fn index(&self) -> &Arc<IndexState> {
        &self.0.index
    }

    /// The records before `before`, or the last ones; at most `limit`, which is held within 1 and 1,000.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(
        &self,
        filter: &Filter,
        scope: &AuditScope,
        before: Option<RecordId>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let (query, limit) = (Query::new(filter, scope), limit.clamp(1, LIMIT_MAX));
        self.run(move |snapshot| pages::list(snapshot, &query, before, limit, SCAN_MAX)).await
    }

    /// The records after `after` up to `until`, for watching; at most `limit`, which is held within 1 and 1,000.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn after(
        &self,
        filter: &Filter,
        scope: &AuditScope,
        (after, until): (RecordId, RecordId),
        limit: usize,
    ) -> Result<Tail, ReadError> {
        let (query, limit) = (Query::new(filter, scope), limit.clamp(1, LIMIT_MAX));
        self.run(move |snapshot| pages::tail(snapshot, &query, (after, until), limit, SCAN_MAX)).await
    }

    /// The last record before the first that is still open: up to here nothing changes any more. 0 while there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn settled(&self) -> Result<RecordId, ReadError> {
        self.run(pages::settled).await
    }

    /// One record; `None` also where it is outside of the scope.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn fetch(&self, scope: &AuditScope, id: RecordId) -> Result<Option<StoredRecord>, ReadError> {
        let query = Query::new(&Filter::default(), scope);
        let only = Seqs::Span(id.0, id.0);
        self.run(move |snapshot| {
            Ok(select(snapshot.connection(), &query, &only, Order::OldestFirst, 1)?.pop())
        })
        .await
    }

    /// The newest signed checkpoint, and the last record; `None` where nothing is signed yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn checkpoint(&self) -> Result<(Option<String>, RecordId), ReadError> {
        self.run(|snapshot| {
            let newest = Signed::newest(snapshot.connection())?.map(|newest| newest.note);
            Ok((newest, RecordId(snapshot.last())))
        })
        .await
    }

    /// Proves a record under the newest checkpoint; where it is outside of the scope, it is as if it were not there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn prove(&self, scope: &AuditScope, id: RecordId) -> Result<Proof, ReadError> {
        let query = Query::new(&Filter::default(), scope);
        let only = Seqs::Span(id.0, id.0);
        self.run(move |snapshot| {
            let connection = snapshot.connection();
            let record = select(connection, &query, &only, Order::OldestFirst, 1)?.pop();
            let newest = Signed::newest(connection)?.filter(|newest| newest.size >= id.0);
            Ok(match (record, newest) {
                (None, _) => Proof::NoRecord,
                (Some(_), None) => Proof::NotSigned,
                (Some(record), Some(newest)) => {
                    prove::prove(connection, &record, &newest)?.map_or(Proof::Changed, Proof::Text)
                }
            })
        })
        .await
    }

    /// Proves the records of an export, as far as they are signed: the last one that is proven, and the text for the
    /// file `<export>.proof`. `None` where none of them is signed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn prove_range(
        &self,
        first: RecordId,
        last: RecordId,
    ) -> Result<Option<(RecordId, String)>, ReadError> {
        self.run(move |snapshot| Ok(prove::prove_range(snapshot.connection(), (first, last))?)).await
    }

    /// The vaults that occur in the log. The first time what the index does not cover is looked through, as far as the
    /// time suffices; the next call goes on from there.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] where the log is not looked through yet, [`ReadError::TooManyVaults`].
    pub async fn vaults(&self) -> Result<Vaults, ReadError> {
        let end = Instant::now() + self.0.time_max;
        while Instant::now() < end {
            let pool = Arc::clone(&self.0);
            let looked = self.run(move |snapshot| pool.vaults.look_on(snapshot, SCAN_MAX)).await?;
            match looked {
                Some(vaults) if vaults.vaults.len() > VAULTS_MAX => return Err(ReadError::TooManyVaults),
                Some(vaults) => return Ok(vaults),
                None => {}
            }
        }
        Err(ReadError::TooLong)
    }

    /// Runs a query on a thread that may block, within a time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        query: impl Fn(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let waiting = Arc::clone(&self.0.permits).acquire_owned();
        let permit = match tokio::time::timeout(self.0.time_max, waiting).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => return Err(ReadError::Busy),
        };
        let pool = Arc::clone(&self.0);
        let work = move || {
            // Held until the connection is back, also where the caller has gone.
            let _permit = permit;
            pool.run(&query)
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| ReadError::Unavailable(error.into()))?
    }
}

impl Query {
    pub(crate) fn new(filter: &Filter, scope: &AuditScope) -> Self {
        Self { filter: filter.clone(), scope: scope.clone() }
    }
}

impl ReadError {
    /// The index does not hold what it must hold.
    pub(crate) fn damaged() -> Self {
        Self::Unavailable("the index is damaged".into())
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::TooLong,
            _ => Self::Unavailable(error.into()),
        }
    }
}

/// Records in one page.
const LIMIT_MAX: usize = 1000;
/// Records that one page looks through; some 100 ms of work.
const SCAN_MAX: u64 = 100_000;
/// Queries at the same time.
const CONNECTIONS_MAX: usize = 2;
/// Vaults, with their names, that a reader decides on.
const VAULTS_MAX: usize = 1_024;
const TIME_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
