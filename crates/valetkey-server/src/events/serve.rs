//! Connections to the Events API: TLS as everywhere, HTTP/1.1 in it, each bound in time.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::server::Connected;

use super::Events;
use crate::listen::Connection;

/// Serves until the broker stops. What is under way then is cut when this is dropped: a client asks again from its
/// last cursor.
pub(super) async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>>,
    events: Arc<Events>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut incoming = pin!(incoming);
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let connection = tokio::select! {
            connection = incoming.next() => connection,
            _ = stopping.wait_for(|stopping| *stopping) => None,
        };
        match connection {
            Some(Ok(connection)) => drop(open.spawn(converse(connection, Arc::clone(&events)))),
            Some(Err(error)) => tracing::warn!(%error, "a connection to the Events API was not accepted"),
            None => break,
        }
    }
    // Nobody new; the others until this is dropped.
    while open.join_next().await.is_some() {}
}

async fn converse(connection: Connection, events: Arc<Events>) {
    let peer = connection.connect_info();
    let service = service_fn(move |request| {
        let (events, peer) = (Arc::clone(&events), peer.clone());
        async move { Ok::<_, Infallible>(events.answer(request, &peer).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX).max_buf_size(HEADERS_MAX).max_headers(64);
    let mut serving = pin!(http.serve_connection(TokioIo::new(connection), service));
    // How a conversation went wrong is for the one who asks.
    if tokio::time::timeout(LIFE_MAX, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_MAX, serving).await;
    }
}

/// The next request's head, from its first to its last byte; what has no identity by then has less.
const IDLE_MAX: Duration = Duration::from_secs(60);
const LIFE_MAX: Duration = Duration::from_secs(10 * 60);
const LAST_MAX: Duration = Duration::from_secs(15);
const HEADERS_MAX: usize = 16 * 1024;
