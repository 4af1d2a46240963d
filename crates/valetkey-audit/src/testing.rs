//! What the tests of this crate share: a log on a temporary directory, and records to put into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use valetkey_core::testing::{FakeClock, agent, request};
use valetkey_core::{
    AuditError, AuditLog, AuditOutcome, AuditRecord, AuditScope, Clock, Grant, OutcomeResult, PolicyId,
    Reason, RecordId, RecordKind, Revision, Ruling, Timestamp,
};

use crate::{AuditStore, Missing, OpenError, StoreOptions, StoredRecord};

/// A log that a test opens, breaks, closes and opens again.
pub(crate) struct Log {
    directory: TempDir,
    pub(crate) clock: FakeClock,
    pub(crate) options: StoreOptions,
}

impl Log {
    pub(crate) fn new() -> Self {
        let options = StoreOptions {
            missing: Missing::Create,
            // Outcomes travel when the test wants them to: with the next record, or at the close.
            tick: Duration::from_millis(5),
            ..StoreOptions::default()
        };
        Self { directory: tempfile::tempdir().unwrap(), clock: FakeClock::default(), options }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("audit.db")
    }

    pub(crate) fn try_open(&self) -> Result<AuditStore, OpenError> {
        AuditStore::open(&self.path(), self.options.clone(), Arc::new(self.clock.clone()))
    }

    pub(crate) fn open(&self) -> AuditStore {
        self.try_open().unwrap()
    }

    /// Somebody with another program and the file.
    pub(crate) fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// The last record that the database file holds by itself, without its write-ahead log.
    pub(crate) fn last_in_file_alone(&self) -> i64 {
        let alone = self.directory.path().join("alone.db");
        std::fs::copy(self.path(), &alone).unwrap();
        let alone = Connection::open(alone).unwrap();
        alone.query_row("SELECT max(seq) FROM records", [], |row| row.get(0)).unwrap()
    }

    /// A record that somebody else writes.
    pub(crate) fn forge(&self) {
        let forged = "INSERT INTO records (seq, time_us, kind, ruling, reason)
            SELECT max(seq) + 1, 0, 4, 2, 2 FROM records";
        assert_eq!(self.raw().execute(forged, []).unwrap(), 1);
    }

    /// The invariants that hold after every step, whatever happened.
    pub(crate) fn check(&self) {
        let raw = self.raw();
        let number = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let sound: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        assert_eq!(
            number("SELECT count(*) FROM records"),
            number("SELECT coalesce(max(seq), 0) FROM records")
        );
        for column in ["agent", "tool", "caller", "client", "policies", "revision", "vault_id", "reference"] {
            let lost = format!(
                "SELECT count(*) FROM records WHERE {column} IS NOT NULL
                     AND {column} NOT IN (SELECT id FROM strings)"
            );
            assert_eq!(number(&lost), 0, "{column} points nowhere");
        }
        let open_but_settled = "SELECT count(*) FROM records r, settled s WHERE r.seq <= s.seq
             AND ruling = 1 AND kind <= 3 AND r.seq NOT IN (SELECT seq FROM outcomes)";
        assert_eq!(number(open_but_settled), 0, "settled is too far");
    }
}

/// A request that was allowed: it has an outcome to come.
pub(crate) fn allowed(agent_name: &str) -> AuditRecord {
    AuditRecord {
        ruling: Ruling::Allow,
        agent: Some(agent(agent_name)),
        policies: Some([PolicyId("permit-all".into())].into()),
        revision: Some(Revision { generation: 1, digest: [1; 8] }),
        uses: Some(1),
        ..AuditRecord::event(now(), RecordKind::Acquire, Reason::PolicyPermit)
            .about(&request("op://Tutorial/Navan/username"))
    }
}

/// A request that was refused.
pub(crate) fn denied(agent_name: &str) -> AuditRecord {
    AuditRecord {
        agent: Some(agent(agent_name)),
        ..AuditRecord::refusal(now(), RecordKind::Acquire, Reason::PolicyNoPermit)
            .about(&request("op://Tutorial/Card/number"))
    }
}

/// A record that the schema refuses: allowed, and by no policy.
pub(crate) fn illegal(agent_name: &str) -> AuditRecord {
    AuditRecord { policies: None, ..allowed(agent_name) }
}

pub(crate) fn now() -> Timestamp {
    FakeClock::default().now()
}

pub(crate) async fn write(store: &AuditStore, record: AuditRecord) -> Result<RecordId, AuditError> {
    store.record(vec![record]).await.map(|ids| ids[0])
}

/// The grant that the gate would have made.
pub(crate) fn grant(record: RecordId) -> Grant {
    Grant::for_test(request("op://Tutorial/Navan/username"), record)
}

pub(crate) fn settle(store: &AuditStore, record: RecordId, result: OutcomeResult) {
    store.record_outcome(grant(record), AuditOutcome::new(now(), result));
}

pub(crate) async fn fetch(store: &AuditStore, record: RecordId) -> StoredRecord {
    store.reader().fetch(&AuditScope::Whole, record).await.unwrap().unwrap()
}

pub(crate) async fn result_of(store: &AuditStore, record: RecordId) -> Option<OutcomeResult> {
    fetch(store, record).await.outcome.map(|outcome| outcome.result)
}
