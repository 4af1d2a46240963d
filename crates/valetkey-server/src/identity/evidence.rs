//! What a caller shows: its connection proves something, and its request brings something. Who that is, `known.rs`
//! says.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, header};
use valetkey_core::{Identity, KeyThumbprint, Reason, SpiffeId, Timestamp};

use crate::limits::{Exceeded, Held, Identities, Standing};

/// A connection's other end and what the connection proves about it, as an extension of its requests.
#[derive(Clone)]
pub(crate) struct Peer {
    /// Where it is.
    pub(crate) origin: Origin,
    /// The certificate that it showed in the handshake, verified.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// Where the connection stands among those that may be open.
    standing: Arc<Standing>,
    /// The identities that made requests over the connection: one, but for a proxy.
    callers: Arc<Mutex<Vec<(Identity, Held)>>>,
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
    pub(crate) fn new(
        origin: Origin,
        certificate: Option<Arc<ClientCertificate>>,
        standing: Arc<Standing>,
    ) -> Self {
        Self { origin, certificate, standing, callers: Arc::default() }
    }

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

    /// Its address on the network.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.origin {
            Origin::Address(address) => Some(address.ip()),
            Origin::Process { uid: _, gid: _, pid: _ } => None,
        }
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

/// Identities of one connection that are counted at the same time.
const CALLERS_MAX: usize = 64;
