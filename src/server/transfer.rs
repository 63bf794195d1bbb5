//! Bodies on their way: what a client sends has to keep coming, and what it gets keeps its connection at work until it
//! has been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::crowd::AtWork;
use super::pace::{Held, Pace, too_slow};
use super::streams::Watch;

/// What shares a connection with others is sent in pieces of this size, so that progress is seen soon.
const SHARED_PIECE_BYTES: usize = 64 * 1024;

/// The body of a request.
pub(super) struct Receiving {
    body: Incoming,
    pace: Pace,
}

impl Receiving {
    pub(super) fn new(body: Incoming, stall: Duration) -> Self {
        Self { body, pace: Pace::new(stall) }
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(context);
        match outcome {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    self.pace.moved(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => self.pace.poll_too_slow(context).map(|()| Some(Err(too_slow().into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer.
pub(super) struct Sending {
    body: axum::body::Body,
    /// What is left of a piece that is sent in parts.
    rest: Bytes,
    held: Option<Arc<Held>>,
    watch: Option<Arc<Watch>>,
    _at_work: AtWork,
}

/// Bytes that count as held, and as not yet taken, until the connection has sent the last of them.
struct Part {
    bytes: Bytes,
    _held: Option<Arc<Held>>,
    watch: Option<Arc<Watch>>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.taken();
        }
    }
}

impl Sending {
    /// `watch` is told of each piece where the answer shares its connection with others.
    pub(super) fn new(body: axum::body::Body, watch: Option<Arc<Watch>>, at_work: AtWork) -> Self {
        Self { body, rest: Bytes::new(), held: None, watch, _at_work: at_work }
    }

    /// The next part of the piece that is being sent.
    fn part(&mut self) -> Frame<Bytes> {
        let bytes = match &self.watch {
            Some(watch) => {
                watch.given();
                self.rest.split_to(self.rest.len().min(SHARED_PIECE_BYTES))
            }
            None => std::mem::take(&mut self.rest),
        };
        let held = if self.rest.is_empty() { self.held.take() } else { self.held.clone() };
        Frame::data(Bytes::from_owner(Part { bytes, _held: held, watch: self.watch.clone() }))
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.part())));
        }
        let outcome = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = outcome else { return outcome };
        let Ok(piece) = frame.into_data().map_err(drop) else { return Poll::Ready(None) };
        self.held = Some(Arc::new(Held::new(piece.len())));
        self.rest = piece;
        Poll::Ready(Some(Ok(self.part())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
