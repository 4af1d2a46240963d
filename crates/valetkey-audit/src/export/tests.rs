use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use valetkey_core::testing::{agent, reference, target};
use valetkey_core::{
    AuditLog, AuditRecord, Named, OutcomeResult, Reason, RecordKind, Redeemer, Ruling, Timestamp, ValueDigest,
};

use super::*;
use crate::code::Code;
use crate::stored::{StoredOutcome, StoredTarget};
use crate::testing::{Log, allowed, denied, settle, write};
use crate::{Against, AuditStore, LogFile, verify};

const FORMATS: [ExportFormat; 3] = [ExportFormat::Jsonl, ExportFormat::Csv, ExportFormat::Ocsf];
const TO_THE_END: RecordId = RecordId(u64::MAX);

/// Records of every kind, from those with every field to those with as few as there can be. The first is whole.
pub(super) fn samples() -> Vec<StoredRecord> {
    let text = |text: &str| Some(text.to_owned());
    let target = StoredTarget {
        vault_id: text("v1"),
        vault_name: text("tutorial"),
        item_id: text("i1"),
        item_name: text("navan"),
        field_id: text("username?otp"),
        error: None,
    };
    let outcome = StoredOutcome {
        time: Timestamp::from_micros(1_780_000_000_223_456),
        result: OutcomeResult::Issued,
        reason: None,
        source: text("embedded"),
        item_version: Some(3),
        value_age: Some(Duration::from_micros(1_500_000)),
        detail: None,
        value_digest: Some(ValueDigest([0xef; 16])),
    };
    let full = StoredRecord {
        id: RecordId(1),
        time: Timestamp::from_micros(1_780_000_000_123_456),
        kind: RecordKind::Acquire,
        ruling: Ruling::Allow,
        reason: Reason::PolicyPermit,
        request: text("vkr_0123456789abcdef"),
        trace: Some("ab".repeat(16)),
        credential: text("vkt_0123456789abcdef"),
        on_behalf_of: text("ana"),
        caller: text("agent:travel-bot"),
        client: text("valetkey-python/1.0 grpc 10.0.0.9"),
        agent: text("travel-bot"),
        tool: text("navan.book_flight"),
        reference: text("op://Tutorial/Navan/username"),
        target: Some(target.clone()),
        policies: vec!["one".into(), "two".into()],
        revision: text("cdcdcdcdcdcdcdcd"),
        session: text("run 7"),
        destination: text("api.ramp.com"),
        lease: text("vkl_0123456789abcdef"),
        handle: text("vkh_0123456789abcdef"),
        ttl: Some(Duration::from_micros(61_000_001)),
        uses: Some(3),
        redeemer: Some(Redeemer::Agent),
        purpose: text("=cmd()"),
        detail: text("a, \"b\"\nc"),
        outcome: Some(outcome),
    };
    let bare = StoredRecord {
        request: None,
        trace: None,
        credential: None,
        on_behalf_of: None,
        caller: None,
        client: None,
        agent: None,
        tool: None,
        reference: None,
        target: None,
        policies: vec![],
        revision: None,
        session: None,
        destination: None,
        lease: None,
        handle: None,
        ttl: None,
        uses: None,
        redeemer: None,
        purpose: None,
        detail: None,
        outcome: None,
        ..full.clone()
    };
    let nowhere = StoredTarget {
        vault_id: None,
        vault_name: None,
        item_id: None,
        item_name: None,
        field_id: None,
        error: text("VAULT_NOT_FOUND"),
    };
    let vault = StoredTarget { item_id: None, item_name: None, field_id: None, ..target };
    let mut samples = vec![
        full.clone(),
        StoredRecord { target: Some(nowhere), ..full.clone() },
        StoredRecord { target: Some(vault), ..full.clone() },
        StoredRecord { target: None, caller: text("tool:navan.book_flight"), ..full.clone() },
        StoredRecord { caller: text("person:ana"), on_behalf_of: None, ..full.clone() },
    ];
    for kind in RecordKind::ALL {
        samples.push(StoredRecord { kind, ruling: Ruling::Event, reason: Reason::Done, ..bare.clone() });
        samples.push(StoredRecord {
            kind,
            ruling: Ruling::Deny,
            reason: Reason::TokenMissing,
            ..bare.clone()
        });
    }
    for (id, record) in (1..).zip(&mut samples) {
        record.id = RecordId(id);
    }
    samples
}

/// The whole of an export, as one reader sees it.
async fn whole(store: &AuditStore, format: ExportFormat, after: Option<u64>, filter: &str) -> String {
    parts(store, format, after, filter).await.into_iter().map(|part| part.lines).collect()
}

async fn parts(store: &AuditStore, format: ExportFormat, after: Option<u64>, filter: &str) -> Vec<Part> {
    let filter = Filter::parse(filter).unwrap();
    let mut export =
        Export::begin(store.reader().clone(), filter, format, after.map(RecordId), None).await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = export.part(&AuditScope::Whole, TO_THE_END).await.unwrap() {
        parts.push(part);
    }
    parts
}

fn ids(format: ExportFormat, text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| format.record_of(line)).map(|id| id.0).filter(|id| *id > 0).collect()
}

#[test]
fn every_line_says_which_record_it_is() {
    for format in FORMATS {
        for record in samples() {
            let line = format.line(&record);
            assert!(!line.contains(['\n', '\r']), "{line}");
            assert_eq!(format.record_of(&line), Some(record.id), "{line}");
        }
        let header = format.header().unwrap_or_default();
        assert_eq!(format.record_of(header.trim_end()), (format == ExportFormat::Csv).then_some(RecordId(0)));
        for foreign in ["", "x", "{}", "[1]", "0,x", "-1,x", "{\"record_id\":\"0\"}", "{\"record_id\":7}"] {
            assert_eq!(format.record_of(foreign), None, "{foreign}");
        }
    }
}

/// A row read back by the rules of RFC 4180.
fn cells_of(row: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = row.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    cells.push(cell);
    cells
}

#[test]
fn rows_have_the_columns_of_the_header() {
    let header = ExportFormat::Csv.header().unwrap();
    let names: Vec<_> = header.trim_end().split(',').collect();
    let of = |record: &StoredRecord, name: &str| {
        let cells = cells_of(&ExportFormat::Csv.line(record));
        assert_eq!(cells.len(), names.len());
        cells[names.iter().position(|column| *column == name).unwrap()].clone()
    };
    let record = &samples()[0];
    for (name, cell) in [
        ("record_id", "1"),
        ("time", "2026-05-28T20:26:40.123456Z"),
        ("decision", "allow"),
        ("detail", "a, \"b\"\u{fffd}c"),
        ("vault_id", "v1"),
        ("item_id", "i1"),
        ("field_id", "username?otp"),
        ("vault_name", "tutorial"),
        ("policy_ids", "one two"),
        ("purpose", "'=cmd()"),
        ("ttl_seconds", "61"),
        ("uses", "3"),
        ("redeemer", "agent"),
        ("result", "issued"),
        ("item_version", "3"),
        ("value_age_seconds", "1.5"),
        ("value_digest", &"ef".repeat(16)),
    ] {
        assert_eq!(of(record, name), cell, "{name}");
    }
    for record in samples() {
        of(&record, "record_id");
    }
}

proptest! {
    #[test]
    fn whatever_an_agent_says_is_one_inert_row(purpose in any::<String>(), detail in any::<String>()) {
        let record = StoredRecord { purpose: Some(purpose), detail: Some(detail), ..samples().remove(0) };
        for format in FORMATS {
            let line = format.line(&record);
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert_eq!(format.record_of(&line), Some(record.id));
        }
        for cell in cells_of(&ExportFormat::Csv.line(&record)) {
            prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{}", cell);
        }
    }
}

#[tokio::test]
async fn an_export_ends_before_the_first_open_record() {
    let log = Log::new();
    let store = log.open();
    write(&store, denied("a")).await.unwrap();
    let open = write(&store, allowed("b")).await.unwrap();
    write(&store, denied("c")).await.unwrap();
    for format in FORMATS {
        let parts = parts(&store, format, Some(0), "").await;
        assert_eq!(parts.last().map(|part| (part.seen, part.last)), Some((RecordId(1), RecordId(1))));
        assert_eq!(ids(format, &parts.concat_lines()), [1]);
        assert_eq!(ids(format, &whole(&store, format, None, "").await), [1]);
        assert!(ids(format, &whole(&store, format, Some(1), "").await).is_empty());
    }
    settle(&store, open, OutcomeResult::Issued);
    write(&store, denied("d")).await.unwrap();
    for format in FORMATS {
        assert_eq!(ids(format, &whole(&store, format, Some(1), "").await), [2, 3, 4]);
        let first = whole(&store, format, None, "").await;
        let (one, more) =
            (whole(&store, format, None, "record:1").await, whole(&store, format, Some(1), "").await);
        assert_eq!(one + &more, first, "what is gone on with is what was whole");
    }
}

#[tokio::test]
async fn a_closed_log_is_exported_whole() {
    let log = Log::new();
    let store = log.open();
    for _ in 0..3 {
        let record = write(&store, allowed("a")).await.unwrap();
        settle(&store, record, OutcomeResult::Issued);
    }
    write(&store, allowed("a")).await.unwrap();
    // The stop closes what is under way.
    store.close();
    assert_eq!(ids(ExportFormat::Jsonl, &whole(&store, ExportFormat::Jsonl, None, "").await), [1, 2, 3, 4]);
}

/// With the proof of its last part beside it, an export is verified without the log, and names what was changed.
#[tokio::test]
async fn a_whole_export_proves_itself() {
    let log = Log::new();
    let store = log.open();
    for _ in 0..3 {
        store.record(vec![denied("a"); 300]).await.unwrap();
    }
    let key = store.verifier_key().clone();
    drop(store);
    let store = log.open();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.jsonl");
    let parts = parts(&store, ExportFormat::Jsonl, None, "").await;
    let (last, others) = parts.split_last().unwrap();
    assert!(others.iter().all(|part| part.proof.is_none()));
    std::fs::write(folder.path().join("export.jsonl.proof"), last.proof.as_ref().unwrap()).unwrap();
    let lines = parts.concat_lines();
    let verdict = |lines: &str| {
        std::fs::write(&path, lines).unwrap();
        let against = Against { key: key.clone(), checkpoints: None };
        verify(LogFile::Export(&path), &against, &mut |_, _| {}).unwrap()
    };
    assert!(verdict(&lines).is_whole());
    assert_eq!(verdict(&lines).proven.map(|proven| proven.size), Some(900));
    let changed: Vec<_> = lines
        .lines()
        .map(|line| match line.contains("\"record_id\":\"700\"") {
            true => line.replace("\"deny\"", "\"allow\"") + "\n",
            false => line.to_owned() + "\n",
        })
        .collect();
    let verdict = verdict(&changed.concat());
    assert_eq!(verdict.findings.first().map(|finding| finding.text.as_str()), Some("record 700 was changed"));
}

#[tokio::test]
async fn parts_are_bounded_and_tell_of_progress() {
    let log = Log::new();
    let store = log.open();
    let long =
        AuditRecord { purpose: Some("x".repeat(500).into()), ..denied("a").with_detail(&"y".repeat(1024)) };
    for _ in 0..20 {
        store.record(vec![long.clone(); 50]).await.unwrap();
    }
    for format in FORMATS {
        let parts = parts(&store, format, None, "").await;
        assert_eq!(ids(format, &parts.concat_lines()), (1..=1000).collect::<Vec<_>>());
        assert!(parts.len() > 4 && parts.iter().all(|part| part.lines.len() < PART_BYTES + 16 * 1024));
        assert!(parts.windows(2).all(|two| two[0].seen <= two[1].seen && two[1].last == RecordId(1000)));
    }
    // What does not match is passed over, and told.
    let parts = parts(&store, ExportFormat::Jsonl, Some(0), "agent:nobody").await;
    assert!(parts.iter().all(|part| part.lines.is_empty()));
    assert_eq!(parts.last().map(|part| part.seen), Some(RecordId(1000)));
}

#[tokio::test]
async fn a_scope_is_kept_to() {
    let log = Log::new();
    let store = log.open();
    let other = |name: &str| {
        let there = reference("op://Other/Navan/username");
        AuditRecord { target: Some(Arc::new(target(&there))), ..denied(name) }
    };
    store
        .record(vec![denied("a"), other("b"), AuditRecord { agent: Some(agent("c")), ..other("x") }])
        .await
        .unwrap();
    // A stop signs all of it, so that there would be something to prove.
    drop(store);
    let store = log.open();
    let vaults = store.reader().vaults().await.unwrap().vaults;
    let own: Vec<Named> = vaults.into_iter().filter(|vault| &*vault.name == "other").collect();
    let scope = AuditScope::Vaults(own.into());
    let mut export = Export::begin(
        store.reader().clone(),
        Filter::default(),
        ExportFormat::Jsonl,
        Some(RecordId(0)),
        None,
    )
    .await
    .unwrap();
    // What is decided on reaches up to the second alone.
    let part = export.part(&scope, RecordId(2)).await.unwrap().unwrap();
    assert_eq!((ids(ExportFormat::Jsonl, &part.lines), part.seen), (vec![2], RecordId(2)));
    let part = export.part(&scope, TO_THE_END).await.unwrap().unwrap();
    assert_eq!((ids(ExportFormat::Jsonl, &part.lines), part.seen), (vec![3], RecordId(3)));
    // What a limited reviewer has is not whole, so there is nothing to prove it with.
    let end = export.part(&scope, TO_THE_END).await.unwrap().unwrap();
    assert_eq!((end.lines.as_str(), end.proof), ("", None));
    assert_eq!(export.part(&scope, TO_THE_END).await.unwrap(), None);
}

trait Lines {
    fn concat_lines(&self) -> String;
}

impl Lines for Vec<Part> {
    fn concat_lines(&self) -> String {
        self.iter().map(|part| part.lines.as_str()).collect()
    }
}

#[test]
fn every_kind_is_among_the_samples() {
    let samples = samples();
    assert!(<RecordKind as Code>::ALL.iter().all(|kind| samples.iter().any(|record| record.kind == *kind)));
}
