//! What a client shows, and whom it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::{ResolvesClientCert, Resumption};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::secret::Token;

/// Who the caller is, and whom it trusts to be the broker: a token, a client certificate, or both where they stand
/// for the same one. Over a Unix socket neither is needed where the broker knows the user.
#[derive(Default)]
pub struct Credentials {
    pub(crate) token: Option<Token>,
    pub(crate) files: TlsFiles,
}

/// The files of a TLS client, in PEM form. They are read for each connection, so that renewed ones are used.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

/// A file that cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Nobody to trust.
    #[error("who signs the broker's certificate? name the file of its authority (`VALETKEY_CA`)")]
    CaMissing,
    /// It cannot be read.
    #[error("`{file}` cannot be read: {why}")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// It holds something else.
    #[error("`{file}` has no {wanted} in PEM form")]
    Empty {
        /// Which.
        file: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The two do not belong together, or the key is of no kind that is known.
    #[error("`{certificate}` and its key cannot be used: {why}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why.
        why: String,
    },
}

impl Credentials {
    /// With a bearer token.
    #[must_use]
    pub fn token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Trusts whom the authorities in this file sign, and nobody else. Must be set for `https`.
    #[must_use]
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.ca = Some(file.into());
        self
    }

    /// Shows this certificate and proves it with this key, where the broker asks.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.files.certificate = Some((certificate.into(), key.into()));
        self
    }
}

impl From<Token> for Credentials {
    fn from(token: Token) -> Self {
        Self::default().token(token)
    }
}

impl TlsFiles {
    /// Reads them into what a handshake takes.
    pub(crate) fn load(&self) -> Result<ClientConfig, CredentialsError> {
        let own = self.own()?.map(SingleCertAndKey::from);
        let resolver = own.map(|own| Arc::new(own) as Arc<dyn ResolvesClientCert>);
        self.load_with(resolver)
    }

    /// The same, where something else answers the broker's demand for a certificate.
    pub(crate) fn load_with(
        &self,
        resolver: Option<Arc<dyn ResolvesClientCert>>,
    ) -> Result<ClientConfig, CredentialsError> {
        let ca = self.ca.as_deref().ok_or(CredentialsError::CaMissing)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            let empty = |_| CredentialsError::Empty { file: ca.into(), wanted: "usable certificate" };
            roots.add(root).map_err(empty)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| CredentialsError::Unusable { certificate: ca.into(), why: error.to_string() })?
            .with_root_certificates(roots);
        let mut config = match resolver {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The own certificate and its key.
    pub(crate) fn own(&self) -> Result<Option<CertifiedKey>, CredentialsError> {
        let Some((certificate, key)) = &self.certificate else { return Ok(None) };
        let chain = certificates(certificate)?;
        let wrong = |_| CredentialsError::Empty { file: key.clone(), wanted: "private key" };
        let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(wrong)?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Some).map_err(|error| {
            CredentialsError::Unusable { certificate: certificate.clone(), why: error.to_string() }
        })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let empty = || CredentialsError::Empty { file: file.into(), wanted: "certificate" };
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(empty)
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let unreadable = |why: String| CredentialsError::Unreadable { file: file.into(), why };
    let size = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if size > SIZE_MAX {
        return Err(unreadable(format!("it has more than {SIZE_MAX} bytes")));
    }
    std::fs::read(file).map(Zeroizing::new).map_err(|error| unreadable(error.to_string()))
}

/// Far more than a chain or a bundle has.
const SIZE_MAX: u64 = 1024 * 1024;
