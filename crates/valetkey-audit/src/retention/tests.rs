use super::*;

use valetkey_core::{AuditLog, AuditScope, Clock, RecordId};

use crate::testing::{Log, allowed, denied};
use crate::verify::{Against, FindingKind, LogFile, Verdict, verify};
use crate::{AuditStore, Filter, VerifierKey};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn append(log: &Log, store: &AuditStore, records: usize) {
    let time = log.clock.now();
    let mut left = records;
    while left > 0 {
        let some = left.min(1000);
        let records = (0..some).map(|n| {
            AuditRecord { time, ..denied("bot") }.with_detail(&format!("{n} of {left} {}", "x".repeat(200)))
        });
        store.record(records.collect()).await.unwrap();
        left -= some;
    }
}

fn first(log: &Log) -> u64 {
    log.raw().query_row("SELECT min(seq) FROM records", [], |row| row.get(0)).unwrap()
}

/// Waits until the log has retired all that is to go, while the clock goes on.
async fn until_first_is(log: &Log, expected: u64) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while first(log) != expected {
        assert!(std::time::Instant::now() < end, "{} instead of {expected}", first(log));
        log.clock.advance(Duration::from_secs(61));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn verdict(log: &Log) -> Verdict {
    let key = std::fs::read_to_string(log.path().with_file_name("audit.db-key.pub")).unwrap();
    let against = Against { key: VerifierKey::parse(&key).unwrap(), checkpoints: None };
    verify(LogFile::Database(&log.path()), &against, &mut |_, _| {}).unwrap()
}

#[tokio::test]
async fn old_records_go_in_whole_blocks_and_the_rest_is_verified() {
    let mut log = Log::new();
    log.options.retention.keep_for = Some(2 * DAY);
    let store = log.open();
    append(&log, &store, 700).await;
    log.clock.advance(DAY);
    append(&log, &store, 400).await;
    // Nothing is old enough.
    append(&log, &store, 1).await;
    assert_eq!(first(&log), 1);
    log.clock.advance(DAY);
    until_first_is(&log, 513).await;
    append(&log, &store, 10).await;
    let found = verdict(&log);
    assert!(found.is_whole(), "{:?}", found.findings);
    assert_eq!(found.first, 513);

    // The rest is read as before, and proven.
    let page =
        store.reader().list(&Filter::default(), &AuditScope::Whole, Some(RecordId(515)), 10).await.unwrap();
    assert_eq!((page.records.len(), page.next), (2, None));
    assert_eq!(store.reader().fetch(&AuditScope::Whole, RecordId(5)).await.unwrap(), None);
    let retired = store
        .reader()
        .list(&Filter::parse("kind:retire").unwrap(), &AuditScope::Whole, None, 10)
        .await
        .unwrap();
    let details: Vec<_> = retired.records.into_iter().filter_map(|record| record.detail).collect();
    assert_eq!(details.len(), 1);
    assert!(details[0].starts_with("records 1 to 512, from "), "{details:?}");
    let proof = store.reader().prove(&AuditScope::Whole, RecordId(600)).await.unwrap();
    assert!(matches!(proof, crate::Proof::Text(_)), "{proof:?}");
    drop(store);
    log.open();
    let found = verdict(&log);
    assert!(found.is_whole() && found.unsigned() == 0, "{:?}", found.findings);
}

#[tokio::test]
async fn the_oldest_go_when_there_is_too_much_but_never_the_last_day() {
    let mut log = Log::new();
    log.options.retention.keep_bytes = Some(1 << 20);
    let store = log.open();
    append(&log, &store, 6000).await;
    log.clock.advance(Duration::from_secs(120));
    append(&log, &store, 1).await;
    assert_eq!(first(&log), 1, "too much, and too young");
    log.clock.advance(DAY);
    until_first_is(&log, 5889).await;
    let retirements: u64 =
        log.raw().query_row("SELECT count(*) FROM retirements", [], |row| row.get(0)).unwrap();
    assert_eq!(retirements, 1);
    drop(store);
    assert!(verdict(&log).is_whole());
}

#[tokio::test]
async fn nothing_goes_unasked() {
    let log = Log::new();
    let store = log.open();
    append(&log, &store, 1000).await;
    log.clock.advance(1000 * DAY);
    append(&log, &store, 1).await;
    log.clock.advance(DAY);
    append(&log, &store, 1).await;
    assert_eq!(first(&log), 1);
}

#[tokio::test]
async fn a_start_goes_on_where_it_was() {
    let mut log = Log::new();
    log.options.retention.keep_for = Some(DAY);
    let store = log.open();
    append(&log, &store, 700).await;
    store.record(vec![allowed("bot")]).await.unwrap();
    log.clock.advance(2 * DAY);
    until_first_is(&log, 513).await;
    drop(store);
    // As if it had stopped between the row and the second block.
    let raw = log.raw();
    let columns = "time_us, kind, ruling, reason";
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'records_without_gap'";
    let trigger: String = raw.query_row(trigger, [], |row| row.get(0)).unwrap();
    raw.execute_batch(&format!(
        "DROP TRIGGER records_without_gap; PRAGMA ignore_check_constraints = 1;
         INSERT INTO records (seq, {columns}) SELECT seq - 256, {columns} FROM records WHERE seq BETWEEN 513 AND 700 AND seq < 769;
         {trigger}"
    ))
    .unwrap();
    drop(raw);
    let store = log.open();
    until_first_is(&log, 513).await;
    drop(store);
}

#[tokio::test]
async fn records_do_not_go_without_a_signed_reason() {
    let log = Log::new();
    let store = log.open();
    append(&log, &store, 700).await;
    drop(store);
    log.raw()
        .execute_batch(
            "INSERT INTO retirements VALUES (512, 0, 0, 0); DELETE FROM records WHERE seq <= 512;
         DELETE FROM tree_leaves WHERE block < 2",
        )
        .unwrap();
    let kinds: Vec<_> = verdict(&log).findings.into_iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::Retired]);
    let refused = log.raw().execute_batch("DELETE FROM records WHERE seq = 513");
    assert!(refused.unwrap_err().to_string().contains("insert-only"));
}
