//! A copy of the log of a broker under load, and a broker that is started on it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use valetkey_audit::{AuditReader, Filter, StoredRecord};
use valetkey_core::{AuditScope, RecordId};
use valetkey_proto::v1::CheckAccessRequest;
use valetkey_tests::{Client, TestBroker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_under_load_and_a_broker_on_it() -> Result<()> {
    let broker = TestBroker::start().await?;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = Vec::new();
    for _ in 0..4 {
        let (mut bot, stop, answered) =
            (broker.client("travel-bot").await?, Arc::clone(&stop), Arc::clone(&answered));
        callers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask(&mut bot).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    let folder = tempfile::tempdir()?;
    let (from, copies) = (broker.dir.path().join("audit.db"), folder.path().to_owned());
    let loaded = Arc::clone(&answered);
    let copied = tokio::task::spawn_blocking(move || {
        let mut copied = Vec::new();
        for n in 0..5 {
            // Each copy is of a log that has grown since the last, and still grows.
            wait_for(&loaded, 10 * (n + 1))?;
            let to = copies.join(format!("copy-{n}.db"));
            std::fs::File::create_new(&to)?;
            let contents = valetkey_audit::backup(&from, &to, |_| ControlFlow::Continue(()))?;
            copied.push((to, contents.last.context("no records")?.0));
        }
        anyhow::Ok(copied)
    })
    .await??;
    stop.store(true, Ordering::Relaxed);
    // Nobody was refused while it was copied.
    for caller in callers {
        caller.await??;
    }
    assert!(copied.is_sorted_by(|(_, one), (_, other)| one < other), "the log did not grow: {copied:?}");

    let all = broker.since(RecordId(0)).await?;
    for (copy, last) in &copied {
        let records = records(copy).await?;
        assert_eq!(records.last().map(|record| record.id), Some(*last));
        assert!(all.starts_with(&records), "a copy is the log as it was");
    }

    // Lost, and restored from the last copy: the tokens of the configuration count, and records go on from there.
    let database = broker.dir.path().join("audit.db");
    let setup = broker.stop().await?;
    let (copy, last) = copied.last().context("no copy")?;
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
    }
    std::fs::copy(copy, &database)?;
    let broker = setup.start().await?;
    ask(&mut broker.client("travel-bot").await?).await?;
    let restored = broker.since(RecordId(0)).await?;
    assert!(restored.starts_with(&records(copy).await?) && restored.len() as u64 > last.0);
    Ok(())
}

/// Waits until so many calls were answered, and not for ever.
fn wait_for(answered: &AtomicU64, count: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while answered.load(Ordering::Relaxed) < count {
        anyhow::ensure!(Instant::now() < end, "{count} calls are not answered in time");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

async fn ask(bot: &mut Client) -> Result<()> {
    let ask = CheckAccessRequest {
        tool: "web.search".into(),
        reference: "op://Tutorial/Navan/username".into(),
        ..CheckAccessRequest::default()
    };
    bot.leases.check_access(ask).await?;
    Ok(())
}

async fn records(database: &std::path::Path) -> Result<Vec<StoredRecord>> {
    let reader = AuditReader::open(database)?;
    let (mut records, mut seen) = (Vec::new(), RecordId(0));
    loop {
        let span = (seen, RecordId(u64::MAX));
        let tail = reader.after(&Filter::default(), &AuditScope::Whole, span, 1000).await?;
        if tail.seen == seen {
            return Ok(records);
        }
        records.extend(tail.records);
        seen = tail.seen;
    }
}
