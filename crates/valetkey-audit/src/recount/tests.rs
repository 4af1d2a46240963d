use valetkey_core::testing::{agent, reference, target, tool};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, AuditScope, Named, OutcomeResult, PolicyId, RecordId,
};
use valetkey_core::{Reason, RecordKind, ValueDigest};

use super::*;
use crate::AuditStore;
use crate::testing::{Log, allowed, denied, grant, now};
use crate::usage::Day;

/// Records 1 and 2: travel-bot acquires Navan by two tools; 3: it redeems the first; 4: it is refused the card, twice.
async fn sample(log: &Log) -> AuditStore {
    let store = log.open();
    let by = |name: &str, record: AuditRecord| AuditRecord { tool: Some(tool(name)), ..record };
    let card = reference("op://Prod/Card/number");
    let card = || AuditRecord { target: Some(std::sync::Arc::new(target(&card))), ..denied("travel-bot") };
    let policies = |ids: &[&str]| Some(ids.iter().map(|id| PolicyId((*id).into())).collect());
    let records = vec![
        by("navan.book", AuditRecord { policies: policies(&["a", "b"]), ..allowed("travel-bot") }),
        by("web.search", AuditRecord { policies: policies(&["b"]), ..allowed("travel-bot") }),
        by("navan.book", AuditRecord { kind: RecordKind::Redeem, ..allowed("travel-bot") }),
        card(),
        AuditRecord { agent: Some(agent("other")), ..card() },
        card(),
    ];
    store.record(records).await.unwrap();
    for (seq, result) in
        [(1, OutcomeResult::Issued), (2, OutcomeResult::Failed), (3, OutcomeResult::Released)]
    {
        let digest = (result == OutcomeResult::Released).then_some(ValueDigest([7; 16]));
        let outcome = AuditOutcome { value_digest: digest, ..AuditOutcome::new(now(), result) };
        store.record_outcome(grant(RecordId(seq)), outcome);
    }
    drop(store);
    log.open()
}

fn days() -> Days {
    let Day(day) = Day::of_us(now().as_micros());
    Day(day)..Day(day + 1)
}

#[tokio::test]
async fn use_is_counted_by_who_what_and_result() {
    let log = Log::new();
    let store = sample(&log).await;
    let reader = store.reader();
    let counts = async |subject: Subject, scope: &AuditScope, days: Days| {
        let rows = reader.usage(&subject, scope, days).await.unwrap().rows;
        rows.into_iter().map(|row| (row.last.0, row.count)).collect::<Vec<_>>()
    };
    let whole = AuditScope::Whole;
    let all = [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2)];
    assert_eq!(counts(Subject::Everybody, &whole, days()).await, all);
    assert_eq!(counts(Subject::Agent("other".into()), &whole, days()).await, [(5, 1)]);
    assert_eq!(counts(Subject::Vault("PROD".into()), &whole, days()).await, [(5, 1), (6, 2)]);
    assert_eq!(counts(Subject::Item("navan".into()), &whole, days()).await, [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(counts(Subject::Tool("web.search".into()), &whole, days()).await, [(2, 1)]);
    assert_eq!(counts(Subject::Tool("web.*".into()), &whole, days()).await, []);
    assert_eq!(counts(Subject::Everybody, &whole, days().end..Day(days().end.0 + 9)).await, []);
    assert_eq!(counts(Subject::Everybody, &whole, Day(0)..days().start).await, []);
    let rows = reader.usage(&Subject::Everybody, &whole, days()).await.unwrap().rows;
    let vault = rows[4].vault.clone().unwrap();
    let named =
        Named { id: vault.id.as_str().into(), name: vault.name.as_str().into(), name_is_unique: true };
    let limited = AuditScope::Vaults([named].into());
    assert_eq!(counts(Subject::Everybody, &limited, days()).await, [(5, 1), (6, 2)]);
    assert_eq!(rows[0].result, UsageResult::Allowed(Some(OutcomeResult::Issued)));
    assert_eq!(rows[4].result, UsageResult::Refused(Reason::PolicyNoPermit));

    let refusals = reader.refusals(Some("travel-bot"), &limited, days()).await.unwrap();
    assert_eq!((refusals.rows.len(), refusals.rows[0].count, refusals.seen), (1, 2, RecordId(6)));
    let first = reader.first_uses(&whole, days()).await.unwrap().rows;
    assert_eq!(
        first.iter().map(|first| (first.record.0, &*first.tool)).collect::<Vec<_>>(),
        [(1, "navan.book")]
    );
    let last = reader.last_uses(&whole).await.unwrap().rows;
    assert_eq!(last.iter().map(|last| last.record.0).collect::<Vec<_>>(), [3]);
    assert_eq!(reader.last_uses(&limited).await.unwrap().rows, []);
    let policies = reader.policy_uses(&whole, days()).await.unwrap().rows;
    let counts: Vec<_> = policies.iter().map(|it| (&*it.policy, it.count, it.last.0)).collect();
    assert_eq!(counts, [("a", 1, 1), ("b", 2, 2), ("permit-all", 1, 3)]);
    let released = reader.released(ValueDigest([7; 16]), &whole, 10).await.unwrap().rows;
    assert_eq!(released.iter().map(|record| record.id.0).collect::<Vec<_>>(), [3]);
    assert_eq!(reader.released(ValueDigest([7; 16]), &limited, 10).await.unwrap().rows, []);
}
