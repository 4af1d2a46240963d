//! kill -9 while records are being appended: what was acknowledged is there, and nothing is half there.
//!
//! What this cannot show is power loss: the page cache outlives a process. That rests on
//! `synchronous = FULL`, which a unit test reads back.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where something is wrong")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rusqlite::Connection;
use valetkey_audit::{AuditStore, Missing, StoreOptions};
use valetkey_core::testing::{FakeClock, request};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, Clock, Grant, OutcomeResult, PolicyId, Reason, RecordId, RecordKind,
    Revision, Ruling,
};

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let mut acknowledged = BTreeSet::new();
    // Killed before it is up, while it begins, and in full flight.
    for acknowledgements in [0, 1, 40, 400, 1500] {
        acknowledged.extend(append_and_kill(&path, acknowledgements));
        drop(open(&path));
        check(&path, &acknowledged);
    }
    assert!(acknowledged.len() >= 1941);
}

/// Runs a child that appends, kills it after so many acknowledgements, and returns all that it gave.
fn append_and_kill(path: &Path, acknowledgements: usize) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_appends_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("ack ")?.parse().ok();
    let mut seqs: Vec<u64> = lines.by_ref().filter_map(number).take(acknowledgements).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died counts too.
    seqs.extend(lines.filter_map(number));
    seqs
}

fn check(path: &Path, acknowledged: &BTreeSet<u64>) {
    let raw = Connection::open(path).unwrap();
    let number = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap();
    let sound: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let count = number("SELECT count(*) FROM records");
    assert_eq!(count, number("SELECT coalesce(max(seq), 0) FROM records"), "no gaps");
    let last = acknowledged.last().copied().unwrap_or(0);
    assert!(last <= count, "{last} was acknowledged, and the log has {count}");
    assert_eq!(
        number("SELECT count(*) FROM records WHERE ruling = 1"),
        number("SELECT count(*) FROM outcomes"),
        "what was open is closed"
    );
    if count > 100 {
        assert!(number("SELECT count(*) FROM outcomes WHERE result = 5") > 0, "some were interrupted");
        assert!(number("SELECT count(*) FROM outcomes WHERE result = 1") > 0, "and some were not");
    }
}

#[test]
#[ignore = "the child of what_was_acknowledged_survives_kill_9"]
fn child_appends_until_it_is_killed() {
    let path = std::env::var_os(DATABASE).unwrap();
    let store = Arc::new(open(Path::new(&path)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let callers: Vec<_> = (0..8).map(|_| tokio::spawn(append_for_ever(Arc::clone(&store)))).collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
}

async fn append_for_ever(store: Arc<AuditStore>) {
    loop {
        let ids = store.record(vec![allowed(), denied(), allowed()]).await.unwrap();
        let lines: Vec<String> = ids.iter().map(|id| format!("ack {id}\n")).collect();
        // One write for each line or more, before the next record: what is printed was acknowledged.
        use std::io::Write;
        std::io::stdout().lock().write_all(lines.concat().as_bytes()).unwrap();
        settle(&store, ids[0]);
    }
}

fn settle(store: &AuditStore, record: RecordId) {
    let grant = Grant::for_test(request("op://Tutorial/Navan/username"), record);
    let outcome = AuditOutcome::new(FakeClock::default().now(), OutcomeResult::Issued);
    store.record_outcome(grant, outcome);
}

fn open(path: &Path) -> AuditStore {
    let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
    AuditStore::open(path, options, Arc::new(FakeClock::default())).unwrap()
}

fn allowed() -> AuditRecord {
    AuditRecord {
        ruling: Ruling::Allow,
        reason: Reason::PolicyPermit,
        policies: Some([PolicyId("permit-all".into())].into()),
        revision: Some(Revision { generation: 1, digest: [1; 8] }),
        ..denied()
    }
}

fn denied() -> AuditRecord {
    AuditRecord::refusal(FakeClock::default().now(), RecordKind::Acquire, Reason::PolicyNoPermit)
        .about(&request("op://Tutorial/Navan/username"))
}

/// Where the child finds its database.
const DATABASE: &str = "VALETKEY_TEST_DATABASE";
