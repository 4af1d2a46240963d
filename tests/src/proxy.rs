//! A network that can be cut, and comes back: carries bytes between clients and a broker.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries bytes both ways, until told otherwise. Gone when dropped.
pub struct Proxy {
    /// Where clients find it: `http://host:port`.
    pub uri: String,
    to: Arc<Mutex<SocketAddr>>,
    network: watch::Sender<Network>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Whole,
    Silent,
    Cut,
}

impl Proxy {
    /// In front of the broker that listens there.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let uri = format!("http://{}", listener.local_addr()?);
        let (network, state) = watch::channel(Network::Whole);
        let to = Arc::new(Mutex::new(to));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&to), state));
        Ok(Self { uri, to, network, accepting })
    }

    /// In front of another broker, for connections from now on.
    pub fn lead_to(&self, to: SocketAddr) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// Every connection ends, and new ones do at once.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// The cable is out: sockets stay open on both sides, and nothing comes through.
    pub fn swallow(&self) {
        self.network.send_replace(Network::Silent);
    }

    /// The network is back. Connections whose bytes vanished have ended.
    pub fn restore(&self) {
        self.network.send_replace(Network::Whole);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, to: Arc<Mutex<SocketAddr>>, network: watch::Receiver<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        let to = *to.lock().unwrap_or_else(PoisonError::into_inner);
        if *network.borrow() != Network::Cut
            && let Ok(broker) = TcpStream::connect(to).await
        {
            tokio::spawn(pass(client, broker, network.clone()));
        }
    }
}

async fn pass(client: TcpStream, broker: TcpStream, mut network: watch::Receiver<Network>) {
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    let (up, down) = (network.clone(), network.clone());
    let over = async {
        let _ = network.wait_for(|it| *it != Network::Whole).await;
        let _ = network.wait_for(|it| *it != Network::Silent).await;
    };
    tokio::select! {
        () = carry(from_client, to_broker, up) => {}
        () = carry(from_broker, to_client, down) => {}
        () = over => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    network: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        if *network.borrow() == Network::Silent {
            // Both sockets stay open.
            return std::future::pending().await;
        }
        let bytes = read.ok().and_then(|count| buffer.get(..count)).unwrap_or_default();
        if bytes.is_empty() || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
