//! The audit log as a test reads it: straight from the store, so that reading leaves no record.

use std::time::Duration;

use anyhow::{Context, Result};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use valetkey_audit::{Filter, StoredRecord};
use valetkey_core::{AuditScope, Reason, RecordId, RecordKind, Ruling};

use crate::TestBroker;

/// What a refusal must be, to the caller and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: &'static str,
    /// The record's kind.
    pub kind: RecordKind,
    /// The record's reason: the true one.
    pub why: Reason,
}

impl TestBroker {
    /// The last record, to read on from with [`TestBroker::since`].
    #[must_use]
    pub fn mark(&self) -> RecordId {
        RecordId(*self.store.committed().borrow())
    }

    /// The records after a mark, oldest first.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub async fn since(&self, mark: RecordId) -> Result<Vec<StoredRecord>> {
        let (mut records, mut seen) = (Vec::new(), mark);
        loop {
            let tail = self
                .store
                .reader()
                .after(&Filter::default(), &AuditScope::Whole, (seen, RecordId(u64::MAX)), 1000)
                .await?;
            if tail.seen == seen {
                return Ok(records);
            }
            records.extend(tail.records);
            seen = tail.seen;
        }
    }

    /// Waits until the records after a mark are such that `wanted` finds something in them.
    ///
    /// # Errors
    /// Where that takes more than ten seconds; the records are in the message.
    pub async fn await_records<T>(
        &self,
        mark: RecordId,
        wanted: impl Fn(&[StoredRecord]) -> Option<T>,
    ) -> Result<T> {
        let end = tokio::time::Instant::now() + WAIT_MAX;
        loop {
            let records = self.since(mark).await?;
            if let Some(found) = wanted(&records) {
                return Ok(found);
            }
            anyhow::ensure!(tokio::time::Instant::now() < end, "not in time; the log has {records:#?}");
            // Outcomes are written without waking anybody, so there is nothing to wait for but time.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the allowed records after a mark have their outcomes, and answers all records after it.
    ///
    /// # Errors
    /// As [`TestBroker::await_records`].
    pub async fn settled(&self, mark: RecordId) -> Result<Vec<StoredRecord>> {
        let open = |record: &StoredRecord| {
            record.ruling == Ruling::Allow && record.kind.has_outcome() && record.outcome.is_none()
        };
        self.await_records(mark, |records| (!records.iter().any(open)).then(|| records.to_vec())).await
    }

    /// Holds a refused call against what it must be: the status, its details, exactly one record of a
    /// refusal since `mark` that says why, no handle or lease more than `counts`, and nothing that was
    /// granted meanwhile, so nothing that the source was asked for.
    ///
    /// # Errors
    /// Where one of that is not so.
    pub async fn check_refused<T>(
        &self,
        what: &str,
        mark: RecordId,
        counts: (usize, usize),
        answer: Result<T, Status>,
        expected: Refused,
    ) -> Result<(Status, StoredRecord)> {
        let Refused { code, reason, kind, why } = expected;
        let status = answer.err().with_context(|| format!("{what}: was not refused"))?;
        let info = status.get_details_error_info().with_context(|| format!("{what}: {status:?}"))?;
        assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{what}: {status:?}");
        assert_eq!(info.domain, "valetkey", "{what}");

        let records = self.since(mark).await?;
        let released = records.iter().filter(|it| it.ruling == Ruling::Allow && it.kind.has_outcome());
        assert_eq!(released.count(), 0, "{what}: something was granted: {records:#?}");
        assert_eq!(self.broker.leases().counts(), counts, "{what}: leases or handles came or went");
        let refusals: Vec<_> = records.into_iter().filter(|it| it.ruling == Ruling::Deny).collect();
        let [record] = refusals.as_slice() else {
            anyhow::bail!("{what}: not one refusal in the log but {refusals:#?}");
        };
        assert_eq!((record.kind, record.reason), (kind, why), "{what}: {record:#?}");
        assert!(record.outcome.is_none(), "{what}: {record:#?}");
        assert!(record.request.is_some() && record.client.is_some(), "{what}: {record:#?}");
        // Whoever has no identity is told nothing, not even the number of a record.
        let told = info.metadata.get("record_id").cloned();
        let record_id = (code != Code::Unauthenticated).then(|| record.id.to_string());
        assert_eq!(told, record_id, "{what}: {status:?}");
        Ok((status, record.clone()))
    }
}

/// The status without what differs by nature: its record. Two refusals that must not be told apart are
/// equal in this.
#[must_use]
pub fn shape(status: &Status) -> (Code, String, String, Vec<(String, String)>) {
    let details = status.get_error_details();
    let mut facts: Vec<_> =
        details.error_info().map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default();
    facts.retain(|(key, _): &(String, String)| key != "record_id" && key != "reference");
    facts.sort();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let others = format!(
        "{reason} {:?} {:?} {:?} {:?} {:?}",
        details.bad_request(),
        details.retry_info(),
        details.quota_failure(),
        details.precondition_failure(),
        details.help(),
    );
    (status.code(), status.message().to_owned(), others, facts)
}

const WAIT_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
