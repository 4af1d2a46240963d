//! Stands in for what the tests kill, starve or weigh: a broker, a bare echo, or a client, in a process of
//! its own. Says what it does on standard output; ends when its standard input does, so that none outlives
//! the test that started it.

#![expect(clippy::print_stdout, reason = "this is how it talks to the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use valetkey_core::Broker;
use valetkey_server::{App, Config, Reloader, SystemClock};
use valetkey_tests::process::CONFIG_FILE;
use valetkey_tests::stop::{Step, StopAt};
use valetkey_tests::{Client, acquire, echo, limit, unix_micros};

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["broker", home] => broker(Path::new(home), None).await,
        ["broker", home, step] => broker(Path::new(home), Some(Step::parse(step)?)).await,
        ["echo"] => echo().await,
        ["client", uri, authorization, tool, reference] => client(uri, authorization, tool, reference).await,
        _ => bail!("there is no such role"),
    }
}

/// A broker as `valetkey serve` runs it, stopped at a step where one is named.
async fn broker(home: &Path, step: Option<Step>) -> Result<()> {
    limit::survive_file_size_limit()?;
    let config = Config::load(&home.join(CONFIG_FILE))?;
    let sources = valetkey_tests::embedded(home)?;
    let config = Config { audit_create: true, sources, ..config };
    let listener = TcpListener::bind(config.listen.context("no `listen`")?).await?;
    let address = listener.local_addr()?;
    let stop_at = |ports| match step {
        None => ports,
        Some(step) => StopAt::wrap(step, ports),
    };
    let app = App::open_with(config, Arc::new(SystemClock::default()), stop_at).await?;
    let (reloader, core) = (app.reloader(), Arc::clone(app.broker()));
    let (shutdown, stop) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(listener, async move {
        let _ = stop.await;
    }));
    println!("listening {address}");

    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while let Some(order) = orders.next_line().await? {
        match order.split(' ').collect::<Vec<_>>().as_slice() {
            ["reload"] => println!("reloaded {}", reload(&reloader, &core).await?),
            ["limit", bytes] => {
                limit::limit_file_size(Some(bytes.parse()?))?;
                println!("limited");
            }
            ["unlimit"] => {
                limit::limit_file_size(None)?;
                println!("unlimited");
            }
            ["stop"] => {
                let _ = shutdown.send(());
                running.await??;
                println!("stopped");
                return Ok(());
            }
            _ => bail!("there is no such order"),
        }
    }
    Ok(())
}

/// Reloads; when the new policies came into force, in microseconds since 1970. Looks every 50 µs.
async fn reload(reloader: &Reloader, broker: &Arc<Broker>) -> Result<i64> {
    let (broker, before) = (Arc::clone(broker), broker.generation());
    let watch = tokio::task::spawn_blocking(move || {
        let end = Instant::now() + Duration::from_secs(30);
        while broker.generation() == before && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(50));
        }
        unix_micros()
    });
    reloader.reload().await?;
    Ok(watch.await?)
}

/// The bare transport: answers without thinking.
async fn echo() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    let serving = tokio::spawn(echo::serve(listener));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    while orders.next_line().await?.is_some() {}
    serving.abort();
    Ok(())
}

/// Holds a lease, prints its handle, and waits to be killed.
async fn client(uri: &str, authorization: &str, tool: &str, reference: &str) -> Result<()> {
    let mut client = Client::connect(uri, Some(authorization)).await?;
    let mut events = client.leases.acquire_lease(acquire(tool, &[reference])).await?.into_inner();
    let mut next = async || events.message().await?.context("the lease ended");
    next().await?;
    println!("holding {}", valetkey_tests::handle_of(next().await?)?);
    while next().await.is_ok() {}
    Ok(())
}
