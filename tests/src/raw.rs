//! gRPC by hand over HTTP/2: for calls that no generated client would make.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode, header};
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Status;

/// A connection that speaks HTTP/2 and leaves gRPC to the test.
pub struct Raw {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

/// A call before it is sent.
#[derive(Clone, Default)]
pub struct RawCall {
    /// Such as `/valetkey.v1.LeaseService/RedeemHandle`.
    pub path: String,
    /// `authorization`, where one is sent.
    pub authorization: Option<String>,
    /// Headers in place of or beside the usual ones.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// What is sent, frames and all.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    /// Of HTTP.
    pub http: StatusCode,
    /// Headers and trailers together.
    pub headers: HeaderMap,
    /// Frames and all.
    pub body: Vec<u8>,
}

impl Raw {
    /// Connects; `window` is how many bytes the broker may send on each stream before they are read.
    ///
    /// # Errors
    /// Where it cannot connect.
    pub async fn connect(address: SocketAddr, window: u32) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let (requests, connection) =
            h2::client::Builder::new().initial_window_size(window).handshake(socket).await?;
        let driver = tokio::spawn(async move {
            // How the connection ended is seen by the calls on it.
            let _ = connection.await;
        });
        Ok(Self { requests, driver })
    }

    /// Sends a call and does not wait. The stream is open until both are dropped.
    ///
    /// # Errors
    /// Where the connection does not take it.
    pub async fn send(&mut self, call: RawCall) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        self.begin(call, true).await
    }

    /// The same; unless it `ends`, more may come, or never comes.
    ///
    /// # Errors
    /// Where the connection does not take it.
    pub async fn begin(&mut self, call: RawCall, ends: bool) -> Result<(ResponseFuture, SendStream<Bytes>)> {
        let RawCall { path, authorization, headers, body } = call;
        let mut request = Request::post(format!("http://broker{path}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut request = request.body(())?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value.try_into()?);
        }
        std::future::poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (response, mut stream) = self.requests.send_request(request, false)?;
        stream.send_data(body.into(), ends)?;
        Ok((response, stream))
    }

    /// Sends a call and waits for the whole answer, at most ten seconds.
    ///
    /// # Errors
    /// Where the stream or the connection fails instead.
    pub async fn call(&mut self, call: RawCall) -> Result<RawAnswer> {
        let (response, _stream) = self.send(call).await?;
        tokio::time::timeout(WAIT_MAX, read(response)).await.context("no answer")?
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RawCall {
    /// A call of one message.
    #[must_use]
    pub fn new(path: &str, token: Option<&str>, message: &impl prost::Message) -> Self {
        Self {
            path: path.to_owned(),
            authorization: token.map(|token| format!("Bearer {token}")),
            headers: Vec::new(),
            body: frame(&message.encode_to_vec()),
        }
    }

    /// With another body.
    #[must_use]
    pub fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// With another header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl RawAnswer {
    /// The status of gRPC; `Unknown` where there is none.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from_header_map(&self.headers).unwrap_or_else(|| Status::unknown("no grpc-status"))
    }
}

/// The message in its frame, not compressed.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(message);
    frame
}

async fn read(response: ResponseFuture) -> Result<RawAnswer> {
    let (parts, mut stream): (_, RecvStream) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        stream.flow_control().release_capacity(bytes.len())?;
        body.extend(bytes);
    }
    let mut headers = parts.headers;
    headers.extend(stream.trailers().await?.unwrap_or_default());
    Ok(RawAnswer { http: parts.status, headers, body })
}

const WAIT_MAX: Duration = Duration::from_secs(10);
