//! Reviewers who are limited to some vaults: they see those records, and nothing of the others.

use anyhow::{Context, Result};
use tonic::{Code, Status, Streaming};
use valetkey_core::{Reason, RecordKind, Ruling};
use valetkey_proto::v1::{
    AuditRecord, CheckAccessRequest, GetAuditRecordRequest, ListAuditRecordsRequest,
    ListAuditRecordsResponse, WatchAuditRecordsRequest, WatchAuditRecordsResponse,
};
use valetkey_tests::log::Refused;
use valetkey_tests::{Client, Setup, TestBroker, reason};

const TUTORIAL: &str = "op://Tutorial/Navan/username";
const PRODUCTION: &str = "op://Production/Database/password";
const NOWHERE: &str = "op://Nowhere/Database/password";

const EVE: &str = r#"
@id("eve-production")
permit (principal == Person::"eve", action == Action::"readAudit", resource in Vault::"production");
"#;
const DENIED: Refused = Refused {
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    kind: RecordKind::ReadAudit,
    why: Reason::PolicyNoPermit,
};

/// A broker whose log has records of two vaults and of none.
async fn broker() -> Result<TestBroker> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/eve.cedar"), EVE)?;
    let broker = setup.start().await?;
    for reference in [TUTORIAL, PRODUCTION, NOWHERE, TUTORIAL, PRODUCTION, TUTORIAL] {
        ask(&broker, reference).await?;
    }
    Ok(broker)
}

#[tokio::test]
async fn a_list_has_its_vaults_alone() -> Result<()> {
    let broker = broker().await?;
    let mut eve = broker.client("eve").await?;
    let mark = broker.mark();
    let all = list(&mut eve, "", 1000, "").await?;
    assert_eq!(vaults(&all.records), ["production"; 2]);
    assert_eq!(all.next_page_token, "");

    // The record says which vaults, and by which policy.
    let [record] = &broker.since(mark).await?[..] else { anyhow::bail!("not one record") };
    assert_eq!((record.kind, record.ruling), (RecordKind::ReadAudit, Ruling::Allow));
    assert_eq!(record.policies, ["eve-production"]);
    let detail = record.detail.as_deref().context("no detail")?;
    assert!(detail.starts_with("in 1 vaults, production (production"), "{detail}");
    assert!(detail.ends_with("): list "), "{detail}");

    // No filter leads out of it, and pages lead through it.
    for filter in [
        "vault:tutorial",
        "-vault:production",
        "kind:start",
        "kind:read_audit",
        "record:1",
        "caller:person:eve",
    ] {
        assert_eq!(list(&mut eve, filter, 1000, "").await?, ListAuditRecordsResponse::default(), "{filter}");
    }
    let first = list(&mut eve, "-agent:nobody", 1, "").await?;
    let second = list(&mut eve, "-agent:nobody", 1, &first.next_page_token).await?;
    assert_eq!(vaults(&[first.records, second.records].concat()), ["production"; 2]);
    // A token is a position: another's gives nothing more.
    let token = list(&mut broker.client("ana").await?, "", 1, "").await?.next_page_token;
    assert_eq!(vaults(&list(&mut eve, "", 1000, &token).await?.records), ["production"; 2]);
    assert!(vaults(&list(&mut broker.client("ana").await?, "", 1000, "").await?.records).len() > 10);
    Ok(())
}

#[tokio::test]
async fn a_record_of_another_vault_is_none() -> Result<()> {
    let broker = broker().await?;
    let mut eve = broker.client("eve").await?;
    let records = broker.since(valetkey_core::RecordId(0)).await?;
    assert!(records.len() >= 8);
    for record in &records {
        let ask = GetAuditRecordRequest { record_id: record.id.to_string() };
        let of = record.target.as_ref().and_then(|target| target.vault_name.as_deref());
        match (eve.audit.get_audit_record(ask).await, of) {
            (Ok(_), Some("production")) => {}
            (Err(status), Some("tutorial") | None) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "RECORD_NOT_FOUND"));
            }
            (answer, of) => anyhow::bail!("{of:?}: {answer:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn whoever_has_no_vault_is_refused() -> Result<()> {
    let broker = broker().await?;
    broker.put_policies("eve.cedar", &EVE.replace("production", "elsewhere"))?;
    broker.reloader.reload().await?;
    for who in ["eve", "omar", "travel-bot", "navan.book_flight"] {
        let mark = broker.mark();
        let answer = list(&mut broker.client(who).await?, "", 0, "").await;
        broker.check_refused(who, mark, (0, 0), answer, DENIED).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_follows_its_vaults_alone() -> Result<()> {
    let broker = broker().await?;
    let mut eve = broker.client("eve").await?;
    let mut records = watch(&mut eve, "0").await?;
    assert_eq!(vaults(&take(&mut records, 2).await?), ["production"; 2]);
    ask(&broker, TUTORIAL).await?;
    ask(&broker, PRODUCTION).await?;
    assert_eq!(vaults(&take(&mut records, 1).await?), ["production"]);

    // It widens, narrows and ends with the policies, and each time that is written down.
    let wider = EVE.replace(r#"in Vault::"production""#, "is Vault");
    broker.put_policies("eve.cedar", &wider)?;
    broker.reloader.reload().await?;
    ask(&broker, TUTORIAL).await?;
    assert_eq!(vaults(&take(&mut records, 1).await?), ["tutorial"]);
    broker.put_policies("eve.cedar", EVE)?;
    broker.reloader.reload().await?;
    ask(&broker, TUTORIAL).await?;
    ask(&broker, PRODUCTION).await?;
    assert_eq!(vaults(&take(&mut records, 1).await?), ["production"]);
    let reads = broker.records("kind:read_audit caller:person:eve").await?;
    assert_eq!(reads.len(), 3, "{reads:#?}");
    let mark = broker.mark();
    broker.put_policies("eve.cedar", "")?;
    broker.reloader.reload().await?;
    let answer = take(&mut records, 1).await.map_err(|error| {
        error.downcast::<Status>().unwrap_or_else(|other| Status::unknown(other.to_string()))
    });
    broker.check_refused("the watch", mark, (0, 0), answer, DENIED).await?;
    Ok(())
}

/// A vault of which there was no record when the watch began: it is decided on when it comes up.
#[tokio::test]
async fn a_watch_takes_in_a_vault_that_comes_up() -> Result<()> {
    let setup = Setup::new()?;
    let both = EVE.replace(r#"in Vault::"production""#, "is Vault");
    std::fs::write(setup.dir().join("policies/eve.cedar"), both)?;
    let broker = setup.start().await?;
    ask(&broker, TUTORIAL).await?;
    let mut eve = broker.client("eve").await?;
    let mut records = watch(&mut eve, "0").await?;
    assert_eq!(vaults(&take(&mut records, 1).await?), ["tutorial"]);
    ask(&broker, PRODUCTION).await?;
    ask(&broker, TUTORIAL).await?;
    assert_eq!(vaults(&take(&mut records, 2).await?), ["production", "tutorial"]);
    Ok(())
}

async fn ask(broker: &TestBroker, reference: &str) -> Result<()> {
    let tool = "navan.book_flight".into();
    let ask = CheckAccessRequest { tool, reference: reference.into(), ..Default::default() };
    broker.client("travel-bot").await?.leases.check_access(ask).await?;
    Ok(())
}

async fn list(
    client: &mut Client,
    filter: &str,
    page_size: i32,
    page_token: &str,
) -> Result<ListAuditRecordsResponse, Status> {
    let ask = ListAuditRecordsRequest { filter: filter.into(), page_size, page_token: page_token.into() };
    Ok(client.audit.list_audit_records(ask).await?.into_inner())
}

async fn watch(client: &mut Client, after: &str) -> Result<Streaming<WatchAuditRecordsResponse>> {
    let ask = WatchAuditRecordsRequest { filter: String::new(), after_record_id: after.into() };
    Ok(client.audit.watch_audit_records(ask).await?.into_inner())
}

async fn take(records: &mut Streaming<WatchAuditRecordsResponse>, count: usize) -> Result<Vec<AuditRecord>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), records.message()).await;
        taken.push(next.context("no record came")??.and_then(|next| next.record).context("the watch ended")?);
    }
    Ok(taken)
}

/// The vault of each; those without one have an empty name.
fn vaults(records: &[AuditRecord]) -> Vec<String> {
    let name = |record: &AuditRecord| record.target.as_ref().map(|target| target.vault_name.clone());
    records.iter().map(|record| name(record).unwrap_or_default()).collect()
}
