//! Records are complete: each decision names the policies that made it and can be replayed by them, and what changes
//! between two starts shows.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use valetkey_audit::StoredRecord;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Reason, RecordId, RecordKind, Ruling};
use valetkey_proto::v1::{
    ApproveAccessRequest, CheckAccessRequest, CreateTokenRequest, EndLeaseRequest, FindValueRequest,
    GetStatusRequest, ListApprovalsRequest, ListAuditRecordsRequest, ListTokensRequest, RejectAccessRequest,
    RevokeTokenRequest,
};
use valetkey_server::Config;
use valetkey_tests::lease::Lease;
use valetkey_tests::{Setup, TestBroker, acquire};

const BOOK: &str = "navan.book_flight";
const NAVAN: &str = "op://Tutorial/Navan/username";

/// Whether policy decides on records of a kind.
fn is_decided(kind: RecordKind) -> bool {
    match kind {
        RecordKind::Acquire
        | RecordKind::Renew
        | RecordKind::Redeem
        | RecordKind::Check
        | RecordKind::EndLease
        | RecordKind::ReadAudit
        | RecordKind::FindValue
        | RecordKind::Operate
        | RecordKind::TokenCreate
        | RecordKind::TokenList
        | RecordKind::TokenRevoke
        | RecordKind::ApprovalList
        | RecordKind::Approve
        | RecordKind::Reject => true,
        RecordKind::Locate
        | RecordKind::Unauthenticated
        | RecordKind::Malformed
        | RecordKind::Limit
        | RecordKind::LeaseEnd
        | RecordKind::HandleExpire
        | RecordKind::HandleRevoke
        | RecordKind::PolicyLoad
        | RecordKind::ConfigLoad
        | RecordKind::Retire
        | RecordKind::TlsLoad
        | RecordKind::Start
        | RecordKind::Stop => false,
    }
}

/// Everything that is decided on, by one of the cast. What comes of it plays no part.
async fn everything(broker: &TestBroker, who: &str) -> Result<()> {
    let mut client = broker.client(who).await?;
    let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    let _ = client.leases.check_access(ask).await;
    let lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    let _ = client.redeem(lease.handle(0)?).await;
    let _ = client.leases.acquire_lease(acquire(BOOK, &[NAVAN])).await;
    let _ = client.leases.end_lease(EndLeaseRequest { lease_id: lease.id.clone() }).await;
    let _ = client.audit.list_audit_records(ListAuditRecordsRequest::default()).await;
    let _ = client.reports.find_value(FindValueRequest { value: b"a guess".to_vec() }).await;
    let _ = client.operator.get_status(GetStatusRequest {}).await;
    let made = client
        .tokens
        .create_token(CreateTokenRequest { identity: "agent:new".into(), ..Default::default() })
        .await;
    let token_id = made.ok().and_then(|made| made.into_inner().token).map(|token| token.token_id);
    let _ = client.tokens.list_tokens(ListTokensRequest::default()).await;
    let token_id = token_id.unwrap_or_else(|| "vkt_0123456789abcdef".into());
    let _ = client.tokens.revoke_token(RevokeTokenRequest { token_id }).await;
    let _ = client.approvals.list_approvals(ListApprovalsRequest::default()).await;
    // Decided whether something waits or not.
    let approval_id = "vkl_0123456789abcdef".to_owned();
    let _ = client.approvals.approve_access(ApproveAccessRequest { approval_id: approval_id.clone() }).await;
    let _ = client.approvals.reject_access(RejectAccessRequest { approval_id }).await;
    Ok(())
}

#[tokio::test]
async fn every_decision_names_its_policies() -> Result<()> {
    let clock = FakeClock::default();
    let setup = Setup::new()?.clock(&clock);
    // A handle that its tool may hold and policy does not let it redeem.
    let search = r#"
        @id("search")
        permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
        when { context.tool == Tool::"web.search" };
        @id("operators-approve")
        permit (principal in Group::"operators", action == Action::"approve", resource is Lease);
    "#;
    std::fs::write(setup.dir().join("policies/search.cedar"), search)?;
    let broker = setup.start().await?;
    let ask = acquire("web.search", &["op://Production/Database/password"]);
    let held = Lease::open(&mut broker.client("travel-bot").await?, ask).await?;
    broker.client("web.search").await?.redeem(held.handle(0)?).await.err().context("it is redeemed")?;
    for who in ["ana", "omar", "eve", "travel-bot", "mail-bot", BOOK] {
        everything(&broker, who).await?;
    }
    let mut lease = Lease::open(&mut broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
    clock.advance(Duration::from_secs(50));
    assert!(lease.next().await?.is_some(), "a renewal");
    let none = r#"@id("end") forbid (principal, action == Action::"acquire", resource);"#;
    broker.put_policies("more.cedar", none)?;
    broker.reloader.reload().await?;
    broker
        .await_records(RecordId(0), |all| {
            all.iter().any(|it| it.kind == RecordKind::HandleRevoke).then_some(())
        })
        .await?;
    everything(&broker, "travel-bot").await.err().context("a lease")?;

    let records = broker.since(RecordId(0)).await?;
    let mut decided: HashSet<(RecordKind, bool)> = HashSet::new();
    for record in &records {
        let by_policy = record.reason.as_str().starts_with("POLICY_");
        assert!(!by_policy || record.revision.is_some(), "{record:#?}");
        assert!(record.ruling != Ruling::Allow || !record.policies.is_empty(), "{record:#?}");
        let named = [Reason::PolicyForbid, Reason::PolicyError, Reason::EndPolicy].contains(&record.reason);
        if record.kind != RecordKind::LeaseEnd {
            assert!(!named || !record.policies.is_empty(), "{record:#?}");
        }
        if by_policy && record.ruling != Ruling::Event {
            decided.insert((record.kind, record.ruling == Ruling::Allow));
        }
    }
    for kind in RecordKind::ALL {
        let rulings = [true, false].map(|allowed| decided.contains(&(kind, allowed)));
        // A renewal that policy refuses ends the lease before.
        let expected = [is_decided(kind), is_decided(kind) && kind != RecordKind::Renew];
        assert_eq!(rulings, expected, "{kind:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_policies_of_every_revision_are_kept() -> Result<()> {
    let broker = TestBroker::start().await?;
    everything(&broker, "ana").await?;
    broker.put_policies("more.cedar", r#"@id("end") forbid (principal, action, resource is Lease);"#)?;
    broker.reloader.reload().await?;
    everything(&broker, "omar").await?;
    // The one in between is in force at no start.
    broker
        .put_policies("more.cedar", r#"@id("other-end") forbid (principal, action, resource is Lease);"#)?;
    broker.reloader.reload().await?;
    everything(&broker, "omar").await?;
    let broker = broker.stop().await?.start().await?;

    let records = broker.since(RecordId(0)).await?;
    let revisions: HashSet<_> = records.iter().filter_map(|it| it.revision.as_deref()).collect();
    assert_eq!(revisions.len(), 3);
    let mut with_end = 0;
    for revision in revisions {
        let text = broker.store.reader().policy_set(revision).await?.context("it is not kept")?;
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&text)[..8]);
        assert_eq!(digest, revision, "it is what the revision is the digest of");
        let text = String::from_utf8(text)?;
        for file in ["schema.cedarschema", "entities.json", "people.cedar", "travel.cedar"] {
            assert!(text.contains(&format!("==== \"{file}\" ")), "{file}");
        }
        with_end += usize::from(text.contains("resource is Lease);"));
    }
    assert_eq!(with_end, 2);
    assert_eq!(broker.store.reader().policy_set("0123456789abcdef").await?, None);
    Ok(())
}

/// The configuration of the test, with these tokens and this bound.
fn config(token: &str, bound: u32) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = \"policies\"\n\
         [[source]]\nname = \"a\"\nkind = \"file\"\nfile = \"vault.json\"\n\
         [[identity]]\nagent = \"a\"\ntoken = \"{token}\"\n[[identity]]\nagent = \"b\"\nspiffe = \"spiffe://x/b\"\n\
         [tls]\ncertificate = \"c\"\nkey = \"k\"\nclient_ca = \"ca\"\ntrust_domain = \"x\"\n\
         [limits]\nrequests_per_second = {bound}\n"
    )
}

#[tokio::test]
async fn what_is_configured_shows_between_starts() -> Result<()> {
    let token = || valetkey_server::TokenDigest::of(&valetkey_core::Bearer::random("vkt_")).to_string();
    let (one, other) = (token(), token());
    let mut said = Vec::new();
    for (token, bound) in [(&one, 10), (&one, 10), (&other, 10), (&one, 11)] {
        let setup = Setup::new()?;
        let parsed = Config::parse(&config(token, bound), setup.dir());
        let digests = parsed.map_err(|faults| anyhow::anyhow!("{faults:#?}"))?.digests;
        let broker = setup.configure(move |config| config.digests = digests).start().await?;
        let loads = broker.records("kind:config_load").await?;
        let [load] = &loads[..] else { anyhow::bail!("{loads:#?}") };
        said.push(load.detail.clone());
    }
    let part = |place: usize, name: &str| {
        let said = said.get(place).map(String::as_str).unwrap_or_default();
        said.split([',', ';']).map(str::trim).find(|part| part.starts_with(name)).map(ToOwned::to_owned)
    };
    assert_eq!(said[0], said[1], "the same says the same");
    assert!(part(0, "identity (2) ").is_some(), "{said:#?}");
    assert_ne!(part(0, "identity"), part(2, "identity"), "another token");
    assert_eq!(part(0, "limits"), part(2, "limits"));
    assert_ne!(part(0, "limits"), part(3, "limits"));
    assert_eq!(part(0, "identity"), part(3, "identity"));
    assert!(said.iter().all(|said| !said.contains(&one)), "{said:#?}");
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_lease_that_there_is_not_says_so() -> Result<()> {
    let broker = TestBroker::start().await?;
    let mark = broker.mark();
    let lease_id = "vkl_0123456789abcdef".to_owned();
    let _ =
        broker.client("omar").await?.leases.end_lease(EndLeaseRequest { lease_id: lease_id.clone() }).await;
    let records: Vec<StoredRecord> = broker.since(mark).await?;
    let said: Vec<_> = records.iter().map(|it| (it.ruling, it.reason, it.lease.as_deref())).collect();
    let lease = Some(lease_id.as_str());
    assert_eq!(said, [(Ruling::Allow, Reason::PolicyPermit, lease), (Ruling::Event, Reason::Failed, lease)]);
    Ok(())
}
