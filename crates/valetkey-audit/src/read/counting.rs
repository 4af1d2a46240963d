//! What reports ask of the log.

use valetkey_core::{AuditScope, RecordId, ValueDigest};

use super::{AuditReader, LIMIT_MAX, Query, ReadError, SCAN_MAX, Snapshot, pages};
use crate::filter::Filter;
use crate::index;
use crate::stored::StoredRecord;
use crate::usage::{Counted, Days, FirstUse, IndexProgress, LastUse, PolicyUse, Refusals, Subject, Usage};

impl AuditReader {
    /// Who used what, in whole days; the last used at the end.
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
        self.count(scope, move |snapshot, scope| index::usage(snapshot, scope, &days, &subject)).await
    }

    /// What was refused in whole days, of an agent or of everybody; the last refused at the end.
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
        let count = move |snapshot: &Snapshot<'_>, scope: &AuditScope| {
            index::refusals(snapshot, scope, &days, agent.as_deref())
        };
        self.count(scope, count).await
    }

    /// First uses that fall into these days, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn first_uses(
        &self,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<FirstUse>>, ReadError> {
        self.count(scope, move |snapshot, scope| index::first_uses(snapshot, scope, &days)).await
    }

    /// What policies determined in whole days, in the order of their ids.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn policy_uses(
        &self,
        scope: &AuditScope,
        days: Days,
    ) -> Result<Counted<Vec<PolicyUse>>, ReadError> {
        self.count(scope, move |snapshot, scope| index::policy_uses(snapshot, scope, &days)).await
    }

    /// When each agent last used each item, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last_uses(&self, scope: &AuditScope) -> Result<Counted<Vec<LastUse>>, ReadError> {
        self.count(scope, index::last_uses).await
    }

    /// The records of a value's releases, newest first; at most `limit`, which is held within 1 and 1,000.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::TooLong`] where the log is long and without an index.
    pub async fn released(
        &self,
        digest: ValueDigest,
        scope: &AuditScope,
        limit: usize,
    ) -> Result<Counted<Vec<StoredRecord>>, ReadError> {
        // One more than a page, so that whoever asks sees that there are more.
        let limit = limit.clamp(1, LIMIT_MAX + 1);
        let find = move |snapshot: &Snapshot<'_>, scope: &AuditScope| {
            let query = Query::new(&Filter::of_value(digest), scope);
            let mut records = Vec::new();
            let mut before = None;
            loop {
                let page = pages::list(snapshot, &query, before, limit - records.len(), SCAN_MAX)?;
                records.extend(page.records);
                before = page.next;
                if records.len() >= limit || before.is_none() {
                    return Ok(records);
                }
                snapshot.check_time()?;
            }
        };
        self.count(scope, find).await
    }

    /// How far the index follows the log.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn index_progress(&self) -> Result<IndexProgress, ReadError> {
        let progress = |snapshot: &Snapshot<'_>| {
            let (indexed, last) = (RecordId(snapshot.covered()), RecordId(snapshot.last()));
            Ok(IndexProgress { indexed, last })
        };
        self.run(progress).await
    }

    /// Counts in one snapshot of the log.
    async fn count<T: Send + 'static>(
        &self,
        scope: &AuditScope,
        count: impl Fn(&Snapshot<'_>, &AuditScope) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<Counted<T>, ReadError> {
        let scope = scope.clone();
        let counted = move |snapshot: &Snapshot<'_>| {
            Ok(Counted { rows: count(snapshot, &scope)?, seen: RecordId(snapshot.last()) })
        };
        self.run(counted).await
    }
}
