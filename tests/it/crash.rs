//! kill -9 between every two steps of a request, and at random moments under load: what was released is in
//! the log, what was under way is `interrupted`, and the handles of before are dead.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tonic::Code;
use valetkey_audit::{AuditReader, Filter, StoredRecord, integrity};
use valetkey_core::{AuditScope, OutcomeResult, Reason, RecordId, RecordKind, Ruling};
use valetkey_tests::lease::Lease;
use valetkey_tests::log::Refused;
use valetkey_tests::process::Process;
use valetkey_tests::stop::Step;
use valetkey_tests::{Client, Setup, TestBroker, acquire};

const STAND_IN: &str = env!("CARGO_BIN_EXE_stand-in");
const BOT: &str = "travel-bot";
const BOOK: &str = "navan.book_flight";
const USERNAME: &str = "op://Tutorial/Navan/username";
const VALUE: &[u8] = b"demo-navan-user@travel.example";
const DEAD: Refused = Refused {
    code: Code::FailedPrecondition,
    reason: "HANDLE_NOT_ACTIVE",
    kind: RecordKind::Redeem,
    why: Reason::HandleUnknown,
};

#[tokio::test]
async fn before_the_record_nothing_happened() -> Result<()> {
    check(Step::AcquireDecided, None, None).await?;
    check(Step::RedeemDecided, Some(Outcome::Any), None).await
}

#[tokio::test]
async fn between_record_and_outcome_is_interrupted() -> Result<()> {
    let interrupted = Some(Outcome::Is(OutcomeResult::Interrupted));
    for step in [Step::AcquireRecorded, Step::AcquireResolved, Step::AcquireIssued] {
        check(step, interrupted, None).await?;
    }
    for step in [Step::RedeemRecorded, Step::RedeemReleased] {
        check(step, Some(Outcome::Any), interrupted).await?;
    }
    Ok(())
}

#[tokio::test]
async fn after_the_outcome_it_stands() -> Result<()> {
    check(Step::AcquireSettled, Some(Outcome::Is(OutcomeResult::Issued)), None).await?;
    let released = Some(Outcome::Is(OutcomeResult::Released));
    check(Step::RedeemSettled, Some(Outcome::Any), released).await
}

/// Twenty brokers on the same files, one after the other, each killed under load.
#[tokio::test]
async fn at_random_moments_under_load() -> Result<()> {
    let mut random = Random::new()?;
    let setup = Setup::new()?;
    setup.write_config()?;
    let mut seen: Vec<Seen> = Vec::new();
    for round in 0..ROUNDS {
        let (victim, uri) = Process::broker(STAND_IN, setup.dir(), &[]).await?;
        check_closed(&records(setup.dir()).await?, &format!("round {round}, before the load"))?;
        check_dead_elsewhere(&setup, &uri, seen.last()).await?;
        let mut load = JoinSet::new();
        for _ in 0..WORKERS {
            let (bot, tool) = clients(&setup, &uri).await?;
            load.spawn(work(bot, tool));
        }
        tokio::time::sleep(Duration::from_millis(20 + random.below(200))).await;
        victim.kill().await?;
        seen.extend(load.join_all().await);

        assert_eq!(integrity(&setup.dir().join("audit.db"))?, "ok", "round {round}");
        check_seen(&seen, &records(setup.dir()).await?).with_context(|| format!("round {round}"))?;
    }
    let broker = setup.start().await?;
    check_closed(&records(broker.dir.path()).await?, "at the end")?;
    let values: usize = seen.iter().map(|seen| seen.released.len()).sum();
    ensure!(values > ROUNDS, "the load was no load: {values} values");
    Ok(())
}

/// What the record of a step's request must have as outcome after the restart.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Is(OutcomeResult),
    /// The step is about another record.
    Any,
}

/// What clients got from a broker before it died: handles and the records of what they were told.
#[derive(Debug, Default)]
struct Seen {
    handles: Vec<String>,
    issued: Vec<String>,
    released: Vec<String>,
}

/// Kills a broker at a step, starts another on its files, and looks at what is left.
async fn check(step: Step, acquired: Option<Outcome>, redeemed: Option<Outcome>) -> Result<()> {
    let setup = Setup::new()?;
    setup.write_config()?;
    let (mut victim, uri) = Process::broker(STAND_IN, setup.dir(), &[&step.name()]).await?;
    let (bot, tool) = clients(&setup, &uri).await?;
    let client = tokio::spawn(work(bot, tool));
    victim.hear("reached").await?;
    if matches!(step, Step::AcquireSettled | Step::RedeemSettled) {
        // The outcome is with the log, which writes it within a tick.
        until_settled(setup.dir()).await?;
    }
    victim.kill().await?;
    let seen = client.await?;
    assert!(seen.released.is_empty(), "{step:?}: no answer can have come: {seen:?}");

    assert_eq!(integrity(&setup.dir().join("audit.db"))?, "ok", "{step:?}");
    check_seen(std::slice::from_ref(&seen), &records(setup.dir()).await?)?;
    let broker = setup.start().await?;
    let log = records(broker.dir.path()).await?;
    check_closed(&log, &format!("{step:?}"))?;
    for (kind, expected) in [(RecordKind::Acquire, acquired), (RecordKind::Redeem, redeemed)] {
        let found: Vec<_> = log.iter().filter(|record| record.kind == kind).collect();
        match (expected, found.as_slice()) {
            (None, []) | (Some(Outcome::Any), [_]) => {}
            (Some(Outcome::Is(result)), [record]) => {
                let outcome = record.outcome.as_ref().context("no outcome")?;
                assert_eq!(outcome.result, result, "{step:?}: {record:#?}");
            }
            _ => anyhow::bail!("{step:?}: expected {expected:?} of {kind:?}, found {found:#?}"),
        }
    }
    check_works(&broker, &seen, step).await
}

/// The broker that comes after: what it never issued is dead, and it serves.
async fn check_works(broker: &TestBroker, seen: &Seen, step: Step) -> Result<()> {
    let mut tool = broker.client(BOOK).await?;
    for handle in &seen.handles {
        let mark = broker.mark();
        let answer = tool.redeem(handle).await;
        broker.check_refused(&format!("{step:?}"), mark, (0, 0), answer, DEAD).await?;
    }
    let mut bot = broker.client(BOT).await?;
    let lease = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await?;
    assert_eq!(tool.redeem(lease.handle(0)?).await?.secret_value, VALUE, "{step:?}");
    Ok(())
}

/// Acquires and redeems until the broker is gone.
async fn work(mut bot: Client, mut tool: Client) -> Seen {
    let mut seen = Seen::default();
    while let Ok(lease) = Lease::open(&mut bot, acquire(BOOK, &[USERNAME])).await {
        let Some(issued) = lease.issued.first() else { break };
        seen.handles.push(issued.handle.clone());
        seen.issued.push(issued.record_id.clone());
        let Ok(answer) = tool.redeem(&issued.handle).await else { break };
        seen.released.push(answer.record_id);
    }
    seen
}

async fn clients(setup: &Setup, uri: &str) -> Result<(Client, Client)> {
    let bot = Client::connect(uri, Some(&setup.authorization(BOT)?)).await?;
    Ok((bot, Client::connect(uri, Some(&setup.authorization(BOOK)?)).await?))
}

/// What clients were given is in the log, allowed.
fn check_seen(seen: &[Seen], log: &[StoredRecord]) -> Result<()> {
    let told = |kind, ids: fn(&Seen) -> &Vec<String>| {
        seen.iter().flat_map(ids).map(move |id| (kind, id.clone())).collect::<Vec<_>>()
    };
    let issued = told(RecordKind::Acquire, |seen| &seen.issued);
    for (kind, id) in issued.into_iter().chain(told(RecordKind::Redeem, |seen| &seen.released)) {
        let place: usize = id.parse()?;
        let record =
            log.get(place - 1).with_context(|| format!("record {id} was acknowledged, and is lost"))?;
        assert_eq!((record.id.to_string(), record.kind, record.ruling), (id, kind, Ruling::Allow));
        if let Some(outcome) = &record.outcome {
            let fits = [OutcomeResult::Issued, OutcomeResult::Released, OutcomeResult::Interrupted];
            assert!(fits.contains(&outcome.result), "{record:#?}");
        }
    }
    Ok(())
}

/// After a start nothing is open, and the records are numbered without gaps.
fn check_closed(log: &[StoredRecord], when: &str) -> Result<()> {
    for (place, record) in (1..).zip(log) {
        assert_eq!(record.id, RecordId(place), "{when}");
        let open = record.ruling == Ruling::Allow && record.kind.has_outcome() && record.outcome.is_none();
        ensure!(!open, "{when}: open: {record:#?}");
    }
    Ok(())
}

/// A handle of the broker before is nothing to this one, whether it was redeemed or not.
async fn check_dead_elsewhere(setup: &Setup, uri: &str, seen: Option<&Seen>) -> Result<()> {
    let (_, mut tool) = clients(setup, uri).await?;
    for handle in seen.iter().flat_map(|seen| &seen.handles).rev().take(3) {
        let status = tool.redeem(handle).await.err().context("a handle outlived its broker")?;
        assert_eq!(valetkey_tests::reason(&status), "HANDLE_NOT_ACTIVE");
    }
    Ok(())
}

/// All records, read from the files alone.
async fn records(home: &Path) -> Result<Vec<StoredRecord>> {
    let reader = AuditReader::open(&home.join("audit.db"))?;
    let mut records = Vec::new();
    loop {
        let last = records.last().map_or(RecordId(0), |record: &StoredRecord| record.id);
        let tail =
            reader.after(&Filter::default(), &AuditScope::Whole, (last, RecordId(u64::MAX)), 1000).await?;
        if tail.records.is_empty() {
            return Ok(records);
        }
        records.extend(tail.records);
    }
}

async fn until_settled(home: &Path) -> Result<()> {
    for _ in 0..500 {
        if check_closed(&records(home).await?, "").is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("no outcome was written within 5 s")
}

/// Numbers that look random, and come again for the same seed.
struct Random(u64);

impl Random {
    /// The seed is printed, and read from `SEED` where it is set.
    #[expect(clippy::print_stdout, reason = "shown by the test runner where the test fails")]
    fn new() -> Result<Self> {
        let seed = match std::env::var("SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => getrandom::u64().map_err(|error| anyhow::anyhow!("{error}"))?,
        };
        println!("SEED={seed}");
        Ok(Self(seed | 1))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const ROUNDS: usize = 20;
const WORKERS: usize = 8;
