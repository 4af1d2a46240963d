//! Every kind of record, decision, reason and outcome, held against what is published.

use std::collections::BTreeMap;

use valetkey_audit::{StoredOutcome, StoredTarget};
use valetkey_core::{OutcomeResult, Reason, RecordId, RecordKind, Ruling, Timestamp};

use super::*;
use Feature::{AuditEvents, ItemUsages, SignInAttempts};

#[expect(unreachable_pub, reason = "it is the whole broker's tests' too")]
#[path = "../../../../../tests/src/contract.rs"]
mod contract;

fn record(kind: RecordKind, ruling: Ruling, reason: Reason) -> StoredRecord {
    let text = |text: &str| Some(text.to_owned());
    StoredRecord {
        id: RecordId(17),
        time: Timestamp::from_micros(1_793_491_200_000_001),
        kind,
        ruling,
        reason,
        request: text("vkr_0000000000000001"),
        trace: None,
        credential: text("vkt_0000000000000001"),
        on_behalf_of: text("ana"),
        caller: text("tool:navan.book_flight"),
        client: text("grpc-rust/0.14 (linux) 10.0.0.7"),
        agent: text("travel-bot"),
        tool: text("navan.book_flight"),
        reference: text("op://Tutorial/Travel Card/number"),
        target: Some(StoredTarget {
            vault_id: text("vaultvaultvaultvaultvault1"),
            vault_name: text("tutorial"),
            item_id: text("itemitemitemitemitemitem12"),
            item_name: text("travel card"),
            field_id: text("ccnum"),
            error: None,
        }),
        policies: vec!["travel-card".to_owned()],
        revision: text("0123456789abcdef"),
        session: None,
        destination: None,
        lease: text("vkl_0000000000000001"),
        handle: text("vkh_0000000000000001"),
        ttl: None,
        uses: None,
        redeemer: None,
        purpose: text("buy \"things\""),
        detail: text("say \"no\""),
        outcome: None,
    }
}

fn with(result: OutcomeResult, record: StoredRecord) -> StoredRecord {
    let outcome = StoredOutcome {
        time: record.time,
        result,
        reason: None,
        source: None,
        item_version: Some(u64::MAX),
        value_age: None,
        detail: None,
        value_digest: None,
    };
    StoredRecord { outcome: Some(outcome), ..record }
}

/// The word of an event, of whichever feature; `-` for none.
fn words(record: &StoredRecord) -> String {
    let word = |feature, field: &str| match event(feature, Version::V1, record, "h") {
        Some(event) => event.get(field).and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => "-".to_owned(),
    };
    [(ItemUsages, "action"), (AuditEvents, "action"), (AuditEvents, "object_type"), (SignInAttempts, "type")]
        .map(|(feature, field)| word(feature, field))
        .join(" ")
}

#[test]
fn whatever_is_recorded_is_told_in_published_words() {
    use OutcomeResult::{Failed, Interrupted, Issued, Released, Withheld};
    let mut told = BTreeMap::<_, usize>::new();
    for kind in RecordKind::ALL {
        for ruling in [Ruling::Allow, Ruling::Deny, Ruling::Event] {
            for reason in Reason::ALL {
                let bare = record(kind, ruling, reason);
                let nobody = StoredRecord {
                    caller: None,
                    agent: None,
                    client: None,
                    target: None,
                    handle: None,
                    request: None,
                    lease: None,
                    credential: None,
                    ..bare.clone()
                };
                let results: &[_] = match reason {
                    Reason::PolicyPermit => &[Issued, Released, Failed, Withheld, Interrupted],
                    _ => &[],
                };
                let done: Vec<_> = results.iter().map(|it| with(*it, bare.clone())).collect();
                for record in [bare, nobody].iter().chain(&done) {
                    for (feature, name) in [
                        (ItemUsages, "ItemUsage"),
                        (AuditEvents, "AuditEvent"),
                        (SignInAttempts, "SignInAttempt"),
                    ] {
                        for (version, number, suffix) in [(Version::V1, 1, ""), (Version::V2, 2, "V2")] {
                            let Some(event) = event(feature, version, record, "events.test") else {
                                continue;
                            };
                            contract::hold(number, &format!("{name}{suffix}"), &event).unwrap();
                            *told.entry((name, number)).or_default() += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(told.len(), 6, "{told:?}");
}

#[test]
fn mapping() {
    use OutcomeResult::{Failed, Interrupted, Issued, Released, Withheld};
    use RecordKind as Kind;
    let check = |record: StoredRecord, expected: &str| assert_eq!(words(&record), expected, "{record:?}");
    let allow = |kind| record(kind, Ruling::Allow, Reason::PolicyPermit);
    let deny = |kind| record(kind, Ruling::Deny, Reason::PolicyNoPermit);
    let done = |kind, reason| record(kind, Ruling::Event, reason);

    check(with(Released, allow(Kind::Redeem)), "server-fetch - - -");
    check(with(Failed, allow(Kind::Redeem)), "- - - -");
    check(with(Interrupted, allow(Kind::Redeem)), "- unknown item -");
    check(allow(Kind::Redeem), "- - - -");
    check(deny(Kind::Redeem), "- cancel item -");
    check(with(Issued, allow(Kind::Acquire)), "- grant item -");
    check(with(Withheld, allow(Kind::Acquire)), "- - - -");
    check(with(Interrupted, allow(Kind::Acquire)), "- unknown item -");
    check(deny(Kind::Acquire), "- cancel item -");
    check(with(Issued, allow(Kind::Renew)), "- - - -");
    check(deny(Kind::Renew), "- cancel item -");
    check(allow(Kind::Check), "- - - -");
    check(deny(Kind::Check), "- cancel item -");
    check(done(Kind::LeaseEnd, Reason::EndCaller), "- delete dlgdsess -");
    check(done(Kind::LeaseEnd, Reason::EndPolicy), "- revoke dlgdsess -");
    check(done(Kind::HandleRevoke, Reason::EndPolicy), "- revoke item -");
    check(done(Kind::HandleExpire, Reason::EndExpiry), "- - - -");
    check(allow(Kind::EndLease), "- revoke dlgdsess -");
    check(allow(Kind::TokenCreate), "- - - -");
    check(done(Kind::TokenCreate, Reason::Done), "- create satoken -");
    check(done(Kind::TokenCreate, Reason::Failed), "- cancel satoken -");
    check(deny(Kind::TokenCreate), "- cancel satoken -");
    check(done(Kind::TokenRevoke, Reason::Done), "- revoke satoken -");
    check(allow(Kind::FindValue), "- view report -");
    check(allow(Kind::TokenList), "- view satoken -");
    check(allow(Kind::ReadAudit), "- view report -");
    check(deny(Kind::ReadAudit), "- cancel report -");
    let ours = |record| StoredRecord { credential: Some("vke_0000000000000001".to_owned()), ..record };
    check(ours(allow(Kind::ReadAudit)), "- - - -");
    check(ours(done(Kind::ReadAudit, Reason::Repeated)), "- - - -");
    check(ours(deny(Kind::ReadAudit)), "- cancel report -");
    let bare = |record| StoredRecord { target: None, handle: None, ..record };
    check(bare(done(Kind::PolicyLoad, Reason::Done)), "- update account -");
    check(bare(done(Kind::PolicyLoad, Reason::Failed)), "- cancel account -");
    check(bare(done(Kind::Start, Reason::Done)), "- activate account -");
    check(bare(done(Kind::Stop, Reason::Done)), "- suspend account -");
    check(bare(done(Kind::Retire, Reason::Done)), "- purge account -");
    check(bare(done(Kind::ConfigLoad, Reason::Done)), "- update account -");
    check(bare(allow(Kind::Operate)), "- - - -");
    check(bare(deny(Kind::Operate)), "- cancel account -");
    check(bare(deny(Kind::Limit)), "- cancel account -");
    for (reason, sort) in [
        (Reason::TokenUnknown, "password_secret_bad"),
        (Reason::CertificateExpired, "platform_secret_bad"),
        (Reason::JwtSignature, "sso_user_mismatch"),
        (Reason::TlsHandshake, "modern_version_old"),
    ] {
        check(record(Kind::Unauthenticated, Ruling::Deny, reason), &format!("- - - {sort}"));
    }
}

#[test]
fn an_item_usage() {
    let released =
        with(OutcomeResult::Released, record(RecordKind::Redeem, Ruling::Allow, Reason::PolicyPermit));
    let event = event(ItemUsages, Version::V2, &released, "events.test").unwrap();
    let expected = json!({
        "uuid": uuid(&["record", "events.test", "17", "2026-11-01T00:00:00.000001Z"]),
        "timestamp": "2026-11-01T00:00:00.000001Z",
        "used_version": u32::MAX,
        "vault_uuid": "vaultvaultvaultvaultvault1",
        "item_uuid": "itemitemitemitemitemitem12",
        "action": "server-fetch",
        "user": {"uuid": uuid(&["principal", "agent:travel-bot"]), "name": "travel-bot", "email": ""},
        "client": {
            "app_name": "navan.book_flight", "app_version": "", "platform_name": "grpc-rust",
            "platform_version": "0.14", "os_name": "", "os_version": "", "ip_address": "10.0.0.7",
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn aux_info_is_one_line_of_names_and_values() {
    let denied = record(RecordKind::Acquire, Ruling::Deny, Reason::PolicyNoPermit);
    let event = event(AuditEvents, Version::V1, &denied, "h").unwrap();
    assert_eq!(
        event["aux_info"],
        "record=17 kind=acquire decision=deny reason=POLICY_NO_PERMIT agent=travel-bot tool=navan.book_flight \
         on_behalf_of=ana credential=vkt_0000000000000001 lease=vkl_0000000000000001 handle=vkh_0000000000000001 \
         policies=travel-card revision=0123456789abcdef reference=\"op://Tutorial/Travel Card/number\" \
         detail=\"say \\\"no\\\"\""
    );
    assert_eq!(event["aux_id"], 17);
}

#[test]
fn ids_are_in_1password_s_form() {
    let id = uuid(&["principal", "agent:travel-bot"]);
    assert_eq!(id.len(), 26);
    assert!(id.bytes().all(|c| c.is_ascii_uppercase() || (b'2'..=b'7').contains(&c)), "{id}");
    assert_ne!(id, uuid(&["principal", "tool:travel-bot"]));
}

#[test]
fn clients() {
    let check = |client: &str, expected: [&str; 3]| {
        let record = StoredRecord {
            client: Some(client.to_owned()),
            ..record(RecordKind::Check, Ruling::Deny, Reason::PolicyNoPermit)
        };
        let Client { name, version, address } = Client::of(&record);
        assert_eq!([name, version, &address], expected, "{client}");
    };
    check("grpc-python/1.66 grpc-c/43 10.0.0.7", ["grpc-python", "1.66", "10.0.0.7"]);
    check("curl/8.0 ::1", ["curl", "8.0", "::1"]);
    check("10.0.0.9", ["", "", "10.0.0.9"]);
    check("unnamed uid:1000", ["unnamed", "", ""]);
    check("", ["", "", ""]);
}
