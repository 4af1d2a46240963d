//! Work in a loop, so many at a time, and what it took.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use valetkey_tests::process::Process;

/// What one of those at work does again and again.
pub(crate) trait Work: Send + 'static {
    /// Does it once; whether there is more to do.
    fn step(&mut self) -> impl Future<Output = Result<bool>> + Send;
}

/// What a round took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// What the server computed for each, on all cores together.
    pub(crate) server: Duration,
}

/// Lets all work at the same time until the time is up, or nothing is left to do for one of them.
pub(crate) async fn work<W: Work>(server: &Process, workers: Vec<W>, time: Duration) -> Result<Figure> {
    let computed = server.cpu_time()?;
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        tasks.spawn(async move {
            let mut delays = Vec::new();
            loop {
                let start = Instant::now();
                let more = worker.step().await?;
                delays.push(start.elapsed());
                if !more || begin.elapsed() >= time {
                    // The worker lives on until the round is over: what it holds is not part of the work.
                    return anyhow::Ok((delays, begin.elapsed(), worker));
                }
            }
        });
    }
    let (mut delays, mut elapsed, mut workers) = (Vec::new(), Duration::ZERO, Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (of_one, end, worker) = done??;
        delays.extend(of_one);
        elapsed = elapsed.max(end);
        workers.push(worker);
    }
    let server = server.cpu_time()?.saturating_sub(computed) / u32::try_from(delays.len())?.max(1);
    Ok(Figure {
        server,
        per_second: delays.len() as f64 / elapsed.as_secs_f64(),
        p50: percentile(&mut delays, 50),
        p99: percentile(&mut delays, 99),
    })
}

/// The delay that so many of a hundred do not exceed.
pub(crate) fn percentile(delays: &mut [Duration], of_hundred: usize) -> Duration {
    delays.sort_unstable();
    let place = (delays.len() * of_hundred).div_ceil(100).max(1);
    delays.get(place - 1).copied().unwrap_or_default()
}

/// The round in the middle, each number by itself.
pub(crate) fn median(rounds: &[Figure]) -> Figure {
    let mut rates: Vec<f64> = rounds.iter().map(|round| round.per_second).collect();
    rates.sort_unstable_by(f64::total_cmp);
    let middle =
        |delay: fn(&Figure) -> Duration| percentile(&mut rounds.iter().map(delay).collect::<Vec<_>>(), 50);
    Figure {
        per_second: rates.get(rates.len() / 2).copied().unwrap_or_default(),
        p50: middle(|round| round.p50),
        p99: middle(|round| round.p99),
        server: middle(|round| round.server),
    }
}
