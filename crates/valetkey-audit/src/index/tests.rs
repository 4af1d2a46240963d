use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use valetkey_core::testing::{agent, person, tool};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, AuditScope, FieldTarget, HandleId, Identity, LeaseId, Named,
    OutcomeResult, PolicyId, Provenance, PublicId, Reason, RecordId, RecordKind, RequestId, ResolveError,
    Revision, Ruling, Target, Timestamp, ValueDigest,
};

use super::*;
use crate::read::{Page, Query, Snapshot, Tail};
use crate::recount::{self, Part};
use crate::testing::{Log, grant, now};
use crate::usage::{Day, Subject};
use crate::{AuditReader, AuditStore, Filter, schema};

/// A record of a history, by bytes.
type Seed = [u8; 8];

/// What happens to a log.
#[derive(Debug, Clone)]
enum Step {
    /// One call's records.
    Write(Vec<Seed>),
    /// The outcome of one of the grants that are open.
    Settle(Seed),
    /// The broker is stopped and started, and something happened to the index in between.
    Restart(Damage),
    /// The index goes away while the broker runs.
    Delete,
    /// Everything is asked, with the follower wherever it is.
    Ask,
    /// Everything is asked when the follower has done what there is to do.
    AskAfterFollower,
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    None,
    Delete,
    Truncate,
    Garble,
    GarblePage,
    OtherVersion,
    OtherLog,
}

fn step() -> impl Strategy<Value = Step> {
    let damage = prop_oneof![
        3 => Just(Damage::None),
        1 => Just(Damage::Delete),
        1 => Just(Damage::Truncate),
        1 => Just(Damage::Garble),
        1 => Just(Damage::GarblePage),
        1 => Just(Damage::OtherVersion),
        1 => Just(Damage::OtherLog),
    ];
    prop_oneof![
        6 => proptest::collection::vec(any::<Seed>(), 1..40).prop_map(Step::Write),
        6 => any::<Seed>().prop_map(Step::Settle),
        1 => damage.prop_map(Step::Restart),
        1 => Just(Step::Delete),
        1 => Just(Step::Ask),
        2 => Just(Step::AskAfterFollower),
    ]
}

/// A log under test.
struct History {
    log: Log,
    store: Option<AuditStore>,
    /// Records whose outcome is to come.
    open: Vec<u64>,
    last: u64,
    /// How often it was asked: each time, other filters have their turn.
    asked: usize,
}

impl History {
    fn new(chunk: u64) -> Self {
        let mut log = Log::new();
        log.options.index_chunk = chunk;
        let store = Some(log.open());
        Self { log, store, open: Vec::new(), last: 0, asked: 0 }
    }

    fn store(&self) -> &AuditStore {
        self.store.as_ref().unwrap()
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Write(seeds) => {
                let records: Vec<_> = seeds.iter().copied().map(record).collect();
                let grants: Vec<_> = records.iter().map(is_grant).collect();
                let ids = self.store().record(records).await.unwrap();
                self.last = ids.last().map_or(self.last, |id| id.0);
                for ((id, seed), _) in ids.into_iter().zip(seeds).zip(grants).filter(|(_, grant)| *grant) {
                    // Most outcomes come at once, some later, some never.
                    match seed[7] % 4 {
                        0 => self.open.push(id.0),
                        _ => self.store().record_outcome(grant(id), outcome(seed)),
                    }
                }
            }
            Step::Settle(seed) if !self.open.is_empty() => {
                let seq = self.open.remove(usize::from(seed[0]) % self.open.len());
                self.store().record_outcome(grant(RecordId(seq)), outcome(seed));
            }
            Step::Settle(_) => {}
            Step::Restart(damage) => {
                self.store = None;
                // Those that were open are interrupted.
                self.open.clear();
                self.damage(damage);
                self.store = Some(self.log.open());
            }
            Step::Delete => drop(fs::remove_file(path_of(&self.log.path()))),
            Step::Ask => self.ask().await,
            Step::AskAfterFollower => {
                self.follow();
                self.ask().await;
            }
        }
    }

    fn damage(&self, damage: Damage) {
        let path = path_of(&self.log.path());
        let Ok(mut bytes) = fs::read(&path) else { return };
        match damage {
            Damage::None => return,
            Damage::Delete => return fs::remove_file(&path).unwrap(),
            Damage::OtherVersion => {
                connect(&path).unwrap().execute("UPDATE meta SET version = 0", []).unwrap();
                return;
            }
            Damage::OtherLog => {
                let sql = "UPDATE meta SET fingerprint = zeroblob(32) WHERE chunks > 0";
                connect(&path).unwrap().execute(sql, []).unwrap();
                return;
            }
            Damage::Truncate => bytes.truncate(bytes.len() / 2),
            Damage::Garble => bytes.iter_mut().take(4096).for_each(|byte| *byte ^= 0x5A),
            Damage::GarblePage => {
                let page = PAGE_BYTES as usize;
                let middle = bytes.len() / page / 2 * page;
                bytes[middle..].iter_mut().take(page).for_each(|byte| *byte = 0xEE);
            }
        }
        fs::write(&path, bytes).unwrap();
    }

    /// Waits until every whole chunk of settled records is in the index.
    fn follow(&self) {
        let settled = "SELECT seq FROM settled";
        let end = Instant::now() + Duration::from_secs(60);
        let chunk = self.log.options.index_chunk;
        loop {
            let settled: u64 = self.log.raw().query_row(settled, [], |row| row.get(0)).unwrap();
            if self.store().indexed().0 >= settled / chunk * chunk {
                return;
            }
            assert!(Instant::now() < end, "the follower does not follow");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything that can be asked has the answer that the records themselves give.
    async fn ask(&mut self) {
        self.asked += 1;
        let reader = self.store().reader();
        let mut connection = schema::open_reader(&self.log.path()).unwrap();
        for scope in scopes() {
            for filter in filters().into_iter().skip(self.asked % TURNS).step_by(TURNS) {
                self.ask_pages(reader, &mut connection, &filter, &scope).await;
            }
            ask_counts(reader, &mut connection, &scope, self.asked).await;
        }
    }

    async fn ask_pages(
        &self,
        reader: &AuditReader,
        connection: &mut Connection,
        filter: &Filter,
        scope: &AuditScope,
    ) {
        let query = Query::new(filter, scope);
        // Outcomes come meanwhile: what is compared is which records there are.
        let expected = || {
            let log = Snapshot::take(connection, false, Instant::now() + Duration::from_secs(60)).unwrap();
            let all = crate::query::Seqs::Span(1, log.last());
            let records =
                crate::read::select(log.connection(), &query, &all, Order::OldestFirst, 10_000).unwrap();
            records.into_iter().map(|record| record.id).collect::<Vec<_>>()
        };
        let steady = self.open.is_empty() || !filter.as_str().contains("outcome");
        let mut expected = expected;
        let before_asking = expected();
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let Page { records, next } = reader.list(filter, scope, before, 7).await.unwrap();
            assert!(records.is_sorted_by_key(|record| std::cmp::Reverse(record.id)));
            found.extend(records.into_iter().map(|record| record.id));
            before = next;
            if before.is_none() {
                break;
            }
        }
        found.reverse();
        let (mut watched, mut after) = (Vec::new(), RecordId(0));
        while after.0 < self.last {
            let span = (after, RecordId(self.last));
            let Tail { records, seen } = reader.after(filter, scope, span, 7).await.unwrap();
            watched.extend(records.into_iter().map(|record| record.id));
            assert!(seen > after);
            after = seen;
        }
        let after_asking = expected();
        if steady && before_asking == after_asking {
            assert_eq!(found, after_asking, "{} {scope:?}", filter.as_str());
            assert_eq!(watched, after_asking, "{} {scope:?}", filter.as_str());
        }
    }
}

const TURNS: usize = 8;

async fn ask_counts(reader: &AuditReader, connection: &mut Connection, scope: &AuditScope, turn: usize) {
    let Day(day) = Day::of_us(now().as_micros());
    let subjects = [
        Subject::Everybody,
        Subject::Agent("a1".into()),
        Subject::Agent("nobody".into()),
        Subject::Tool("t1".into()),
        Subject::Vault("VAULT1".into()),
        Subject::Vault("v2".into()),
        Subject::Item("item1".into()),
        Subject::Item("i0".into()),
    ];
    let spans = [Day(i64::MIN)..Day(i64::MAX), Day(day)..Day(day + 1), Day(day + 1)..Day(day + 3)];
    let days = spans[turn % spans.len()].clone();
    for subject in subjects.iter().skip(turn % 2).step_by(2) {
        let found = reader.usage(subject, scope, days.clone()).await.unwrap();
        let part = Part { seqs: (1, found.seen.0), scope };
        let expected = recount::usage(connection, &part, &days, subject).unwrap();
        assert_eq!(found.rows, expected, "{subject:?} {scope:?} {days:?}");
    }
    for agent in [None, Some("a1"), Some("nobody")] {
        let found = reader.refusals(agent, scope, days.clone()).await.unwrap();
        let part = Part { seqs: (1, found.seen.0), scope };
        assert_eq!(found.rows, recount::refusals(connection, &part, &days, agent).unwrap());
    }
    let found = reader.first_uses(scope, days.clone()).await.unwrap();
    let part = Part { seqs: (1, found.seen.0), scope };
    let mut expected = recount::first_uses(connection, &part).unwrap();
    expected.retain(|first| days.contains(&Day::of_us(first.time.as_micros())));
    assert_eq!(found.rows, expected);
    let found = reader.policy_uses(scope, days.clone()).await.unwrap();
    assert_eq!(found.rows, recount::policy_uses(connection, &part, &days).unwrap());
    let found = reader.last_uses(scope).await.unwrap();
    let part = Part { seqs: (1, found.seen.0), scope };
    assert_eq!(found.rows, recount::last_uses(connection, &part).unwrap());
    let found = reader.released(digest(1), scope, 1000).await.unwrap();
    let query = Query::new(&Filter::of_value(digest(1)), scope);
    let all = crate::query::Seqs::Span(1, found.seen.0);
    let expected = crate::read::select(connection, &query, &all, Order::NewestFirst, 1000).unwrap();
    assert_eq!(found.rows, expected);
    reader.vaults().await.unwrap();
}

fn named(id: String, name: String) -> Named {
    Named { id: id.as_str().into(), name: name.as_str().into(), name_is_unique: true }
}

fn scopes() -> Vec<AuditScope> {
    let of = |pairs: &[(u8, u8)]| {
        AuditScope::Vaults(
            pairs.iter().map(|(id, name)| named(format!("V{id}"), format!("vault{name}"))).collect(),
        )
    };
    vec![AuditScope::Whole, of(&[(1, 1)]), of(&[(0, 0), (2, 2), (1, 9)]), of(&[(9, 9)]), of(&[])]
}

fn public_id(n: u8) -> PublicId {
    PublicId::from_bytes([n.wrapping_mul(101), n, n ^ 0x55, n, n, n, n, n, n, n])
}

fn digest(n: u8) -> ValueDigest {
    ValueDigest([n; 16])
}

fn filters() -> Vec<Filter> {
    // The second one of the histories.
    let day =
        time::OffsetDateTime::from_unix_timestamp(now().as_micros() / 1_000_000 + 86_400).unwrap().date();
    let ids = [
        format!("lease:{}", LeaseId(public_id(1))),
        format!("-lease:{} decision:allow", LeaseId(public_id(1))),
        format!("handle:{}", HandleId(public_id(2))),
        format!("request:{} agent:a1", RequestId(public_id(3))),
        format!("created:{day}"),
        format!("-created:{day} kind:redeem"),
        format!("created:>{day} -agent:a2"),
    ];
    let texts = [
        "",
        "agent:a1",
        "-agent:a1",
        "agent:a*",
        "-agent:*1",
        "agent:nobody",
        "-agent:nobody",
        "tool:t1 agent:a2",
        "caller:agent:a1",
        "caller:person:*",
        "-caller:*",
        "person:ana",
        "vault:vault1",
        "vault:V2",
        "-vault:*1",
        "item:item1",
        "item:*2",
        "-item:i0 vault:vault0",
        "policy:p1",
        "policy:p*",
        "-policy:p2",
        "reason:POLICY_FORBID",
        "reason:ITEM_NOT_FOUND",
        "-reason:POLICY_*",
        "decision:deny",
        "-decision:deny kind:acquire",
        "kind:redeem tool:t2",
        "outcome:issued",
        "-outcome:failed",
        "outcome:open",
        "source:main",
        "-source:*",
        "revision:0101010101010101",
        "reference:op://V1/*",
        "session:s1",
        "-session:s1 agent:a1",
        "session:s*",
        "destination:d1",
        "client:c1",
        "credential:vkt_1 -tool:t1",
        "credential:vkt*",
        "detail:*word*",
        "-detail:* decision:deny",
        "record:5",
        "-record:5 kind:redeem",
        "agent:a1 agent:a2",
    ];
    texts.iter().map(|text| (*text).to_owned()).chain(ids).map(|text| Filter::parse(&text).unwrap()).collect()
}

fn is_grant(record: &AuditRecord) -> bool {
    record.ruling == Ruling::Allow && record.kind.has_outcome()
}

/// Everything about a record that is ever asked for, from eight bytes.
fn record(seed: Seed) -> AuditRecord {
    let [a, b, c, d, e, f, g, h] = seed;
    let pick = |byte: u8, count: u8| (byte % (count + 1)).checked_sub(1);
    let kinds = [
        RecordKind::Acquire,
        RecordKind::Acquire,
        RecordKind::Redeem,
        RecordKind::Renew,
        RecordKind::Check,
        RecordKind::LeaseEnd,
    ];
    let time = Timestamp::from_micros(now().as_micros() + i64::from(h % 4) * 43_200_000_000);
    let base = AuditRecord::event(time, kinds[usize::from(a) % kinds.len()], Reason::Done);
    let (ruling, reason) = match (a / 8 % 3, base.kind) {
        (_, RecordKind::LeaseEnd) => (Ruling::Event, Reason::Done),
        (0, _) => (Ruling::Deny, [Reason::PolicyNoPermit, Reason::PolicyForbid][usize::from(b) % 2]),
        _ => (Ruling::Allow, Reason::PolicyPermit),
    };
    let lists: [&[&str]; 3] = [&["p1"], &["p1", "p2"], &["p3", "p2", "p2"]];
    let list = pick(c, 3).or((ruling == Ruling::Allow).then_some(0));
    let text = |prefix: &str, n: Option<u8>| n.map(|n| Arc::<str>::from(format!("{prefix}{n}")));
    let call = pick(d, 3);
    AuditRecord {
        ruling,
        reason,
        // Mostly the same ones, so that what is counted comes again.
        agent: [None, Some(0), Some(1), Some(1), Some(1), Some(2)][usize::from(b) % 6]
            .map(|n| agent(&format!("a{n}"))),
        tool: [None, Some(1), Some(1), Some(2)][usize::from(b / 8) % 4].map(|n| tool(&format!("t{n}"))),
        caller: call.map(|n| {
            if n == 2 { Identity::Person(person("ana")) } else { Identity::Agent(agent(&format!("a{n}"))) }
        }),
        on_behalf_of: (call == Some(1)).then(|| person("ana")),
        credential: text("vkt_", call),
        client: text("c", call),
        target: target_of(e, f),
        reference: pick(e, 3).map(|n| format!("op://V{n}/i{}/f", f % 3).into()),
        policies: list.map(|list| lists[usize::from(list)].iter().map(|id| PolicyId((*id).into())).collect()),
        revision: (ruling == Ruling::Allow).then_some(Revision { generation: 1, digest: [1 + c % 2; 8] }),
        request: Some(RequestId(public_id(g % 8))),
        lease: pick(g / 8, 3).map(|n| LeaseId(public_id(n))),
        handle: pick(g / 32, 3).map(|n| HandleId(public_id(n))),
        session: text("s", pick(h / 4, 3)),
        destination: text("d", pick(h / 16, 3)),
        detail: (h / 64 == 0).then(|| "a word in it".into()),
        uses: (ruling == Ruling::Allow).then_some(1),
        ..base
    }
}

fn target_of(vault: u8, item: u8) -> Option<Arc<Target>> {
    // Mostly the same ones, and now and then under another name.
    let one = |n: u8| [0, 1, 1, 1, 2][usize::from(n) % 5];
    let name = |n: u8| if n.is_multiple_of(16) { 9 } else { one(n) };
    let vault_of = |n: u8| named(format!("V{}", one(n)), format!("vault{}", name(n)));
    let item_of = |n: u8| named(format!("i{}", one(n)), format!("item{}", name(n)));
    match vault % 8 {
        0 => None,
        1 => Some(Target::Unresolved { vault: None, item: None, error: ResolveError::VaultNotFound }),
        2 => Some(Target::Unresolved {
            vault: Some(vault_of(vault / 8)),
            item: None,
            error: ResolveError::ItemNotFound,
        }),
        _ => Some(Target::Field(FieldTarget {
            vault: vault_of(vault / 8),
            item: item_of(item),
            field_id: "f".into(),
            field: "f".into(),
            section: "".into(),
            facet: valetkey_core::Facet::Value,
        })),
    }
    .map(Arc::new)
}

fn outcome([_, a, b, ..]: Seed) -> AuditOutcome {
    let source = |name: &str| Provenance { source: name.into(), item_version: Some(1), read_time: now() };
    match a % 5 {
        0..=2 => AuditOutcome {
            provenance: Some(source("main")),
            ..AuditOutcome::new(now(), OutcomeResult::Issued)
        },
        3 => AuditOutcome {
            provenance: Some(source("other")),
            value_digest: Some(digest(b % 3)),
            ..AuditOutcome::new(now(), OutcomeResult::Released)
        },
        _ if b % 2 == 0 => AuditOutcome::because(now(), OutcomeResult::Failed, "ITEM_NOT_FOUND"),
        _ => AuditOutcome {
            detail: Some("a word of its own".into()),
            ..AuditOutcome::new(now(), OutcomeResult::Withheld)
        },
    }
}

fn run(chunk: u64, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut history = History::new(chunk);
        for step in steps.into_iter().chain([Step::Ask, Step::Restart(Damage::None), Step::AskAfterFollower])
        {
            history.run(step).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Whatever happens to the log and to its index, every answer is that of the records themselves.
    #[test]
    fn every_answer_is_a_recount(chunk in prop_oneof![2u64..20, Just(40), Just(64)], steps in proptest::collection::vec(step(), 1..16)) {
        run(chunk, steps);
    }
}

#[test]
fn the_index_is_its_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let log = Log::new();
    let store = log.open();
    let path = path_of(&log.path());
    let end = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);
}

/// From the first record on, through the index, out of it and into the log, while all of it moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_no_gap_where_the_index_ends() {
    let mut log = Log::new();
    log.options.index_chunk = 16;
    let store = Arc::new(log.open());
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..100 {
                let ids =
                    store.record(vec![crate::testing::allowed("a1"), crate::testing::denied("a2")]).await;
                let ids = ids.unwrap();
                store.record_outcome(grant(ids[0]), AuditOutcome::new(now(), OutcomeResult::Issued));
                if n % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let filter = Filter::parse("agent:a2").unwrap();
    let (mut seen, mut after) = (Vec::new(), RecordId(0));
    let end = Instant::now() + Duration::from_secs(60);
    while after.0 < 200 {
        let tail =
            store.reader().after(&filter, &AuditScope::Whole, (after, RecordId(u64::MAX)), 7).await.unwrap();
        seen.extend(tail.records.into_iter().map(|record| record.id.0));
        assert!(tail.seen >= after && Instant::now() < end);
        after = tail.seen;
    }
    writing.await.unwrap();
    assert_eq!(seen, (1..=200).filter(|seq| seq % 2 == 0).collect::<Vec<_>>());
}

/// What hides in the index shows up again without it, and no query fails.
#[tokio::test]
async fn an_index_that_breaks_under_a_reader_is_made_anew() {
    let mut log = Log::new();
    log.options.index_chunk = 4;
    let mut history = History { log, store: None, open: Vec::new(), last: 0, asked: 0 };
    history.store = Some(history.log.open());
    history.run(Step::Write(vec![[0; 8]; 40])).await;
    // What is settled is written down in large steps, and when the log is closed.
    history.run(Step::Restart(Damage::None)).await;
    let store = history.store();
    let covered = |least: u64| {
        let end = Instant::now() + Duration::from_secs(60);
        while store.indexed().0 < least {
            assert!(Instant::now() < end, "the index is not made anew");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    covered(4);
    let filter = Filter::parse("decision:deny").unwrap();
    let first = store.reader().list(&filter, &AuditScope::Whole, None, 100).await.unwrap();
    let before = store.reader().index().generation();
    connect(&path_of(&history.log.path())).unwrap().execute("DROP TABLE postings", []).unwrap();
    let again = store.reader().list(&filter, &AuditScope::Whole, None, 100).await.unwrap();
    assert_eq!(first, again);
    let end = Instant::now() + Duration::from_secs(60);
    while store.reader().index().generation() == before {
        assert!(Instant::now() < end, "the index is not made anew");
        std::thread::sleep(Duration::from_millis(2));
    }
    covered(4);
    assert_eq!(store.reader().list(&filter, &AuditScope::Whole, None, 100).await.unwrap(), first);
}
