//! The stage: a broker of its own, and everybody of the story connected to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use valetkey_client::{AuditRecord, Broker, Token};
use valetkey_core::Identity;
use valetkey_server::{Reloader, RunError};

use super::teller::unexpected;
use crate::failure::{Exit, Failure};
use crate::throwaway::Throwaway;

/// A broker and its callers.
pub(super) struct Stage {
    pub(super) address: String,
    pub(super) travel_bot: Broker,
    pub(super) notes_bot: Broker,
    pub(super) navan: Broker,
    pub(super) ramp: Broker,
    pub(super) search: Broker,
    pub(super) ana: Broker,
    pub(super) reloader: Reloader,
    throwaway: Throwaway,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), RunError>>,
}

impl Stage {
    /// Starts the broker on a free port and connects everybody.
    pub(super) async fn open() -> Result<Self, Failure> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let throwaway = Throwaway::new()?;
        let app = throwaway.open(any).await?;
        let reloader = app.reloader();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(app.run(listener, async {
            // An error means that the stage is gone, which is a stop too.
            let _ = stopped.await;
        }));
        let connect = async |who: &str| connect(&throwaway, &address, who).await;
        Ok(Self {
            travel_bot: connect("agent:travel-bot").await?,
            notes_bot: connect("agent:notes-bot").await?,
            navan: connect("tool:navan.book_flight").await?,
            ramp: connect("tool:ramp.submit_expense").await?,
            search: connect("tool:web.search").await?,
            ana: connect("person:ana").await?,
            address,
            reloader,
            throwaway,
            stop,
            serving,
        })
    }

    /// Where a policy author would write.
    pub(super) fn policies(&self) -> PathBuf {
        self.throwaway.policies()
    }

    /// The newest record that matches, as soon as it is there.
    pub(super) async fn record(&self, filter: &str) -> Result<AuditRecord, Failure> {
        for _ in 0..LOOKS_MAX {
            let page = self.ana.audit_records(filter, 1, "").await?;
            if let Some(record) = page.records.into_iter().next() {
                return Ok(record);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(unexpected(&format!("a record that matches `{filter}`"), "none"))
    }

    /// Disconnects everybody and stops the broker; what it leaves behind goes with what is returned.
    pub(super) async fn close(self) -> Result<Throwaway, Failure> {
        let Self {
            address: _,
            travel_bot,
            notes_bot,
            navan,
            ramp,
            search,
            ana,
            reloader,
            throwaway,
            stop,
            serving,
        } = self;
        // The broker waits a moment for connections that are still open.
        drop((travel_bot, notes_bot, navan, ramp, search, ana, reloader));
        let _ = stop.send(());
        let served = tokio::time::timeout(STOP_MAX, serving).await;
        let served = served.map_err(|_| unexpected("a broker that stops", "none in time"))?;
        served
            .map_err(|error| Failure::new(Exit::Failed, error))?
            .map_err(|error| Failure::chain(Exit::Failed, &error))?;
        Ok(throwaway)
    }
}

async fn connect(throwaway: &Throwaway, address: &str, who: &str) -> Result<Broker, Failure> {
    let is = |identity: &Identity| identity.to_string() == who;
    let pass = throwaway.passes().iter().find(|pass| is(&pass.identity));
    let pass = pass.ok_or_else(|| unexpected(&format!("`{who}` among the identities"), "others"))?;
    Ok(Broker::connect(address, Token::parse(pass.token().as_str())?).await?)
}

/// Handles must be dead within seconds of a disconnect; twice that is a broken promise.
const LOOKS_MAX: u32 = 200;
const LOOK: Duration = Duration::from_millis(25);
const STOP_MAX: Duration = Duration::from_secs(15);
