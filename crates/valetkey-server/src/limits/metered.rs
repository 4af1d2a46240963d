//! A request's body, counted while its call has no answer: what is sent half and held back is somebody's.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;

use super::{Exceeded, Held};

/// What came of one call so far. Clones count the same.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Mutex<Counted>>);

struct Counted {
    /// `None` once the call is answered: what comes after that is read as it comes.
    held: Option<Held>,
    exceeded: Option<Exceeded>,
}

struct Metered {
    inner: Body,
    meter: Meter,
}

/// The body, and what counts it.
pub(crate) fn metered(inner: Body, held: Held) -> (Body, Meter) {
    let meter = Meter(Arc::new(Mutex::new(Counted { held: Some(held), exceeded: None })));
    (Body::new(Metered { inner, meter: meter.clone() }), meter)
}

impl Meter {
    /// The call is answered; the bound that it went over, if it did.
    pub(crate) fn finish(&self) -> Option<Exceeded> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.held = None;
        counted.exceeded
    }

    fn count(&self, bytes: usize) -> Result<(), Status> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = &mut counted.held else { return Ok(()) };
        let Err(exceeded) = held.add(bytes) else { return Ok(()) };
        counted.exceeded = Some(exceeded);
        Err(Status::resource_exhausted("too many bytes of messages"))
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.meter.count(data.len())?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
