//! Answers that go on: a stream ends when what its caller was authenticated by is revoked, or ends by itself.
//!
//! Not here: the events of a lease. The lease table ends those, and its last event says why.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use valetkey_core::{Call, Clock};

use crate::status;

/// A body that ends with a status when its caller no longer counts.
struct Cut {
    /// `None` once it has ended.
    body: Option<Body>,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Has an answer end with its caller.
pub(super) fn cut(body: Body, call: Arc<Call>, clock: Arc<dyn Clock>) -> Body {
    let over = Box::pin(async move {
        let ends = async {
            match call.expires() {
                Some(end) => clock.sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = call.revoked() => {}
            () = ends => {}
        }
    });
    Body::new(Cut { body: Some(body), over })
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
        if frame.is_ready() || self.over.as_mut().poll(context).is_pending() {
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

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use valetkey_core::testing::{self, FakeClock};
    use valetkey_core::{Credential, Identity};

    /// A body that goes on.
    struct Open;

    impl HttpBody for Open {
        type Data = <Body as HttpBody>::Data;
        type Error = <Body as HttpBody>::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_its_caller_showed() {
        let clock = FakeClock::default();
        let body = |credential: &Credential| {
            let person = testing::call(Identity::Person(testing::person("ana"))).as_ref().clone();
            let call = Call { credential: credential.clone(), ..person };
            cut(Body::new(Open), Arc::new(call), Arc::new(clock.clone()))
        };
        let ended = |body: &mut Body| {
            let frame = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
            matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers())
        };
        let end = clock.monotonic() + Duration::from_secs(60);
        let (forever, short) = (Credential::new("a", None), Credential::new("b", Some(end)));
        let (mut one, mut other) = (body(&forever), body(&short));
        assert!(!ended(&mut one) && !ended(&mut other));
        clock.advance(Duration::from_secs(60));
        assert!(!ended(&mut one) && ended(&mut other), "at the end of its credential");
        forever.revoke();
        assert!(ended(&mut one));
    }
}
