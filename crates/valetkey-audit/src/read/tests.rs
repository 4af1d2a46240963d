use super::*;
use proptest::prelude::*;
use rusqlite::{Connection, params_from_iter};
use valetkey_core::testing::{agent, call, person, request, target, tool};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, Identity, Named, OutcomeResult, PolicyId, Reason, RecordKind,
    ResolveError, Target, Timestamp,
};

use crate::AuditStore;
use crate::query::Condition;
use crate::term::{Term, Test};
use crate::testing::{Log, allowed, denied, grant, now, write};
use crate::vaults::Known;

const TO_THE_END: RecordId = RecordId(u64::MAX);

fn whole(filter: &Filter) -> Query {
    Query::new(filter, &AuditScope::Whole)
}

/// What one query sees of a log without an index.
fn snapshot(connection: &mut Connection) -> Snapshot<'_> {
    Snapshot::take(connection, false, Instant::now() + TIME_MAX).unwrap()
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

/// A log with one record of each sort that the filters below tell apart.
async fn sample(log: &Log) -> AuditStore {
    let store = log.open();
    let of = |policies: &[&str]| policies.iter().map(|policy| PolicyId((*policy).into())).collect();
    let visa = valetkey_core::testing::reference("op://Prod/Visa Card/number");
    let records = vec![
        AuditRecord { policies: Some(of(&["travel-navan", "base"])), ..allowed("travel-bot") },
        AuditRecord {
            target: Some(Arc::new(target(&visa))),
            tool: Some(tool("web.search")),
            ..denied("travel-bot")
        },
        AuditRecord { policies: Some(of(&["travel-ramp"])), ..allowed("expense-bot") },
        AuditRecord::event(Timestamp::from_micros(1_793_491_200_000_000), RecordKind::Start, Reason::Done),
        AuditRecord::refusal(now(), RecordKind::Redeem, Reason::HandleSpent)
            .by(&call(Identity::Person(person("ana")))),
        AuditRecord {
            target: Some(Arc::new(Target::Unresolved {
                vault: None,
                item: None,
                error: ResolveError::VaultNotFound,
            })),
            ..denied("travel-bot")
        },
    ];
    store.record(records).await.unwrap();
    store.record_outcome(
        grant(RecordId(1)),
        AuditOutcome::because(now(), OutcomeResult::Failed, "ITEM_NOT_FOUND"),
    );
    write(&store, AuditRecord { agent: Some(agent("other")), ..denied("x") }).await.unwrap();
    store
}

async fn found(reader: &AuditReader, text: &str) -> Vec<u64> {
    let page = reader.list(&filter(text), &AuditScope::Whole, None, 100).await.unwrap();
    assert_eq!(page.next, None);
    page.records.into_iter().map(|record| record.id.0).collect()
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let log = Log::new();
    let store = sample(&log).await;
    let request_id = request("op://a/b/c").call.id;
    let cases: &[(&str, &[u64])] = &[
        ("", &[7, 6, 5, 4, 3, 2, 1]),
        ("agent:travel-bot", &[6, 2, 1]),
        ("agent:Travel-bot", &[]),
        ("agent:nobody", &[]),
        ("-agent:nobody", &[7, 6, 5, 4, 3, 2, 1]),
        ("-agent:travel-bot", &[7, 5, 4, 3]),
        ("agent:*-bot", &[6, 3, 2, 1]),
        ("agent:*", &[7, 6, 3, 2, 1]),
        ("-agent:*", &[5, 4]),
        ("agent:\"*\"", &[]),
        ("tool:web.search", &[2]),
        ("tool:web*", &[2]),
        ("caller:person:ana", &[5]),
        ("caller:agent:*", &[7, 6, 3, 2, 1]),
        ("caller:*ana", &[5]),
        ("client:*", &[7, 6, 5, 3, 2, 1]),
        ("reference:op://Tutorial/*", &[7, 6, 3, 2, 1]),
        ("reference:op://tutorial/*", &[]),
        ("-reference:*", &[5, 4]),
        ("revision:0101010101010101", &[3, 1]),
        ("detail:*", &[]),
        ("session:none", &[]),
        ("destination:*", &[]),
        ("-source:embedded", &[7, 6, 5, 4, 3, 2, 1]),
        ("decision:allow", &[3, 1]),
        ("decision:deny agent:travel-bot", &[6, 2]),
        ("decision:event", &[4]),
        ("kind:redeem", &[5]),
        ("-kind:acquire", &[5, 4]),
        ("reason:policy_permit", &[3, 1]),
        ("reason:POLICY_*", &[7, 6, 3, 2, 1]),
        ("reason:ITEM_NOT_FOUND", &[1]),
        ("reason:NO_SUCH_REASON", &[]),
        ("-reason:POLICY_PERMIT", &[7, 6, 5, 4, 2]),
        ("vault:PROD", &[2]),
        ("vault:tut*", &[7, 3, 1]),
        ("-vault:prod", &[7, 6, 5, 4, 3, 1]),
        ("item:\"Visa Card\"", &[2]),
        ("item:*card*", &[7, 2]),
        ("policy:base", &[1]),
        ("policy:travel-*", &[3, 1]),
        ("policy:*-ramp", &[3]),
        ("policy:travel", &[]),
        ("policy:navan", &[]),
        ("record:4", &[4]),
        ("record:99", &[]),
        ("-record:4 decision:event", &[]),
        ("record:4 record:5", &[]),
        ("outcome:failed", &[1]),
        ("outcome:open", &[3]),
        ("-outcome:open", &[7, 6, 5, 4, 2, 1]),
        ("-outcome:failed", &[7, 6, 5, 4, 3, 2]),
        ("created:2026-11-01", &[4]),
        ("created:>=2026-11-01", &[4]),
        ("created:>2026-11-01", &[]),
        ("created:<2026-11-01", &[7, 6, 5, 3, 2, 1]),
        (&format!("request:{request_id}"), &[7, 6, 5, 3, 2, 1]),
        ("lease:vkl_0000000000000000", &[]),
        ("handle:0000000000000000", &[]),
        ("agent:\"' OR 1=1 --\"", &[]),
        ("vault:\"[p]rod\"", &[]),
        ("vault:\"?rod\"", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(found(store.reader(), text).await, *expected, "{text}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_loss() {
    let log = Log::new();
    let store = sample(&log).await;
    let deny = filter("decision:deny");
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = store.reader().list(&deny, &AuditScope::Whole, before, 2).await.unwrap();
        assert!(page.records.len() <= 2);
        seen.extend(page.records.into_iter().map(|record| record.id.0));
        before = page.next;
        if before.is_none() {
            break;
        }
        // What comes meanwhile does not shift the pages.
        write(&store, denied("late")).await.unwrap();
    }
    assert_eq!(seen, [7, 6, 5, 2]);
    let beyond = store.reader().list(&deny, &AuditScope::Whole, Some(RecordId(u64::MAX)), 1).await.unwrap();
    assert_eq!(beyond.records[0].id, RecordId(*store.committed().borrow()));
    assert_eq!(
        store.reader().list(&deny, &AuditScope::Whole, Some(RecordId(1)), 1).await.unwrap(),
        Page { records: vec![], next: None }
    );
    assert_eq!(
        store.reader().list(&deny, &AuditScope::Whole, Some(RecordId(0)), 1).await.unwrap().next,
        None
    );
}

#[tokio::test]
async fn a_page_looks_through_a_bounded_part_of_the_log() {
    let log = Log::new();
    drop(sample(&log).await);
    let mut connection = schema::open_reader(&log.path()).unwrap();
    let event = filter("decision:event");
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let page = pages::list(&snapshot(&mut connection), &whole(&event), before, 10, 2).unwrap();
        pages.push(page.records.into_iter().map(|record| record.id.0).collect::<Vec<_>>());
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec![], vec![4], vec![], vec![]]);
    // A record that is named is found at once, wherever it is.
    let page = pages::list(&snapshot(&mut connection), &whole(&filter("record:1")), None, 10, 2).unwrap();
    assert_eq!((page.records.len(), page.next), (1, None));

    let span = (RecordId(0), TO_THE_END);
    let tail = pages::tail(&snapshot(&mut connection), &whole(&event), span, 10, 2).unwrap();
    assert_eq!(tail, Tail { records: vec![], seen: RecordId(2) });
}

#[tokio::test]
async fn a_watch_sees_each_record_once_and_is_woken() {
    let log = Log::new();
    let store = sample(&log).await;
    let deny = filter("decision:deny");
    let (mut seen, mut after) = (Vec::new(), RecordId(0));
    while after < RecordId(7) {
        let tail = store.reader().after(&deny, &AuditScope::Whole, (after, TO_THE_END), 2).await.unwrap();
        seen.extend(tail.records.into_iter().map(|record| record.id.0));
        after = tail.seen;
    }
    assert_eq!(seen, [2, 5, 6, 7]);
    let nothing = store.reader().after(&deny, &AuditScope::Whole, (after, TO_THE_END), 2).await.unwrap();
    assert_eq!(nothing, Tail { records: vec![], seen: RecordId(7) });

    let mut committed = store.committed();
    committed.mark_unchanged();
    let (_, woken) = tokio::join!(write(&store, denied("new")), committed.changed());
    woken.unwrap();
    let tail = store.reader().after(&deny, &AuditScope::Whole, (after, TO_THE_END), 2).await.unwrap();
    assert_eq!((tail.records.len(), tail.seen), (1, RecordId(8)));
}

#[tokio::test]
async fn a_query_is_bounded_in_time() {
    let log = Log::new();
    drop(log.open());
    let pool = |permits| Pool::new(&log.path(), Arc::new(Semaphore::new(permits)), Duration::from_millis(20));
    let endless = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n";
    let reader = AuditReader(Arc::new(pool(1)));
    let result = reader.run(move |log| Ok(log.connection().query_row(endless, [], |_| Ok(()))?)).await;
    assert!(matches!(result, Err(ReadError::TooLong)));
    // The connection is as good as before.
    assert!(reader.fetch(&AuditScope::Whole, RecordId(1)).await.unwrap().is_none());

    let none_free = AuditReader(Arc::new(pool(0)));
    assert!(matches!(none_free.fetch(&AuditScope::Whole, RecordId(1)).await, Err(ReadError::Busy)));
}

#[tokio::test]
async fn a_log_is_read_while_no_broker_runs_and_cannot_be_changed_through_it() {
    let log = Log::new();
    drop(sample(&log).await);
    let reader = AuditReader::open(&log.path()).unwrap();
    assert_eq!(found(&reader, "decision:event").await, [4]);
    let insert = "INSERT INTO strings (text) VALUES ('x')";
    let result = reader.run(move |log| Ok(log.connection().execute(insert, [])?)).await;
    assert!(matches!(result, Err(ReadError::Unavailable(_))));
    assert!(matches!(AuditReader::open(&log.path().with_file_name("no.db")), Err(OpenError::Absent(_))));
    assert!(reader.fetch(&AuditScope::Whole, RecordId(u64::MAX)).await.unwrap().is_none());
}

fn named(id: &str, name: &str, name_is_unique: bool) -> Named {
    Named { id: id.into(), name: name.into(), name_is_unique }
}

/// A record about a vault, and nothing more.
fn about(id: &str, name: &str) -> AuditRecord {
    let vault = Some(named(id, name, true));
    let target = Target::Unresolved { vault, item: None, error: ResolveError::ItemNotFound };
    AuditRecord { target: Some(Arc::new(target)), ..denied("travel-bot") }
}

#[tokio::test]
async fn the_vaults_of_a_log_are_known_with_all_their_names() {
    let log = Log::new();
    let store = log.open();
    assert_eq!(store.reader().vaults().await.unwrap(), Vaults::default());
    for (id, name) in [("v1", "payments"), ("v1", "payments"), ("v2", "travel"), ("v2", "v1")] {
        write(&store, about(id, name)).await.unwrap();
    }
    write(&store, AuditRecord::event(now(), RecordKind::Start, Reason::Done)).await.unwrap();
    let vaults = store.reader().vaults().await.unwrap();
    assert_eq!(
        vaults.vaults,
        [named("v1", "payments", true), named("v2", "travel", true), named("v2", "v1", false)]
    );
    assert_eq!(vaults.seen, RecordId(5));
    // Another takes the name: from now on it stands for neither. One could be an id of some other.
    write(&store, about("v3", "payments")).await.unwrap();
    write(&store, about("v4", &"a".repeat(26))).await.unwrap();
    let vaults = store.reader().vaults().await.unwrap().vaults;
    let shared: Vec<_> = vaults.iter().filter(|it| !it.name_is_unique).map(|it| &*it.id).collect();
    assert_eq!(shared, ["v1", "v2", "v3", "v4"]);
}

#[tokio::test]
async fn a_log_is_looked_through_for_vaults_part_by_part() {
    let log = Log::new();
    drop(sample(&log).await);
    let mut connection = schema::open_reader(&log.path()).unwrap();
    let known = Known::default();
    for _ in 0..3 {
        assert_eq!(known.look_on(&snapshot(&mut connection), 2).unwrap(), None);
    }
    let vaults = known.look_on(&snapshot(&mut connection), 2).unwrap().unwrap();
    assert_eq!((vaults.vaults.len(), vaults.seen), (2, RecordId(7)));
}

#[tokio::test]
async fn a_scope_takes_in_its_vaults_alone() {
    let log = Log::new();
    let store = sample(&log).await;
    let reader = store.reader();
    for (id, name) in [("v1", "payments"), ("v2", "payments"), ("v1", "old")] {
        write(&store, about(id, name)).await.unwrap();
    }
    let scope = |vaults: &[(&str, &str)]| {
        AuditScope::Vaults(vaults.iter().map(|(id, name)| named(id, name, true)).collect())
    };
    let cases: &[(AuditScope, &str, &[u64])] = &[
        (scope(&[("v1", "payments")]), "", &[8]),
        (scope(&[("v1", "payments"), ("v2", "payments")]), "", &[9, 8]),
        (scope(&[("v1", "payments"), ("v1", "old")]), "", &[10, 8]),
        (scope(&[("v1", "payments")]), "-vault:payments", &[]),
        (scope(&[("v1", "payments")]), "record:1", &[]),
        (scope(&[("v1", "payments")]), "-agent:nobody", &[8]),
        (scope(&[("v1", "payments")]), "-reason:POLICY_PERMIT -outcome:open", &[8]),
        (scope(&[("v1", "nothing")]), "", &[]),
        (scope(&[("nothing", "payments")]), "", &[]),
        (scope(&[]), "", &[]),
    ];
    for (scope, text, expected) in cases {
        let filter = filter(text);
        let page = reader.list(&filter, scope, None, 100).await.unwrap();
        assert_eq!(page.next, None);
        let ids: Vec<_> = page.records.iter().map(|record| record.id.0).collect();
        assert_eq!(ids, *expected, "{scope:?} {text}");
        let tail = reader.after(&filter, scope, (RecordId(0), TO_THE_END), 100).await.unwrap();
        assert_eq!((tail.records.len(), tail.seen), (ids.len(), RecordId(10)), "{scope:?} {text}");
    }
    let payments = scope(&[("v1", "payments")]);
    for seq in 0..12 {
        let found = reader.fetch(&payments, RecordId(seq)).await.unwrap();
        assert_eq!(found.is_some(), seq == 8, "{seq}");
    }
    // No further than it was decided on.
    let tail = reader.after(&filter(""), &payments, (RecordId(0), RecordId(7)), 100).await.unwrap();
    assert_eq!(tail, Tail { records: vec![], seen: RecordId(7) });
}

/// Whether SQLite finds an agent of this name.
fn sql_finds(filter: &Filter, name: &str) -> bool {
    let connection = schema::in_memory();
    connection.execute("INSERT INTO strings (text) VALUES (?1)", [name]).unwrap();
    let record = "INSERT INTO records (seq, time_us, kind, ruling, reason, agent) VALUES (1, 0, 4, 2, 2, 1)";
    connection.execute(record, []).unwrap();
    let Condition { sql, values } = Condition::of(filter, &Seqs::Span(1, 1));
    let sql = format!("SELECT count(*) FROM records r WHERE {sql}");
    connection.query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0)).unwrap() == 1
}

proptest! {
    /// SQLite and the pattern agree on what matches.
    #[test]
    fn sql_finds_what_the_pattern_matches(
        pattern in r"[ab*?\[\]^-]{1,4}",
        name in r"[ab*?\[\]^-]{0,4}",
        quoted in any::<bool>(),
    ) {
        let written = if quoted { format!("agent:\"{pattern}\"") } else { format!("agent:{pattern}") };
        if let Ok(filter) = Filter::parse(&written) {
            let [Term { test: Test::Agent(pattern), .. }] = filter.terms() else { panic!() };
            prop_assert_eq!(sql_finds(&filter, &name), pattern.matches(&name));
        }
    }
}

#[tokio::test]
async fn settled_stops_before_what_is_open() {
    let log = Log::new();
    let store = log.open();
    let settled = async || store.reader().settled().await.unwrap().0;
    assert_eq!(settled().await, 0);
    write(&store, denied("a")).await.unwrap();
    assert_eq!(settled().await, 1);
    let open = write(&store, allowed("a")).await.unwrap();
    let later = write(&store, allowed("a")).await.unwrap();
    write(&store, denied("a")).await.unwrap();
    assert_eq!(settled().await, 1);
    crate::testing::settle(&store, later, OutcomeResult::Issued);
    write(&store, denied("a")).await.unwrap();
    assert_eq!(settled().await, 1, "one before it is open");
    crate::testing::settle(&store, open, OutcomeResult::Issued);
    let last = write(&store, denied("a")).await.unwrap();
    assert_eq!(settled().await, last.0);
}

#[tokio::test]
async fn a_time_is_found_by_halves() {
    let log = Log::new();
    let store = log.open();
    let before = async |micros: i64| store.reader().before(Timestamp::from_micros(micros)).await.unwrap().0;
    assert_eq!(before(5).await, 0, "of an empty log");
    for micros in [10, 20, 20, 30] {
        let record = AuditRecord { time: Timestamp::from_micros(micros), ..denied("a") };
        write(&store, record).await.unwrap();
    }
    for (micros, place) in
        [(0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (30, 3), (31, 4), (i64::MAX, 4), (i64::MIN, 0)]
    {
        assert_eq!(before(micros).await, place, "{micros}");
    }
}
