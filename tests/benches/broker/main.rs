//! The whole broker, beside the limits of the machine that it runs on: the disk's fdatasync, and the bare
//! transport with the same messages.
//!
//! The broker and the echo run in processes of their own, over loopback TCP; the clients run here, on the
//! same cores. Each figure is the median of its rounds; the rounds of all measurements take turns, so that
//! what else the machine does hits all alike. Absolute figures wander, ratios less so, and least what the
//! server's process computes for each call (`CPU each`).

#![expect(clippy::print_stdout, reason = "a bench prints")]

mod disk;
mod load;
mod revocation;
mod weight;
mod work;
mod world;

use std::time::Duration;

use anyhow::Result;

use crate::load::{Figure, median};
use crate::work::Task;
use crate::world::{STAND_IN, World};
use valetkey_tests::process::Process;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let world = World::new()?;
    println!("disk: {:.0} fdatasync/s of 512 appended bytes", disk::syncs_per_second(world.home())?);
    throughput(&world).await?;
    revocation::measure(&world).await?;
    weight::measure(&world).await
}

/// Calls a second and their delays, for each task and number in flight.
async fn throughput(world: &World) -> Result<()> {
    let mut echo = Process::start(STAND_IN, &["echo"])?;
    let uri = format!("http://{}", echo.hear("listening").await?);
    let (echo, broker) = ((echo, uri), world.broker().await?);

    println!("\n1,000 policies, clients on the same cores, {ROUNDS} rounds of {ROUND:?}");
    println!(
        "{:<10}{:>10}{:>12}{:>10}{:>10}{:>10}{:>9}{:>9}  target",
        "task", "in flight", "a second", "p50", "p99", "CPU each", "of unary", "of strm"
    );
    for flight in [1, 16, 128] {
        let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); Task::ALL.len()];
        for _ in 0..ROUNDS {
            for (task, figures) in Task::ALL.into_iter().zip(&mut figures) {
                let server = if task.is_echo() { &echo } else { &broker };
                figures.push(task.run(world, server, flight, ROUND).await?);
            }
        }
        let figures: Vec<Figure> = figures.iter().map(|rounds| median(rounds)).collect();
        let rate = |place: usize| figures.get(place).map_or(f64::NAN, |figure| figure.per_second);
        let (unary, stream) = (rate(0), rate(1));
        for (task, figure) in Task::ALL.into_iter().zip(&figures) {
            println!(
                "{:<10}{flight:>10}{:>12.0}{:>10}{:>10}{:>10}{:>8.0}%{:>8.0}%  {}",
                task.name(),
                figure.per_second,
                millis(figure.p50),
                millis(figure.p99),
                format!("{} µs", figure.server.as_micros()),
                100.0 * figure.per_second / unary,
                100.0 * figure.per_second / stream,
                task.target(flight),
            );
        }
    }
    println!("the broker's memory afterwards: {} MiB", broker.0.resident()? >> 20);
    broker.0.kill().await
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(800);
