//! Answers that go on: a stream ends when what its caller was authenticated by is revoked.
//!
//! Not here: the events of a lease. The lease table ends those, and its last event says why.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use valetkey_core::Call;

use crate::status;

/// A body that ends with a status when its caller is revoked.
struct Cut {
    /// `None` once it has ended.
    body: Option<Body>,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Has an answer end with its caller.
pub(super) fn cut(body: Body, call: Arc<Call>) -> Body {
    let revoked = Box::pin(async move { call.revoked().await });
    Body::new(Cut { body: Some(body), revoked })
}

impl HttpBody for Cut {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if frame.is_ready() || self.revoked.as_mut().poll(context).is_pending() {
            return frame;
        }
        self.body = None;
        let mut trailers = http::HeaderMap::new();
        match status::unauthenticated().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
