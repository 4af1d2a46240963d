//! Accepting connections: at most so many at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::identity::evidence::{Origin, Peer};

/// A connection, and its place among those that may be open.
pub(crate) struct Connection {
    socket: TcpStream,
    peer: Peer,
    /// The time that is left to a peer that nobody knows yet. Without it, peers without an identity could
    /// hold all places: the transport's keepalive finds out who is gone, not who has no business here.
    opening: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// The connections of a listener, at most `connections_max` at once; more wait in the kernel's queue.
pub(crate) fn connections(
    listener: TcpListener,
    connections_max: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(connections_max));
    futures_util::stream::unfold((listener, places), |(listener, places)| async move {
        let connection = loop {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((socket, address)) => break Connection::new(socket, address, place),
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free rather than spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        };
        Some((Ok(connection), (listener, places)))
    })
}

impl Connection {
    fn new(socket: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) -> Self {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays slow");
        }
        let peer = Peer::new(Origin::Address(address), None);
        Self { socket, peer, opening: Some(Box::pin(tokio::time::sleep(UNKNOWN_TIME_MAX))), _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.opening.is_some() && self.peer.is_known() {
            self.opening = None;
        }
        if let Some(opening) = &mut self.opening
            && opening.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
/// How long a peer has to bring its first request with an identity.
const UNKNOWN_TIME_MAX: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
