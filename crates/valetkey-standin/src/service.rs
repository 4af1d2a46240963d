//! A stand-in for 1Password's service, for the SDK's core: it signs in to it, lists, decrypts and resolves.
//!
//! It is not 1Password's server, nor made by them, and what it proves is how our side and the genuine core
//! work together, not what their service does. It listens on loopback alone, has one account whose keys are
//! made up and public, and never speaks to anyone.
//!
//! The protocol is known from public sources: sign-in, key sets and items from
//! `detunized/password-manager-access` (MIT), the arithmetic of the sign-in from `1Password/srp` (Apache-2.0),
//! both read and neither copied; the rest from what the core itself asks for.
//!
//! Not here: MACs of requests, which are not checked; writing; batches (`SecretsResolveAll`); second factors.

mod account;
mod items;
mod read;
mod seal;
mod server;
mod sign_in;
mod srp;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::server::{Fault, State, lock, serve};
use self::sign_in::Sessions;
use crate::World;

/// A running stand-in for the service. It stops when it is dropped.
pub struct Service {
    address: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Service {
    /// Serves a world on a free port of the loopback.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn start(world: World) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let state = State {
            world,
            sessions: Sessions::default(),
            requests: Vec::new(),
            fault: Fault::None,
            delay: Duration::ZERO,
        };
        let state = Arc::new(Mutex::new(state));
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, server })
    }

    /// A service account's token that leads here.
    #[must_use]
    pub fn token(&self) -> String {
        account::token(&self.address)
    }

    /// Where it is: `http://127.0.0.1:` and its port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The method and the path of every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<(String, String)> {
        lock(&self.state).requests.clone()
    }

    /// Revokes the token: nothing works any more, nor does signing in.
    pub fn revoke(&self) {
        lock(&self.state).sessions.end();
        self.fail(Some(401));
    }

    /// Ends all sessions: each is refused once, and signing in again works.
    pub fn expire_session(&self) {
        lock(&self.state).sessions.end();
    }

    /// Says of every request that it is one too many, until told otherwise.
    pub fn rate_limit(&self, on: bool) {
        self.fail(on.then_some(429));
    }

    /// Answers every request with this HTTP status, until told otherwise.
    pub fn fail(&self, status: Option<u16>) {
        lock(&self.state).fault = status.map_or(Fault::None, Fault::Status);
    }

    /// Takes requests and answers none that comes meanwhile, now or later, until told otherwise.
    pub fn stall(&self, on: bool) {
        lock(&self.state).fault = if on { Fault::Stall } else { Fault::None };
    }

    /// Waits this long before each answer.
    pub fn delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// Puts an item, as a `FullItem`, in place of the one with its id, or beside the others.
    pub fn put_item(&self, item: Value) {
        lock(&self.state).world.put_item(item);
    }

    /// Changes an item where it is.
    pub fn change_item(&self, item_id: &str, change: impl FnOnce(&mut Value)) {
        lock(&self.state).world.change_item(item_id, change);
    }

    /// Deletes an item.
    pub fn remove_item(&self, item_id: &str) {
        lock(&self.state).world.remove_item(item_id);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}
