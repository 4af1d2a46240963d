//! Verifying what was exported, and parts of the log.

use super::*;

/// An export of records, with the proof that its database gives.
fn export(log: &Log, first: u64, last: u64) -> PathBuf {
    let path = log.path().with_file_name("export.jsonl");
    let raw = log.raw();
    let sql = format!("{} WHERE r.seq BETWEEN ?1 AND ?2 ORDER BY r.seq", crate::stored::SELECT);
    let mut statement = raw.prepare(&sql).unwrap();
    let records = statement.query_map([first, last], crate::StoredRecord::from_row).unwrap();
    let text: String = records.map(|record| canonical::line(&record.unwrap()) + "\n").collect();
    std::fs::write(&path, text).unwrap();
    path
}

fn check_export(log: &Log, path: &Path, expected: &[&str]) {
    let verdict = verify(LogFile::Export(path), &against(log), &mut |_, _| {}).unwrap();
    let found: Vec<_> = verdict.findings.into_iter().map(|finding| finding.text).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_export_from_the_first_record_on_is_verified_by_checkpoints() {
    let mut log = Log::new();
    log.options.signing.checkpoint_file = Some(log.path().with_file_name("checkpoints"));
    history(&log, 600, &[100, 300]);
    let path = export(&log, 1, 450);
    check_export(&log, &path, &[]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |lines: &[&str]| std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    with(&[&lines[..50], &lines[51..]].concat());
    check_export(&log, &path, &["record 51 is missing"]);
    with(&[&lines[..50], &lines[49..]].concat());
    check_export(&log, &path, &["record 50 stands a second time, where record 51 belongs"]);
    std::fs::write(&path, text.replace("number 120\"", "number 12O\"")).unwrap();
    check_export(
        &log,
        &path,
        &["records 101 to 300 are not those that were signed: the checkpoint over 300 does not match"],
    );
    let none = Against { key: key(&log), checkpoints: None };
    assert!(matches!(verify(LogFile::Export(&path), &none, &mut |_, _| {}), Err(VerifyError::Nothing(_))));
}

#[test]
fn what_an_export_is_not_is_said_in_other_words() {
    let mut log = Log::new();
    log.options.signing.checkpoint_file = Some(log.path().with_file_name("checkpoints"));
    history(&log, 120, &[1, 100]);
    let path = export(&log, 1, 110);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |lines: &[&str]| std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let beyond = || verify(LogFile::Export(&path), &against(&log), &mut |_, _| {}).unwrap().beyond;
    assert_eq!(beyond(), Some(120));
    let moved = "record 52 was moved: it stands where record 51 belongs, which comes later";
    with(&[&lines[..50], &[lines[51], lines[50]], &lines[52..]].concat());
    check_export(&log, &path, &[moved]);
    with(&[&lines[..50], &lines[51..], &[lines[50]]].concat());
    check_export(&log, &path, &[moved]);
    std::fs::write(&path, text.replace("number 0\"", "number O\"")).unwrap();
    let first = "record 1 is not the one that was signed: the checkpoint over 1 does not match";
    check_export(&log, &path, &[first]);
    assert_eq!(beyond(), None);
    with(&[&["nothing"], &lines[1..]].concat());
    check_export(&log, &path, &["record 1 was changed: its line is none of a record"]);

    for other in ["", "record_id,time\n1,2026\n2,2026\n", "{\"metadata\":{\"uid\":\"1\"}}\n{}\n", "x"] {
        std::fs::write(&path, other).unwrap();
        let verdict = verify(LogFile::Export(&path), &against(&log), &mut |_, _| {});
        let Err(VerifyError::Nothing(text)) = verdict else { panic!("{other}: {verdict:?}") };
        assert!(text.contains("only exports as `jsonl` can be verified"), "{text}");
    }
    std::fs::write(&path, [&text.as_bytes()[..text.len() - 40], b"\xff\n"].concat()).unwrap();
    check_export(&log, &path, &["record 110 was changed: its line is no JSON"]);
}

#[test]
fn a_record_that_was_changed_is_not_proved() {
    let log = Log::new();
    history(&log, 600, &[]);
    tamper(&log, |raw| {
        raw.execute("UPDATE records SET time_us = time_us - 1 WHERE seq = 3", []).unwrap();
        raw.execute("DELETE FROM records WHERE seq = 300", []).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reader = crate::AuditReader::open(&log.path()).unwrap();
    let prove =
        |record| runtime.block_on(reader.prove(&valetkey_core::AuditScope::Whole, RecordId(record))).unwrap();
    // With a neighbour that is gone there is nothing to prove a record by either.
    for record in [3, 4, 301] {
        assert_eq!(prove(record), crate::Proof::Changed, "{record}");
    }
    assert!(matches!(prove(600), crate::Proof::Text(_)));
}

#[test]
fn a_part_of_the_log_is_verified_by_its_proof() {
    let log = Log::new();
    history(&log, 600, &[100, 300]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let reader = crate::AuditReader::open(&log.path()).unwrap();
    for (first, last) in [(1, 600), (1, 5), (300, 300), (200, 513), (257, 512), (600, 600)] {
        let path = export(&log, first, last);
        let proof = path.with_file_name("export.jsonl.proof");
        let (proven, text) =
            runtime.block_on(reader.prove_range(RecordId(first), RecordId(last))).unwrap().unwrap();
        assert_eq!(proven, RecordId(last));
        std::fs::write(&proof, &text).unwrap();
        check_export(&log, &path, &[]);
        let lines = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, lines.replacen(&format!("number {}\"", last - 1), "number\"", 1)).unwrap();
        check_export(&log, &path, &[&format!("record {last} was changed")]);
        std::fs::write(&path, lines).unwrap();
        std::fs::write(&proof, text.replacen("records ", "records 1", 1)).unwrap();
        let verdict = verify(LogFile::Export(&path), &against(&log), &mut |_, _| {});
        assert!(!matches!(verdict, Ok(verdict) if verdict.is_whole()), "{first} to {last}");
    }
}
