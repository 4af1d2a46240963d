//! The lines of Python in docs/audit.md check a proof.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use valetkey_audit::{AuditStore, Missing, Proof, StoreOptions};
use valetkey_core::testing::{FakeClock, request};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, AuditScope, Clock, Grant, OutcomeResult, PolicyId, Reason, RecordId,
    RecordKind, Revision, Ruling,
};

#[test]
fn the_script_of_the_documentation_checks_proofs() {
    if !runs("import hashlib") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("check.py");
    std::fs::write(&script, script_text()).unwrap();
    for records in [1, 2, 7, 300] {
        let log = folder.path().join(format!("{records}.db"));
        let key = write(&log, records);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reader = valetkey_audit::AuditReader::open(&log).unwrap();
        for record in [1, records.div_ceil(2), records] {
            let proof = runtime.block_on(reader.prove(&AuditScope::Whole, RecordId(record))).unwrap();
            let Proof::Text(text) = proof else { panic!("{proof:?}") };
            let file = folder.path().join("proof");
            let checks = |text: &str| {
                std::fs::write(&file, text).unwrap();
                Command::new("python3").arg(&script).arg(&file).arg(&key).output().unwrap()
            };
            let ran = checks(&text);
            assert!(ran.status.success(), "{record} of {records}: {}", String::from_utf8_lossy(&ran.stderr));
            let (index, other) = (format!("index {}", record - 1), format!("index {record}"));
            assert!(!checks(&text.replacen(&index, &other, 1)).status.success(), "{record} of {records}");
        }
    }
}

/// The script; without its signature where the machine's Python knows none.
fn script_text() -> String {
    let docs = include_str!("../../../docs/audit.md");
    let script = docs.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let with_signature = runs("import cryptography");
    script
        .lines()
        .filter(|line| with_signature || !(line.contains("Ed25519") || line.starts_with("key.")))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn runs(python: &str) -> bool {
    Command::new("python3").args(["-c", python]).output().is_ok_and(|ran| ran.status.success())
}

/// A log of so many records, the odd ones with outcomes; its public key.
fn write(path: &Path, records: u64) -> String {
    let clock = FakeClock::default();
    let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
    let store = AuditStore::open(path, options, Arc::new(clock.clone())).unwrap();
    let record = |n| {
        let about = request("op://Tutorial/Navan/username");
        let record = match n % 2 {
            0 => AuditRecord::refusal(clock.now(), RecordKind::Acquire, Reason::PolicyNoPermit),
            _ => AuditRecord {
                ruling: Ruling::Allow,
                policies: Some([PolicyId("permit-all".into())].into()),
                revision: Some(Revision { generation: 1, digest: [1; 8] }),
                uses: Some(1),
                ..AuditRecord::event(clock.now(), RecordKind::Acquire, Reason::PolicyPermit)
            },
        };
        record.about(&about).with_detail(&format!("number {n}: \u{e9} \u{1f511} \"quoted\" \\ \u{7f}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let ids = runtime.block_on(store.record((1..=records).map(record).collect())).unwrap();
    for id in ids.into_iter().filter(|id| id.0 % 2 == 1) {
        let grant = Grant::for_test(request("op://Tutorial/Navan/username"), id);
        store.record_outcome(grant, AuditOutcome::new(clock.now(), OutcomeResult::Issued));
    }
    store.verifier_key().to_string()
}
