use super::*;
use std::sync::Arc;
use valetkey_core::testing::{agent, call, person, reference, request};
use valetkey_core::{
    AuditOutcome, AuditRecord, Facet, Handle, Identity, PolicyId, Provenance, ResolveError, Revision, Target,
    ValueDigest,
};

use crate::canonical;
use crate::row;
use crate::schema::in_memory;
use crate::strings::Strings;

fn round_trip(record: &AuditRecord, outcome: Option<&AuditOutcome>) -> StoredRecord {
    let connection = in_memory();
    let mut strings = Strings::default();
    let mut insert = row::prepare_record(&connection).unwrap();
    row::insert_record(&mut insert, &connection, &mut strings, 1, record).unwrap();
    if let Some(outcome) = outcome {
        row::insert_outcome(&connection, &mut strings, 1, outcome).unwrap();
    }
    let stored = connection.query_row(SELECT, [], StoredRecord::from_row).unwrap();
    let written = (canonical::digest_record(record), outcome.map(canonical::digest_outcome));
    assert_eq!(
        canonical::digest_stored(&stored),
        written,
        "what is read has the digests of what was written"
    );
    let line = canonical::line(&stored);
    assert_eq!(
        canonical::read_line(&line),
        Ok((1, written.0, written.1)),
        "and so has the line of an export"
    );
    stored
}

/// A record in which no field is absent.
fn full() -> AuditRecord {
    let time = Timestamp::from_micros(1_780_000_000_123_456);
    AuditRecord {
        ruling: Ruling::Allow,
        trace: Some(TraceId([0xab; 16])),
        credential: Some("vkt_0123456789abcdef".into()),
        on_behalf_of: Some(person("ana")),
        policies: Some([PolicyId("one".into()), PolicyId("two".into())].into()),
        revision: Some(Revision { generation: 9, digest: [0xcd; 8] }),
        session: Some("run 7".into()),
        destination: Some("api.ramp.com".into()),
        lease: Some(LeaseId(PublicId::random())),
        handle: Some(Handle::random().id()),
        ttl: Some(Duration::from_micros(61_000_001)),
        uses: Some(3),
        redeemer: Some(Redeemer::Agent),
        ..AuditRecord::event(time, RecordKind::Redeem, Reason::PolicyPermit)
            .about(&request("op://Tutorial/Navan/username"))
            .with_detail("more")
    }
}

#[test]
fn every_field_comes_back() {
    let record = full();
    let outcome = AuditOutcome {
        time: Timestamp::from_micros(5),
        result: OutcomeResult::Failed,
        reason: Some("ITEM_NOT_FOUND"),
        detail: Some("gone".into()),
        provenance: Some(Provenance {
            source: "connect".into(),
            item_version: Some(12),
            read_time: Timestamp::from_micros(2),
        }),
        value_digest: Some(ValueDigest([7; 16])),
    };
    let text = |text: &str| Some(text.to_owned());
    let stored = round_trip(&record, Some(&outcome));
    let expected = StoredRecord {
        id: RecordId(1),
        time: record.time,
        kind: RecordKind::Redeem,
        ruling: Ruling::Allow,
        reason: Reason::PolicyPermit,
        request: record.request.map(|id| id.to_string()),
        trace: text("abababababababababababababababab"),
        credential: text("vkt_0123456789abcdef"),
        on_behalf_of: text("ana"),
        caller: text("agent:bot"),
        client: text("test"),
        agent: text("bot"),
        tool: text("tool"),
        reference: text("op://Tutorial/Navan/username"),
        target: Some(StoredTarget {
            vault_id: text("tutorial"),
            vault_name: text("tutorial"),
            item_id: text("navan"),
            item_name: text("navan"),
            field_id: text("username"),
            error: None,
        }),
        policies: vec!["one".into(), "two".into()],
        revision: text("cdcdcdcdcdcdcdcd"),
        session: text("run 7"),
        destination: text("api.ramp.com"),
        lease: record.lease.map(|id| id.to_string()),
        handle: record.handle.map(|id| id.to_string()),
        ttl: Some(Duration::from_micros(61_000_001)),
        uses: Some(3),
        redeemer: Some(Redeemer::Agent),
        purpose: text("a test"),
        detail: text("more"),
        outcome: Some(StoredOutcome {
            time: Timestamp::from_micros(5),
            result: OutcomeResult::Failed,
            reason: text("ITEM_NOT_FOUND"),
            source: text("connect"),
            item_version: Some(12),
            value_age: Some(Duration::from_micros(3)),
            detail: text("gone"),
            value_digest: Some(ValueDigest([7; 16])),
        }),
    };
    assert_eq!(stored, expected);
}

#[test]
fn what_is_absent_stays_absent() {
    let event = AuditRecord::event(Timestamp::from_micros(-1), RecordKind::Start, Reason::Done);
    let stored = round_trip(&event, None);
    assert_eq!((stored.time, stored.kind), (event.time, RecordKind::Start));
    assert_eq!((stored.target, stored.outcome, stored.uses), (None, None, None));
    assert!(stored.policies.is_empty());
    // Nobody's policies forbid: the list is there and empty.
    let denied = AuditRecord {
        policies: Some([].into()),
        caller: Some(Identity::Agent(agent("bot"))),
        ..AuditRecord::refusal(event.time, RecordKind::Acquire, Reason::PolicyNoPermit)
            .by(&call(Identity::Agent(agent("bot"))))
    };
    let stored = round_trip(&denied, None);
    assert!(stored.policies.is_empty());
    assert_eq!(stored.agent.as_deref(), Some("bot"));
}

#[test]
fn what_is_made_from_a_field_is_told_from_the_field() {
    let field_id = |facet| {
        let Target::Field(field) = valetkey_core::testing::target(&reference("op://v/i/code")) else {
            panic!()
        };
        let target = Some(Arc::new(Target::Field(valetkey_core::FieldTarget { facet, ..field })));
        round_trip(&AuditRecord { target, ..full() }, None).target.unwrap().field_id.unwrap()
    };
    assert_eq!(field_id(Facet::Value), "code");
    assert_eq!(field_id(Facet::Otp), "code?otp");
    assert_eq!(field_id(Facet::Seed), "code?seed");
    assert_eq!(field_id(Facet::OpensshKey), "code?openssh_key");
}

#[test]
fn a_reference_that_leads_nowhere_says_why() {
    let target = Target::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound };
    let stored = round_trip(&AuditRecord { target: Some(Arc::new(target)), ..full() }, None);
    let target = stored.target.unwrap();
    assert_eq!(target.error.as_deref(), Some("VAULT_NOT_FOUND"));
    assert_eq!((target.vault_id, target.item_id, target.field_id), (None, None, None));
}

#[test]
fn numbers_beyond_what_the_database_holds_are_held_at_its_end() {
    let record = AuditRecord { ttl: Some(Duration::MAX), uses: Some(u32::MAX), ..full() };
    let mut outcome = AuditOutcome::new(record.time, OutcomeResult::Released);
    let read_time = Timestamp::from_micros(i64::MIN);
    outcome.provenance = Some(Provenance { source: "file".into(), item_version: Some(u64::MAX), read_time });
    let stored = round_trip(&record, Some(&outcome));
    assert_eq!(stored.ttl, Some(Duration::from_micros(i64::MAX as u64)));
    assert_eq!(stored.uses, Some(u32::MAX));
    let outcome = stored.outcome.unwrap();
    assert_eq!(outcome.item_version, Some(i64::MAX as u64));
    assert_eq!(outcome.value_age, Some(Duration::from_micros(i64::MAX as u64)));
}
