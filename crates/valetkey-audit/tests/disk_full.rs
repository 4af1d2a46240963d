//! A disk that takes no more, for real: the kernel refuses to let the files grow.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where something is wrong")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use valetkey_audit::{AuditStore, Missing, StoreOptions};
use valetkey_core::testing::{FakeClock, request};
use valetkey_core::{AuditLog, AuditRecord, Clock, Reason, RecordKind};

#[test]
fn a_full_disk_refuses_and_the_log_returns_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    // The limit is the process's, so a child has it. The signal that comes with it would end the child;
    // to ignore it takes a shell, because Rust has no safe way.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_fills_its_disk", "--ignored", "--nocapture"])
        .env(DATABASE, &path)
        .status()
        .unwrap();
    assert!(status.success());

    let raw = Connection::open(&path).unwrap();
    let text = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(text("SELECT CAST(max(seq) = count(*) AND count(*) > 10 AS TEXT) FROM records"), "1");
}

#[tokio::test]
#[ignore = "the child of a_full_disk_refuses_and_the_log_returns_by_itself"]
async fn child_fills_its_disk() {
    let path = std::env::var_os(DATABASE).unwrap();
    let path = Path::new(&path);
    let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
    let store = AuditStore::open(path, options, Arc::new(FakeClock::default())).unwrap();
    let mut last = 0;
    for _ in 0..10 {
        last = append(&store).await.unwrap();
    }

    let log_bytes = fs::metadata(path.with_file_name("audit.db-wal")).unwrap().len();
    limit_files(Some(log_bytes + 50_000));
    while let Ok(seq) = append(&store).await {
        last = seq;
        assert!(last < 1000, "the limit has no effect");
    }
    assert!(!store.is_available());
    for _ in 0..20 {
        assert!(append(&store).await.is_err());
    }
    assert_eq!(*store.committed().borrow(), last, "what was refused was not counted");

    limit_files(None);
    let mut available = store.availability();
    tokio::time::timeout(Duration::from_secs(60), available.wait_for(|available| *available))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(append(&store).await, Ok(last + 1));
    store.close();
}

async fn append(store: &AuditStore) -> Result<u64, String> {
    let record =
        AuditRecord::refusal(FakeClock::default().now(), RecordKind::Acquire, Reason::PolicyNoPermit)
            .about(&request("op://Tutorial/Navan/username"))
            .with_detail(&"x".repeat(1000));
    store.record(vec![record]).await.map(|ids| ids[0].0).map_err(|error| error.to_string())
}

/// Lets no file grow beyond so many bytes, or lifts the limit.
fn limit_files(bytes: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

const DATABASE: &str = "VALETKEY_TEST_DATABASE";
