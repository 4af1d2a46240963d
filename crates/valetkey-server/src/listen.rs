//! Accepting connections: at most so many at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use valetkey_core::Identity;

use crate::limits::{Exceeded, Held, Identities, Place, PlaceLimits, Places, Standing};

/// A connection's other end, as an extension of its requests.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: SocketAddr,
    standing: Arc<Standing>,
    /// The identities that made requests over the connection: one, but for a proxy.
    callers: Arc<Mutex<Vec<(Identity, Held)>>>,
}

impl Peer {
    /// Counts the connection among those of an identity that makes a request over it, and lets it stay.
    pub(crate) fn know(&self, who: &Identity, identities: &Arc<Identities>) -> Result<(), Exceeded> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if !callers.iter().any(|(known, _)| known == who) {
            let held = identities.connection(who)?;
            // The oldest gives its count back, and takes it again with its next request.
            if callers.len() >= CALLERS_MAX {
                callers.remove(0);
            }
            callers.push((who.clone(), held));
        }
        self.standing.know();
        Ok(())
    }
}

/// A connection, and its place among those that may be open.
pub(crate) struct Connection {
    socket: TcpStream,
    peer: Peer,
    /// The time that is left to a peer that nobody knows yet. Without it, peers without an identity could
    /// hold their share of places: the transport's keepalive finds out who is gone, not who has no business here.
    opening: Option<Pin<Box<Sleep>>>,
    place: Place,
}

/// The connections of a listener, as many as there are places; one that has come waits for its place, and more
/// in the kernel's queue.
pub(crate) fn connections(
    listener: TcpListener,
    limits: PlaceLimits,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Places::new(limits);
    futures_util::stream::unfold((listener, places), |(listener, places)| async move {
        let connection = loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    let place = places.take(Some(address.ip())).await?;
                    break Connection::new(socket, address, place);
                }
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
    fn new(socket: TcpStream, address: SocketAddr, place: Place) -> Self {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays slow");
        }
        let standing = Arc::clone(place.standing());
        let peer = Peer { address, standing, callers: Arc::default() };
        Self { socket, peer, opening: Some(Box::pin(tokio::time::sleep(UNKNOWN_TIME_MAX))), place }
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
        if self.opening.is_some() && self.place.is_known() {
            self.opening = None;
        }
        let let_go = self.opening.is_some() && self.place.is_let_go(context);
        if let Some(opening) = &mut self.opening
            && (let_go || opening.as_mut().poll(context).is_ready())
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
/// Identities of one connection that are counted at the same time.
const CALLERS_MAX: usize = 64;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
