//! The connection: where a token may travel, and how a dead peer is noticed.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::secret::Token;

/// A connection that says who calls.
pub(crate) type Identified = InterceptedService<Channel, Authorization>;

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Authorization(MetadataValue<Ascii>);

/// There is no connection to the broker.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none.
    #[error("`{0}` is no address of a broker; it looks like `http://127.0.0.1:7447`")]
    BadAddress(String),
    /// The address asks for what this version cannot do.
    #[error("`{0}` asks for TLS, which this version does not speak; reach the broker over loopback")]
    TlsUnsupported(String),
    /// The token would travel in clear text.
    #[error(
        "`{0}` is not a loopback address, and a token never travels in clear text; reach the broker over loopback"
    )]
    NotLoopback(String),
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
pub(crate) async fn connect(address: &str, token: Token) -> Result<Identified, ConnectError> {
    let channel = endpoint(address)?
        .connect()
        .await
        .map_err(|error| ConnectError::Unavailable { address: address.to_owned(), source: error.into() })?;
    Ok(InterceptedService::new(channel, Authorization(token.into_authorization())))
}

fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::BadAddress(printable(address));
    let uri: Uri = address.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?;
    // Credentials, a path or a query would be dropped in silence.
    if uri.path() != "/" || uri.query().is_some() || uri.authority().is_none_or(|a| a.as_str().contains('@'))
    {
        return Err(bad());
    }
    match uri.scheme_str() {
        Some("http") if is_loopback(host) => {}
        Some("http") => return Err(ConnectError::NotLoopback(printable(address))),
        Some("https") => return Err(ConnectError::TlsUnsupported(printable(address))),
        _ => return Err(bad()),
    }
    let endpoint = Endpoint::new(uri)
        .and_then(|endpoint| endpoint.user_agent(concat!("valetkey-client/", env!("CARGO_PKG_VERSION"))));
    Ok(endpoint
        .map_err(|_| bad())?
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_MAX)
        .keep_alive_while_idle(true))
}

/// `localhost` counts: resolvers must answer it with loopback (RFC 6761, section 6.3).
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address may hold a password before its `@`, and a broken one may hold anything.
fn printable(address: &str) -> String {
    let shown = address.rsplit('@').next().unwrap_or_default();
    shown.chars().filter(|c| !c.is_control()).take(128).collect()
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A broker that vanished without a word is noticed after these two together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in
            ["http://127.0.0.1:7447", "http://localhost:7447/", "http://[::1]:1", "http://127.9.9.9:1"]
        {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("", "is no address"),
            ("127.0.0.1:7447", "is no address"),
            ("ftp://127.0.0.1", "is no address"),
            ("http://127.0.0.1:7447/path", "is no address"),
            ("http://user:hunter2@127.0.0.1:7447", "is no address"),
            ("http://10.0.0.1:7447", "clear text"),
            ("http://127.0.0.1.example.com:7447", "clear text"),
            ("http://localhost.example.com", "clear text"),
            ("https://broker.example.com", "TLS"),
        ] {
            let message = endpoint(bad).map(drop).unwrap_err().to_string();
            assert!(message.contains(says), "{bad}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[tokio::test]
    async fn nobody_answers() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = connect(&address, Token::parse("vkt_a").ok().unwrap()).await.map(drop).unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }));
    }
}
