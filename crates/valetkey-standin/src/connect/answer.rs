//! Answers, and the ways in which they go wrong.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// How a [`crate::ConnectServer`] fails.
#[derive(Debug, Clone)]
pub enum ConnectFault {
    /// This status, with an error body as published that has this message.
    Status(u16, &'static str),
    /// Status 429, with this `Retry-After` where there is one.
    RateLimit(Option<&'static str>),
    /// This status and this body, which need not be one of Connect's, of a length that is not announced.
    Plain(u16, String),
    /// An error body whose message repeats the token of the request.
    EchoToken(u16),
    /// A redirect to this address.
    Redirect(String),
    /// No answer, ever.
    Hang,
    /// The right answer, cut in the middle.
    Cut,
    /// The head of the right answer, and never its end.
    Stall,
    /// A body without an end.
    Endless,
}

impl ConnectFault {
    /// The answer to a request with this token that would have had a `normal` answer.
    pub(super) async fn answer(self, token: &str, normal: Response<Answer>) -> Response<Answer> {
        match self {
            Self::Status(status, message) => error(status, message),
            Self::RateLimit(after) => {
                let answer = error(429, "too many requests");
                match after {
                    Some(after) => with(answer, RETRY_AFTER, after),
                    None => answer,
                }
            }
            Self::Plain(status, body) => full(status, body).map(Answer::unannounced),
            Self::EchoToken(status) => error(status, &format!("bad token Bearer {token}")),
            Self::Redirect(to) => with(full(302, ""), LOCATION, &to),
            Self::Hang => pending().await,
            Self::Cut => normal.map(|answer| answer.half(false)),
            Self::Stall => normal.map(|answer| answer.half(true)),
            Self::Endless => Response::new(Answer::Endless),
        }
    }
}

/// A body.
pub(super) enum Answer {
    /// Sent as it is.
    Full(Option<Bytes>),
    /// Sent in chunks, without its length.
    Chunked(Option<Bytes>),
    /// Some of a body of this length; then nothing more, or the connection's end.
    Half { part: Option<Bytes>, length: u64, stalls: bool },
    /// Blanks, for ever.
    Endless,
}

impl Answer {
    fn unannounced(self) -> Self {
        if let Self::Full(body) = self { Self::Chunked(body) } else { self }
    }

    fn half(self, stalls: bool) -> Self {
        let Self::Full(Some(body)) = self else { return self };
        let length = body.len() as u64;
        Self::Half { part: Some(body.slice(..body.len() / 2)), length, stalls }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Full(body) | Self::Chunked(body) => {
                Poll::Ready(body.take().map(|body| Ok(Frame::data(body))))
            }
            Self::Half { part, length: _, stalls } => match part.take() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
                None if *stalls => Poll::Pending,
                None => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
            },
            Self::Endless => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1 << 14]))))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Self::Half { part: _, length, stalls: _ } => SizeHint::with_exact(*length),
            Self::Chunked(_) | Self::Endless => SizeHint::default(),
        }
    }
}

/// An `ErrorResponse` as published.
pub(super) fn error(status: u16, message: &str) -> Response<Answer> {
    json(status, &json!({"status": status, "message": message}))
}

/// A status and JSON.
pub(super) fn json(status: u16, value: &Value) -> Response<Answer> {
    with(full(status, value.to_string()), CONTENT_TYPE, "application/json; charset=utf-8")
}

/// A status and a whole body.
pub(super) fn full(status: u16, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::Full(Some(body.into())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn with(mut response: Response<Answer>, name: HeaderName, value: &str) -> Response<Answer> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
