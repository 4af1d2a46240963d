//! The Events API: what a client of 1Password's finds, what nobody else does, and what is never lost on the way.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use valetkey_audit::StoredRecord;
use valetkey_core::testing::FakeClock;
use valetkey_core::{
    AuditLog, AuditOutcome, Clock, Grant, OutcomeResult, Reason, RecordId, RecordKind, Ruling, Timestamp,
};
use valetkey_server::EventsRate;
use valetkey_tests::events::{
    AUDIT, BOOK, FROM_THE_BEGINNING, NAVAN, PRODUCTION, SIGN_INS, Scene, USAGES, check, drain, hold_error,
    use_value, uuids,
};
use valetkey_tests::{Setup, TestBroker};

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_to_the_end_and_on_and_over_a_restart() -> Result<()> {
    let scene = Scene::new().await?;
    for _ in 0..5 {
        use_value(&scene.broker).await?;
    }
    let (used, cursor) = drain(&scene.asker, USAGES, FROM_THE_BEGINNING).await?;
    assert_eq!(used.len(), 5, "{used:#?}");
    let first = used.first().context("none")?;
    assert_eq!((&first["action"], &first["user"]["name"]), (&json!("server-fetch"), &json!("travel-bot")));
    assert_eq!(
        (&first["client"]["app_name"], &first["client"]["ip_address"]),
        (&json!(BOOK), &json!("127.0.0.1"))
    );
    let records = scene.broker.since(RecordId(0)).await?;
    let released = records
        .iter()
        .filter(|it| it.outcome.as_ref().is_some_and(|outcome| outcome.result == OutcomeResult::Released));
    let target = released.clone().next().and_then(|it| it.target.clone()).context("no target")?;
    assert_eq!(first["vault_uuid"].as_str(), target.vault_id.as_deref());
    assert_eq!(first["item_uuid"].as_str(), target.item_id.as_deref());
    let times: Vec<_> = released.map(|it| it.time.to_string()).collect();
    let told: Vec<_> = used.iter().filter_map(|it| it["timestamp"].as_str()).collect();
    assert_eq!(told, times, "in the order of the records");

    // Nothing new, then something new, by one cursor; also for a broker that was started again.
    let body = json!({ "cursor": cursor }).to_string();
    let nothing = scene.asker.page(USAGES, &body).await?;
    assert_eq!((&nothing["items"], &nothing["has_more"]), (&json!([]), &json!(false)));
    use_value(&scene.broker).await?;
    let scene = scene.restarted().await?;
    let (more, cursor) = drain(&scene.asker, USAGES, &body).await?;
    use_value(&scene.broker).await?;
    let (last, _) = drain(&scene.asker, USAGES, &json!({ "cursor": cursor }).to_string()).await?;
    assert_eq!((more.len(), last.len()), (1, 1));
    let all = [used, more, last].concat();
    assert_eq!(uuids(&all).into_iter().collect::<HashSet<_>>().len(), 7, "each once");

    // Both versions tell the same.
    let (v2, _) = drain(&scene.asker, "/api/v2/itemusages", FROM_THE_BEGINNING).await?;
    assert_eq!(v2, all);
    let (v1, _) = drain(&scene.asker, AUDIT, FROM_THE_BEGINNING).await?;
    let (v2, _) = drain(&scene.asker, "/api/v2/auditevents", FROM_THE_BEGINNING).await?;
    assert!(v1.len() > 15 && uuids(&v2).starts_with(&uuids(&v1)), "{} {}", v1.len(), v2.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_is_waited_for() -> Result<()> {
    let scene = Scene::new().await?;
    use_value(&scene.broker).await?;
    let (used, cursor) = drain(&scene.asker, USAGES, FROM_THE_BEGINNING).await?;
    assert_eq!(used.len(), 1);
    let (before, audit_cursor) = drain(&scene.asker, AUDIT, FROM_THE_BEGINNING).await?;

    // A redemption whose outcome has not come, and another that comes to its end after it.
    let records = scene.broker.since(RecordId(0)).await?;
    let redeem = records.iter().find(|it| it.kind == RecordKind::Redeem).context("no redemption")?;
    let open = open_redeem(&scene.broker, redeem).await?;
    use_value(&scene.broker).await?;
    check(&scene.broker, PRODUCTION).await?;
    let body = json!({ "cursor": cursor }).to_string();
    let (used, cursor) = drain(&scene.asker, USAGES, &body).await?;
    assert_eq!(used, [] as [Value; 0], "the one before it is open");
    let audit_body = json!({ "cursor": audit_cursor }).to_string();
    assert_eq!(drain(&scene.asker, AUDIT, &audit_body).await?.0, [] as [Value; 0]);

    let now = Timestamp::from_micros(valetkey_tests::unix_micros());
    let grant = Grant::for_test(valetkey_core::testing::request(NAVAN), open);
    scene.broker.store.record_outcome(grant, AuditOutcome::new(now, OutcomeResult::Released));
    scene.broker.settled(RecordId(0)).await?;
    let (used, _) = drain(&scene.asker, USAGES, &json!({ "cursor": cursor }).to_string()).await?;
    assert_eq!(used.len(), 2, "{used:#?}");
    let (after, _) = drain(&scene.asker, AUDIT, &audit_body).await?;
    assert!(after.iter().any(|event| event["action"] == "cancel"), "{after:#?}");
    let known: HashSet<_> = uuids(&before).into_iter().collect();
    assert!(uuids(&after).iter().all(|uuid| !known.contains(uuid)), "nothing twice");
    Ok(())
}

/// A log that was restored has fewer records than a cursor has seen: they would come with numbers that it passes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_a_log_that_had_more_must_start_over() -> Result<()> {
    let (longer, scene) = (Scene::new().await?, Scene::new().await?);
    for _ in 0..20 {
        use_value(&longer.broker).await?;
    }
    let (_, cursor) = drain(&longer.asker, USAGES, FROM_THE_BEGINNING).await?;
    let answer = scene.asker.ask(Method::POST, USAGES, json!({ "cursor": cursor }).to_string()).await?;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.body);
    let message = answer.body["message"].as_str().context("no message")?;
    assert!(message.contains("must start over"), "{message}");
    Ok(())
}

/// The same redemption once more, allowed and without an outcome.
async fn open_redeem(broker: &TestBroker, like: &StoredRecord) -> Result<RecordId> {
    use valetkey_core::testing::request;
    use valetkey_core::{AuditRecord, PolicyId, Revision};
    let now = Timestamp::from_micros(valetkey_tests::unix_micros());
    let policies = like.policies.iter().map(|id| PolicyId(id.as_str().into())).collect();
    let record = AuditRecord {
        ruling: Ruling::Allow,
        policies: Some(policies),
        revision: Some(Revision { generation: 1, digest: [1; 8] }),
        uses: Some(1),
        ..AuditRecord::event(now, RecordKind::Redeem, Reason::PolicyPermit).about(&request(NAVAN))
    };
    let ids = broker.store.record(vec![record]).await?;
    ids.first().copied().context("no id")
}

#[tokio::test(flavor = "multi_thread")]
async fn times_bound_what_is_told() -> Result<()> {
    let clock = FakeClock::default();
    let scene = Scene::with(Setup::new()?.clock(&clock), EventsRate::default()).await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(3600));
        times.push(clock.now().to_string());
        use_value(&scene.broker).await?;
    }
    clock.advance(Duration::from_secs(1800));
    let count = async |body: Value| anyhow::Ok(drain(&scene.asker, USAGES, &body.to_string()).await?.0.len());
    assert_eq!(drain(&scene.asker, USAGES, "").await?.0.len(), 1, "an hour before now");
    assert_eq!(count(json!({"start_time": times[1]})).await?, 2, "from there on, it included");
    assert_eq!(count(json!({"start_time": times[0], "end_time": times[2]})).await?, 2, "before there");
    assert_eq!(count(json!({"end_time": times[1]})).await?, 1, "an hour before the end");
    assert_eq!(count(json!({"start_time": "2037-01-01T00:00:00Z"})).await?, 0);
    assert_eq!(count(json!({"start_time": "1969-01-01T00:00:00+02:00", "limit": 1})).await?, 3);

    // A cursor keeps its end, and what comes after it is not told.
    let body = json!({"start_time": times[0], "end_time": times[2], "limit": 1}).to_string();
    let (_, cursor) = drain(&scene.asker, USAGES, &body).await?;
    use_value(&scene.broker).await?;
    assert_eq!(count(json!({ "cursor": cursor })).await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_changes_are_audit_events_and_its_own_reads_are_not() -> Result<()> {
    let scene = Scene::new().await?;
    let (_, cursor) = drain(&scene.asker, AUDIT, FROM_THE_BEGINNING).await?;
    check(&scene.broker, PRODUCTION).await?;
    for _ in 0..3 {
        scene.asker.page(USAGES, "{}").await?;
        scene.asker.page(AUDIT, "{}").await?;
    }
    scene.broker.records("kind:start").await?;
    let (told, cursor) = drain(&scene.asker, AUDIT, &json!({ "cursor": cursor }).to_string()).await?;
    let words: Vec<_> = told.iter().map(|it| (it["action"].as_str(), it["object_type"].as_str())).collect();
    // ana's own look through the API; the token's reads leave no event, or each answer would be the next one's.
    assert_eq!(words, [(Some("cancel"), Some("item")), (Some("view"), Some("report"))]);
    let info = told[0]["aux_info"].as_str().context("no info")?;
    for part in [
        "kind=check",
        "decision=deny",
        "reason=POLICY_NO_PERMIT",
        "agent=travel-bot",
        "tool=navan.book_flight",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let nothing = scene.asker.page(AUDIT, &json!({ "cursor": cursor }).to_string()).await?;
    assert_eq!(nothing["items"], json!([]));

    let (failures, _) = drain(&scene.asker, SIGN_INS, FROM_THE_BEGINNING).await?;
    assert_eq!(failures, [] as [Value; 0]);
    let stranger = scene.place.stranger(&scene.broker)?;
    assert_eq!(stranger.ask(Method::POST, USAGES, "{}").await?.status, StatusCode::UNAUTHORIZED);
    let (failures, _) = drain(&scene.asker, SIGN_INS, FROM_THE_BEGINNING).await?;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0]["category"], "credentials_failed");
    assert_eq!(failures[0]["details"]["value"], "TOKEN_MISSING");
    Ok(())
}

const EVE: &str = r#"
@id("eve-production")
permit (principal == Person::"eve", action == Action::"readAudit", resource in Vault::"production");
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_reviewer_s_token_has_its_vaults_alone() -> Result<()> {
    let setup = Setup::new()?;
    std::fs::write(setup.dir().join("policies/eve.cedar"), EVE)?;
    let scene = Scene::with(setup, EventsRate::default()).await?;
    let eve = scene.token_for("eve", &[]).await?;
    assert_eq!(
        eve.ask(Method::POST, AUDIT, "{}").await?.status,
        StatusCode::UNAUTHORIZED,
        "no such vault yet"
    );
    use_value(&scene.broker).await?;
    for reference in [NAVAN, PRODUCTION, "op://Nowhere/Database/password", PRODUCTION] {
        check(&scene.broker, reference).await?;
    }
    // What was decided within the minute would be counted; under other policies it is decided again.
    scene.broker.reloader.reload().await?;
    scene.broker.put_policies("eve.cedar", &format!("{EVE}\n"))?;
    scene.broker.reloader.reload().await?;
    let (told, cursor) = drain(&eve, AUDIT, FROM_THE_BEGINNING).await?;
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().all(|it| it["aux_info"].as_str().is_some_and(|info| info.contains(PRODUCTION))));
    assert!(!format!("{told:?}").to_lowercase().contains("tutorial"), "{told:?}");
    assert_eq!(drain(&eve, USAGES, FROM_THE_BEGINNING).await?.0, [] as [Value; 0]);
    assert_eq!(drain(&eve, SIGN_INS, FROM_THE_BEGINNING).await?.0, [] as [Value; 0]);
    // A cursor is no permission.
    let (_, whole) = drain(&scene.asker, USAGES, FROM_THE_BEGINNING).await?;
    assert_eq!(drain(&eve, USAGES, &json!({ "cursor": whole }).to_string()).await?.0, [] as [Value; 0]);

    // Without the policy there is nothing; with it again, nothing in between was lost.
    scene.broker.put_policies("eve.cedar", "")?;
    scene.broker.reloader.reload().await?;
    let body = json!({ "cursor": cursor }).to_string();
    let mark = scene.broker.mark();
    let refused = eve.ask(Method::POST, AUDIT, body.clone()).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    hold_error(&refused.body)?;
    let [record] = &scene.broker.since(mark).await?[..] else { anyhow::bail!("not one record") };
    assert_eq!((record.kind, record.ruling), (RecordKind::ReadAudit, Ruling::Deny));
    assert_eq!(record.caller.as_deref(), Some("person:eve"));
    check(&scene.broker, PRODUCTION).await?;
    scene.broker.put_policies("eve.cedar", EVE)?;
    scene.broker.reloader.reload().await?;
    assert_eq!(drain(&eve, AUDIT, &body).await?.0.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_is_recorded_once_a_minute_and_counted() -> Result<()> {
    let clock = FakeClock::default();
    let scene = Scene::with(Setup::new()?.clock(&clock), EventsRate::default()).await?;
    let mark = scene.broker.mark();
    for _ in 0..5 {
        scene.asker.page(USAGES, "{}").await?;
    }
    scene.asker.page(AUDIT, "{}").await?;
    let reads = scene.broker.since(mark).await?;
    assert_eq!(reads.len(), 2, "{reads:#?}");
    assert!(reads.iter().all(|it| it.kind == RecordKind::ReadAudit && it.ruling == Ruling::Allow));
    assert!(
        reads[0].detail.as_deref().is_some_and(|it| it.starts_with("events itemusages since ")),
        "{reads:?}"
    );

    let mark = scene.broker.mark();
    clock.advance(Duration::from_secs(60));
    let count = |log: &[StoredRecord]| log.iter().find(|it| it.reason == Reason::Repeated).cloned();
    let count = scene.broker.await_records(mark, count).await?;
    assert!(
        count.detail.as_deref().is_some_and(|it| it.starts_with("4 more polls of itemusages of vke_")),
        "{count:?}"
    );
    assert_eq!((count.kind, count.caller.as_deref()), (RecordKind::ReadAudit, Some("person:ana")));
    let mark = scene.broker.mark();
    scene.asker.page(USAGES, "{}").await?;
    scene.asker.page(USAGES, "{}").await?;
    assert_eq!(scene.broker.since(mark).await?.len(), 1, "the next minute");
    Ok(())
}
