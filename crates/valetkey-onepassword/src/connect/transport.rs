//! Questions and answers over HTTP: to one host, bounded in size, time and number.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::options::{ConnectError, ConnectOptions, ConnectToken, ConnectTokenSource};

/// The way to one server.
pub(super) struct Transport {
    client: Client,
    /// The address without the slash at its end.
    base: String,
    token: ConnectTokenSource,
    /// A question waits for one of these.
    slots: Semaphore,
    timeout: Duration,
}

/// A complete answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// As the server wrote it, where it is in seconds.
    pub(super) retry_after: Option<Duration>,
    /// Of an error: empty where it is over its bound.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// What was sent.
    pub(super) token: ConnectToken,
}

/// Why there is no complete answer.
pub(super) enum Failure {
    /// The body is over its bound.
    TooLarge,
    /// There is no token to send.
    Token(ConnectError),
    /// Nobody took the connection: nothing was sent.
    Unreachable(String),
    /// Everything else, in words that have nothing of the answer's body in them.
    Broken(String),
}

impl Transport {
    pub(super) fn new(options: ConnectOptions) -> Result<Self, ConnectError> {
        let ConnectOptions { host, token, ca_file, timeout } = options;
        let url = address(&host)?;
        let is_tls = url.scheme() == "https";
        // Without TLS nobody is trusted, and a system without authorities is no hindrance.
        let tls = if is_tls { trust(ca_file.as_deref())? } else { rooted(RootCertStore::empty())? };
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(is_tls)
            .http1_only()
            // A redirect or a proxy would take the token to somebody whom nobody named.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // No name server is asked where this machine is.
            .resolve_to_addrs("localhost", &loopback.map(|ip| SocketAddr::new(ip, 0)))
            .connect_timeout(timeout.min(CONNECT_TIMEOUT))
            .pool_max_idle_per_host(REQUESTS_MAX)
            .user_agent(concat!("valetkey/", env!("CARGO_PKG_VERSION")));
        let client = builder.build().map_err(|error| ConnectError::Client(error.into()))?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, token, slots: Semaphore::new(REQUESTS_MAX), timeout })
    }

    /// Asks for a path, whose parts are checked. A successful body has at most `max` bytes.
    pub(super) async fn fetch(&self, path: &str, max: usize) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.ask(path, max)).await;
        answer.unwrap_or_else(|_| Err(Failure::Broken(format!("no answer within {:?}", self.timeout))))
    }

    async fn ask(&self, path: &str, max: usize) -> Result<Answer, Failure> {
        let _slot = self.slots.acquire().await.map_err(|closed| Failure::Broken(closed.to_string()))?;
        let token = self.token.read().map_err(Failure::Token)?;
        let request = self.client.get(format!("{}{path}", self.base));
        let request = request.header(AUTHORIZATION, token.header()).header(ACCEPT, "*/*");
        let response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let retry_after = seconds(response.headers());
        if status == 200 {
            let body = body(response, max).await?;
            return Ok(Answer { status, retry_after, body, token });
        }
        let body = match body(response, ERROR_MAX).await {
            Err(Failure::TooLarge) => Zeroizing::default(),
            body => body?,
        };
        Ok(Answer { status, retry_after, body, token })
    }
}

/// Reads a body into wiped memory, up to a bound.
async fn body(mut response: Response, max: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if response.headers().contains_key(CONTENT_ENCODING) {
        return Err(Failure::Broken("the answer is compressed, which nobody asked for".into()));
    }
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    if announced.is_some_and(|length| length > max) {
        return Err(Failure::TooLarge);
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(BODY_ROOM).min(max)));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if chunk.len() > max.saturating_sub(body.len()) {
            return Err(Failure::TooLarge);
        }
        append(&mut body, &chunk);
    }
    Ok(body)
}

/// A vector that grows leaves its old memory unwiped; this one's is wiped.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len().saturating_add(chunk.len());
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(body.capacity().saturating_mul(2))));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

/// The address of a server whom the token may be sent to.
fn address(host: &str) -> Result<Url, ConnectError> {
    let url = Url::parse(host.trim()).map_err(|_| ConnectError::HostMalformed("is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConnectError::HostMalformed("has a user or a password in it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ConnectError::HostMalformed("has a query or a fragment in it"));
    }
    let name = url.host_str().unwrap_or_default().to_owned();
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&name) => Ok(url),
        "http" => Err(ConnectError::HostInClear { host: name }),
        _ => Err(ConnectError::HostMalformed("is neither `https` nor `http`")),
    }
}

fn is_loopback(name: &str) -> bool {
    let ip = name.trim_matches(['[', ']']).parse::<IpAddr>();
    name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Trusts the authorities of a file, or the system's.
fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, ConnectError> {
    let Some(path) = ca_file else {
        let verifier = builder()?.with_platform_verifier().map_err(ConnectError::SystemRoots)?;
        return Ok(verifier.with_no_client_auth());
    };
    let in_reading = |source| ConnectError::CaFile { path: path.into(), source };
    let mut pem = Vec::new();
    let file = File::open(path).map_err(in_reading)?;
    file.take(CA_FILE_MAX).read_to_end(&mut pem).map_err(in_reading)?;
    let malformed = || ConnectError::CaMalformed { path: path.into() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| malformed())?).map_err(|_| malformed())?;
    }
    if roots.is_empty() {
        return Err(malformed());
    }
    rooted(roots)
}

fn rooted(roots: RootCertStore) -> Result<ClientConfig, ConnectError> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

/// TLS by ring, whatever else the process may have installed.
fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, ConnectError> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Client(error.into()))
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The whole chain of a failure, without the address and what came back.
fn broken(error: reqwest::Error) -> Failure {
    let is_unsent = error.is_connect();
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    if is_unsent { Failure::Unreachable(text) } else { Failure::Broken(text) }
}

/// To one server at a time; more wait for their turn.
const REQUESTS_MAX: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an error's body, in bytes.
const ERROR_MAX: usize = 16 << 10;
const CA_FILE_MAX: u64 = 1 << 20;
/// For a body that does not say how long it is.
const BODY_ROOM: usize = 64 << 10;
