mod bounds;
mod exports;

use super::*;
use std::cell::Cell;

use proptest::prelude::*;
use rusqlite::Connection;
use valetkey_core::{AuditLog, AuditRecord, OutcomeResult, RecordId};

use crate::testing::{Log, allowed, denied, settle};
use crate::{AuditStore, Fault, canonical};

/// A log of `records` records, none like another, every third with an outcome; closed, and so signed to the end. It was
/// opened and closed after `stops` records too.
fn history(log: &Log, records: usize, stops: &[usize]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut written = 0;
    for end in stops.iter().copied().filter(|stop| *stop < records).chain([records]) {
        let store = log.open();
        runtime.block_on(append(&store, written, end));
        written = written.max(end);
        drop(store);
    }
}

async fn append(store: &AuditStore, begin: usize, end: usize) {
    let numbers: Vec<_> = (begin..end.max(begin)).collect();
    for batch in numbers.chunks(1000) {
        let record = |n: &usize| {
            let record = if n.is_multiple_of(3) { allowed("bot") } else { denied("bot") };
            AuditRecord { purpose: Some("as it should be".into()), ..record }
                .with_detail(&format!("number {n}"))
        };
        for (n, id) in batch.iter().zip(store.record(batch.iter().map(record).collect()).await.unwrap()) {
            if n.is_multiple_of(3) {
                settle(store, id, OutcomeResult::Issued);
            }
        }
    }
}

fn key(log: &Log) -> VerifierKey {
    let text = std::fs::read_to_string(log.path().with_file_name("audit.db-key.pub")).unwrap();
    VerifierKey::parse(&text).unwrap()
}

fn against(log: &Log) -> Against {
    Against { key: key(log), checkpoints: log.options.signing.checkpoint_file.clone() }
}

fn verdict(log: &Log) -> Verdict {
    verify(LogFile::Database(&log.path()), &against(log), &mut |_, _| {}).unwrap()
}

/// Somebody who does not mind triggers and rules; puts the triggers back.
fn tamper(log: &Log, change: impl FnOnce(&Connection)) {
    let raw = log.raw();
    let triggers: Vec<(String, String)> = raw
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    raw.execute_batch("PRAGMA ignore_check_constraints = 1; BEGIN").unwrap();
    triggers.iter().for_each(|(name, _)| raw.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    change(&raw);
    triggers.iter().for_each(|(_, sql)| raw.execute_batch(sql).unwrap());
    raw.execute_batch("COMMIT").unwrap();
}

fn run(raw: &Connection, sql: &str) {
    raw.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Tampers with a log of 600 records, signed at 100, 300 and 600, and expects these findings and no others.
fn check(sql: &str, expected: &[&str]) {
    let mut log = Log::new();
    log.options.signing.checkpoint_file = Some(log.path().with_file_name("checkpoints"));
    history(&log, 600, &[100, 300]);
    tamper(&log, |raw| run(raw, sql));
    let found: Vec<_> = verdict(&log).findings.into_iter().map(|finding| finding.text).collect();
    assert_eq!(found, expected, "{sql}");
}

#[test]
fn a_log_is_whole_whatever_its_size() {
    for records in [0, 1, 2, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025] {
        let log = Log::new();
        history(&log, records, &[1, 256, 300, 512]);
        let verdict = verdict(&log);
        assert!(verdict.is_whole(), "{records}: {:?}", verdict.findings);
        let proven = verdict.proven.as_ref().map_or(0, |proven| proven.size);
        assert_eq!((verdict.last, proven, verdict.unsigned()), (records as u64, records as u64, 0));
        log.open();
    }
}

#[test]
fn what_is_not_signed_yet_is_said() {
    let log = Log::new();
    history(&log, 300, &[]);
    let store = log.open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(append(&store, 300, 700));
    // While the broker runs.
    let verdict = verdict(&log);
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!((verdict.last, verdict.unsigned()), (700, 400));
}

#[test]
fn a_changed_record_is_named() {
    check("UPDATE records SET purpose = 'as it would be' WHERE seq = 1", &["record 1 was changed"]);
    check("UPDATE records SET time_us = time_us + 1 WHERE seq = 257", &["record 257 was changed"]);
    check("UPDATE records SET ruling = 3 WHERE seq = 300", &["record 300 was changed"]);
    // After the last whole block.
    check("UPDATE records SET reason = 3 WHERE seq = 600", &["record 600 was changed"]);
    check(
        "UPDATE records SET reason = 3 WHERE seq IN (5, 6, 599)",
        &["record 5 was changed", "record 6 was changed", "record 599 was changed"],
    );
    check(
        "UPDATE records SET kind = 99 WHERE seq = 7",
        &["record 7 was changed: it cannot be read as a record"],
    );
    check("UPDATE records SET item_id = NULL, vault_id = NULL WHERE seq = 8", &["record 8 was changed"]);
}

#[test]
fn a_text_that_records_share_is_as_if_each_was_changed() {
    let log = Log::new();
    history(&log, 600, &[]);
    let text = "UPDATE strings SET text = 'somebody' WHERE id = (SELECT agent FROM records WHERE seq = 1)";
    tamper(&log, |raw| run(raw, text));
    let verdict = verdict(&log);
    assert_eq!(verdict.findings[0].text, "record 1 was changed");
    assert!(verdict.more && verdict.findings.len() == 20);
}

#[test]
fn a_changed_outcome_names_its_record() {
    check("UPDATE outcomes SET result = 2 WHERE seq = 4", &["record 4 was changed"]);
    check("DELETE FROM outcomes WHERE seq = 598", &["record 598 was changed"]);
    check("INSERT INTO outcomes (seq, time_us, result) VALUES (2, 0, 1)", &["record 2 was changed"]);
    check(
        "INSERT INTO outcomes (seq, time_us, result) VALUES (900, 0, 1)",
        &["there is an outcome of record 900, and no such record"],
    );
}

#[test]
fn a_missing_record_is_named() {
    check("DELETE FROM records WHERE seq = 2", &["record 2 is missing"]);
    check(
        "DELETE FROM records WHERE seq BETWEEN 250 AND 260 AND ruling = 2",
        &[
            "records 251 to 252 are missing",
            "records 254 to 255 are missing",
            "records 257 to 258 are missing",
            "record 260 is missing",
        ],
    );
    check(
        "DELETE FROM outcomes WHERE seq > 590; DELETE FROM records WHERE seq > 590",
        &["records 591 to 600 are missing"],
    );
    let changed: Vec<_> = (0..19).map(|n| format!("record {} was changed", 301 + n * 3)).collect();
    let expected: Vec<_> =
        ["records 1 to 300 are missing"].into_iter().chain(changed.iter().map(String::as_str)).collect();
    check("DELETE FROM outcomes; DELETE FROM records WHERE seq <= 300", &expected);
}

const RENUMBER: &str = "UPDATE records SET seq = -seq; UPDATE outcomes SET seq = -seq;";

#[test]
fn a_removed_record_is_named_although_the_others_were_renumbered() {
    for record in [1, 5, 255, 256, 257, 512, 599] {
        let sql = format!(
            "DELETE FROM records WHERE seq = {record}; DELETE FROM outcomes WHERE seq = {record}; {RENUMBER}
             UPDATE records SET seq = -seq - (seq < -{record}); UPDATE outcomes SET seq = -seq - (seq < -{record})"
        );
        check(
            &sql,
            &[&format!("record {record} was removed, and those after it have its number and the next ones")],
        );
    }
}

#[test]
fn an_inserted_record_is_named() {
    for record in [1, 5, 255, 256, 257, 512, 599, 600] {
        let sql = format!(
            "{RENUMBER}
             UPDATE records SET seq = -seq + (seq <= -{record}); UPDATE outcomes SET seq = -seq + (seq <= -{record});
             INSERT INTO records (seq, time_us, kind, ruling, reason) VALUES ({record}, 0, 14, 3, 28)"
        );
        check(&sql, &[&format!("record {record} was inserted, and those after it have moved on")]);
    }
    check(
        "INSERT INTO records (seq, time_us, kind, ruling, reason) VALUES (0, 0, 14, 3, 28)",
        &["record 0 was inserted where none can be"],
    );
    check(
        "INSERT INTO records (seq, time_us, kind, ruling, reason) VALUES (1000000000000, 0, 14, 3, 28)",
        &["records 601 to 999999999999 are missing"],
    );
}

#[test]
fn swapped_records_are_named() {
    for (one, other) in [(2, 3), (255, 258), (5, 599), (599, 600)] {
        let sql = format!(
            "UPDATE records SET seq = CASE seq WHEN {one} THEN -1 ELSE -2 END WHERE seq IN ({one}, {other});
             UPDATE records SET seq = CASE seq WHEN -1 THEN {other} ELSE {one} END WHERE seq < 0;
             UPDATE outcomes SET seq = CASE seq WHEN {one} THEN -1 ELSE -2 END WHERE seq IN ({one}, {other});
             UPDATE outcomes SET seq = CASE seq WHEN -1 THEN {other} ELSE {one} END WHERE seq < 0"
        );
        let moved = |place, of| format!("record {place} was moved: what stands there is record {of}'s");
        check(&sql, &[&moved(one, other), &moved(other, one)]);
    }
}

#[test]
fn what_the_tree_is_made_of_is_watched_too() {
    check(
        "UPDATE tree_leaves SET heads = zeroblob(1792) WHERE block = 1",
        &["what the tree keeps to name the records 257 to 512 was changed; they are whole"],
    );
    check(
        "UPDATE tree_tail SET heads = zeroblob(7 * 88)",
        &["what the tree keeps to name the records 513 to 600 was changed; they are whole"],
    );
    check(
        "DELETE FROM tree_leaves WHERE block = 0",
        &["what the tree keeps to name the records 1 to 256 was changed; they are whole"],
    );
    check(
        "UPDATE tree_blocks SET hash = zeroblob(32) WHERE block = 0",
        &["records 1 to 256 do not have the hash of their block: one of them was changed, or the hash"],
    );
    check(
        "DELETE FROM tree_blocks WHERE block = 1; DELETE FROM tree_leaves WHERE block = 1",
        &["records 257 to 512 have no block in the tree: it was deleted"],
    );
    check("DELETE FROM tree_tail", &[]);
    check(
        "UPDATE checkpoints SET size = 299 WHERE size = 300",
        &["the checkpoint over 299 records in the database is no checkpoint of a log"],
    );
    check(
        "UPDATE checkpoints SET note = replace(note, char(10) || '300', char(10) || '301') WHERE size = 300",
        &["the checkpoint over 300 records in the database has a wrong signature: it was changed, or forged"],
    );
    let log = Log::new();
    history(&log, 10, &[]);
    run(&log.raw(), "DROP TRIGGER records_never_deleted; CREATE TABLE mine (x)");
    let found: Vec<_> = verdict(&log).findings.into_iter().map(|finding| finding.text).collect();
    assert_eq!(
        found,
        [
            "the trigger `records_never_deleted` of the database was removed",
            "the table `mine` of the database is not valetkey's"
        ]
    );
    let log = Log::new();
    history(&log, 10, &[]);
    let raw = log.raw();
    raw.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
    run(
        &raw,
        "PRAGMA writable_schema = 1;
         INSERT INTO sqlite_schema VALUES ('trigger', 'sqlite_evil', 'records', 0,
             'CREATE TRIGGER sqlite_evil BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END')",
    );
    drop(raw);
    assert_eq!(verdict(&log).findings[0].text, "the trigger `sqlite_evil` of the database is not valetkey's");
}

/// Whoever knows how the tree is made recomputes it, and meets the next checkpoint.
#[test]
fn between_checkpoints_it_is_found_although_the_tree_was_recomputed() {
    for (record, expected) in [
        (
            50,
            "records 1 to 100 are not those that were signed: the checkpoint over 100 does not match, no checkpoint before it is good",
        ),
        (
            280,
            "records 101 to 300 are not those that were signed: the checkpoint over 300 does not match, the one over 100 is good",
        ),
        (
            590,
            "records 301 to 600 are not those that were signed: the checkpoint over 600 does not match, the one over 300 is good",
        ),
    ] {
        let log = Log::new();
        history(&log, 600, &[100, 300]);
        tamper(&log, |raw| {
            run(raw, &format!("UPDATE records SET reason = 3 WHERE seq = {record}"));
            let mut tree = crate::tree::Tree::default();
            run(raw, "DELETE FROM tree_blocks; DELETE FROM tree_leaves");
            for (record, outcome) in crate::blocks::parts(raw, 0..600).unwrap() {
                if let Some(block) = tree.push(canonical::leaf_hash(record, outcome)) {
                    crate::blocks::insert(raw, &block).unwrap();
                }
            }
            raw.execute("UPDATE tree_tail SET heads = ?1", [tree.heads()]).unwrap();
        });
        let found: Vec<_> = verdict(&log).findings.into_iter().map(|finding| finding.text).collect();
        assert_eq!(found, [expected]);
        let opened = log.try_open().map(drop);
        assert!(matches!(opened, Err(OpenError::Disagree { covered: 600, .. })), "nor does a broker begin");
    }
}

#[test]
fn another_key_has_signed_nothing() {
    let log = Log::new();
    history(&log, 10, &[]);
    let other = Log::new();
    history(&other, 1, &[]);
    let against = Against { key: key(&other), checkpoints: None };
    let verdict = verify(LogFile::Database(&log.path()), &against, &mut |_, _| {}).unwrap();
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!((verdict.findings[0].kind, verdict.proven), (FindingKind::Checkpoint, None));
}

fn copy_of(log: &Log) -> PathBuf {
    let copy = log.path().with_file_name("copy.db");
    std::fs::copy(log.path(), &copy).unwrap();
    copy
}

#[test]
fn an_older_copy_is_noticed_by_the_file_kept_elsewhere() {
    let mut log = Log::new();
    let elsewhere = tempfile::tempdir().unwrap();
    log.options.signing.checkpoint_file = Some(elsewhere.path().join("checkpoints"));
    history(&log, 500, &[]);
    let copy = copy_of(&log);
    history_from(&log, 500, 700);
    let whole = verdict(&log);
    assert!(whole.is_whole(), "{:?}", whole.findings);
    assert_eq!(whole.checkpoints, 4, "both of the database, and of the file");
    std::fs::copy(&copy, log.path()).unwrap();
    let found = verdict(&log).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].kind, found[0].records), (FindingKind::RolledBack, Some((501, 700))));
    assert!(matches!(log.try_open().map(drop), Err(OpenError::RolledBack { covered: 700, has: 500, .. })));
    // Nor does it help to write other records in the place of those that are gone.
    let file = log.options.signing.checkpoint_file.take();
    history_from(&log, 1500, 1800);
    log.options.signing.checkpoint_file = file;
    let found = verdict(&log).findings;
    assert_eq!((found[0].kind, found[0].records), (FindingKind::Between, Some((501, 700))), "{found:?}");
    assert!(matches!(log.try_open().map(drop), Err(OpenError::Disagree { covered: 700, .. })));
}

fn history_from(log: &Log, begin: usize, end: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let store = log.open();
    runtime.block_on(append(&store, begin, end));
}

#[test]
fn a_crash_between_a_commit_and_its_block_leaves_a_whole_log() {
    let log = Log::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut records = 0;
    for more in [100, 200, 256, 1, 300] {
        let store = log.open();
        runtime.block_on(append(&store, records, records + more));
        records += more;
        store.inject(Fault::Panic);
        assert!(runtime.block_on(store.record(vec![denied("lost")])).is_err());
        drop(store);
        let verdict = verdict(&log);
        assert!(verdict.is_whole(), "{:?}", verdict.findings);
    }
    drop(log.open());
    assert_eq!(verdict(&log).unsigned(), 0);
}

#[test]
fn a_log_without_a_tree_gets_one() {
    let log = Log::new();
    history(&log, 1000, &[]);
    tamper(&log, |raw| {
        run(raw, "DELETE FROM tree_blocks; DELETE FROM tree_leaves; DELETE FROM checkpoints; DELETE FROM tree_tail;
            INSERT INTO tree_tail VALUES (1, 0, x'')");
    });
    drop(log.open());
    let verdict = verdict(&log);
    assert!(verdict.is_whole(), "{:?}", verdict.findings);
    assert_eq!(verdict.proven.map(|proven| proven.size), Some(1000));
}

/// Columns of a record that hold numbers, bytes or texts of their own, and those that hold ids of texts.
const OWN: [&str; 12] = [
    "time_us", "kind", "ruling", "reason", "request", "trace", "lease", "handle", "ttl_us", "uses",
    "purpose", "detail",
];
const TEXTS: [&str; 8] =
    ["caller", "client", "agent", "tool", "reference", "vault_id", "item_name", "policies"];
const OF_OUTCOME: [&str; 3] = ["time_us", "result", "detail"];

/// Flips one bit of what is stored there; whether there was something.
fn flip(raw: &Connection, table: &str, column: &str, key: (&str, i64), place: usize) -> bool {
    use rusqlite::types::Value;
    let (key, id) = key;
    let read = format!("SELECT {column} FROM {table} WHERE {key} = ?1");
    let Ok(value) = raw.query_row(&read, [id], |row| row.get::<_, Value>(0)) else { return false };
    let flipped = |mut bytes: Vec<u8>| {
        let bit = place % (bytes.len().max(1) * 8);
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        bytes
    };
    let (value, cast) = match value {
        Value::Null | Value::Real(_) => return false,
        Value::Integer(number) => (Value::Integer(number ^ (1 << (place % 63))), "?1"),
        // A text that is no text any more is stored all the same.
        Value::Text(text) if !text.is_empty() => {
            (Value::Blob(flipped(text.into_bytes())), "CAST(?1 AS TEXT)")
        }
        Value::Blob(bytes) if !bytes.is_empty() => (Value::Blob(flipped(bytes)), "?1"),
        Value::Text(_) | Value::Blob(_) => return false,
    };
    let write = format!("UPDATE {table} SET {column} = {cast} WHERE {key} = ?2");
    raw.execute(&write, rusqlite::params![value, id]).unwrap() == 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// One bit of anything that is stored of a record, anywhere.
    #[test]
    fn one_bit_of_any_record_is_named(
        records in 1_usize..800,
        stops in prop::collection::vec(1_usize..800, 0..3),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..OWN.len() + TEXTS.len() + OF_OUTCOME.len(), 0_usize..4096), 1..6),
    ) {
        let log = Log::new();
        let mut stops = stops;
        stops.sort_unstable();
        history(&log, records, &stops);
        prop_assert!(verdict(&log).is_whole());
        let before = log.path().with_file_name("before.db");
        std::fs::copy(log.path(), &before).unwrap();
        for (record, column, place) in flips {
            std::fs::copy(&before, log.path()).unwrap();
            let record = record.index(records) as i64 + 1;
            let changed = Cell::new(false);
            tamper(&log, |raw| {
                let key = ("seq", record);
                changed.set(match column.checked_sub(OWN.len()) {
                    None => flip(raw, "records", OWN[column], key, place),
                    Some(column) if column < TEXTS.len() => {
                        let id = format!("SELECT {} FROM records WHERE seq = {record}", TEXTS[column]);
                        raw.query_row(&id, [], |row| row.get(0)).is_ok_and(|id: i64| flip(raw, "strings", "text", ("id", id), place))
                    }
                    Some(column) => flip(raw, "outcomes", OF_OUTCOME[column - TEXTS.len()], key, place),
                });
            });
            let verdict = verdict(&log);
            if changed.get() {
                // The history's records are much alike: one bit can make one of them equal to another, which then reads as moved.
                let named = |finding: &Finding| match finding.kind {
                    FindingKind::Changed => finding.records.is_some_and(|(first, _)| first <= record as u64),
                    FindingKind::Moved => finding.records == Some((record as u64, record as u64)),
                    _ => false,
                };
                prop_assert!(verdict.findings.iter().any(named), "{record} {column}: {:?}", verdict.findings);
            } else {
                prop_assert!(verdict.is_whole(), "{record} {column}: {:?}", verdict.findings);
            }
        }
    }
}

#[test]
fn every_record_is_proven_to_whoever_has_the_key() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for records in [1, 2, 255, 256, 257, 512, 513] {
        let log = Log::new();
        history(&log, records, &[]);
        let (reader, key) = (crate::AuditReader::open(&log.path()).unwrap(), key(&log));
        let whole = valetkey_core::AuditScope::Whole;
        let text_of = |record| match runtime.block_on(reader.prove(&whole, RecordId(record))).unwrap() {
            crate::Proof::Text(text) => text,
            other => panic!("{other:?}"),
        };
        for record in
            [1, 2, records / 2, 256, 257, records].into_iter().filter(|record| (1..=records).contains(record))
        {
            let text = text_of(record as u64);
            let proven = crate::check_proof(&text, &key).unwrap();
            assert!(proven.line.contains(&format!("number {}", record - 1)), "{}", proven.line);
            assert_eq!(proven.checkpoint.size, records as u64);
            let changed = text.replacen("index ", "index 1", 1);
            assert!(crate::check_proof(&changed, &key).is_err());
        }
        let none = runtime.block_on(reader.prove(&whole, RecordId(records as u64 + 1))).unwrap();
        assert_eq!(none, crate::Proof::NoRecord);
    }
}

#[test]
fn a_proof_with_anything_else_in_it_is_none() {
    let log = Log::new();
    history(&log, 300, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reader = crate::AuditReader::open(&log.path()).unwrap();
    let proof = runtime.block_on(reader.prove(&valetkey_core::AuditScope::Whole, RecordId(7))).unwrap();
    let crate::Proof::Text(text) = proof else { panic!() };
    let key = key(&log);
    for place in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[place] ^= 1;
        if let Ok(changed) = String::from_utf8(bytes) {
            assert!(crate::check_proof(&changed, &key).is_err(), "byte {place}");
        }
    }
}
