//! Where an issuer publishes its keys: a URL or a file, read within bounds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::AsyncReadExt;

use super::keys::KeySetError;

/// Where keys come from.
pub(super) enum Source {
    /// A server.
    Url {
        /// Asks it, and nobody else.
        client: Client,
        /// What it is asked for.
        url: Url,
    },
    /// A file, for those who bring the keys themselves.
    File(PathBuf),
}

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the server does not answer")]
    Http(#[source] reqwest::Error),
    #[error("the server answered with status {0}")]
    Status(StatusCode),
    #[error("it has more than {SIZE_MAX} bytes")]
    TooLarge,
    #[error("the file cannot be read")]
    File(#[from] std::io::Error),
    #[error(transparent)]
    Keys(KeySetError),
}

/// Why there is no client for a URL.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file with the authorities cannot be read.
    #[error("the file of authorities cannot be read")]
    CaFile(#[source] std::io::Error),
    /// It has no certificates.
    #[error("the file of authorities must have certificates in PEM")]
    CaMalformed,
    /// The system's authorities cannot be used.
    #[error("the system's certificate authorities cannot be used")]
    Tls(#[from] rustls::Error),
    /// The client cannot be made.
    #[error("the HTTP client cannot be made")]
    Http(#[source] reqwest::Error),
}

impl Source {
    /// A server; `ca_file` has the authorities that may vouch for it, in place of the system's.
    pub(super) fn url(url: Url, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let is_tls = url.scheme() == "https";
        // Without TLS nobody is trusted, and a system without authorities is no hindrance.
        let tls = match (is_tls, ca_file) {
            (true, None) => builder()?.with_platform_verifier()?.with_no_client_auth(),
            (true, Some(file)) => builder()?.with_root_certificates(roots(file)?).with_no_client_auth(),
            (false, _) => builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(is_tls)
            // The address is the operator's; an answer does not choose another.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("valetkey/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self::Url { client, url })
    }

    /// Reads the keys' text.
    pub(super) async fn read(&self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::Url { client, url } => {
                let response = client.get(url.clone()).send().await.map_err(http)?;
                match response.status() {
                    StatusCode::OK => body(response).await,
                    status => Err(FetchError::Status(status)),
                }
            }
            Self::File(path) => {
                let mut text = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(SIZE_MAX as u64 + 1).read_to_end(&mut text).await?;
                if text.len() > SIZE_MAX { Err(FetchError::TooLarge) } else { Ok(text) }
            }
        }
    }
}

impl FetchError {
    /// What is behind it, down to the first cause.
    pub(super) fn cause(&self) -> Option<String> {
        let mut cause = self.source()?;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Some(cause.to_string())
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http)? {
        if chunk.len() > SIZE_MAX - body.len() {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn http(error: reqwest::Error) -> FetchError {
    FetchError::Http(error.without_url())
}

fn roots(file: &Path) -> Result<RootCertStore, ClientError> {
    let pem = std::fs::read(file).map_err(ClientError::CaFile)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| ClientError::CaMalformed)?;
        roots.add(certificate).map_err(|_| ClientError::CaMalformed)?;
    }
    if roots.is_empty() { Err(ClientError::CaMalformed) } else { Ok(roots) }
}

/// TLS by ring, whatever else the process may have installed.
fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

/// A set of a hundred RSA keys with their certificates has less.
const SIZE_MAX: usize = 512 * 1024;
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(10);
