//! The connection: where a token may travel, who the other end is, and how a dead peer is noticed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;

use crate::address::Address;
use crate::credentials::{Credentials, CredentialsError, TlsFiles};
use crate::secret::Token;

/// A connection that says who calls.
pub(crate) type Identified = InterceptedService<Channel, Authorization>;

/// Adds the token to each call, where there is one, and that of the person whom it is for.
#[derive(Clone)]
pub(crate) struct Authorization {
    caller: Option<MetadataValue<Ascii>>,
    person: Option<MetadataValue<Ascii>>,
}

/// A connection, and who calls over it.
#[derive(Clone)]
pub(crate) struct Link {
    channel: Channel,
    authorization: Authorization,
}

impl Link {
    /// The connection for calls.
    pub(crate) fn identified(&self) -> Identified {
        InterceptedService::new(self.channel.clone(), self.authorization.clone())
    }

    /// The same, on behalf of a person.
    pub(crate) fn on_behalf_of(&self, person: Token) -> Self {
        let authorization = Authorization { person: Some(person.into_plain()), ..self.authorization.clone() };
        Self { channel: self.channel.clone(), authorization }
    }
}

/// There is no connection to the broker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    #[error(
        "`{0}` is no address of a broker; it looks like `https://broker.example.com:7447`, `http://127.0.0.1:7447` \
         or `unix:/run/valetkey/broker.sock`"
    )]
    BadAddress(String),
    /// The token would travel in clear text.
    #[error(
        "`{0}` is not a loopback address, and nothing travels there in clear text; use `https` and name the broker's \
         authority (`VALETKEY_CA`)"
    )]
    NotLoopback(String),
    /// A certificate that would not be shown.
    #[error(
        "`{0}` is reached without TLS, so the client certificate would not be shown; use `https`, or leave it out"
    )]
    CertificateUnused(String),
    /// The files of the client cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// One side does not accept the other's certificate, or they do not speak TLS with each other.
    #[error("no TLS with `{address}`; `valetkey doctor --connect` says which step fails")]
    Tls {
        /// The address.
        address: String,
        /// What TLS says.
        #[source]
        source: rustls::Error,
    },
    /// Nobody answers.
    #[error("no broker answers at `{address}`; is `valetkey serve` running there?")]
    Unavailable {
        /// The address.
        address: String,
        /// What the connection says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Connects, within [`CONNECT_MAX`].
pub(crate) async fn connect(address: &str, credentials: Credentials) -> Result<Link, ConnectError> {
    let Credentials { token, files } = credentials;
    let parsed = Address::parse(address)?;
    if files.certificate.is_some() && !matches!(parsed, Address::Tls { .. }) {
        return Err(ConnectError::CertificateUnused(crate::address::printable(address)));
    }
    let unavailable = |error: tonic::transport::Error| match tls_fault(&error) {
        Some(source) => ConnectError::Tls { address: address.to_owned(), source },
        None => ConnectError::Unavailable { address: address.to_owned(), source: error.into() },
    };
    let channel = match parsed {
        Address::Plain(uri) => endpoint(uri.into(), address)?.connect().await,
        Address::Unix(path) => {
            // The authority of requests; nobody looks at it.
            let endpoint = endpoint(Endpoint::from_static("http://localhost"), address)?;
            endpoint.connect_with_connector(service_fn(move |_| dial_unix(path.clone()))).await
        }
        Address::Tls { uri, host, port } => {
            // Faults of the files are said plainly, rather than as a connection that failed.
            files.load()?;
            let dial = Arc::new(Dial { host, port, files });
            let connector = service_fn(move |_| {
                let dial = Arc::clone(&dial);
                async move { dial.dial().await.map(TokioIo::new) }
            });
            endpoint(uri.into(), address)?.connect_with_connector(connector).await
        }
    };
    let caller = token.map(Token::into_authorization);
    Ok(Link { channel: channel.map_err(unavailable)?, authorization: Authorization { caller, person: None } })
}

/// How to reach a broker with TLS, again and again.
struct Dial {
    host: String,
    port: u16,
    files: TlsFiles,
}

impl Dial {
    async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let Self { host, port, files } = self;
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let config = Arc::new(files.load().map_err(io::Error::other)?);
        let socket = TcpStream::connect((host.as_str(), *port)).await?;
        socket.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, socket).await
    }
}

async fn dial_unix(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

/// What TLS says, where a failure is its.
pub(crate) fn tls_fault(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault.clone());
        }
        // An `io::Error` is its own source's place.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(fault.clone());
        }
        next = error.source();
    }
    None
}

fn endpoint(endpoint: Endpoint, address: &str) -> Result<Endpoint, ConnectError> {
    let endpoint = endpoint
        .user_agent(concat!("valetkey-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| ConnectError::BadAddress(crate::address::printable(address)))?;
    Ok(endpoint
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_MAX)
        .keep_alive_while_idle(true))
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Self { caller, person } = self;
        if let Some(caller) = caller {
            request.metadata_mut().insert("authorization", caller.clone());
        }
        if let Some(person) = person {
            request.metadata_mut().insert(ON_BEHALF_OF, person.clone());
        }
        Ok(request)
    }
}

/// The header for the signed token of the person that an agent acts for.
const ON_BEHALF_OF: &str = "x-valetkey-on-behalf-of";
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A broker that vanished without a word is noticed after these two together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_answers() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let token = Token::parse("vkt_a").ok().unwrap();
        let error = connect(&address, token.into()).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }));
        let error = connect("unix:/nowhere/at/all", Credentials::default()).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }));
    }

    #[tokio::test]
    async fn what_would_be_dropped_in_silence_is_refused() {
        let credentials = Credentials::default().certificate("c.pem", "k.pem");
        let error = connect("http://127.0.0.1:1", credentials).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::CertificateUnused(_)), "{error}");
        let error = connect("https://127.0.0.1:1", Credentials::default()).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("VALETKEY_CA"), "{error}");
    }
}
