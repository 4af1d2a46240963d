//! What a broker holds in memory (resident set), idle and full.

use anyhow::Result;
use tonic::transport::Channel;

use crate::work::{Held, acquire, hold};
use crate::world::{REFERENCES, World, bot, connections, one};

/// Weighs open streams with one handle each, then handles at 64 a lease, each in a fresh broker.
pub(crate) async fn measure(world: &World) -> Result<()> {
    println!("\nmemory of the broker (resident), 1,000 policies, clients elsewhere");
    let (broker, uri) = world.broker().await?;
    let idle = broker.resident()?;
    println!("idle: {} MiB", idle >> 20);
    let channels = connections(&uri, 4).await?;
    let mut held = Vec::new();
    for count in [1_000, 10_000] {
        open(world, &channels, count, &mut held).await?;
        let each = broker.resident()?.saturating_sub(idle) / u64::try_from(count)?;
        println!("{count:>7} open lease streams: {:.1} KiB each, over idle", kibibytes(each));
    }
    drop(held);
    broker.kill().await?;

    let (broker, uri) = world.broker().await?;
    let idle = broker.resident()?;
    let channels = connections(&uri, 4).await?;
    let mut held = Vec::new();
    for count in [10_000, 100_000] {
        for channel in &channels {
            let agent = world.client(&bot(0), channel)?;
            let leases = (count - held.len() * REFERENCES).div_ceil(REFERENCES);
            held.extend(hold(&agent, leases.min(count.div_ceil(REFERENCES * channels.len()))).await?);
        }
        let each = broker.resident()?.saturating_sub(idle) / u64::try_from(held.len() * REFERENCES)?;
        println!("{count:>7} live handles: {:.2} KiB each, over idle", kibibytes(each));
    }
    Ok(())
}

/// Opens streams until so many are held.
async fn open(world: &World, channels: &[Channel], count: usize, held: &mut Vec<Held>) -> Result<()> {
    for (place, channel) in channels.iter().cycle().enumerate().take(count).skip(held.len()) {
        held.push(acquire(&world.client(&bot(place), channel)?, &one(place)).await?);
    }
    Ok(())
}

fn kibibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
