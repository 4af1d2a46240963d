//! What queries and reports cost in a long log, and whether its length slows down an append.
//!
//! `cargo bench -p valetkey-audit --bench scale -- --records 10000000`, on the disk of the temporary directory. The
//! log is written by the real writer, forty days of it: 1,000 agents, a few of which do most, 200 tools, 20 vaults and
//! 5,000 items. With `--log FILE` it is kept, and one that is there is measured as it is.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench stops where something is wrong")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use valetkey_audit::{AuditStore, Day, Filter, Missing, StoreOptions, StoredRecord, Subject};
use valetkey_core::testing::{FakeClock, agent, request, tool};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, AuditScope, Clock, Facet, FieldTarget, Grant, HandleId, Identity,
    LeaseId, Named, OutcomeResult, PolicyId, Provenance, PublicId, Reason, RecordId, RecordKind, RequestId,
    Revision, Ruling, Target, Timestamp, ValueDigest,
};

fn main() {
    let records = argument("--records").map_or(10_000_000, |number| number.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = argument("--log").map_or_else(|| directory.path().join("audit.db"), PathBuf::from);
    let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
    let store = AuditStore::open(&path, options, Arc::new(FakeClock::default())).unwrap();
    runtime.block_on(measure(&Arc::new(store), &path, records));
}

async fn measure(store: &Arc<AuditStore>, path: &Path, records: u64) {
    let directory = path.parent().unwrap();
    if store_last(store) < records {
        build(store, directory, records).await;
    }
    follow(store).await;
    sizes(store, path);
    let middle = Some(RecordId(records / 2));
    let redeemed = Filter::parse("kind:redeem outcome:released").unwrap();
    let page = store.reader().list(&redeemed, &AuditScope::Whole, middle, 1).await.unwrap();
    queries(store, &page.records[0]).await;
    reports(store).await;
    append_figures(store, directory, &format!("{records} records")).await;
}

/// Writes the log.
async fn build(store: &Arc<AuditStore>, directory: &Path, records: u64) {
    let mut world = World::new(records);
    fill(store, &mut world, 1_000).await;
    append_figures(store, directory, "1,000 records").await;
    let (built, first) = (Instant::now(), store_last(store));
    let lag = fill(store, &mut world, records.saturating_sub(first)).await;
    let (written, elapsed) = (store_last(store) - first, built.elapsed().as_secs_f64());
    println!(
        "wrote {written} records in {elapsed:.0} s: {:.0}/s; the index was at most {lag} records behind",
        written as f64 / elapsed
    );
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn store_last(store: &AuditStore) -> u64 {
    *store.committed().borrow()
}

/// Who does what, always the same.
struct World {
    random: u64,
    /// Grows up to the last agent: where a random number lies says who.
    agents: Vec<f64>,
    /// Records so far, and the time between two.
    written: u64,
    step_us: i64,
    /// Leases with a handle that can be redeemed.
    live: Vec<AuditRecord>,
    session: u64,
    wanted: u64,
}

impl World {
    fn new(records: u64) -> Self {
        let mut sum = 0.0;
        let agents = (1..=AGENTS).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self {
            random: 0x9E37_79B9_7F4A_7C15,
            agents: agents.collect(),
            written: 0,
            step_us: DAYS * DAY_US / i64::try_from(records.max(1)).unwrap(),
            live: Vec::new(),
            session: 0,
            wanted: records,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.random() >> 11) % bound
    }

    /// The next record, and what will come of it.
    fn next(&mut self) -> (AuditRecord, Option<AuditOutcome>) {
        self.written += 1;
        let time = Timestamp::from_micros(start_us() + i64::try_from(self.written).unwrap() * self.step_us);
        let record = match self.below(100) {
            0..52 => self.acquire(time),
            52..94 => match self.live.pop() {
                Some(issued) => self.redeem(time, issued),
                None => self.acquire(time),
            },
            94..99 => AuditRecord {
                agent: Some(agent(&self.agent())),
                lease: Some(LeaseId(PublicId::random())),
                ..AuditRecord::event(time, RecordKind::LeaseEnd, Reason::EndCaller)
            },
            _ => AuditRecord::event(time, RecordKind::PolicyLoad, Reason::Done),
        };
        let outcome = (record.ruling == Ruling::Allow).then(|| self.outcome(time, record.kind));
        (record, outcome)
    }

    fn agent(&mut self) -> String {
        let all = *self.agents.last().unwrap();
        let place = self.below(1 << 40) as f64 / (1u64 << 40) as f64 * all;
        format!("agent-{:03}", self.agents.partition_point(|sum| *sum < place))
    }

    fn acquire(&mut self, time: Timestamp) -> AuditRecord {
        let name = self.agent();
        let number: u64 = name[6..].parse().unwrap();
        // Each agent has a dozen items of its own, and a tool for each few of them.
        let choice = self.below(12).min(self.below(12));
        let item = (number * 37 + choice * 101) % ITEMS;
        let (vault, tool_number) = (item % VAULTS, (number * 7 + choice % 3) % TOOLS);
        if self.below(8) == 0 {
            self.session += 1;
        }
        let named = |id: String, name: String| Named {
            id: id.as_str().into(),
            name: name.as_str().into(),
            name_is_unique: true,
        };
        let base = AuditRecord {
            credential: Some(format!("vkt_{number:016}").into()),
            caller: Some(Identity::Agent(agent(&name))),
            client: Some("valetkey-python/0.1.0 10.0.0.9".into()),
            agent: Some(agent(&name)),
            tool: Some(tool(&format!("tool-{tool_number:03}"))),
            reference: Some(format!("op://vault-{vault}/item-{item}/password").into()),
            target: Some(Arc::new(Target::Field(FieldTarget {
                vault: named(format!("{vault:026}"), format!("vault-{vault}")),
                item: named(format!("{item:026}"), format!("item-{item}")),
                field_id: "password".into(),
                field: "password".into(),
                section: "".into(),
                facet: Facet::Value,
            }))),
            policies: Some([PolicyId(format!("policy-{}", number % 50).into())].into()),
            revision: Some(Revision {
                generation: 1,
                digest: [u8::try_from(self.written * 9 / self.wanted.max(1)).unwrap_or(9); 8],
            }),
            request: Some(RequestId(PublicId::random())),
            session: Some(format!("run {}", self.session).into()),
            purpose: Some("to do what it was asked to do".into()),
            lease: Some(LeaseId(PublicId::random())),
            ttl: Some(Duration::from_secs(60)),
            ..AuditRecord::refusal(time, RecordKind::Acquire, Reason::PolicyNoPermit)
        };
        if self.below(100) < 7 {
            return AuditRecord { policies: None, ..base };
        }
        let handle = Some(HandleId(PublicId::random()));
        let allowed = AuditRecord {
            ruling: Ruling::Allow,
            reason: Reason::PolicyPermit,
            uses: Some(1),
            handle,
            ..base
        };
        self.live.push(allowed.clone());
        allowed
    }

    fn redeem(&mut self, time: Timestamp, issued: AuditRecord) -> AuditRecord {
        let AuditRecord { tool, .. } = &issued;
        let caller = tool.clone().map(Identity::Tool);
        AuditRecord {
            time,
            kind: RecordKind::Redeem,
            caller,
            request: Some(RequestId(PublicId::random())),
            ..issued
        }
    }

    fn outcome(&mut self, time: Timestamp, kind: RecordKind) -> AuditOutcome {
        if self.below(100) < 2 {
            return AuditOutcome::because(time, OutcomeResult::Failed, "ITEM_NOT_FOUND");
        }
        let (released, digest) = (kind == RecordKind::Redeem, self.below(20_000));
        let result = if released { OutcomeResult::Released } else { OutcomeResult::Issued };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&digest.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        AuditOutcome {
            provenance: Some(Provenance { source: "main".into(), item_version: Some(3), read_time: time }),
            value_digest: released.then_some(ValueDigest(bytes)),
            ..AuditOutcome::new(time, result)
        }
    }
}

/// Writes `count` records with their outcomes; how far the index was behind at the most.
async fn fill(store: &Arc<AuditStore>, world: &mut World, count: u64) -> u64 {
    let (mut left, mut lag) = (count, 0);
    let mut writing = tokio::task::JoinSet::new();
    while left > 0 {
        let batch: Vec<_> = (0..left.min(BATCH)).map(|_| world.next()).collect();
        left -= batch.len() as u64;
        if writing.len() >= WRITERS {
            writing.join_next().await.unwrap().unwrap();
        }
        lag = lag.max(store_last(store) - store.indexed().0.min(store_last(store)));
        let store = Arc::clone(store);
        writing.spawn(async move {
            let (records, outcomes): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let ids = store.record(records).await.unwrap();
            for (id, outcome) in ids.into_iter().zip(outcomes) {
                if let Some(outcome) = outcome {
                    store.record_outcome(Grant::for_test(request("op://a/b/c"), id), outcome);
                }
            }
        });
    }
    writing.join_all().await;
    lag
}

/// Waits for the index, and says how fast it was.
async fn follow(store: &AuditStore) {
    let (start, first) = (Instant::now(), store.indexed().0);
    loop {
        let before = store.indexed().0;
        tokio::time::sleep(Duration::from_secs(2)).await;
        if store.indexed().0 == before && store_last(store) - before < 16_384 {
            break;
        }
    }
    let (records, time) = (store.indexed().0 - first, start.elapsed() - Duration::from_secs(2));
    if records == 0 {
        return;
    }
    println!(
        "the index caught up with {records} records in {:.0} s: {:.0}/s",
        time.as_secs_f64(),
        records as f64 / time.as_secs_f64()
    );
}

fn sizes(store: &AuditStore, path: &Path) {
    let bytes = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |file| file.len()) as f64
    };
    let records = store_last(store) as f64;
    println!(
        "bytes a record: log {:.0}, index {:.0} (write-ahead logs {:.0} and {:.0} MiB)",
        bytes("") / records,
        bytes("-index") / records,
        bytes("-wal") / f64::from(1 << 20),
        bytes("-index-wal") / f64::from(1 << 20)
    );
}

async fn queries(store: &AuditStore, sample: &StoredRecord) {
    let StoredRecord { lease, handle, request, session, .. } = sample.clone();
    let day = day_text(start_us() + DAYS / 2 * DAY_US);
    let cases = [
        ("the last 100", String::new()),
        ("the last 100 of the busiest agent", "agent:agent-000".into()),
        ("… of a middling agent", "agent:agent-100".into()),
        ("… of the rarest agent", "agent:agent-999".into()),
        ("… of nobody", "agent:agent-1000".into()),
        ("a lease", format!("lease:{}", lease.unwrap())),
        ("a handle", format!("handle:{}", handle.unwrap())),
        ("a request", format!("request:{}", request.unwrap())),
        ("a session", format!("session:\"{}\"", session.unwrap())),
        ("an item", "item:item-1234".into()),
        ("a vault and a tool", "vault:vault-7 tool:tool-070".into()),
        ("a negation", "-agent:agent-000 -decision:allow -kind:lease_end -kind:policy_load".into()),
        ("a wildcard", "agent:*-99* decision:deny".into()),
        ("a wildcard of items", "item:item-12* outcome:failed".into()),
        ("a day of an agent", format!("agent:agent-005 created:{day}")),
        ("a failure of an agent", "agent:agent-500 reason:ITEM_NOT_FOUND".into()),
        ("words of a detail, in 100,000 records", "detail:*word*".into()),
    ];
    println!("\n{:<44} {:>9} {:>10} {:>10}", "a page of 100", "records", "median", "worst");
    for (what, text) in cases {
        let filter = Filter::parse(&text).unwrap();
        let (mut times, mut found) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let page = store.reader().list(&filter, &AuditScope::Whole, None, 100).await.unwrap();
            times.push(start.elapsed());
            found = page.records.len();
        }
        print(what, found, times);
    }
    let (mut times, mut found) = (Vec::new(), 0);
    let digest = ValueDigest([0; 16]);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        found = store.reader().released(digest, &AuditScope::Whole, 100).await.unwrap().rows.len();
        times.push(start.elapsed());
    }
    print("the releases of a value", found, times);
    let one = AuditScope::Vaults(
        [Named { id: format!("{:026}", 7).as_str().into(), name: "vault-7".into(), name_is_unique: true }]
            .into(),
    );
    let (mut times, filter) = (Vec::new(), Filter::parse("decision:deny").unwrap());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        found = store.reader().list(&filter, &one, None, 100).await.unwrap().records.len();
        times.push(start.elapsed());
    }
    print("refusals, for a reviewer of one vault", found, times);
}

async fn reports(store: &AuditStore) {
    let today = start_us() / DAY_US + DAYS - 1;
    let month = Day(today - 29)..Day(today + 1);
    let reader = store.reader();
    let whole = AuditScope::Whole;
    println!("\n{:<44} {:>9} {:>10} {:>10}", "a month", "rows", "median", "worst");
    let subjects = [
        ("use by everybody", Subject::Everybody),
        ("use by the busiest agent", Subject::Agent("agent-000".into())),
        ("use by a middling agent", Subject::Agent("agent-100".into())),
        ("use of an item", Subject::Item("item-1234".into())),
        ("use of a vault", Subject::Vault("vault-7".into())),
        ("use of a tool", Subject::Tool("tool-070".into())),
    ];
    for (what, subject) in subjects {
        let (mut times, mut rows) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            // One that takes too long is refused after 2 s, and shows as no rows.
            let answer = reader.usage(&subject, &whole, month.clone()).await;
            rows = answer.map_or(0, |counted| counted.rows.len());
            times.push(start.elapsed());
        }
        print(what, rows, times);
    }
    let (mut refusals, mut firsts, mut lasts, mut policies) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rows = [0; 4];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        rows[0] = reader.refusals(None, &whole, month.clone()).await.unwrap().rows.len();
        refusals.push(start.elapsed());
        let start = Instant::now();
        rows[1] = reader.first_uses(&whole, month.clone()).await.unwrap().rows.len();
        firsts.push(start.elapsed());
        let start = Instant::now();
        rows[2] = reader.last_uses(&whole).await.unwrap().rows.len();
        lasts.push(start.elapsed());
        let start = Instant::now();
        rows[3] = reader.policy_uses(&whole, month.clone()).await.unwrap().rows.len();
        policies.push(start.elapsed());
    }
    print("refusals", rows[0], refusals);
    print("first uses", rows[1], firsts);
    print("last uses, of all time", rows[2], lasts);
    print("policies", rows[3], policies);
    println!();
}

fn print(what: &str, found: usize, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what:<44} {found:>9} {:>7.1} ms {:>7.1} ms",
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1])
    );
}

/// Appends of one caller and of sixteen, beside the bare disk in the same moments.
async fn append_figures(store: &Arc<AuditStore>, directory: &Path, title: &str) {
    for callers in [1, 16] {
        let raw = raw_appends(directory, callers);
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| tokio::spawn(append(Arc::clone(store), caller, start + ROUND)))
            .collect();
        let mut lag = 0;
        while start.elapsed() < ROUND {
            tokio::time::sleep(Duration::from_millis(20)).await;
            lag = lag.max(store_last(store).saturating_sub(store.indexed().0));
        }
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.unwrap());
        }
        waits.sort_unstable();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "append to {title}, {callers} at a time: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; bare disk {raw:.0}/s; index at most {lag} behind",
            waits.len() as f64 / ROUND.as_secs_f64(),
            at(0.5),
            at(0.99),
        );
    }
}

async fn append(store: Arc<AuditStore>, caller: usize, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    let base = AuditRecord {
        agent: Some(agent(&format!("agent-{caller:03}"))),
        ..AuditRecord::refusal(FakeClock::default().now(), RecordKind::Acquire, Reason::PolicyForbid)
    };
    while Instant::now() < end {
        let record = AuditRecord { lease: Some(LeaseId(PublicId::random())), ..base.clone() };
        let start = Instant::now();
        let _: Vec<RecordId> = store.record(vec![record]).await.unwrap();
        waits.push(start.elapsed());
    }
    waits
}

/// As many records as there are callers, written at once and synced, again and again.
fn raw_appends(directory: &Path, callers: usize) -> f64 {
    let mut file = tempfile::tempfile_in(directory).unwrap();
    let batch = vec![b'x'; callers * RECORD_BYTES];
    let (start, mut records) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
        records += callers;
    }
    records as f64 / start.elapsed().as_secs_f64()
}

fn start_us() -> i64 {
    FakeClock::default().now().as_micros().div_euclid(DAY_US) * DAY_US
}

/// `2026-11-01`.
fn day_text(micros: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(micros / 1_000_000).unwrap().date().to_string()
}

const AGENTS: u64 = 1_000;
const TOOLS: u64 = 200;
const VAULTS: u64 = 20;
const ITEMS: u64 = 5_000;
const DAYS: i64 = 40;
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
/// Records of one call, and calls at the same time.
const BATCH: u64 = 1_024;
const WRITERS: usize = 4;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(3);
const RECORD_BYTES: usize = 160;
