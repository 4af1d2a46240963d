//! `valetkey serve`: runs a broker until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use valetkey_server::{App, Config, Listeners, Reloader, StartError, SystemClock};

use crate::cli::ServeArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::signals::Interrupts;
use crate::throwaway::Throwaway;

/// Runs it.
pub(crate) async fn run(args: ServeArgs) -> Result<Exit, Failure> {
    let ServeArgs { config, create_database, dev: _, listen, log_format: _ } = args;
    match config {
        Some(file) => serve_config(&file, create_database).await,
        None => serve_dev(listen).await,
    }
}

async fn serve_config(file: &Path, create_database: bool) -> Result<Exit, Failure> {
    let config = Config::load(file).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let config = Config { audit_create: create_database, ..config };
    // Bound first: a second broker on the same port must not touch the first one's database.
    let listeners = Listeners::bind(config.listen, config.unix.as_ref())
        .await
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let metrics = match config.metrics {
        Some(listen) => Some(bind(listen).await?),
        None => None,
    };
    let (events, host) = match &config.events {
        Some(events) => (Some(bind(events.listen).await?), events.host.clone()),
        None => (None, String::new()),
    };
    let listeners = listeners.events(events);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    // Before the first line says that there is a broker: from then on it may be signalled.
    let (interrupts, hangups) = (Interrupts::take()?, signal(SignalKind::hangup())?);
    let clock = Arc::new(SystemClock::default());
    let app = App::open(config, clock).await.map_err(|error| Failure::chain(start_exit(&error), &error))?;
    if let Some(address) = listeners.address() {
        output::line(&format!("valetkey listens on {scheme}://{address}"))?;
    }
    if let Some(path) = listeners.path() {
        output::line(&format!("valetkey listens on unix:{}", path.display()))?;
    }
    if let Some(address) = listeners.events_address() {
        output::line(&format!(
            "the Events API is on https://{address}, for clients that call it https://{host}"
        ))?;
    }
    if let Some(metrics) = metrics {
        output::line(&format!("metrics are on http://{}/metrics", metrics.local_addr()?))?;
        tokio::spawn(app.metrics(metrics));
    }
    serve(app, listeners, interrupts, hangups).await
}

async fn serve_dev(listen: SocketAddr) -> Result<Exit, Failure> {
    if !listen.ip().is_loopback() {
        let message = format!("a throw-away broker listens on loopback only, not on `{listen}`");
        return Err(Failure::new(Exit::Usage, message));
    }
    let listeners =
        Listeners::bind(Some(listen), None).await.map_err(|error| Failure::new(Exit::Failed, error))?;
    let address = listeners.address().unwrap_or(listen);
    // From here on there is something to tidy up.
    let (interrupts, hangups) = (Interrupts::take()?, signal(SignalKind::hangup())?);
    let throwaway = Throwaway::new()?;
    let app = throwaway.open(listen).await?;
    introduce(&throwaway, address)?;
    let served = serve(app, listeners, interrupts, hangups).await;
    throwaway.remove()?;
    served
}

fn start_exit(error: &StartError) -> Exit {
    match error {
        StartError::Policies(_) | StartError::Source(_) | StartError::Tls(_) | StartError::Audit(_) => {
            Exit::Invalid
        }
        StartError::Issuers(_)
        | StartError::IssuerKeys(_)
        | StartError::DigestKey(_)
        | StartError::Events(_) => Exit::Invalid,
        StartError::Record(_) | StartError::Tokens(_) | StartError::Archive(_) => Exit::Unavailable,
    }
}

/// Prints what a shell needs to play each of the identities.
fn introduce(throwaway: &Throwaway, address: SocketAddr) -> Result<(), Failure> {
    output::line(&format!("# valetkey listens on http://{address}; all of this goes when it stops"))?;
    output::line(&format!("# policies: {}", throwaway.policies().display()))?;
    output::line(HINT)?;
    output::line(&format!("export VALETKEY_ADDRESS=http://{address}"))?;
    for pass in throwaway.passes() {
        output::line(&format!("\n# {}", pass.identity))?;
        output::line(&format!("export VALETKEY_TOKEN={}", *pass.token()))?;
    }
    Ok(())
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen)
        .await
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot listen on `{listen}`: {error}")))
}

async fn serve(
    app: App,
    listeners: Listeners,
    mut interrupts: Interrupts,
    hangups: Signal,
) -> Result<Exit, Failure> {
    let reloading = tokio::spawn(reload_on_hangup(app.reloader(), hangups));
    let stopped = app.run(listeners, async move { interrupts.next().await }).await;
    reloading.abort();
    stopped.map_err(|error| Failure::chain(Exit::Failed, &error))?;
    Ok(Exit::Done)
}

async fn reload_on_hangup(reloader: Reloader, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        // What came of it is logged and recorded by the reloader; the last good set stays in force.
        let _ = reloader.reload().await;
    }
}

const HINT: &str = "\
# paste the address and one identity into another terminal; then, as agent:travel-bot, for instance:
#   valetkey acquire --tool navan.book_flight --purpose test op://Tutorial/Navan/password";
