//! What a caller shows: its connection proves something, and its request brings something. Who that is, `known.rs`
//! says.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, header};
use valetkey_core::{KeyThumbprint, Reason, SpiffeId, Timestamp};

/// A connection's other end and what the connection proves about it, as an extension of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it is.
    pub(crate) origin: Origin,
    /// The certificate that it showed in the handshake, verified.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// Whether a request with an identity has come over the connection.
    known: Arc<AtomicBool>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The network.
    Address(SocketAddr),
    /// A process of this machine, over a Unix socket. The kernel says so.
    Process {
        /// Its user, when it connected.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its number; absent where the system does not say it.
        pid: Option<i32>,
    },
}

/// A client certificate that somebody we trust has signed, and whose only URI is a SPIFFE id of our domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// Whose it is.
    pub(crate) id: SpiffeId,
    /// The SHA-256 of the whole of it.
    pub(crate) thumbprint: [u8; 32],
    /// The SHA-256 of its public key.
    pub(crate) key: KeyThumbprint,
    /// When its life begins.
    pub(crate) not_before: Timestamp,
    /// When its life is over.
    pub(crate) not_after: Timestamp,
}

/// All that one request shows.
pub(crate) struct Evidence<'a> {
    /// What the connection proves.
    pub(crate) peer: Option<&'a Peer>,
    /// The one `authorization` header that it brings.
    pub(crate) authorization: Option<&'a [u8]>,
}

impl Peer {
    /// A peer that nobody knows yet.
    pub(crate) fn new(origin: Origin, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self { origin, certificate, known: Arc::default() }
    }

    /// Lets the connection stay: it has brought a request with an identity.
    pub(crate) fn know(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether it may stay.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// The user at the other end of a Unix socket.
    pub(crate) fn uid(&self) -> Option<u32> {
        match self.origin {
            Origin::Address(_) => None,
            Origin::Process { uid, gid: _, pid: _ } => Some(uid),
        }
    }
}

impl ClientCertificate {
    /// What records call it: `crt_` and the beginning of its SHA-256.
    pub(crate) fn credential_id(&self) -> String {
        let begin = self.thumbprint.first_chunk::<10>().map_or(&[][..], |begin| begin.as_slice());
        format!("crt_{}", data_encoding::BASE32_DNSSEC.encode(begin))
    }

    /// Whether it is within its life. Asked for each request: a connection may outlive a certificate.
    ///
    /// # Errors
    /// The [`Reason`] for the record.
    pub(crate) fn check_life(&self, now: Timestamp) -> Result<(), Reason> {
        if now > self.not_after {
            return Err(Reason::CertificateExpired);
        }
        if now < self.not_before {
            return Err(Reason::CertificateNotYetValid);
        }
        Ok(())
    }
}

impl<'a> Evidence<'a> {
    /// Gathers it.
    ///
    /// # Errors
    /// The [`Reason`] for the record where two headers come: which of them was meant is not for us to guess.
    pub(crate) fn gather(headers: &'a HeaderMap, peer: Option<&'a Peer>) -> Result<Self, Reason> {
        let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
        match (authorizations.next(), authorizations.next()) {
            (Some(_), Some(_)) => Err(Reason::TokenMalformed),
            (one, _) => Ok(Self { peer, authorization: one.map(http::HeaderValue::as_bytes) }),
        }
    }
}

impl fmt::Display for Origin {
    /// The address without the port, or the user: one client is one text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.ip().fmt(f),
            Self::Process { uid, gid: _, pid: _ } => write!(f, "uid:{uid}"),
        }
    }
}
