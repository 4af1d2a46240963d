//! Approvals from outside: an agent is told to wait, a person decides, and the agent is granted that and no more.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use valetkey_audit::StoredRecord;
use valetkey_core::testing::FakeClock;
use valetkey_core::{ApprovalLimits, Clock, Reason, RecordKind, Ruling};
use valetkey_proto::v1::{
    Approval, ApproveAccessRequest, CheckAccessRequest, Decision, ListApprovalsRequest, RejectAccessRequest,
};
use valetkey_server::Config;
use valetkey_tests::issuer::{Signer, StandIn};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::{Refused, shape};
use valetkey_tests::{Client, Setup, TestBroker, acquire, reason};

const SEARCH: &str = "web.search";
const DATABASE: &str = "op://Production/Database/password";
const BY_IDS: &str = "op://production/database/PASSWORD";
const NAVAN: &str = "op://Tutorial/Navan/username";
const NOTHING: &str = "op://Production/No Such Item/password";

/// Operators approve; any person would be let to decide, were it not for that.
const POLICIES: &str = r#"
    // The database, once an operator says so.
    @id("database-approved")
    @approval("operators")
    permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
    when { context.tool == Tool::"web.search" };
    @id("database-redeem")
    permit (principal == Tool::"web.search", action == Action::"redeem", resource in Vault::"production");
    @id("navan-free")
    permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"tutorial")
    when { context.tool == Tool::"web.search" };
    @id("persons-approve")
    permit (principal is Person, action == Action::"approve", resource is Lease);
"#;

fn setup() -> Result<Setup> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/approvals.cedar"), POLICIES)?;
    Ok(setup)
}

/// The id that a refusal names.
fn id_of(refused: Result<Lease, Status>) -> Result<String> {
    let status = refused.err().context("it was granted")?;
    let info = status.get_details_error_info().context("no details")?;
    assert_eq!((status.code(), info.reason.as_str()), (Code::FailedPrecondition, "APPROVAL_REQUIRED"));
    Ok(info.metadata.get("approval_id").context("no id")?.clone())
}

async fn ask(broker: &TestBroker, references: &[&str]) -> Result<Lease, Status> {
    let client = broker.client("travel-bot").await;
    let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
    Lease::open(&mut client, acquire(SEARCH, references)).await
}

async fn list(client: &mut Client) -> Result<Vec<Approval>, Status> {
    Ok(client.approvals.list_approvals(ListApprovalsRequest::default()).await?.into_inner().approvals)
}

async fn approve(client: &mut Client, id: &str) -> Result<Approval, Status> {
    let ask = ApproveAccessRequest { approval_id: id.to_owned() };
    Ok(client.approvals.approve_access(ask).await?.into_inner().approval.unwrap_or_default())
}

async fn reject(client: &mut Client, id: &str) -> Result<(), Status> {
    let ask = RejectAccessRequest { approval_id: id.to_owned() };
    client.approvals.reject_access(ask).await.map(drop)
}

#[tokio::test]
async fn an_agent_waits_for_a_person_and_is_granted_for_a_while() -> Result<()> {
    let clock = FakeClock::default();
    let broker = setup()?.clock(&clock).start().await?;
    let mut omar = broker.client("omar").await?;
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let expected = Refused {
        code: Code::FailedPrecondition,
        reason: "APPROVAL_REQUIRED",
        kind: RecordKind::Acquire,
        why: Reason::ApprovalRequired,
    };
    let answer = ask(&broker, &[DATABASE]).await;
    let (status, record) = broker.check_refused("not approved", mark, counts, answer, expected).await?;
    let info = status.get_details_error_info().context("no details")?;
    let id = info.metadata.get("approval_id").context("no id")?.clone();
    assert_eq!(record.lease.as_deref(), Some(id.as_str()));
    assert_eq!(info.metadata.get("reference").map(String::as_str), Some(DATABASE));
    assert!(status.message().contains(&id), "{status:?}");
    assert!(status.get_details_help().is_none(), "nobody said where");

    let waits = list(&mut omar).await?;
    let [one] = waits.as_slice() else { anyhow::bail!("not one: {waits:#?}") };
    assert_eq!((one.approval_id.as_str(), one.agent.as_str()), (id.as_str(), "travel-bot"));
    assert_eq!((one.tool.as_str(), one.groups.as_slice()), (SEARCH, ["operators".to_owned()].as_slice()));
    assert_eq!(
        (one.purpose.as_str(), one.on_behalf_of.as_str()),
        (acquire(SEARCH, &[]).purpose.as_str(), "")
    );
    let [reference] = one.references.as_slice() else { anyhow::bail!("not one: {one:#?}") };
    assert_eq!(
        (reference.reference.as_str(), reference.record_id.as_str()),
        (DATABASE, &*record.id.to_string())
    );
    assert_eq!(
        (reference.vault.as_str(), reference.item.as_str(), reference.field.as_str()),
        ("production", "database", "password")
    );
    assert_eq!(
        (reference.vault_id.as_str(), reference.item_id.as_str(), reference.field_id.as_str()),
        ("productionxxxxxxxxxxxxxxxx", "databasexxxxxxxxxxxxxxxxxx", "password")
    );
    assert_eq!((reference.kind.as_str(), reference.section.as_str()), ("value", ""));
    assert_eq!(reference.meaning, "production/database/password");
    approve(&mut omar, &id).await?;
    assert_eq!(list(&mut omar).await?, []);

    // However it is spelled: it is the same secret.
    let mark = broker.mark();
    let mut lease = ask(&broker, &[BY_IDS]).await?;
    broker.client(SEARCH).await?.redeem(lease.handle(0)?).await?;
    let granted = broker.settled(mark).await?.into_iter().find(|it| it.kind == RecordKind::Acquire);
    let story = broker.records(&format!("lease:{id} kind:approve")).await?;
    let detail = format!("approved by person:omar in record {} ({id})", story[0].record_id);
    assert_eq!(granted.context("no record")?.detail, Some(detail));

    // Its time is over: nothing is renewed, and the next one waits.
    clock.advance(Duration::from_secs(899));
    drop(ask(&broker, &[DATABASE]).await?);
    clock.advance(Duration::from_secs(1));
    let renewal = |records: &[StoredRecord]| {
        let refused = |it: &&StoredRecord| it.reason == Reason::ApprovalRequired;
        records.iter().find(refused).map(|it| it.kind)
    };
    let mark = broker.mark();
    let again = id_of(ask(&broker, &[DATABASE]).await)?;
    assert_ne!(again, id);
    assert_eq!(broker.await_records(mark, renewal).await?, RecordKind::Acquire);
    while lease.next().await?.is_some() {}
    Ok(())
}

/// What an approver reads of each way to name things that have a name in common.
#[tokio::test]
async fn an_approver_sees_which_secret_it_is() -> Result<()> {
    let setup = setup()?;
    let vault = || json!({"id": "productionxxxxxxxxxxxxxxxx"});
    let password = |id: &str| json!({"id": id, "type": "CONCEALED", "label": "password", "value": "p"});
    let item = |id: &str, title: &str, fields: serde_json::Value| {
        json!({"id": id, "title": title, "vault": vault(), "category": "LOGIN", "version": 1, "sections": [],
               "fields": fields})
    };
    let (twin_a, twin_b) = ("twinaxxxxxxxxxxxxxxxxxxxxx", "twinbxxxxxxxxxxxxxxxxxxxxx");
    let code = json!({"id": "otp", "type": "TOTP", "label": "one-time password",
                      "value": "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQ"});
    let mut cluster =
        item("clusterxxxxxxxxxxxxxxxxxxx", "Cluster", json!([password("low"), password("high"), code]));
    cluster["sections"] = json!([{"id": "s1", "label": "Readonly"}, {"id": "s2", "label": "Superuser"}]);
    cluster["fields"][0]["section"] = json!({"id": "s1"});
    cluster["fields"][1]["section"] = json!({"id": "s2"});
    let file = setup.dir().join("vault.json");
    let mut all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let items = all["items"].as_array_mut().context("no items")?;
    items.extend([
        item(twin_a, "Twin", json!([password("password")])),
        item(twin_b, "Twin", json!([password("password")])),
        item("turnedxxxxxxxxxxxxxxxxxxxx", "Db\u{202e}/x y", json!([password("password")])),
        cluster,
    ]);
    std::fs::write(&file, all.to_string())?;
    let seed = POLICIES
        .replace("action == Action::\"acquire\"", "action in [Action::\"acquire\", Action::\"acquireSeed\"]");
    std::fs::write(setup.dir().join("policies/approvals.cedar"), seed)?;
    let broker = setup.start().await?;
    let mut omar = broker.client("omar").await?;
    for (path, meaning) in [
        (format!("{twin_a}/password"), format!("production/twin[{twin_a}]/password")),
        (format!("{twin_b}/password"), format!("production/twin[{twin_b}]/password")),
        ("Cluster/Readonly/password".into(), "production/cluster/readonly/password".into()),
        ("clusterxxxxxxxxxxxxxxxxxxx/high".into(), "production/cluster/superuser/password[high]".into()),
        ("Cluster/one-time password".into(), "production/cluster/\"one-time password\" (seed)".into()),
        ("Cluster/otp?attribute=otp".into(), "production/cluster/\"one-time password\"[otp] (code)".into()),
        (
            "turnedxxxxxxxxxxxxxxxxxxxx/password".into(),
            "production/\"db\\u{202e}/x y\"[turnedxxxxxxxxxxxxxxxxxxxx]/password".into(),
        ),
        ("No Such Item/password".into(), "nothing that is there".into()),
    ] {
        let id = id_of(ask(&broker, &[&format!("op://Production/{path}")]).await)?;
        let waiting = list(&mut omar).await?;
        let one = waiting.iter().find(|it| it.approval_id == id).context("it does not wait")?;
        assert_eq!(one.references[0].meaning, meaning, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn only_who_may_decide_decides() -> Result<()> {
    let broker = setup()?.start().await?;
    let id = id_of(ask(&broker, &[DATABASE]).await)?;
    let counts = broker.broker.leases().counts();
    let refused = |kind, why| Refused { code: Code::PermissionDenied, reason: "ACCESS_DENIED", kind, why };
    let (approve_kind, reject_kind) = (RecordKind::Approve, RecordKind::Reject);
    for (who, why) in [
        ("ana", Reason::ApproverGroup),
        ("eve", Reason::ApproverGroup),
        ("travel-bot", Reason::CallerKind),
        (SEARCH, Reason::CallerKind),
    ] {
        let mut client = broker.client(who).await?;
        let mark = broker.mark();
        let answer = approve(&mut client, &id).await;
        broker.check_refused(who, mark, counts, answer, refused(approve_kind, why)).await?;
        let mark = broker.mark();
        let answer = reject(&mut client, &id).await;
        broker.check_refused(who, mark, counts, answer, refused(reject_kind, why)).await?;
    }
    // Others see nothing of it; those that are no persons are refused.
    assert_eq!(list(&mut broker.client("eve").await?).await?, []);
    let mut bot = broker.client("travel-bot").await?;
    let mark = broker.mark();
    let answer = list(&mut bot).await;
    let expected = refused(RecordKind::ApprovalList, Reason::CallerKind);
    broker.check_refused("the agent", mark, counts, answer, expected).await?;
    assert_eq!(id_of(ask(&broker, &[DATABASE]).await)?, id, "it waits as before");
    // Nothing waits under another id, and what is none is said to be so.
    let mut omar = broker.client("omar").await?;
    let unknown = approve(&mut omar, "vkl_0123456789abcdef").await.err().context("found")?;
    assert_eq!((unknown.code(), reason(&unknown)), (Code::NotFound, "APPROVAL_NOT_FOUND".to_owned()));
    let wrong = approve(&mut omar, "vkt_0123456789abcdef").await.err().context("taken")?;
    assert_eq!((wrong.code(), reason(&wrong)), (Code::InvalidArgument, "INVALID_APPROVAL_ID".to_owned()));
    reject(&mut omar, &id).await?;
    let rejected = ask(&broker, &[DATABASE]).await.err().context("granted")?;
    assert_eq!((rejected.code(), reason(&rejected)), (Code::PermissionDenied, "ACCESS_DENIED".to_owned()));
    assert_eq!(list(&mut omar).await?, [], "nobody is asked again");
    Ok(())
}

#[tokio::test]
async fn nobody_approves_what_was_asked_on_their_behalf() -> Result<()> {
    let (clock, key, server) = (FakeClock::default(), Signer::es256("a")?, StandIn::start().await?);
    server.publish(&[&key]);
    let people = format!(
        "issuer = \"https://people.test\"\naudience = \"valetkey\"\njwks_url = \"{}\"\non_behalf_of = true\n\
         rules = [{{ person = \"{{sub}}\" }}]",
        server.url()
    );
    let setup = setup()?.clock(&clock).issuer(&people);
    // A second operator.
    let file = setup.dir().join("policies/entities.json");
    let eve = r#"[{ "uid": { "type": "Person", "id": "eve" }, "attrs": {}, "parents": [{ "type": "Group", "id": "operators" }] },"#;
    let entities = std::fs::read_to_string(&file)?.replacen('[', eve, 1);
    std::fs::write(&file, entities)?;
    let broker = setup.start().await?;
    let now = clock.now().as_micros() / 1_000_000;
    let claims =
        json!({"iss": "https://people.test", "aud": "valetkey", "sub": "omar", "iat": now, "exp": now + 600});
    let token = key.token(&claims)?;
    let ask_for_omar = async || {
        let mut client = broker.client_for("travel-bot", &token).await?;
        anyhow::Ok(Lease::open(&mut client, acquire(SEARCH, &[DATABASE])).await)
    };
    let id = id_of(ask_for_omar().await?)?;
    let (mut omar, mut eve) = (broker.client("omar").await?, broker.client("eve").await?);
    let (mark, counts) = (broker.mark(), broker.broker.leases().counts());
    let own = Refused {
        code: Code::PermissionDenied,
        reason: "ACCESS_DENIED",
        kind: RecordKind::Approve,
        why: Reason::ApproverOwn,
    };
    let answer = approve(&mut omar, &id).await;
    broker.check_refused("their own", mark, counts, answer, own).await?;
    assert_eq!(list(&mut omar).await?, []);
    assert_eq!(list(&mut eve).await?[0].on_behalf_of, "omar");
    approve(&mut eve, &id).await?;
    // For omar alone: for nobody in particular it is another thing.
    id_of(ask(&broker, &[DATABASE]).await)?;
    let lease = ask_for_omar().await??;
    assert_eq!(lease.issued.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_refused_looks_as_before() -> Result<()> {
    let broker = setup()?.start().await?;
    let mut omar = broker.client("omar").await?;
    // What is there and what is not are one to whoever waits.
    let real = ask(&broker, &[DATABASE]).await.err().context("granted")?;
    let nothing = ask(&broker, &[NOTHING]).await.err().context("granted")?;
    let without_ids = |status: &Status| {
        let (code, message, others, facts) = shape(status);
        let facts: Vec<_> = facts.into_iter().map(|(key, _)| key).collect();
        (code, message.split("vkl_").next().map(ToOwned::to_owned), others, facts)
    };
    assert_eq!(without_ids(&real), without_ids(&nothing));
    // Whom policy refuses is refused as ever, and shown to nobody.
    let mut mail = broker.client("mail-bot").await?;
    let denied = Lease::open(&mut mail, acquire(SEARCH, &[DATABASE])).await.err().context("granted")?;
    assert_eq!(reason(&denied), "ACCESS_DENIED");
    let other_tool = acquire("navan.book_flight", &[DATABASE]);
    let denied = Lease::open(&mut broker.client("travel-bot").await?, other_tool).await.err();
    assert_eq!(reason(&denied.context("granted")?), "ACCESS_DENIED");
    let mixed = ask(&broker, &[DATABASE, "op://Payments/Ramp/password"]).await.err().context("granted")?;
    assert_eq!(reason(&mixed), "ACCESS_DENIED");
    let waiting = list(&mut omar).await?;
    assert_eq!(waiting.len(), 2, "{waiting:#?}");
    assert_eq!((waiting[1].references[0].item.as_str(), waiting[1].references[0].field.as_str()), ("", ""));
    Ok(())
}

#[tokio::test]
async fn a_part_is_granted_and_a_check_says_what_is_missing() -> Result<()> {
    let broker = setup()?.start().await?;
    let mut bot = broker.client("travel-bot").await?;
    let question =
        CheckAccessRequest { tool: SEARCH.into(), reference: DATABASE.into(), ..Default::default() };
    let answer = bot.leases.check_access(question.clone()).await?.into_inner();
    assert_eq!((answer.decision(), answer.approval_required), (Decision::Allow, true));
    let mut omar = broker.client("omar").await?;
    assert_eq!(list(&mut omar).await?, [], "a check asks nobody");

    let mut partial = acquire(SEARCH, &[DATABASE, NAVAN]);
    partial.partial = true;
    let lease = Lease::open(&mut bot, partial).await?;
    assert_eq!(lease.issued.iter().map(|it| it.reference.as_str()).collect::<Vec<_>>(), [NAVAN]);
    let [refused] = lease.refused.as_slice() else { anyhow::bail!("{:?}", lease.refused) };
    assert_eq!((refused.reference.as_str(), refused.reason.as_str()), (DATABASE, "APPROVAL_REQUIRED"));
    assert!(refused.message.contains(&lease.id), "{}", refused.message);
    // The whole of it waits for the same person.
    assert_eq!(id_of(ask(&broker, &[NAVAN, DATABASE]).await)?, lease.id);
    approve(&mut omar, &lease.id).await?;
    let answer = bot.leases.check_access(question).await?.into_inner();
    assert_eq!((answer.decision(), answer.approval_required), (Decision::Allow, false));
    assert_eq!(ask(&broker, &[NAVAN, DATABASE]).await?.issued.len(), 2);
    Ok(())
}

#[tokio::test]
async fn policy_has_the_last_word() -> Result<()> {
    let broker = setup()?.start().await?;
    let mut omar = broker.client("omar").await?;
    let id = id_of(ask(&broker, &[DATABASE]).await)?;
    approve(&mut omar, &id).await?;
    let mut lease = ask(&broker, &[DATABASE]).await?;
    let reload = async |name: &str, text: &str| {
        std::fs::write(broker.dir.path().join("policies").join(name), text)?;
        broker.reloader.reload().await.map(drop).map_err(anyhow::Error::from)
    };
    // The approver is no operator any more.
    let entities = std::fs::read_to_string(broker.dir.path().join("policies/entities.json"))?;
    let others = entities.replace(r#""id": "omar""#, r#""id": "olga""#);
    reload("entities.json", &others).await?;
    id_of(ask(&broker, &[DATABASE]).await)?;
    while lease.next().await?.is_some() {}
    reload("entities.json", &entities).await?;
    drop(ask(&broker, &[DATABASE]).await?);
    // A forbid wins over any approval.
    let forbid =
        r#"@id("frozen") forbid (principal, action == Action::"acquire", resource in Vault::"production");"#;
    reload("frozen.cedar", forbid).await?;
    let status = ask(&broker, &[DATABASE]).await.err().context("granted")?;
    assert_eq!(reason(&status), "ACCESS_DENIED");
    reload("frozen.cedar", "").await?;
    // An approval that is asked for from now on ends what lives without.
    let mut free = ask(&broker, &[NAVAN]).await?;
    let stricter = POLICIES.replace("@id(\"navan-free\")", "@id(\"navan-free\") @approval(\"operators\")");
    let mark = broker.mark();
    reload("approvals.cedar", &stricter).await?;
    while free.next().await?.is_some() {}
    let is_revoke = |all: &[StoredRecord]| all.iter().find(|it| it.kind == RecordKind::HandleRevoke).cloned();
    let revoked = broker.await_records(mark, is_revoke).await?;
    assert_eq!(revoked.detail.as_deref(), Some("a person in `operators` has to approve it"));
    Ok(())
}

#[tokio::test]
async fn a_restart_forgets() -> Result<()> {
    let broker = setup()?.start().await?;
    let approved = id_of(ask(&broker, &[DATABASE]).await)?;
    approve(&mut broker.client("omar").await?, &approved).await?;
    let waiting = id_of(ask(&broker, &[NOTHING]).await)?;
    let broker = broker.stop().await?.start().await?;
    let mut omar = broker.client("omar").await?;
    assert_eq!(list(&mut omar).await?, []);
    assert_eq!(reason(&approve(&mut omar, &waiting).await.err().context("found")?), "APPROVAL_NOT_FOUND");
    assert_ne!(id_of(ask(&broker, &[DATABASE]).await)?, approved);
    Ok(())
}

#[tokio::test]
async fn the_configuration_bounds_it_and_says_where() -> Result<()> {
    let text = "listen = \"127.0.0.1:0\"\n[audit]\ndatabase = \"audit.db\"\n[policies]\ndirectory = \"policies\"\n\
                [approvals]\nurl = \"https://ops.example.com/approvals/{id}?as=person\"\ngood_seconds = 60\n\
                [[source]]\nname = \"try\"\nkind = \"file\"\nfile = \"vault.json\"\n\
                [[identity]]\nagent = \"bot\"\ntoken = \"vkt_0123456789abcdef:0000000000000000000000000000000000000000000000000000000000000000\"\n";
    let parsed = Config::parse(text, std::path::Path::new("/"));
    let mut approvals = parsed.map_err(|faults| anyhow::anyhow!("{faults:?}"))?.approvals;
    assert_eq!(approvals.limits.good_for, Duration::from_secs(60));
    approvals.limits = ApprovalLimits { asks_per_agent_max: 1, ..approvals.limits };
    let clock = FakeClock::default();
    let broker = setup()?.clock(&clock).configure(|config| config.approvals = approvals).start().await?;
    let status = ask(&broker, &[DATABASE]).await.err().context("granted")?;
    let id = status.get_details_error_info().and_then(|info| info.metadata.get("approval_id").cloned());
    let id = id.context("no id")?;
    let help = status.get_details_help().context("no help")?;
    assert_eq!(help.links[0].url, format!("https://ops.example.com/approvals/{id}?as=person"));
    let full = ask(&broker, &[NOTHING]).await.err().context("granted")?;
    assert_eq!((full.code(), reason(&full)), (Code::ResourceExhausted, "APPROVAL_LIMIT".to_owned()));
    approve(&mut broker.client("omar").await?, &id).await?;
    drop(ask(&broker, &[DATABASE]).await?);
    clock.advance(Duration::from_secs(60));
    id_of(ask(&broker, &[DATABASE]).await)?;
    let denied = broker.since(valetkey_core::RecordId(0)).await?;
    assert!(denied.iter().all(|it| it.reason != Reason::ApprovalRequired || it.ruling == Ruling::Deny));
    Ok(())
}
