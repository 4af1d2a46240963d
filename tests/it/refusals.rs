//! Every refusal there is: what the caller reads, what the log says, and that nothing was granted.

use std::time::Duration;

use anyhow::{Context, Result};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;
use valetkey_core::testing::FakeClock;
use valetkey_core::{Bearer, Reason, RecordKind};
use valetkey_proto::v1::{
    AcquireLeaseRequest, CheckAccessRequest, EndLeaseRequest, ExportAuditRecordsRequest, ExportFormat,
    GetAuditRecordRequest, ListAuditRecordsRequest, RedeemHandleRequest, WatchAuditRecordsRequest,
};
use valetkey_tests::lease::{Lease, forged};
use valetkey_tests::log::{Refused, shape};
use valetkey_tests::{Client, Setup, TestBroker, acquire};

const NAVAN: &str = "op://Tutorial/Navan/username";
const CARD: &str = "op://Tutorial/Travel Card/number";
const BOOK: &str = "navan.book_flight";

const DENIED: Refused = Refused {
    code: Code::PermissionDenied,
    reason: "ACCESS_DENIED",
    kind: RecordKind::Acquire,
    why: Reason::PolicyNoPermit,
};
const MALFORMED: Refused =
    Refused { code: Code::InvalidArgument, reason: "", kind: RecordKind::Acquire, why: Reason::FieldInvalid };
const UNAUTHENTICATED: Refused = Refused {
    code: Code::Unauthenticated,
    reason: "AGENT_UNAUTHENTICATED",
    kind: RecordKind::Unauthenticated,
    why: Reason::TokenMissing,
};
const DEAD: Refused = Refused {
    code: Code::FailedPrecondition,
    reason: "HANDLE_NOT_ACTIVE",
    kind: RecordKind::Redeem,
    why: Reason::HandleUnknown,
};

/// What the default policies do not have: everything of `Production` for a tool that cannot redeem it, and
/// a policy that cannot be evaluated.
const MORE_POLICIES: &str = r#"
// A vault as a whole, for a tool without a permit to redeem.
@id("production-search")
permit (principal == Agent::"travel-bot", action == Action::"acquire", resource in Vault::"production")
when { context.tool == Tool::"web.search" };

// Overflows for every life.
@id("overflow")
forbid (principal == Agent::"travel-bot", action == Action::"acquire", resource in Item::"tutorial/ramp")
when { context.ttl * 9223372036854775807 > 0 };
"#;

/// What happens next to be refused.
struct Scene {
    broker: TestBroker,
    mark: valetkey_core::RecordId,
    counts: (usize, usize),
}

impl Scene {
    async fn new(setup: Setup) -> Result<Self> {
        std::fs::write(setup.dir().join("policies/more.cedar"), MORE_POLICIES)?;
        let broker = setup.start().await?;
        Ok(Self { mark: broker.mark(), counts: (0, 0), broker })
    }

    /// Whatever comes from here on is what [`Scene::check`] judges.
    fn now(&mut self) {
        self.mark = self.broker.mark();
        self.counts = self.broker.broker.leases().counts();
    }

    async fn check<T>(&mut self, what: &str, answer: Result<T, Status>, expected: Refused) -> Result<Status> {
        let (status, _) = self.broker.check_refused(what, self.mark, self.counts, answer, expected).await?;
        self.now();
        Ok(status)
    }

    async fn acquire(&mut self, who: &str, ask: AcquireLeaseRequest, expected: Refused) -> Result<Status> {
        let answer = self.broker.client(who).await?.leases.acquire_lease(ask).await.map(Response::into_inner);
        self.check(who, answer, expected).await
    }

    async fn redeem(&mut self, who: &str, handle: &str, expected: Refused) -> Result<Status> {
        let answer = self.broker.client(who).await?.redeem(handle).await;
        self.check(who, answer, expected).await
    }

    async fn lease(&mut self) -> Result<Lease> {
        let lease =
            Lease::open(&mut self.broker.client("travel-bot").await?, acquire(BOOK, &[NAVAN])).await?;
        self.broker.settled(self.mark).await?;
        self.now();
        Ok(lease)
    }
}

#[tokio::test]
async fn denied() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    scene.acquire("mail-bot", acquire(BOOK, &[NAVAN]), DENIED).await?;
    let forbidden = Refused { why: Reason::PolicyForbid, ..DENIED };
    let status = scene.acquire("travel-bot", acquire("web.search", &[CARD]), forbidden).await?;
    let facts = status.get_details_error_info().context("no details")?.metadata;
    assert!(facts.get("advice").is_some_and(|advice| advice.contains(BOOK)), "{facts:?}");
    assert_eq!(facts.get("reference").map(String::as_str), Some(CARD));

    let long = AcquireLeaseRequest { ttl: seconds(121), ..acquire(BOOK, &[CARD]) };
    let status = scene.acquire("travel-bot", long, Refused { why: Reason::PolicyTtl, ..DENIED }).await?;
    assert!(status.message().contains("at most 120 s"), "{status:?}");
    let error = Refused { why: Reason::PolicyError, ..DENIED };
    scene
        .acquire("travel-bot", acquire("ramp.submit_expense", &["op://Tutorial/Ramp/username"]), error)
        .await?;

    // Callers of the wrong kind.
    for who in [BOOK, "ana"] {
        let wrong = Refused { why: Reason::CallerKind, ..DENIED };
        scene.acquire(who, acquire(BOOK, &[NAVAN]), wrong).await?;
        let ask = CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
        let answer = scene.broker.client(who).await?.leases.check_access(ask).await;
        scene.check(who, answer, Refused { kind: RecordKind::Check, ..wrong }).await?;
    }
    Ok(())
}

#[tokio::test]
async fn one_refusal_refuses_the_whole_lease() -> Result<()> {
    let scene = Scene::new(Setup::new()?).await?;
    let mut bot = scene.broker.client("travel-bot").await?;
    let status = bot.leases.acquire_lease(acquire(BOOK, &[NAVAN, "op://Production/Database/password"])).await;
    assert_eq!(status.err().map(|status| status.code()), Some(Code::PermissionDenied));
    let records = scene.broker.settled(scene.mark).await?;
    let results: Vec<_> = records.iter().map(|it| it.outcome.as_ref().map(|it| it.result.as_str())).collect();
    assert_eq!(results, [Some("withheld"), None]);
    assert!(
        records.iter().all(|it| it.outcome.as_ref().is_none_or(|it| it.source.is_none())),
        "{records:#?}"
    );
    assert_eq!(scene.broker.broker.leases().counts(), (0, 0));
    Ok(())
}

#[tokio::test]
async fn denied_beyond_secrets() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    let lease = scene.lease().await?;
    let denied = Refused { kind: RecordKind::EndLease, ..DENIED };
    let mut answers = Vec::new();
    for id in [lease.id.as_str(), "vkl_0000000000000000"] {
        for who in ["mail-bot", "ana", "eve", BOOK] {
            let ask = EndLeaseRequest { lease_id: id.into() };
            let answer = scene.broker.client(who).await?.leases.end_lease(ask).await;
            answers.push(shape(&scene.check(who, answer, denied).await?));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "whether a lease exists can be told: {answers:#?}");
    // Whoever may end any lease may know.
    let ask = EndLeaseRequest { lease_id: "vkl_0000000000000000".into() };
    let answer = scene.broker.client("omar").await?.leases.end_lease(ask).await;
    let status = answer.err().context("was not refused")?;
    assert_eq!(
        (status.code(), valetkey_tests::reason(&status).as_str()),
        (Code::NotFound, "LEASE_NOT_FOUND")
    );

    scene.now();
    let denied = Refused { kind: RecordKind::ReadAudit, ..DENIED };
    for who in ["omar", "eve", "travel-bot", BOOK] {
        let mut audit = scene.broker.client(who).await?.audit;
        let answer = audit.list_audit_records(ListAuditRecordsRequest::default()).await;
        scene.check("list", answer, denied).await?;
        let answer = audit.get_audit_record(GetAuditRecordRequest { record_id: "1".into() }).await;
        scene.check("get", answer, denied).await?;
        let answer = audit.watch_audit_records(WatchAuditRecordsRequest::default()).await;
        scene.check("watch", answer, denied).await?;
    }
    Ok(())
}

#[tokio::test]
async fn malformed_fields() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    let ask = || acquire(BOOK, &[NAVAN]);
    let many: Vec<_> = (0..65).map(|place| format!("op://Tutorial/Navan/field{place}")).collect();
    let handle = Bearer::random("vkh_").expose_secret().to_string();
    for (field, reason, ask) in [
        ("tool", "INVALID_TOOL", AcquireLeaseRequest { tool: String::new(), ..ask() }),
        ("tool", "INVALID_TOOL", AcquireLeaseRequest { tool: "a tool".into(), ..ask() }),
        ("tool", "INVALID_TOOL", AcquireLeaseRequest { tool: "t".repeat(129), ..ask() }),
        ("tool", "INVALID_TOOL", AcquireLeaseRequest { tool: handle.clone(), ..ask() }),
        ("references", "INVALID_SECRET_REFERENCE", acquire(BOOK, &[])),
        ("references", "INVALID_SECRET_REFERENCE", AcquireLeaseRequest { references: many, ..ask() }),
        ("references[0]", "INVALID_SECRET_REFERENCE", acquire(BOOK, &["op://Tutorial/Navan"])),
        ("references[1]", "INVALID_SECRET_REFERENCE", acquire(BOOK, &[NAVAN, "op://Tutorial/*/username"])),
        ("references[1]", "INVALID_SECRET_REFERENCE", acquire(BOOK, &[NAVAN, NAVAN])),
        ("purpose", "INVALID_PURPOSE", AcquireLeaseRequest { purpose: " ".into(), ..ask() }),
        ("purpose", "INVALID_PURPOSE", AcquireLeaseRequest { purpose: "p".repeat(513), ..ask() }),
        ("ttl", "INVALID_TTL", AcquireLeaseRequest { ttl: seconds(0), ..ask() }),
        ("ttl", "INVALID_TTL", AcquireLeaseRequest { ttl: seconds(-60), ..ask() }),
        ("ttl", "INVALID_TTL", AcquireLeaseRequest { ttl: seconds(901), ..ask() }),
        ("session", "INVALID_SESSION", AcquireLeaseRequest { session: "s".repeat(129), ..ask() }),
        (
            "destination",
            "INVALID_DESTINATION",
            AcquireLeaseRequest { destination: "http://a".into(), ..ask() },
        ),
    ] {
        let status = scene.acquire("travel-bot", ask, Refused { reason, ..MALFORMED }).await?;
        assert_violates(&status, field);
    }

    let ask = || CheckAccessRequest { tool: BOOK.into(), reference: NAVAN.into(), ..Default::default() };
    for (field, reason, ask) in [
        ("tool", "INVALID_TOOL", CheckAccessRequest { tool: "a tool".into(), ..ask() }),
        ("reference", "INVALID_SECRET_REFERENCE", CheckAccessRequest { reference: "op://".into(), ..ask() }),
        ("ttl", "INVALID_TTL", CheckAccessRequest { ttl: seconds(901), ..ask() }),
        ("session", "INVALID_SESSION", CheckAccessRequest { session: "s".repeat(129), ..ask() }),
        ("destination", "INVALID_DESTINATION", CheckAccessRequest { destination: "a:1".into(), ..ask() }),
    ] {
        let answer = scene.broker.client("travel-bot").await?.leases.check_access(ask).await;
        let expected = Refused { reason, kind: RecordKind::Check, ..MALFORMED };
        assert_violates(&scene.check(field, answer, expected).await?, field);
    }

    let Client { mut leases, mut audit, operator: _, reports: _, tokens: _, approvals: _ } =
        scene.broker.client(BOOK).await?;
    let kind = RecordKind::Redeem;
    for bad in ["", "vkh_", "hello", &handle.to_uppercase(), &handle[..60], &format!("{}x", &handle[..60])] {
        let ask = RedeemHandleRequest { handle: bad.to_owned(), destination: String::new() };
        let expected = Refused { reason: "INVALID_HANDLE", kind, why: Reason::HandleMalformed, ..MALFORMED };
        let answer = leases.redeem_handle(ask).await;
        assert_violates(&scene.check("handle", answer, expected).await?, "handle");
    }
    let ask = RedeemHandleRequest { handle, destination: "a/b".into() };
    let expected = Refused { reason: "INVALID_DESTINATION", kind, ..MALFORMED };
    let answer = leases.redeem_handle(ask).await;
    assert_violates(&scene.check("destination", answer, expected).await?, "destination");
    let ask = EndLeaseRequest { lease_id: "vkl_short".into() };
    let expected = Refused { reason: "INVALID_LEASE_ID", kind: RecordKind::EndLease, ..MALFORMED };
    let answer = leases.end_lease(ask).await;
    assert_violates(&scene.check("lease_id", answer, expected).await?, "lease_id");

    // A reviewer's: that she may read is decided, and recorded, first.
    audit.clone_from(&scene.broker.client("ana").await?.audit);
    let ask = ListAuditRecordsRequest::default;
    for (field, reason, ask) in [
        ("filter", "INVALID_FILTER", ListAuditRecordsRequest { filter: "nobody:x".into(), ..ask() }),
        ("filter", "INVALID_FILTER", ListAuditRecordsRequest { filter: "a".repeat(1025), ..ask() }),
        ("page_size", "INVALID_PAGE_SIZE", ListAuditRecordsRequest { page_size: -1, ..ask() }),
        ("page_token", "INVALID_PAGE_TOKEN", ListAuditRecordsRequest { page_token: "x".into(), ..ask() }),
    ] {
        let expected = Refused { reason, kind: RecordKind::ReadAudit, ..MALFORMED };
        let answer = audit.list_audit_records(ask).await;
        assert_violates(&scene.check(field, answer, expected).await?, field);
    }
    let expected = Refused { reason: "INVALID_RECORD_ID", kind: RecordKind::ReadAudit, ..MALFORMED };
    for bad in ["", "x", "-1", "1.5", "99999999999999999999"] {
        let answer = audit.get_audit_record(GetAuditRecordRequest { record_id: bad.into() }).await;
        assert_violates(&scene.check(bad, answer, expected).await?, "record_id");
    }
    let ask = WatchAuditRecordsRequest { filter: String::new(), after_record_id: "x".into() };
    let answer = audit.watch_audit_records(ask).await;
    assert_violates(&scene.check("after_record_id", answer, expected).await?, "after_record_id");
    // Of a log that had more: restored, this one uses the number again.
    let ask = WatchAuditRecordsRequest { filter: String::new(), after_record_id: "4711".into() };
    let status = scene.check("beyond the log", audit.watch_audit_records(ask).await, expected).await?;
    assert_violates(&status, "after_record_id");
    let ask = ExportAuditRecordsRequest {
        format: ExportFormat::Jsonl.into(),
        after_record_id: "4711".into(),
        ..Default::default()
    };
    let status = scene.check("beyond the log", audit.export_audit_records(ask).await, expected).await?;
    assert_violates(&status, "after_record_id");
    let ask = WatchAuditRecordsRequest { filter: "x".into(), after_record_id: String::new() };
    let answer = audit.watch_audit_records(ask).await;
    let expected = Refused { reason: "INVALID_FILTER", ..expected };
    assert_violates(&scene.check("filter", answer, expected).await?, "filter");
    Ok(())
}

#[tokio::test]
async fn all_violations_are_named_at_once() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    let ask = AcquireLeaseRequest { ttl: seconds(0), ..AcquireLeaseRequest::default() };
    let status = scene.acquire("travel-bot", ask, Refused { reason: "INVALID_TOOL", ..MALFORMED }).await?;
    for field in ["tool", "references", "purpose", "ttl"] {
        assert_violates(&status, field);
    }
    Ok(())
}

#[tokio::test]
async fn unauthenticated() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    let handle = scene.lease().await?.handle(0)?.to_owned();
    scene.broker.await_records(scene.mark, |it| (!it.is_empty()).then_some(())).await?;
    scene.now();
    let stranger = Bearer::random("vkt_").expose_secret().to_string();
    let token = scene.broker.token("travel-bot")?.to_owned();
    for (authorization, why) in [
        (None, Reason::TokenMissing),
        (Some(String::new()), Reason::TokenMalformed),
        (Some("Bearer".to_owned()), Reason::TokenMalformed),
        (Some(token.clone()), Reason::TokenMalformed),
        (Some(format!("Basic {token}")), Reason::TokenMalformed),
        (Some(format!("Bearer {token}x")), Reason::TokenMalformed),
        (Some(format!("Bearer {}", token.to_uppercase())), Reason::TokenMalformed),
        (Some(format!("Bearer {stranger}")), Reason::TokenUnknown),
        (Some(format!("Bearer {}", forged(&token)?)), Reason::TokenUnknown),
        // A handle is no identity, however good it is.
        (Some(format!("Bearer {handle}")), Reason::TokenMalformed),
    ] {
        let mut nobody = scene.broker.client_with(authorization.as_deref()).await?;
        let expected = Refused { why, ..UNAUTHENTICATED };
        let what = authorization.as_deref().unwrap_or("nothing");
        let answer = nobody.leases.acquire_lease(acquire(BOOK, &[NAVAN])).await;
        let status = scene.check(what, answer, expected).await?;
        assert_eq!(status.message(), "no valid token came with the request", "the caller is not told why");
        scene.check(what, nobody.redeem(&handle).await, expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn handles_that_are_not_active() -> Result<()> {
    let clock = FakeClock::default();
    let mut scene = Scene::new(Setup::new()?.clock(&clock)).await?;
    let mut shapes = Vec::new();
    let unknown = Bearer::random("vkh_").expose_secret().to_string();
    shapes.push(scene.redeem(BOOK, &unknown, DEAD).await?);

    let lease = scene.lease().await?;
    let handle = lease.handle(0)?.to_owned();
    let wrong = Refused { why: Reason::HandleRedeemer, ..DEAD };
    for who in ["ramp.submit_expense", "web.search", "travel-bot", "mail-bot", "ana"] {
        shapes.push(scene.redeem(who, &handle, wrong).await?);
    }
    let guessed = Refused { why: Reason::HandleForged, ..DEAD };
    shapes.push(scene.redeem(BOOK, &forged(&handle)?, guessed).await?);

    // None of that has spent anything.
    let value = scene.broker.client(BOOK).await?.redeem(&handle).await?.secret_value;
    assert_eq!(value, b"demo-navan-user@travel.example");
    scene.broker.settled(scene.mark).await?;
    scene.now();
    shapes.push(scene.redeem(BOOK, &handle, Refused { why: Reason::HandleSpent, ..DEAD }).await?);

    // Expired: its life went by in one leap, so nothing could renew it.
    let lease = scene.lease().await?;
    clock.advance(Duration::from_secs(60));
    let mark = scene.mark;
    let expired = |it: &[valetkey_audit::StoredRecord]| {
        it.iter().any(|it| it.kind == RecordKind::HandleExpire).then_some(())
    };
    scene.broker.await_records(mark, expired).await?;
    scene
        .broker
        .await_records(mark, |it| it.iter().any(|it| it.kind == RecordKind::LeaseEnd).then_some(()))
        .await?;
    scene.now();
    shapes.push(scene.redeem(BOOK, lease.handle(0)?, Refused { why: Reason::HandleExpired, ..DEAD }).await?);

    // Revoked: the lease was ended.
    let lease = scene.lease().await?;
    let mark = scene.mark;
    let ask = EndLeaseRequest { lease_id: lease.id.clone() };
    scene.broker.client("omar").await?.leases.end_lease(ask).await?;
    scene
        .broker
        .await_records(mark, |it| it.iter().any(|it| it.kind == RecordKind::LeaseEnd).then_some(()))
        .await?;
    scene.now();
    shapes.push(scene.redeem(BOOK, lease.handle(0)?, Refused { why: Reason::HandleRevoked, ..DEAD }).await?);

    let mut shapes: Vec<_> = shapes.iter().map(shape).collect();
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "why a handle is not active can be told: {shapes:#?}");
    Ok(())
}

#[tokio::test]
async fn a_handle_lives_to_its_end_and_no_longer() -> Result<()> {
    for (life, why) in [(59_999, None), (60_000, Some(Reason::HandleExpired))] {
        let clock = FakeClock::default();
        let mut scene = Scene::new(Setup::new()?.clock(&clock)).await?;
        let lease = scene.lease().await?;
        clock.advance(Duration::from_millis(life));
        let answer = scene.broker.client(BOOK).await?.redeem(lease.handle(0)?).await;
        assert_eq!(answer.is_ok(), why.is_none(), "after {life} ms: {answer:?}");
        let records = scene.broker.since(scene.mark).await?;
        let redeem = records.iter().find(|it| it.kind == RecordKind::Redeem).context("no record")?;
        assert_eq!(redeem.reason, why.unwrap_or(Reason::PolicyPermit), "after {life} ms");
    }
    Ok(())
}

#[tokio::test]
async fn a_redeem_that_policy_refuses_spends_nothing() -> Result<()> {
    let mut scene = Scene::new(Setup::new()?).await?;
    let ask = acquire("web.search", &["op://Production/Database/password"]);
    let lease = Lease::open(&mut scene.broker.client("travel-bot").await?, ask).await?;
    scene.broker.settled(scene.mark).await?;
    scene.now();
    let denied = Refused { kind: RecordKind::Redeem, ..DENIED };
    // Twice: the first has not spent the one use.
    scene.redeem("web.search", lease.handle(0)?, denied).await?;
    scene.redeem("web.search", lease.handle(0)?, denied).await?;
    Ok(())
}

/// What the agent of `Production` is told of what is not there, and everybody else is not.
#[tokio::test]
async fn no_oracle_for_the_denied() -> Result<()> {
    let setup = Setup::new()?;
    add_twins(&setup)?;
    let mut scene = Scene::new(setup).await?;
    let rows = [
        ("op://Production/Database/password", None),
        ("op://Production/Nothing/password", Some((Code::NotFound, "ITEM_NOT_FOUND"))),
        ("op://Production/Database/nothing", Some((Code::NotFound, "FIELD_NOT_FOUND"))),
        ("op://Production/Database/nothing/password", Some((Code::NotFound, "SECTION_NOT_FOUND"))),
        ("op://Production/Twin/password", Some((Code::FailedPrecondition, "AMBIGUOUS_REFERENCE"))),
        (
            "op://Production/archivedxxxxxxxxxxxxxxxxxx/password",
            Some((Code::FailedPrecondition, "ITEM_NOT_ACTIVE")),
        ),
        (
            "op://Production/Database/password?attribute=otp",
            Some((Code::FailedPrecondition, "FIELD_NOT_OTP")),
        ),
        ("op://Nowhere/Database/password", Some((Code::PermissionDenied, "ACCESS_DENIED"))),
    ];
    let mut shapes = Vec::new();
    for (reference, told) in rows {
        let mut bot = scene.broker.client("travel-bot").await?;
        let answer = Lease::open(&mut bot, acquire("web.search", &[reference])).await;
        let status = answer.map(drop).err();
        let reason = status.as_ref().map(valetkey_tests::reason);
        assert_eq!(
            (status.as_ref().map(Status::code), reason.as_deref()),
            (told.map(|(code, _)| code), told.map(|(_, reason)| reason)),
            "{reference}: {status:?}"
        );
        if let Some((_, reason)) = told.filter(|(code, _)| *code != Code::PermissionDenied) {
            let records = scene.broker.settled(scene.mark).await?;
            let outcome = records.first().and_then(|record| record.outcome.clone()).context("no outcome")?;
            assert_eq!((outcome.result.as_str(), outcome.reason.as_deref()), ("failed", Some(reason)));
            assert_eq!(outcome.source, None, "{reference}: the source was asked");
        }
        // The lease of what is there ends with its stream, and writes that down.
        let ended = |_: &[valetkey_audit::StoredRecord]| {
            (scene.broker.broker.leases().counts() == (0, 0)).then_some(())
        };
        scene.broker.await_records(scene.mark, ended).await?;
        scene.now();
        shapes.push(shape(&scene.acquire("mail-bot", acquire("web.search", &[reference]), DENIED).await?));
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "a denied agent can tell what exists: {shapes:#?}");
    Ok(())
}

/// Two items of one title, and one that is archived.
fn add_twins(setup: &Setup) -> Result<()> {
    let path = setup.dir().join("vault.json");
    let mut vault: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let items = vault.get_mut("items").and_then(|items| items.as_array_mut()).context("no items")?;
    for (id, title, state) in
        [("twin1", "Twin", None), ("twin2", "twin", None), ("archived", "Old", Some("ARCHIVED"))]
    {
        let mut item = serde_json::json!({
            "id": format!("{id:x<26}"), "title": title, "category": "LOGIN",
            "vault": {"id": "productionxxxxxxxxxxxxxxxx"},
            "fields": [{"id": "password", "type": "CONCEALED", "label": "password", "value": "demo-twin"}],
        });
        if let (Some(state), Some(item)) = (state, item.as_object_mut()) {
            item.insert("state".to_owned(), state.into());
        }
        items.push(item);
    }
    Ok(std::fs::write(path, vault.to_string())?)
}

fn assert_violates(status: &Status, field: &str) {
    let violations = status.get_details_bad_request().map(|it| it.field_violations).unwrap_or_default();
    assert!(violations.iter().any(|it| it.field == field), "{field}: {violations:?} {status:?}");
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}
