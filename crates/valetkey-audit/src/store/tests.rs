use super::*;
use std::fs;
use std::path::{Path, PathBuf};

use valetkey_core::OutcomeResult::{Interrupted, Issued, Released, Withheld};

use crate::testing::{Log, allowed, denied, fetch, illegal, result_of, settle, write};
use crate::{Fault, OpenError};

const LONG: Duration = Duration::from_secs(60);

async fn returns(store: &AuditStore) {
    let mut available = store.availability();
    tokio::time::timeout(LONG, available.wait_for(|available| *available)).await.unwrap().unwrap();
}

#[tokio::test]
async fn records_are_numbered_from_1_and_stay() {
    let log = Log::new();
    let store = log.open();
    assert_eq!(*store.committed().borrow(), 0);
    assert_eq!(store.record(vec![]).await.unwrap(), []);
    assert_eq!(store.record(vec![denied("a"), denied("b")]).await.unwrap(), [RecordId(1), RecordId(2)]);
    assert_eq!(write(&store, denied("c")).await.unwrap(), RecordId(3));
    assert_eq!(*store.committed().borrow(), 3);
    drop(store);
    log.check();

    let store = log.open();
    assert_eq!(*store.committed().borrow(), 3);
    assert_eq!(write(&store, denied("d")).await.unwrap(), RecordId(4));
    let agents = store
        .reader()
        .list(&crate::Filter::default(), &valetkey_core::AuditScope::Whole, None, 10)
        .await
        .unwrap()
        .records;
    let agents: Vec<_> = agents.into_iter().filter_map(|record| record.agent).collect();
    assert_eq!(agents, ["d", "c", "b", "a"]);
    log.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_each_commit() {
    let log = Log::new();
    let store = Arc::new(log.open());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..128 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            for _ in 0..20 {
                write(&store, denied("a")).await.unwrap();
            }
        });
    }
    callers.join_all().await;
    let records = *store.committed().borrow();
    assert_eq!(records, 128 * 20);
    assert!(store.commits() < records / 8, "{} commits for {records} records", store.commits());
    log.check();
}

#[tokio::test]
async fn outcomes_follow_their_records() {
    let log = Log::new();
    let store = log.open();
    let (first, second) =
        (write(&store, allowed("a")).await.unwrap(), write(&store, allowed("a")).await.unwrap());
    settle(&store, first, Issued);
    // Travels with the next record.
    write(&store, denied("a")).await.unwrap();
    assert_eq!((result_of(&store, first).await, result_of(&store, second).await), (Some(Issued), None));
    // Or with the close.
    settle(&store, second, Released);
    drop(store);
    log.check();
    let settled: u64 = log.raw().query_row("SELECT seq FROM settled", [], |row| row.get(0)).unwrap();
    assert_eq!(settled, 3);
    assert_eq!(result_of(&log.open(), second).await, Some(Released));
}

#[tokio::test]
async fn an_idle_log_writes_outcomes_by_itself() {
    let log = Log::new();
    let store = log.open();
    let record = write(&store, allowed("a")).await.unwrap();
    let before = store.commits();
    settle(&store, record, Issued);
    let wait = async {
        while store.commits() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap();
    assert_eq!(result_of(&store, record).await, Some(Issued));
}

#[tokio::test]
async fn what_the_last_run_left_open_is_interrupted() {
    let log = Log::new();
    let store = log.open();
    for record in [allowed("a"), denied("a"), allowed("b"), allowed("c")] {
        write(&store, record).await.unwrap();
    }
    settle(&store, RecordId(3), Issued);
    drop(store);
    // At the stop, so that the last checkpoint covers them.
    let signed: u64 = log.raw().query_row("SELECT max(size) FROM checkpoints", [], |row| row.get(0)).unwrap();
    assert_eq!(signed, 4);
    let store = log.open();
    let mut results = Vec::new();
    for record in 1..=4 {
        results.push(result_of(&store, RecordId(record)).await);
    }
    assert_eq!(results, [Some(Interrupted), None, Some(Issued), Some(Interrupted)]);
    drop(store);
    log.check();
}

#[tokio::test]
async fn only_what_is_not_settled_is_looked_through() {
    let log = Log::new();
    let store = log.open();
    write(&store, allowed("a")).await.unwrap();
    // As after a crash: nothing is closed.
    store.inject(Fault::Panic);
    assert!(write(&store, denied("a")).await.is_err());
    drop(store);
    log.raw().execute("UPDATE settled SET seq = 1", []).unwrap();
    assert_eq!(result_of(&log.open(), RecordId(1)).await, None);
}

#[tokio::test]
async fn an_outcome_that_does_not_come_is_interrupted_and_a_late_one_is_dropped() {
    let log = Log::new();
    let store = log.open();
    let record = write(&store, allowed("a")).await.unwrap();
    log.clock.advance(Duration::from_secs(119));
    write(&store, denied("a")).await.unwrap();
    assert_eq!(result_of(&store, record).await, None);
    log.clock.advance(Duration::from_secs(1));
    write(&store, denied("a")).await.unwrap();
    assert_eq!(result_of(&store, record).await, Some(Interrupted));
    settle(&store, record, Released);
    write(&store, denied("a")).await.unwrap();
    assert_eq!(result_of(&store, record).await, Some(Interrupted));
    drop(store);
    log.check();
}

#[tokio::test]
async fn an_outcome_of_nothing_is_dropped() {
    let log = Log::new();
    let store = log.open();
    let record = write(&store, denied("a")).await.unwrap();
    settle(&store, record, Released);
    settle(&store, RecordId(99), Released);
    write(&store, denied("a")).await.unwrap();
    assert_eq!(result_of(&store, record).await, None);
    assert!(store.is_available());
}

#[tokio::test]
async fn one_broker_at_a_time() {
    let log = Log::new();
    let first = log.open();
    assert!(matches!(log.try_open(), Err(OpenError::Locked(_))));
    // Nor by another name of the same file.
    let other = log.path().with_file_name("link.db");
    std::os::unix::fs::symlink(log.path(), &other).unwrap();
    let again = AuditStore::open(&other, log.options.clone(), Arc::new(log.clock.clone()));
    assert!(matches!(again, Err(OpenError::Locked(_))));
    write(&first, denied("a")).await.unwrap();
    first.close();
    assert!(matches!(log.try_open(), Err(OpenError::Locked(_))), "closed, but still held");
    drop(first);
    log.open();
}

#[test]
fn a_missing_database_is_not_made_by_accident() {
    let mut log = Log::new();
    log.options.missing = Missing::Refuse;
    assert!(matches!(log.try_open(), Err(OpenError::Absent(_))));
    assert_eq!(fs::read_dir(log.path().parent().unwrap()).unwrap().count(), 0);
    log.options.missing = Missing::Create;
    log.open();
    log.options.missing = Missing::Refuse;
    log.open();
}

#[tokio::test]
async fn a_log_that_cannot_be_written_refuses_and_returns_by_itself() {
    let log = Log::new();
    let store = log.open();
    let record = write(&store, allowed("a")).await.unwrap();
    store.inject(Fault::ReadOnly);
    settle(&store, record, Issued);
    let error = write(&store, denied("lost")).await.unwrap_err().to_string();
    assert!(!error.contains("readonly"), "the cause is the operator's: {error}");
    assert!(!store.is_available());
    assert!(store.record(vec![denied("lost"), denied("lost")]).await.is_err());
    log.check();

    store.heal();
    returns(&store).await;
    assert_eq!(write(&store, denied("b")).await.unwrap(), RecordId(2));
    assert_eq!(result_of(&store, record).await, Some(Issued), "the outcome was kept");
    assert_eq!(*store.committed().borrow(), 2);
    log.check();
}

#[tokio::test]
async fn a_full_disk_refuses_and_what_fits_again_is_written_without_gap() {
    let log = Log::new();
    let store = log.open();
    store.inject(Fault::DiskFull);
    let mut written = 0;
    let big = || denied("a").with_detail(&"x".repeat(1000));
    while written < 1000 && write(&store, big()).await.is_ok() {
        written += 1;
    }
    assert!(written < 1000 && !store.is_available());
    assert_eq!(*store.committed().borrow(), written);
    log.check();
    store.heal();
    assert_eq!(write(&store, big()).await.unwrap(), RecordId(written + 1));
    assert!(store.is_available());
    log.check();
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_not_waited_for() {
    let mut log = Log::new();
    log.options.wait_max = Duration::from_millis(50);
    log.options.queue_max = 3;
    let store = log.open();
    store.inject(Fault::Stall);
    let answer = tokio::time::timeout(Duration::from_secs(10), write(&store, allowed("a"))).await.unwrap();
    assert!(answer.unwrap_err().to_string().contains("in time"));
    assert!(!store.is_available());
    // What waits is bounded.
    for _ in 0..2 {
        assert!(write(&store, denied("a")).await.is_err());
    }
    let error = store.record(vec![denied("a"), denied("a")]).await.unwrap_err().to_string();
    assert!(error.contains("full"), "{error}");
    store.heal();
    returns(&store).await;
    // Written late, although their callers had been refused: their grants were never given.
    let mut committed = store.committed();
    tokio::time::timeout(LONG, committed.wait_for(|last| *last == 3)).await.unwrap().unwrap();
    log.clock.advance(log.options.outcome_deadline);
    // A slow machine may need more than one try.
    while write(&store, denied("b")).await.is_err() {}
    assert_eq!(result_of(&store, RecordId(1)).await, Some(Withheld));
    log.check();
}

#[tokio::test]
async fn hanging_up_does_not_keep_a_record_out_of_the_log() {
    let log = Log::new();
    let store = log.open();
    store.inject(Fault::Stall);
    let impatient = tokio::time::timeout(Duration::from_millis(20), write(&store, denied("gone"))).await;
    assert!(impatient.is_err());
    store.heal();
    assert_eq!(write(&store, denied("a")).await.unwrap(), RecordId(2));
    assert_eq!(fetch(&store, RecordId(1)).await.agent.as_deref(), Some("gone"));
}

#[tokio::test]
async fn one_illegal_record_does_not_keep_others_out() {
    let log = Log::new();
    let store = log.open();
    store.inject(Fault::Stall);
    // The first is taken by the stalled writer; the others wait together.
    let first = write(&store, denied("first"));
    let batch = async {
        let calls = tokio::join!(
            write(&store, denied("one")),
            store.record(vec![denied("two"), illegal("fresh")]),
            write(&store, denied("three")),
            async {
                tokio::task::yield_now().await;
                store.heal();
            },
        );
        (calls.0, calls.1, calls.2)
    };
    let (first, (one, two, three)) = tokio::join!(first, batch);
    assert!(first.is_ok());
    assert_eq!((one.unwrap(), three.unwrap()), (RecordId(2), RecordId(3)));
    assert!(two.is_err(), "all or none");
    assert!(store.is_available(), "the disk is not at fault");
    // The text of the refused record was rolled back with it, and is interned again.
    let fresh = write(&store, denied("fresh")).await.unwrap();
    assert_eq!(fetch(&store, fresh).await.agent.as_deref(), Some("fresh"));
    log.check();
}

#[tokio::test]
async fn a_panic_of_the_writer_fails_closed() {
    let log = Log::new();
    let store = log.open();
    let record = write(&store, allowed("a")).await.unwrap();
    store.inject(Fault::Panic);
    assert!(write(&store, denied("b")).await.is_err());
    assert!(write(&store, denied("c")).await.unwrap_err().to_string().contains("closed"), "and at once");
    settle(&store, record, Issued);
    store.close();
    assert!(!store.is_available());
    drop(store);
    log.check();
    let store = log.open();
    assert_eq!(write(&store, denied("d")).await.unwrap(), RecordId(2));
    assert_eq!(result_of(&store, record).await, Some(Interrupted));
}

#[tokio::test]
async fn a_file_that_is_gone_is_noticed() {
    let log = Log::new();
    let store = log.open();
    write(&store, denied("a")).await.unwrap();
    let away = log.path().with_file_name("away.db");
    fs::rename(log.path(), &away).unwrap();
    assert!(write(&store, denied("b")).await.is_err(), "a log that nobody finds again is no log");
    fs::copy(&away, log.path()).unwrap();
    assert!(write(&store, denied("b")).await.is_err(), "nor is a copy");
    fs::rename(&away, log.path()).unwrap();
    assert_eq!(write(&store, denied("b")).await.unwrap(), RecordId(2));
    log.check();
}

#[tokio::test]
async fn a_write_ahead_log_that_is_taken_away_takes_no_record_with_it() {
    let log = Log::new();
    let store = log.open();
    write(&store, denied("a")).await.unwrap();
    write(&store, allowed("b")).await.unwrap();
    fs::remove_file(log.path().with_file_name("audit.db-wal")).unwrap();
    let _ = fs::remove_file(log.path().with_file_name("audit.db-shm"));
    assert!(write(&store, denied("c")).await.is_err(), "what it held would be lost with the process");
    assert!(!store.is_available());
    assert_eq!(log.last_in_file_alone(), 2, "everything acknowledged is in the database file");
}

#[tokio::test]
async fn a_foreign_record_stops_the_log() {
    let log = Log::new();
    let store = log.open();
    write(&store, denied("a")).await.unwrap();
    log.forge();
    assert!(write(&store, denied("b")).await.is_err());
    assert!(!store.is_available());
    assert!(write(&store, denied("c")).await.is_err(), "until somebody has looked");
}

#[tokio::test]
async fn a_caller_that_is_gone_leaves_nothing_open() {
    let log = Log::new();
    let store = log.open();
    store.inject(Fault::Stall);
    let impatient = tokio::time::timeout(Duration::from_millis(20), write(&store, allowed("gone"))).await;
    assert!(impatient.is_err());
    store.heal();
    let next = write(&store, denied("a")).await.unwrap();
    assert_eq!(next, RecordId(2));
    // Its outcome travels with the records after it.
    write(&store, denied("a")).await.unwrap();
    assert_eq!(result_of(&store, RecordId(1)).await, Some(Withheld));
    log.check();
}

#[tokio::test]
async fn grants_that_wait_for_outcomes_are_bounded() {
    let mut log = Log::new();
    log.options.open_max = 2;
    let store = log.open();
    store.record(vec![allowed("a"), allowed("a")]).await.unwrap();
    assert!(write(&store, denied("a")).await.is_err());
    settle(&store, RecordId(1), Issued);
    // Refused once more, and the outcome is written meanwhile.
    while write(&store, denied("a")).await.is_err() {}
    assert_eq!(result_of(&store, RecordId(1)).await, Some(Issued));
    log.check();
}

#[tokio::test]
async fn a_closed_log_takes_nothing_and_has_written_all() {
    let log = Log::new();
    let store = log.open();
    let queued = write(&store, denied("a"));
    let mut queued = Box::pin(queued);
    assert!(futures_poll_once(&mut queued).await.is_none());
    store.close();
    assert_eq!(queued.await.unwrap(), RecordId(1));
    assert!(write(&store, denied("b")).await.unwrap_err().to_string().contains("closed"));
    store.close();
    let wal = log.path().with_file_name("audit.db-wal");
    assert_eq!(fs::metadata(wal).map_or(0, |wal| wal.len()), 0, "all is in the database file");
}

/// Polls a future once.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn nothing_is_acknowledged_that_a_trigger_swallowed() {
    let swallow =
        |table: &str| format!("CREATE TRIGGER evil BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END");
    for table in ["records", "strings", "outcomes"] {
        let log = Log::new();
        let store = log.open();
        let record = write(&store, allowed("a")).await.unwrap();
        log.raw().execute_batch(&swallow(table)).unwrap();
        settle(&store, record, Issued);
        assert!(write(&store, denied("somebody")).await.is_err(), "{table}");
        assert!(!store.is_available(), "{table}");
        log.raw().execute_batch("DROP TRIGGER evil").unwrap();
        assert!(write(&store, denied("b")).await.is_err(), "{table}: not before a person has looked");
    }
}

#[tokio::test]
async fn what_a_crash_left_unsigned_is_signed_at_the_start() {
    let log = Log::new();
    let store = log.open();
    write(&store, denied("a")).await.unwrap();
    store.inject(Fault::Panic);
    assert!(write(&store, denied("lost")).await.is_err());
    drop(store);
    let signed = || -> Option<u64> {
        log.raw().query_row("SELECT max(size) FROM checkpoints", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(signed(), None);
    let _store = log.open();
    assert_eq!(signed(), Some(1), "while it runs");
}

#[test]
fn a_checkpoint_file_that_is_none_does_not_hold_up_the_start() {
    let mut log = Log::new();
    let pipe = log.path().with_file_name("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    log.options.signing.checkpoint_file = Some(pipe.clone());
    assert!(matches!(log.try_open().map(drop), Err(OpenError::CheckpointFile { path, .. }) if path == pipe));
    log.options.signing.checkpoint_file = None;
    drop(log.open());
    let key = fs::read_to_string(log.path().with_file_name("audit.db-key.pub")).unwrap();
    let key = VerifierKey::parse(&key).unwrap();
    let verify = |path: &Path, checkpoints: Option<PathBuf>| {
        crate::verify(
            crate::LogFile::Database(path),
            &crate::Against { key: key.clone(), checkpoints },
            &mut |_, _| {},
        )
    };
    assert!(verify(&log.path(), Some(pipe.clone())).is_err());
    assert!(verify(&pipe, None).is_err());
}
