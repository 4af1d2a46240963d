//! The log as the lines of a file, from a broker that serves.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;
use tonic::{Code, Status, Streaming};
use valetkey_core::testing::{FakeClock, reference, target};
use valetkey_core::{AuditLog, AuditRecord, Clock, Reason, RecordKind};
use valetkey_proto::v1::{ExportAuditRecordsRequest, ExportAuditRecordsResponse, ExportFormat};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::{Client, Setup, TestBroker, acquire, reason};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";
const FORMATS: [ExportFormat; 3] = [ExportFormat::Jsonl, ExportFormat::Csv, ExportFormat::Ocsf];
const EVE: &str = r#"
    // Who reviews one vault.
    @id("eve-audit")
    permit (principal == Person::"eve", action == Action::"readAudit", resource in Vault::"production");
"#;

#[tokio::test]
async fn ten_thousand_records() -> Result<()> {
    let broker = TestBroker::start().await?;
    fill(&broker, 10_000).await?;
    let mut ana = broker.client("ana").await?;
    for format in FORMATS {
        let parts = parts(&mut ana, ask(format, "", "")).await?;
        let last = parts.last().context("no part")?.last_record_id.clone();
        assert!(parts.len() > 20, "{}", parts.len());
        assert!(parts.iter().all(|part| part.lines.len() < 512 * 1024 && part.last_record_id == last));
        assert!(parts.iter().all(|part| part.lines.is_empty() || part.lines.ends_with(b"\n")));
        assert!(parts.iter().rev().skip(1).all(|part| part.proof.is_empty()), "the proof comes last");
        assert_eq!(parts.last().map(|part| &part.seen_record_id), Some(&last));
        let ids = ids(format, &text(&parts)?)?;
        assert_eq!(ids, (1..=last.parse()?).collect::<Vec<u64>>(), "{format:?}");
        assert!(ids.len() > 10_000);
        let record = broker.store.reader().fetch(&valetkey_core::AuditScope::Whole, broker.mark()).await?;
        let record = record.context("no record")?;
        let detail =
            format!("export {} ", format.as_str_name().trim_start_matches("EXPORT_FORMAT_").to_lowercase());
        assert_eq!((record.kind, record.detail), (RecordKind::ReadAudit, Some(detail)));
    }
    Ok(())
}

#[tokio::test]
async fn a_file_is_gone_on_with() -> Result<()> {
    let broker = TestBroker::start().await?;
    fill(&broker, 10).await?;
    let mut ana = broker.client("ana").await?;
    for format in FORMATS {
        let first = text(&parts(&mut ana, ask(format, "", "")).await?)?;
        let known = *ids(format, &first)?.last().context("nothing")?;
        let more = text(&parts(&mut ana, ask(format, "", &known.to_string())).await?)?;
        let whole = text(&parts(&mut ana, ask(format, "", "")).await?)?;
        // Each export is a record of its own, which the next one has too.
        assert!(whole.starts_with(&format!("{first}{more}")), "{format:?}");
        let csv_header = usize::from(format == ExportFormat::Csv);
        assert_eq!(whole.matches("record_id,time,").count(), csv_header, "{format:?}");
        // From the first on, but without a header.
        let bare = text(&parts(&mut ana, ask(format, "record:1", "0")).await?)?;
        assert_eq!((bare.lines().count(), ids(format, &bare)?), (1, vec![1]));
    }
    Ok(())
}

/// A record comes before what it permits: it is in no export until it is known what came of it.
#[tokio::test]
async fn an_open_record_ends_an_export() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mark = broker.mark();
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    broker.settled(mark).await?;
    let mut ana = broker.client("ana").await?;
    let jsonl = text(&parts(&mut ana, ask(ExportFormat::Jsonl, "kind:acquire", "")).await?)?;
    let line: Value = serde_json::from_str(jsonl.trim_end())?;
    assert_eq!(line.pointer("/outcome/result"), Some(&"issued".into()), "{line}");
    assert_eq!(line.pointer("/lease_id"), Some(&lease.id.as_str().into()));
    Ok(())
}

#[tokio::test]
async fn a_reviewer_of_one_vault_exports_that_vault() -> Result<()> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/eve.cedar"), EVE)?;
    let broker = setup.start().await?;
    fill(&broker, 1000).await?;
    let mut eve = broker.client("eve").await?;
    for format in FORMATS {
        for filter in ["", "-agent:nobody", "-vault:production"] {
            let lines = text(&parts(&mut eve, ask(format, filter, "")).await?)?;
            let found = ids(format, &lines)?.len();
            assert_eq!(found, if filter.starts_with("-vault") { 0 } else { 100 }, "{format:?} {filter}");
            assert!(!lines.contains("tutorial") && !lines.contains("person:ana"), "{lines}");
        }
    }
    // No vault, nothing.
    broker.put_policies("eve.cedar", "")?;
    broker.reloader.reload().await?;
    let mark = broker.mark();
    let answer = eve.audit.export_audit_records(ask(ExportFormat::Csv, "", "")).await;
    broker.check_refused("eve", mark, (0, 0), answer, DENIED).await?;
    Ok(())
}

#[tokio::test]
async fn what_policy_takes_away_ends_an_export() -> Result<()> {
    let setup = Setup::new()?;
    std::fs::write(
        setup.dir().join("policies/eve.cedar"),
        EVE.replace(r#"in Vault::"production""#, "is Vault"),
    )?;
    let broker = setup.start().await?;
    fill(&broker, 10_000).await?;
    let mut eve = broker.client("eve").await?;
    let mut export = eve.audit.export_audit_records(ask(ExportFormat::Jsonl, "", "")).await?.into_inner();
    let first = next(&mut export).await?.context("no part")?;
    let mark = broker.mark();
    broker.put_policies("eve.cedar", "")?;
    broker.reloader.reload().await?;
    // What the transport has taken already comes; nothing else does.
    let mut seen = first.seen_record_id;
    let answer = loop {
        match next(&mut export).await {
            Ok(Some(part)) => seen = part.seen_record_id,
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    broker.check_refused("the export", mark, (0, 0), answer, DENIED).await?;
    assert!(seen.parse::<u64>()? < 5_000, "the broker had read ahead up to {seen}");
    Ok(())
}

/// A vault that is permitted no more is in no later part, though the export goes on.
#[tokio::test]
async fn what_policy_narrows_narrows_an_export() -> Result<()> {
    let setup = Setup::new()?;
    std::fs::write(
        setup.dir().join("policies/eve.cedar"),
        EVE.replace(r#"in Vault::"production""#, "is Vault"),
    )?;
    let broker = setup.start().await?;
    fill(&broker, 10_000).await?;
    let mut eve = broker.client("eve").await?;
    let mut export = eve.audit.export_audit_records(ask(ExportFormat::Jsonl, "", "")).await?.into_inner();
    next(&mut export).await?.context("no part")?;
    broker.put_policies("eve.cedar", EVE)?;
    broker.reloader.reload().await?;
    let mut parts = Vec::new();
    while let Some(part) = next(&mut export).await? {
        parts.push(part);
    }
    let last = parts.last().context("no part")?;
    assert_eq!(last.seen_record_id, last.last_record_id);
    let last = parts.iter().rfind(|part| !part.lines.is_empty()).context("no line")?;
    let (all, last) = (text(&parts)?, text(std::slice::from_ref(last))?);
    assert!(last.contains("production") && !last.contains("tutorial"), "{last}");
    assert!(all.matches("\"tutorial\"").count() < 5_000, "the broker had read ahead");
    assert_eq!(broker.records("kind:read_audit caller:person:eve").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_stop_ends_an_export_with_a_status() -> Result<()> {
    let broker = TestBroker::start().await?;
    fill(&broker, 10_000).await?;
    let mut ana = broker.client("ana").await?;
    let mut export = ana.audit.export_audit_records(ask(ExportFormat::Ocsf, "", "")).await?.into_inner();
    next(&mut export).await?.context("no part")?;
    let stopping = tokio::spawn(broker.stop());
    let status = loop {
        match next(&mut export).await {
            Ok(Some(_)) => {}
            Ok(None) => anyhow::bail!("it ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"), "{status:?}");
    stopping.await??;
    Ok(())
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_recorded() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mut ana = broker.client("ana").await?;
    let unspecified = ask(ExportFormat::Unspecified, "", "");
    for (ask, reason) in [
        (ExportAuditRecordsRequest { format: 9, ..unspecified.clone() }, "INVALID_FORMAT"),
        (unspecified, "INVALID_FORMAT"),
        (ask(ExportFormat::Csv, "nonsense", ""), "INVALID_FILTER"),
        (ask(ExportFormat::Csv, "", "x"), "INVALID_RECORD_ID"),
        (ask(ExportFormat::Csv, "", "-1"), "INVALID_RECORD_ID"),
        // Beyond the end: a place in another log.
        (ask(ExportFormat::Csv, "", "999999"), "INVALID_RECORD_ID"),
    ] {
        let mark = broker.mark();
        let answer = ana.audit.export_audit_records(ask).await;
        let expected = Refused {
            code: Code::InvalidArgument,
            reason,
            kind: RecordKind::ReadAudit,
            why: Reason::FieldInvalid,
        };
        broker.check_refused(reason, mark, (0, 0), answer, expected).await?;
    }
    Ok(())
}

const DENIED: Refused = Refused {
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    kind: RecordKind::ReadAudit,
    why: Reason::PolicyNoPermit,
};

/// Writes records, one in ten about the vault `production` and the others about `tutorial`, straight into the log.
async fn fill(broker: &TestBroker, count: usize) -> Result<()> {
    let about = |name: &str| {
        let there = reference(&format!("op://{name}/Navan/username"));
        AuditRecord {
            target: Some(Arc::new(target(&there))),
            purpose: Some("=cmd(), \"quoted\"".into()),
            ..AuditRecord::refusal(FakeClock::default().now(), RecordKind::Check, Reason::PolicyNoPermit)
        }
        // So long that what the transport takes in advance, some megabytes, is a small part of all.
        .with_detail(&"why ".repeat(200))
    };
    let ten: Vec<_> = (0..10).map(|n| about(if n == 0 { "Production" } else { "Tutorial" })).collect();
    for _ in 0..count.div_ceil(1000) {
        let records = ten.iter().cycle().take(count.min(1000)).cloned().collect();
        broker.store.record(records).await.map_err(anyhow::Error::from)?;
    }
    Ok(())
}

fn ask(format: ExportFormat, filter: &str, after: &str) -> ExportAuditRecordsRequest {
    ExportAuditRecordsRequest {
        filter: filter.into(),
        format: format.into(),
        after_record_id: after.into(),
        first_record_id: String::new(),
    }
}

async fn parts(
    client: &mut Client,
    ask: ExportAuditRecordsRequest,
) -> Result<Vec<ExportAuditRecordsResponse>> {
    let mut export = client.audit.export_audit_records(ask).await?.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = next(&mut export).await? {
        parts.push(part);
    }
    Ok(parts)
}

async fn next(
    export: &mut Streaming<ExportAuditRecordsResponse>,
) -> Result<Option<ExportAuditRecordsResponse>, Status> {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), export.message()).await;
    next.map_err(|_| Status::unknown("nothing came"))?
}

fn text(parts: &[ExportAuditRecordsResponse]) -> Result<String> {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.lines.iter().copied()).collect();
    Ok(String::from_utf8(bytes)?)
}

/// The records of the lines.
fn ids(format: ExportFormat, text: &str) -> Result<Vec<u64>> {
    let id = |line: &str| -> Result<u64> {
        let field = |pointer: &str| -> Result<String> {
            let value: Value = serde_json::from_str(line)?;
            Ok(value.pointer(pointer).and_then(Value::as_str).context("no id")?.to_owned())
        };
        let id = match format {
            ExportFormat::Jsonl => field("/record_id")?,
            ExportFormat::Ocsf => field("/metadata/uid")?,
            _ => line.split(',').next().unwrap_or_default().to_owned(),
        };
        Ok(id.parse()?)
    };
    text.lines().filter(|line| !line.starts_with("record_id,")).map(id).collect()
}
