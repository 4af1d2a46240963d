//! Accepting connections: at most so many at once, TLS where there is TLS, and who is at the other end.

mod bind;
mod refusals;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tonic::transport::server::Connected;
use valetkey_core::Reason;

use crate::identity::evidence::{ClientCertificate, Origin, Peer};
use crate::limits::{Place, PlaceLimits, Places};
use crate::tls::{HandshakeRefused, Tls};

pub use self::bind::{BindError, Listeners, UnixSettings};
pub(crate) use self::refusals::{Refusal, Refusals, write_down};

/// A connection, and its place among those that may be open.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    peer: Peer,
    /// The time that is left to a peer that nobody knows yet. Without it, peers without an identity could
    /// hold their share of places: the transport's keepalive finds out who is gone, not who has no business here.
    opening: Option<Pin<Box<Sleep>>>,
    place: Place,
}

/// TCP, TLS over it, or a Unix socket.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// What connections pass on their way in.
struct Door {
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    handshakes: Arc<Semaphore>,
    ready: mpsc::Sender<Connection>,
    refusals: Refusals,
}

/// The connections of some listeners, as many as there are places; one that has come waits for its place, and more in
/// the kernel's queue. With `tls`, what comes over the network goes through its handshake first. Dropping it closes the
/// listeners.
pub(crate) fn connections(
    listeners: Listeners,
    tls: Option<Arc<Tls>>,
    limits: PlaceLimits,
    refusals: Refusals,
) -> impl Stream<Item = io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(1);
    let door = Arc::new(Door {
        tls,
        places: Places::new(limits),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX.max(limits.unknown_max))),
        ready,
        refusals,
    });
    let (tcp, unix) = listeners.into_parts();
    let mut doors = JoinSet::new();
    if let Some(tcp) = tcp {
        doors.spawn(Arc::clone(&door).accept_tcp(tcp));
    }
    let unix = unix.map(|(listener, file)| {
        doors.spawn(door.accept_unix(listener));
        file
    });
    futures_util::stream::unfold((connections, doors, unix), |(mut connections, doors, unix)| async move {
        let connection = connections.recv().await?;
        Some((Ok(connection), (connections, doors, unix)))
    })
}

impl Door {
    async fn accept_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.try_join_next().is_some() {}
            let (socket, address) = accepted(|context| listener.poll_accept(context)).await;
            let Some(place) = self.places.take(Some(address.ip())).await else { return };
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "a connection stays slow");
            }
            let origin = Origin::Address(address);
            match &self.tls {
                None => self.admit(Box::new(socket), origin, None, place).await,
                Some(tls) => {
                    let (door, tls) = (Arc::clone(&self), Arc::clone(tls));
                    handshakes.spawn(async move {
                        // Whoever is let go meanwhile was a stranger without a word: nobody to tell of.
                        let shaken = tokio::select! {
                            shaken = door.shake_hands(&tls, socket, origin) => shaken,
                            () = place.let_go() => None,
                        };
                        if let Some((socket, certificate)) = shaken {
                            door.admit(socket, origin, certificate, place).await;
                        }
                    });
                }
            }
        }
    }

    async fn accept_unix(self: Arc<Self>, listener: UnixListener) {
        loop {
            let (socket, _) = accepted(|context| listener.poll_accept(context)).await;
            let Some(place) = self.places.take(None).await else { return };
            match process(&socket) {
                Ok(origin) => self.admit(Box::new(socket), origin, None, place).await,
                Err(error) => tracing::warn!(%error, "a process did not say whose it is"),
            }
        }
    }

    /// TLS, within its time; what fails is recorded.
    async fn shake_hands(
        &self,
        tls: &Tls,
        socket: TcpStream,
        origin: Origin,
    ) -> Option<(Box<dyn Socket>, Option<Arc<ClientCertificate>>)> {
        // The semaphore is never closed.
        let _turn = self.handshakes.acquire().await.ok()?;
        let late = || HandshakeRefused { reason: Reason::TlsHandshake, detail: "too slow".to_owned() };
        let refused = match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(socket)).await {
            Ok(Ok((stream, certificate))) => return Some((Box::new(stream), certificate)),
            Ok(Err(refused)) => refused,
            Err(_) => Some(late()),
        };
        if let Some(HandshakeRefused { reason, detail }) = refused {
            self.refusals.tell(Refusal { reason, detail, origin });
        }
        None
    }

    async fn admit(
        &self,
        socket: Box<dyn Socket>,
        origin: Origin,
        certificate: Option<Arc<ClientCertificate>>,
        place: Place,
    ) {
        let peer = Peer::new(origin, certificate, Arc::clone(place.standing()));
        let opening = Some(Box::pin(tokio::time::sleep(UNKNOWN_TIME_MAX)));
        // Nobody takes connections any more when the broker stops.
        let _ = self.ready.send(Connection { socket, peer, opening, place }).await;
    }
}

/// The next connection.
async fn accepted<T>(mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> T {
    loop {
        match std::future::poll_fn(&mut accept).await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come free rather than spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Whose process is at the other end, as the kernel noted when it connected.
fn process(socket: &UnixStream) -> io::Result<Origin> {
    let user = socket.peer_cred()?;
    Ok(Origin::Process { uid: user.uid(), gid: user.gid(), pid: user.pid() })
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
/// How long a handshake may take, and how many may be under way: as many as there are places for strangers, if that is
/// more, or those who are silent would have the others wait.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HANDSHAKES_MAX: usize = 256;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
