//! What somebody makes up who knows the tables.

use super::*;

/// Rows that speak of records which nobody could go through.
#[test]
fn what_is_far_away_is_not_walked_to() {
    let far = i64::MAX;
    let speaks = |records: u64| format!("the tree speaks of {records} records, and there are 600");
    check(
        &format!("UPDATE tree_tail SET size = {far}, heads = x''"),
        &["records 601 to 66136 are missing", &speaks(far as u64)],
    );
    for sql in [
        format!("INSERT INTO tree_blocks VALUES ({far}, zeroblob(32))"),
        format!("INSERT INTO retirements VALUES ({}, 0, 0, 0)", far / 256 * 256),
        format!(
            "INSERT INTO records (seq, time_us, kind, ruling, reason) VALUES ({far}, 0, 14, 3, 28);
             INSERT INTO tree_blocks VALUES ({far}, zeroblob(32))"
        ),
    ] {
        let log = Log::new();
        history(&log, 600, &[100, 300]);
        tamper(&log, |raw| run(raw, &sql));
        let verdict = verdict(&log);
        assert!(!verdict.is_whole(), "{sql}");
    }
    let log = Log::new();
    history(&log, 600, &[100, 300]);
    tamper(&log, |raw| run(raw, &format!("UPDATE checkpoints SET time_us = {far}")));
    let time = verdict(&log).proven.and_then(|proven| proven.time).unwrap();
    assert_eq!(time.to_string(), format!("{far}us"));
}

#[test]
fn an_id_without_its_text_is_not_the_same_as_none() {
    for column in ["target_error", "tool", "credential", "session"] {
        check(
            &format!("UPDATE records SET {column} = 99999 WHERE seq = 2"),
            &["record 2 was changed: it cannot be read as a record"],
        );
    }
    check(
        "UPDATE outcomes SET reason = 99999 WHERE seq = 4",
        &["record 4 was changed: it cannot be read as a record"],
    );
}
