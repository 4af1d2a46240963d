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

/// A log that retires in small steps of its index.
fn log_with(retention: Retention) -> Log {
    let mut log = Log::new();
    (log.options.retention, log.options.index_chunk) = (retention, 64);
    log
}

/// Waits until the index has taken in so many records.
async fn until_indexed(log: &Log, store: &AuditStore, records: u64) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while store.indexed().0 < records {
        assert!(std::time::Instant::now() < end, "{} of {records}", store.indexed());
        // The next checkpoint says that they are settled.
        log.clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
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
    let log = log_with(Retention { keep_for: Some(2 * DAY), keep_bytes: None });
    let store = log.open();
    append(&log, &store, 700).await;
    log.clock.advance(DAY);
    append(&log, &store, 400).await;
    until_indexed(&log, &store, 1088).await;
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
    let log = log_with(Retention { keep_for: None, keep_bytes: Some(1 << 20) });
    let store = log.open();
    append(&log, &store, 6000).await;
    until_indexed(&log, &store, 5952).await;
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
    let log = log_with(Retention { keep_for: Some(DAY), keep_bytes: None });
    let store = log.open();
    append(&log, &store, 700).await;
    store.record(vec![allowed("bot")]).await.unwrap();
    until_indexed(&log, &store, 640).await;
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

/// What there is to be read from before what was retired: everything that is left, and it is proven.
async fn check_reading(log: &Log, reader: &crate::AuditReader, first: u64) {
    let (all, whole) = (Filter::default(), AuditScope::Whole);
    let last = blocks::last_record(&log.raw()).unwrap();
    for after in [0, 1, first - 2, first - 1] {
        let (mut seen, mut records) = (RecordId(after), Vec::new());
        while seen.0 < last {
            let tail = reader.after(&all, &whole, (seen, RecordId(last)), 100).await.unwrap();
            assert!(tail.seen > seen);
            records.extend(tail.records.into_iter().map(|record| record.id.0));
            seen = tail.seen;
        }
        assert_eq!(records, (first..=last).collect::<Vec<_>>(), "after {after}");
    }
    let tail = reader.after(&all, &whole, (RecordId(0), RecordId(5)), 100).await.unwrap();
    assert_eq!((tail.records.len(), tail.seen), (0, RecordId(5)), "a watch that was told of 5 records");
    let page = reader.list(&all, &whole, Some(RecordId(first)), 10).await.unwrap();
    assert_eq!((page.records.len(), page.next), (0, None));

    let settled = reader.settled().await.unwrap();
    for (begin, is_proven) in [(1, true), (first - 1, false), (first, true), (first + 1, true)] {
        let proof = reader.prove_range(RecordId(begin), settled).await.unwrap();
        assert_eq!(proof.is_some(), is_proven, "from {begin}");
    }
    let (format, after) = (crate::ExportFormat::Jsonl, Some(RecordId(3)));
    let export = crate::Export::begin(reader.clone(), all, format, after, Some(RecordId(2))).await;
    let (mut export, mut lines) = (export.unwrap(), 0);
    while let Some(part) = export.part(&whole, RecordId(u64::MAX)).await.unwrap() {
        lines += part.lines.lines().count() as u64;
    }
    assert_eq!(lines, settled.0 + 1 - first);
}

async fn count(reader: &crate::AuditReader) -> u64 {
    let days = crate::Day(0)..crate::Day(1 << 20);
    let rows = reader.refusals(None, &AuditScope::Whole, days).await.unwrap().rows;
    rows.iter().map(|row| row.count).sum()
}

#[tokio::test]
async fn what_is_gone_is_passed_over_and_keeps_its_counts() {
    let log = log_with(Retention { keep_for: Some(DAY), keep_bytes: None });
    let store = log.open();
    append(&log, &store, 700).await;
    until_indexed(&log, &store, 640).await;
    log.clock.advance(2 * DAY);
    until_first_is(&log, 513).await;
    check_reading(&log, store.reader(), 513).await;
    assert!(store.indexed().0 >= 640, "nobody blames the index");
    assert_eq!(count(store.reader()).await, 700);
    drop(store);
    let store = log.open();
    until_indexed(&log, &store, 640).await;
    check_reading(&log, store.reader(), 513).await;
    assert_eq!(count(store.reader()).await, 700, "also after a start");
    drop(store);

    // Without an index, and with one that is made anew.
    std::fs::remove_file(log.path().with_file_name("audit.db-index")).unwrap();
    let reader = crate::AuditReader::open(&log.path()).unwrap();
    check_reading(&log, &reader, 513).await;
    assert_eq!(count(&reader).await, 188);
    let store = log.open();
    until_indexed(&log, &store, 640).await;
    check_reading(&log, store.reader(), 513).await;
    assert_eq!(count(store.reader()).await, 188);
}

#[tokio::test]
async fn nothing_goes_that_the_index_has_not_taken_in_unless_it_is_broken_for_long() {
    let mut log = log_with(Retention { keep_for: Some(DAY), keep_bytes: None });
    log.options.index_chunk = 600;
    let store = log.open();
    append(&log, &store, 1100).await;
    until_indexed(&log, &store, 600).await;
    log.clock.advance(3 * DAY);
    until_first_is(&log, 513).await;
    append(&log, &store, 10).await;
    log.clock.advance(DAY);
    append(&log, &store, 10).await;
    assert_eq!(first(&log), 513);

    let (index, hour) = (Arc::<IndexState>::default(), Duration::from_secs(3600));
    let mut counted = Counted { index, chunk: 100, seen: (0, Duration::ZERO), said: false };
    assert_eq!(counted.up_to(150, hour), 0, "a chunk is not full yet");
    assert_eq!(counted.up_to(150, 50 * hour), 0);
    assert_eq!(counted.up_to(1000, 51 * hour), 0);
    assert_eq!(counted.up_to(1000, 55 * hour), 0);
    assert_eq!((counted.up_to(1000, 57 * hour), counted.said), (u64::MAX, true));
    assert_eq!(counted.up_to(100, 58 * hour), 0, "it goes on");
}
