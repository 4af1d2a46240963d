//! How many records a second the log makes durable, beside what the disk allows.
//!
//! `cargo bench -p valetkey-audit`, on the disk of the temporary directory. Medians of several rounds; absolute figures wander on shared machines,
//! the ratio to the raw disk in the same round does not.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench stops where something is wrong")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use valetkey_audit::{AuditStore, Missing, StoreOptions};
use valetkey_core::testing::{FakeClock, agent, request};
use valetkey_core::{
    AuditLog, AuditOutcome, AuditRecord, Clock, Grant, HandleId, LeaseId, OutcomeResult, PolicyId,
    Provenance, PublicId, Reason, RecordKind, Revision, Ruling, Timestamp,
};

/// What one round found.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    records_per_commit: f64,
    /// Of the writer's thread; it alone bounds what one machine can record. Zero where it is not known.
    cpu_per_record: Duration,
}

/// What is appended.
#[derive(Clone, Copy)]
enum Load {
    /// Refusals: a record each.
    Records,
    /// What is allowed: a record and its outcome each.
    RecordsWithOutcomes,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!(
        "{:>10} {:>12} | {:>12} {:>9} {:>9} {:>8} {:>10} {:>7}",
        "submitters", "raw disk/s", "records/s", "p50", "p99", "a commit", "writer CPU", "of raw"
    );
    for (title, load) in [("records", Load::Records), ("records with outcomes", Load::RecordsWithOutcomes)] {
        println!("{title}");
        for submitters in [1, 16, 128, 1024] {
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let directory = tempfile::tempdir().unwrap();
                let raw = raw_appends(directory.path(), submitters);
                rounds.push((raw, runtime.block_on(round(directory.path(), submitters, load))));
            }
            rounds.sort_by(|(_, one), (_, other)| one.per_second.total_cmp(&other.per_second));
            let (raw, Figures { per_second, p50, p99, records_per_commit, cpu_per_record }) =
                rounds[ROUNDS / 2];
            println!(
                "{submitters:>10} {raw:>12.0} | {per_second:>12.0} {:>6.2} ms {:>6.2} ms {records_per_commit:>8.1} {:>7.1} µs {:>6.0}%",
                p50.as_secs_f64() * 1e3,
                p99.as_secs_f64() * 1e3,
                cpu_per_record.as_secs_f64() * 1e6,
                100.0 * per_second / raw,
            );
        }
    }
}

/// The limit: as many records as there are submitters, written at once and synced, again and again.
fn raw_appends(directory: &Path, submitters: usize) -> f64 {
    let mut file = File::create(directory.join("raw")).unwrap();
    let batch = vec![b'x'; submitters * RECORD_BYTES];
    let (start, mut records) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
        records += submitters;
    }
    records as f64 / start.elapsed().as_secs_f64()
}

async fn round(directory: &Path, submitters: usize, load: Load) -> Figures {
    let options = StoreOptions { missing: Missing::Create, ..StoreOptions::default() };
    let store =
        AuditStore::open(&directory.join("audit.db"), options, Arc::new(FakeClock::default())).unwrap();
    let store = Arc::new(store);
    let start = Instant::now();
    let callers: Vec<_> = (0..submitters)
        .map(|caller| tokio::spawn(append(Arc::clone(&store), caller, load, start + ROUND)))
        .collect();
    let mut waits = Vec::new();
    for caller in callers {
        waits.extend(caller.await.unwrap());
    }
    let elapsed = start.elapsed();
    let cpu = thread_cpu("audit-writer").unwrap_or_default();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    Figures {
        per_second: waits.len() as f64 / elapsed.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        records_per_commit: waits.len() as f64 / store.commits() as f64,
        cpu_per_record: cpu.div_f64(waits.len() as f64),
    }
}

async fn append(store: Arc<AuditStore>, caller: usize, load: Load, end: Instant) -> Vec<Duration> {
    let record = record(caller, load);
    let mut waits = Vec::new();
    while Instant::now() < end {
        let record = AuditRecord { handle: Some(HandleId(PublicId::random())), ..record.clone() };
        let start = Instant::now();
        let ids = store.record(vec![record]).await.unwrap();
        waits.push(start.elapsed());
        if let Load::RecordsWithOutcomes = load {
            let grant = Grant::for_test(request("op://Tutorial/Navan/username"), ids[0]);
            let outcome = AuditOutcome {
                provenance: Some(Provenance {
                    source: "embedded".into(),
                    item_version: Some(3),
                    read_time: now(),
                }),
                ..AuditOutcome::new(now(), OutcomeResult::Issued)
            };
            store.record_outcome(grant, outcome);
        }
    }
    waits
}

/// One of a few dozen agents, each with its own purpose and lease.
fn record(caller: usize, load: Load) -> AuditRecord {
    let base = AuditRecord {
        agent: Some(agent(&format!("agent-{}", caller % 40))),
        lease: Some(LeaseId(PublicId::random())),
        ttl: Some(Duration::from_secs(60)),
        session: Some(format!("run {caller}").into()),
        revision: Some(Revision { generation: 1, digest: [1; 8] }),
        policies: Some([PolicyId("travel-navan-login".into())].into()),
        ..AuditRecord::refusal(now(), RecordKind::Acquire, Reason::PolicyForbid)
            .about(&request("op://Tutorial/Navan/username"))
    };
    match load {
        Load::Records => base,
        Load::RecordsWithOutcomes => {
            AuditRecord { ruling: Ruling::Allow, reason: Reason::PolicyPermit, uses: Some(1), ..base }
        }
    }
}

/// How long the thread of that name has run, where the system tells (Linux).
fn thread_cpu(name: &str) -> Option<Duration> {
    let of_name =
        |thread: &Path| std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let thread = threads.flatten().map(|thread| thread.path()).find(|thread| of_name(thread))?;
    let statistics = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    statistics.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn now() -> Timestamp {
    FakeClock::default().now()
}

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(1);
/// About what one record of the log takes.
const RECORD_BYTES: usize = 160;
