//! Reading the log: connections of its own, and a bound on everything a query may cost.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, params_from_iter};
use tokio::sync::Semaphore;
use valetkey_core::{AuditScope, RecordId, ValueDigest};

use crate::filter::Filter;
use crate::query::{Condition, only_record};
use crate::recount::{self, Part};
use crate::schema::{self, OpenError};
use crate::stored::{SELECT, StoredRecord};
use crate::usage::{
    Counted, Day, Days, FirstUse, IndexProgress, LastUse, PolicyUse, Refusals, Subject, Usage,
};
use crate::vaults::{Known, Vaults};

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
struct Query {
    filter: Filter,
    scope: AuditScope,
}

struct Pool {
    path: PathBuf,
    /// Not in use. Never more than there are permits.
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    vaults: Known,
    /// How long a query waits for its turn, and how long it may then take.
    time_max: Duration,
}

impl AuditReader {
    /// Opens a log for reading alone.
    ///
    /// # Errors
    /// [`OpenError`] where there is none, or none of this version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        schema::check_place(path)?;
        let first = schema::open_reader(path)?;
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok(Self(Arc::new(Pool {
            path: path.to_owned(),
            idle: Mutex::new(vec![first]),
            permits,
            vaults: Known::default(),
            time_max: TIME_MAX,
        })))
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
        self.run(move |connection| list(connection, &query, before, limit, SCAN_MAX)).await
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
        self.run(move |connection| tail(connection, &query, (after, until), limit, SCAN_MAX)).await
    }

    /// One record; `None` also where it is outside of the scope.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn fetch(&self, scope: &AuditScope, id: RecordId) -> Result<Option<StoredRecord>, ReadError> {
        let query = Query::new(&Filter::default(), scope);
        self.run(move |connection| Ok(select(connection, &query, (id.0, id.0), "ASC", 1)?.pop())).await
    }

    /// The vaults that occur in the log. The first time the whole log is looked through, as far as the time
    /// suffices; the next call goes on from there.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] where the log is not looked through yet, [`ReadError::TooManyVaults`].
    pub async fn vaults(&self) -> Result<Vaults, ReadError> {
        let end = Instant::now() + self.0.time_max;
        while Instant::now() < end {
            let pool = Arc::clone(&self.0);
            let looked = self.run(move |connection| pool.vaults.look_on(connection, SCAN_MAX)).await?;
            match looked {
                Some(vaults) if vaults.vaults.len() > VAULTS_MAX => return Err(ReadError::TooManyVaults),
                Some(vaults) => return Ok(vaults),
                None => {}
            }
        }
        Err(ReadError::TooLong)
    }

    /// Who used what, in whole days.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn usage(
        &self,
        subject: &Subject,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<Usage>>, ReadError> {
        let subject = subject.clone();
        self.count(scope, move |connection, part| recount::usage(connection, part, &days, &subject)).await
    }

    /// What was refused in whole days, of an agent or of everybody.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn refusals(
        &self,
        agent: Option<&str>,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<Refusals>>, ReadError> {
        let agent = agent.map(str::to_owned);
        let refusals = move |connection: &Connection, part: &Part<'_>| {
            recount::refusals(connection, part, &days, agent.as_deref())
        };
        self.count(scope, refusals).await
    }

    /// First uses that fall into these days.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn first_uses(
        &self,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<FirstUse>>, ReadError> {
        let first_uses = move |connection: &Connection, part: &Part<'_>| {
            let mut uses = recount::first_uses(connection, part)?;
            uses.retain(|first| days.contains(&Day::of_us(first.time.as_micros())));
            Ok(uses)
        };
        self.count(scope, first_uses).await
    }

    /// What policies determined in whole days.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn policy_uses(
        &self,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<PolicyUse>>, ReadError> {
        self.count(scope, move |connection, part| recount::policy_uses(connection, part, &days)).await
    }

    /// When each agent last used each item.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last_uses(&self, scope: &AuditScope) -> Result<Counted<Vec<LastUse>>, ReadError> {
        self.count(scope, recount::last_uses).await
    }

    /// The records of a value's releases, newest first; at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn released(
        &self,
        digest: ValueDigest,
        scope: &AuditScope,
        limit: usize,
    ) -> Result<Counted<Vec<StoredRecord>>, ReadError> {
        self.count(scope, move |connection, part| recount::released(connection, part, digest, limit)).await
    }

    /// How far the index follows the log.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn index_progress(&self) -> Result<IndexProgress, ReadError> {
        self.run(|connection| {
            Ok(IndexProgress { indexed: RecordId(0), last: RecordId(last_record(connection)?) })
        })
        .await
    }

    /// Counts in one snapshot of the log.
    async fn count<T: Send + 'static>(
        &self,
        scope: &AuditScope,
        count: impl FnOnce(&Connection, &Part<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Counted<T>, ReadError> {
        let scope = scope.clone();
        let counted = move |connection: &mut Connection| {
            let snapshot = connection.transaction()?;
            let seen = last_record(&snapshot)?;
            let rows = count(&snapshot, &Part { seqs: (1, seen), scope: &scope })?;
            Ok(Counted { rows, seen: RecordId(seen) })
        };
        self.run(counted).await
    }

    /// Runs a query on a thread that may block, within a time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
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
            pool.run(query)
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| ReadError::Unavailable(error.into()))?
    }
}

impl Query {
    fn new(filter: &Filter, scope: &AuditScope) -> Self {
        Self { filter: filter.clone(), scope: scope.clone() }
    }
}

impl Pool {
    fn run<T>(&self, query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        let mut connection = match self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(connection) => connection,
            None => schema::open_reader(&self.path).map_err(|error| ReadError::Unavailable(error.into()))?,
        };
        let end = Instant::now() + self.time_max;
        let overdue = move || Instant::now() >= end;
        connection.progress_handler(CHECK_EVERY, Some(overdue)).map_err(ReadError::of)?;
        let result = query(&mut connection).map_err(ReadError::of);
        if let Ok(_) | Err(ReadError::TooLong) = result {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }
}

impl ReadError {
    fn of(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::TooLong,
            _ => Self::Unavailable(error.into()),
        }
    }
}

fn list(
    connection: &mut Connection,
    query: &Query,
    before: Option<RecordId>,
    limit: usize,
    scan_max: u64,
) -> rusqlite::Result<Page> {
    let snapshot = connection.transaction()?;
    let last = last_record(&snapshot)?;
    let top = before.map_or(last, |before| before.0.saturating_sub(1).min(last));
    let (top, bottom) = match only_record(&query.filter) {
        Some(seq) => (top.min(seq), seq),
        None => (top, top.saturating_sub(scan_max - 1).max(1)),
    };
    let records = select(&snapshot, query, (bottom, top), "DESC", limit)?;
    let seen = match records.last() {
        Some(record) if records.len() == limit => record.id.0,
        _ => bottom,
    };
    let more = seen > 1 && top >= bottom && only_record(&query.filter).is_none();
    Ok(Page { records, next: more.then_some(RecordId(seen)) })
}

fn tail(
    connection: &mut Connection,
    query: &Query,
    (after, until): (RecordId, RecordId),
    limit: usize,
    scan_max: u64,
) -> rusqlite::Result<Tail> {
    let snapshot = connection.transaction()?;
    let last = last_record(&snapshot)?;
    let bottom = after.0.saturating_add(1);
    let top = after.0.saturating_add(scan_max).min(last).min(until.0);
    if top < bottom {
        return Ok(Tail { records: Vec::new(), seen: after });
    }
    let records = select(&snapshot, query, (bottom, top), "ASC", limit)?;
    let seen = match records.last() {
        Some(record) if records.len() == limit => record.id,
        _ => RecordId(top),
    };
    Ok(Tail { records, seen })
}

fn select(
    connection: &Connection,
    query: &Query,
    (bottom, top): (u64, u64),
    order: &'static str,
    limit: usize,
) -> rusqlite::Result<Vec<StoredRecord>> {
    let Condition { sql, values } = Condition::of(&query.filter).and(Condition::within(&query.scope));
    let sql = format!("{SELECT} WHERE {sql} AND r.seq BETWEEN ? AND ? ORDER BY r.seq {order} LIMIT ?");
    let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let bounds = [number(bottom), number(top), number(limit as u64)];
    let mut statement = connection.prepare(&sql)?;
    let rows =
        statement.query_map(params_from_iter(values.into_iter().chain(bounds)), StoredRecord::from_row)?;
    rows.collect()
}

pub(crate) fn last_record(connection: &Connection) -> rusqlite::Result<u64> {
    let last =
        connection.query_row("SELECT max(seq) FROM records", [], |row| row.get::<_, Option<u64>>(0))?;
    Ok(last.unwrap_or(0))
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
/// Instructions of SQLite's machine between looks at the time.
const CHECK_EVERY: i32 = 10_000;

#[cfg(test)]
mod tests;
