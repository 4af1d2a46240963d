//! TLS: how the broker proves itself, and which certificates of callers it takes.
//!
//! rustls with ring, TLS 1.3 unless the configuration adds 1.2, one protocol by ALPN, no resumption: every connection shows
//! its certificate. What is in force is one immutable `ServerConfig`, replaced as a whole; connections that are open
//! go on with theirs.
//!
//! Not here: who a certificate is (`identity/known.rs`), the sockets (`listen.rs`).

mod certificate;
mod follow;
mod material;
mod verify;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use valetkey_core::{Clock, Reason, TrustDomain};

use self::certificate::Outline;
use self::follow::{Fingerprint, fingerprints};
use self::material::{Built, Material};
use crate::identity::evidence::ClientCertificate;

pub use self::material::TlsError;

/// What the broker is told about TLS.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Where its certificates come from.
    pub source: CertificateSource,
    /// Which certificates of callers it takes; `None` asks for none.
    pub clients: Option<ClientCertificates>,
    /// Whether TLS 1.2 will do.
    pub tls12: bool,
}

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// PEM files; read again when they change.
    Files {
        /// The broker's certificate, and those between it and its authority.
        certificate: PathBuf,
        /// Its key; closed to others.
        key: PathBuf,
        /// The authorities that sign callers' certificates. Must be set if they are asked for.
        client_ca: Option<PathBuf>,
    },
    /// The socket of a SPIFFE Workload API, which also says who signs callers' certificates.
    Workload(PathBuf),
}

/// Which certificates of callers are taken.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// The domain of their SPIFFE ids.
    pub trust_domain: TrustDomain,
    /// Whether a connection without one is refused.
    pub required: bool,
}

/// What is spoken over it; the only one that ALPN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/2: the broker's own API.
    Http2,
    /// HTTP/1.1: the Events API.
    Http1,
}

/// The TLS side of a listener.
pub(crate) struct Tls {
    settings: TlsSettings,
    protocol: Protocol,
    clock: Arc<dyn Clock>,
    current: watch::Sender<Current>,
    workload: Option<workload::Updates>,
    /// What the files were when they were read.
    read: Vec<Fingerprint>,
}

/// What is in force.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// The broker's own certificate.
    own: Outline,
}

/// Why a connection was refused before it brought a request.
pub(crate) struct HandshakeRefused {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Tls {
    /// Loads the certificates. With a Workload API, waits for the first ones.
    ///
    /// # Errors
    /// [`TlsError`] where there are none to begin with.
    pub(crate) async fn open(
        settings: TlsSettings,
        protocol: Protocol,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is a change.
        let read = fingerprints(&settings.source.files());
        let (material, workload) = match &settings.source {
            CertificateSource::Files { certificate, key, client_ca } => {
                (Material::read(certificate, key, client_ca.as_deref())?, None)
            }
            CertificateSource::Workload(socket) => {
                let mut updates = workload::Updates::new(socket);
                (updates.first().await?, Some(updates))
            }
        };
        let current = Current::new(material, &settings, protocol, &clock)?;
        tracing::info!(own = %current.own, expires = %current.own.end(), "TLS certificate loaded");
        Ok(Self { settings, protocol, clock, current: watch::Sender::new(current), workload, read })
    }

    /// Takes a connection through the handshake: the stream, and the certificate that the peer showed. The caller
    /// bounds the time.
    ///
    /// # Errors
    /// [`HandshakeRefused`]; `None` where the peer just went away.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<ClientCertificate>>), Option<HandshakeRefused>> {
        let config = Arc::clone(&self.current.borrow().config);
        let stream =
            TlsAcceptor::from(config).accept(socket).await.map_err(|error| verify::refusal(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = match (&self.settings.clients, shown) {
            (Some(clients), Some(shown)) => Some(
                Outline::read(shown)
                    .and_then(|outline| outline.into_client(&clients.trust_domain))
                    .map_err(|reason| Some(HandshakeRefused { reason, detail: String::new() }))?,
            ),
            _ => None,
        };
        Ok((stream, certificate.map(Arc::new)))
    }
}

impl TlsSettings {
    /// Loads the files, without serving with them. A Workload API is not asked.
    pub(crate) fn check(&self, protocol: Protocol, clock: &Arc<dyn Clock>) -> Result<(), TlsError> {
        match &self.source {
            CertificateSource::Files { certificate, key, client_ca } => {
                Material::read(certificate, key, client_ca.as_deref())?.build(self, protocol, clock).map(drop)
            }
            CertificateSource::Workload(_) => Ok(()),
        }
    }
}

impl Protocol {
    /// Its name in ALPN.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }
}

impl CertificateSource {
    /// The files to follow.
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Files { certificate, key, client_ca } => {
                [certificate, key].into_iter().chain(client_ca).map(PathBuf::as_path).collect()
            }
            Self::Workload(_) => Vec::new(),
        }
    }
}

impl Current {
    fn new(
        material: Material,
        settings: &TlsSettings,
        protocol: Protocol,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let Built { config, own } = material.build(settings, protocol, clock)?;
        Ok(Self { config: Arc::new(config), own })
    }
}
