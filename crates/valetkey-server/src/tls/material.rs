//! Certificates and keys on their way into a `ServerConfig`.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use valetkey_core::Clock;
use zeroize::Zeroizing;

use super::certificate::Outline;
use super::verify::SpiffeVerifier;
use super::{CertificateSource, Protocol, TlsSettings};

/// A chain, its key, and the authorities of callers.
pub(super) struct Material {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

/// What it makes.
pub(super) struct Built {
    pub(super) config: ServerConfig,
    pub(super) own: Outline,
}

/// Why certificates cannot be used. Where others are in force, they stay.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("`{path}` must have at most {SIZE_MAX} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// The key can be read by others.
    #[error("the key `{path}` is open to others (mode {mode:03o}); `chmod 600` closes it")]
    OpenToOthers {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("`{path}` has no {wanted} in PEM form")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A certificate cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Unusable(String),
    /// The certificate's life is over, or has not begun.
    #[error("the broker's certificate ({0}) is not valid now; renew it")]
    NotAlive(String),
    /// The Workload API gives none.
    #[error("the Workload API at `{socket}` gives no certificate: {detail}")]
    Workload {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        detail: String,
    },
}

impl Material {
    /// Reads PEM files.
    pub(super) fn read(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let chain = certificates(certificate)?;
        let roots = client_ca.map_or(Ok(Vec::new()), certificates)?;
        let mode = std::fs::metadata(key).map_err(unreadable(key))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TlsError::OpenToOthers { path: key.into(), mode });
        }
        let missing = |_| TlsError::Missing { path: key.into(), wanted: "private key" };
        let key = PrivateKeyDer::from_pem_slice(&file(key)?).map_err(missing)?;
        Ok(Self { chain, key, roots })
    }

    /// Checks all of it, and makes the configuration.
    pub(super) fn build(
        self,
        settings: &TlsSettings,
        protocol: Protocol,
        clock: &Arc<dyn Clock>,
    ) -> Result<Built, TlsError> {
        let Self { chain, key, roots } = self;
        let unusable = |error: &dyn fmt::Display| TlsError::Unusable(error.to_string());
        let leaf = chain.first().ok_or_else(|| unusable(&"there is none"))?;
        let own = Outline::read(leaf).map_err(|_| unusable(&"the first one cannot be read"))?;
        if !own.is_alive(clock.now()) {
            return Err(TlsError::NotAlive(format!("{own}, to {}", own.end())));
        }
        check_domain(&own, settings)?;
        let provider = Arc::new(ring::default_provider());
        // Without this a key that is not the certificate's would be found out by every client.
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| unusable(&error))?;
        let versions: &[_] = if settings.tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let time = Arc::new(Time(Arc::clone(clock)));
        let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(versions)
            .map_err(|error| unusable(&error))?;
        let builder = match &settings.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let inner = verifier(roots, provider)?;
                builder.with_client_cert_verifier(Arc::new(SpiffeVerifier::new(inner, clients.clone())))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        // A resumed session would bring a certificate that nobody looks at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Built { config, own })
    }
}

/// A Workload API speaks for one trust domain: with another one in the configuration every caller would be refused.
fn check_domain(own: &Outline, settings: &TlsSettings) -> Result<(), TlsError> {
    match (&settings.source, &settings.clients, own.spiffe_id()) {
        (CertificateSource::Workload(_), Some(clients), Some(id)) if !clients.trust_domain.holds(&id) => Err(
            TlsError::Unusable(format!("`tls.trust_domain` is {}, the broker is {id}", clients.trust_domain)),
        ),
        _ => Ok(()),
    }
}

/// The verifier of signatures and lives.
fn verifier(
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(|error| TlsError::Unusable(format!("an authority of callers: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| TlsError::Unusable(format!("the authorities of callers: {error}")))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let missing = || TlsError::Missing { path: path.into(), wanted: "certificate" };
    let text = file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|_| missing())?;
    if chain.is_empty() { Err(missing()) } else { Ok(chain) }
}

fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let size = std::fs::metadata(path).map_err(unreadable(path))?.len();
    if size > SIZE_MAX {
        return Err(TlsError::TooLarge { path: path.into() });
    }
    std::fs::read(path).map(Zeroizing::new).map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> TlsError + use<> {
    let path = path.to_owned();
    move |source| TlsError::Read { path: path.clone(), source }
}

/// The broker's clock, for lives of certificates.
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let micros = u64::try_from(self.0.now().as_micros()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_micros(micros)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

/// Far more than a chain or a bundle has.
const SIZE_MAX: u64 = 1024 * 1024;
