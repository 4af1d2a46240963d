//! From the moment that new policies are in force to the event on the streams of those that they refuse.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use valetkey_proto::v1::acquire_lease_response::Event;
use valetkey_tests::unix_micros;

use crate::load::percentile;
use crate::millis;
use crate::work::{Held, acquire};
use crate::world::{World, bot, connections, one};

/// Revokes 1,000 leases, some times over.
pub(crate) async fn measure(world: &World) -> Result<()> {
    let (mut broker, uri) = world.broker().await?;
    let channels = connections(&uri, 4).await?;
    let forbid = world.home().join("policies/stop.cedar");
    let (mut rounds, mut loading) = ([50, 99, 100].map(|of_hundred| (of_hundred, Vec::new())), Vec::new());
    for _ in 0..ROUNDS {
        let mut watchers = JoinSet::new();
        for (place, channel) in channels.iter().cycle().take(STREAMS).enumerate() {
            let held = acquire(&world.client(&bot(place), channel)?, &one(place)).await?;
            watchers.spawn(revoked(held));
        }
        let told = unix_micros();
        std::fs::write(&forbid, FORBID)?;
        broker.tell("reload").await?;
        let in_force: i64 = broker.hear("reloaded").await?.parse()?;
        let mut delays = Vec::with_capacity(STREAMS);
        while let Some(revoked) = watchers.join_next().await {
            delays.push(Duration::from_micros(u64::try_from(revoked?? - in_force).unwrap_or_default()));
        }
        loading.push(Duration::from_micros(u64::try_from(in_force - told)?));
        for (of_hundred, rounds) in &mut rounds {
            rounds.push(percentile(&mut delays, *of_hundred));
        }
        std::fs::remove_file(&forbid)?;
        broker.tell("reload").await?;
        broker.hear("reloaded").await?;
    }
    broker.kill().await?;
    let [p50, p99, max] = rounds.map(|(_, mut rounds)| millis(percentile(&mut rounds, 50)));
    println!("\nrevocation of {STREAMS} open streams, from new policies in force to the event:");
    println!("p50 {p50}, p99 {p99}, max {max} (target: p99 < 50 ms)");
    println!(
        "before that, reading and checking 1,000 policies took {}",
        millis(percentile(&mut loading, 50))
    );
    Ok(())
}

/// When the lease's handle was revoked.
async fn revoked(mut held: Held) -> Result<i64> {
    loop {
        let event = held.events.message().await?.context("the stream ended")?;
        if let Some(Event::Revoked(_)) = event.event {
            return Ok(unix_micros());
        }
    }
}

const STREAMS: usize = 1_000;
const ROUNDS: usize = 3;
const FORBID: &str =
    "// No more.\n@id(\"stop\")\nforbid (principal, action in Action::\"access\", resource);\n";
