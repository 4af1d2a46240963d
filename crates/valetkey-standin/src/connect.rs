//! A stand-in of a Connect server, written from the OpenAPI file that 1Password publishes for it.
//!
//! Serves what a reader of items needs, on loopback, with the error bodies of that file; anything else is 404.
//! It fails on demand, and counts what it is asked.

mod answer;
mod routes;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::World;
use answer::Answer;
pub use answer::ConnectFault;

/// A server that runs until it is dropped.
pub struct ConnectServer {
    address: SocketAddr,
    /// In PEM; the server speaks TLS where there is one.
    ca: Option<String>,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    world: World,
    token: String,
    /// By the path's beginning; the latest that fits counts.
    faults: Vec<(String, ConnectFault)>,
    /// The path and query of each request so far, the refused ones too.
    requests: Vec<String>,
}

impl ConnectServer {
    /// The token that it takes, until [`ConnectServer::take_token`] names another.
    pub const TOKEN: &'static str = "eyJ-standin-connect-token";

    /// Serves a world on loopback, without TLS.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start(world: World) -> Result<Self> {
        Self::run(world, None, None).await
    }

    /// Serves a world on loopback, with a certificate for `name` from an authority that is made for it.
    ///
    /// # Errors
    /// Where no port can be had, or no certificate be made.
    pub async fn start_tls(world: World, name: &str) -> Result<Self> {
        let (acceptor, ca) = tls::acceptor(name)?;
        Self::run(world, Some(acceptor), Some(ca)).await
    }

    async fn run(world: World, acceptor: Option<TlsAcceptor>, ca: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = State { world, token: Self::TOKEN.into(), faults: Vec::new(), requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&state)));
        Ok(Self { address, ca, state, task })
    }

    /// Where it is, as `OP_CONNECT_HOST` says it.
    #[must_use]
    pub fn host(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate of its authority, in PEM, where it speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Takes this token from now on, and no other.
    pub fn take_token(&self, token: &str) {
        lock(&self.state).token = token.into();
    }

    /// Fails whatever path begins with `prefix`, until [`ConnectServer::mend`].
    pub fn fail(&self, prefix: &str, fault: ConnectFault) {
        lock(&self.state).faults.push((prefix.into(), fault));
    }

    /// Fails no more.
    pub fn mend(&self) {
        lock(&self.state).faults.clear();
    }

    /// Puts an item into the world, in the place of one with its id.
    pub fn put_item(&self, item: Value) {
        lock(&self.state).world.put_item(item);
    }

    /// How many requests there were for paths that begin with `prefix`.
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        lock(&self.state).requests.iter().filter(|path| path.starts_with(prefix)).count()
    }

    /// The paths and queries of all requests, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for ConnectServer {
    /// Ends its connections with it.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    match acceptor {
        None => serve(stream, state).await,
        Some(acceptor) => {
            // A client that does not trust us is gone here, and is what a test waits for.
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, state).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| answer(request, &state));
    // A client may hang up, and a fault may cut the answer: both end the connection, and are meant to.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(request: Request<Incoming>, state: &Mutex<State>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let (fault, normal) = {
        let mut state = lock(state);
        state.requests.push(path.clone());
        let fault = state.faults.iter().rev().find(|(prefix, _)| path.starts_with(prefix));
        let fault = fault.map(|(_, fault)| fault.clone());
        let is_known = token == state.token;
        (fault, routes::answer(&state.world, &request, is_known))
    };
    match fault {
        None => Ok(normal),
        Some(fault) => Ok(fault.answer(token, normal).await),
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
