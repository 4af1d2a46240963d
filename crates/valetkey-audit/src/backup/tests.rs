use super::*;
use std::fs;
use std::path::PathBuf;

use valetkey_core::AuditLog;

use crate::testing::{Log, allowed, denied, write};
use crate::{AuditReader, AuditStore, Export, ExportFormat, Filter};

fn target(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("copy.db");
    File::create_new(&path).unwrap();
    path
}

fn on(_: Copied) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

async fn fill(store: &AuditStore, count: usize) {
    let long = denied("a").with_detail(&"y".repeat(1024));
    for _ in 0..count.div_ceil(500) {
        store.record(vec![long.clone(); count.min(500)]).await.unwrap();
    }
}

/// The broker writes between all steps: the copy is the log as it was when it began, and nothing was held up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_of_one_moment() {
    let (log, folder) = (Log::new(), tempfile::tempdir().unwrap());
    let store = std::sync::Arc::new(log.open());
    fill(&store, 2000).await;
    let open = write(&store, allowed("under-way")).await.unwrap();
    let (from, to, writer) = (log.path(), target(&folder), std::sync::Arc::clone(&store));
    let runtime = tokio::runtime::Handle::current();
    let there = to.clone();
    let (contents, steps) = tokio::task::spawn_blocking(move || {
        let mut steps = 0;
        let contents = copy(&from, &there, 16, |copied| {
            assert!(copied.pages <= copied.of);
            runtime.block_on(write(&writer, denied("meanwhile"))).unwrap();
            steps += 1;
            ControlFlow::Continue(())
        });
        (contents.unwrap(), steps)
    })
    .await
    .unwrap();
    assert!(steps > 10, "{steps}");
    assert_eq!(contents.last.map(|(last, _)| last), Some(open));
    assert_eq!(*store.committed().borrow(), open.0 + steps);
    check(&to, &contents).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a copy is one file");

    // What it holds is read like any log.
    let reader = AuditReader::open(&to).unwrap();
    assert_eq!(reader.settled().await.unwrap(), RecordId(open.0 - 1));
    let mut export = Export::begin(reader, Filter::default(), ExportFormat::Jsonl, None, None).await.unwrap();
    let mut lines = 0;
    while let Some(part) = export.part(&valetkey_core::AuditScope::Whole, RecordId(u64::MAX)).await.unwrap() {
        lines += part.lines.lines().count();
    }
    assert_eq!(lines as u64, open.0 - 1);
    log.check();
}

/// A broker on the copy closes what was under way, and counts on from there.
#[tokio::test]
async fn a_restored_log_goes_on() {
    let (log, folder) = (Log::new(), tempfile::tempdir().unwrap());
    let store = log.open();
    fill(&store, 10).await;
    let open = write(&store, allowed("under-way")).await.unwrap();
    let to = target(&folder);
    let contents = backup(&log.path(), &to, on).unwrap();
    assert_eq!(contents.last.map(|(last, _)| last), Some(open));
    drop(store);
    fs::copy(&to, log.path()).unwrap();
    let store = log.open();
    assert_eq!(write(&store, denied("after")).await.unwrap(), RecordId(open.0 + 1));
    assert_eq!(
        crate::testing::result_of(&store, open).await,
        Some(valetkey_core::OutcomeResult::Interrupted)
    );
    drop(store);
    log.check();
}

#[tokio::test]
async fn a_copy_that_was_tampered_with_is_noticed() {
    let (log, folder) = (Log::new(), tempfile::tempdir().unwrap());
    let store = log.open();
    fill(&store, 600).await;
    let to = target(&folder);
    let contents = backup(&log.path(), &to, on).unwrap();
    let more = Contents { tokens: 1, ..contents.clone() };
    assert!(matches!(check(&to, &more), Err(BackupError::Differs)));

    let whole = fs::read(&to).unwrap();
    fs::write(&to, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(check(&to, &contents), Err(BackupError::Damaged(_) | BackupError::Open(_))));
    let mut zeros = whole.clone();
    zeros[whole.len() / 2..whole.len() / 2 + 8192].fill(0);
    fs::write(&to, &zeros).unwrap();
    assert!(matches!(check(&to, &contents), Err(BackupError::Damaged(_) | BackupError::Open(_))));
    fs::write(&to, "").unwrap();
    assert!(check(&to, &contents).is_err());
}

#[tokio::test]
async fn a_copy_can_be_stopped() {
    let (log, folder) = (Log::new(), tempfile::tempdir().unwrap());
    let store = log.open();
    fill(&store, 1000).await;
    let stopped = copy(&log.path(), &target(&folder), 16, |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(BackupError::Stopped)));
    write(&store, denied("after")).await.unwrap();
}

#[test]
fn what_is_no_log_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (to, other) = (target(&folder), folder.path().join("other.db"));
    assert!(matches!(backup(&other, &to, on), Err(BackupError::Open(OpenError::Absent(_)))));
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(backup(&other, &to, on), Err(BackupError::Open(OpenError::Foreign(_)))));
}
