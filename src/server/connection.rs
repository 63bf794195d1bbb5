//! One connection: HTTP/1.1 with deadlines, over whatever carries it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::crowd::{AtWork, Seat};

/// A request may have so many header lines.
const MAX_HEADERS: usize = 100;
/// Buffered for one connection at most; also the piece in which bodies are read.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// Where a request came from; in the extensions of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connection {
    /// The network.
    Tcp {
        /// The other end.
        remote: SocketAddr,
        /// The address of ours that it came to.
        local: Option<SocketAddr>,
    },
    /// The local socket.
    Local {
        /// The user of the process at the other end.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Connection {
    /// Whether nobody between the two ends can read along.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Self::Local { .. })
    }
}

/// What all connections of a server share.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) header_timeout: Duration,
    /// No new request is taken on a connection after this.
    pub(super) closing: CancellationToken,
    /// Everything ends here, also in the middle of a body.
    pub(super) ending: CancellationToken,
}

impl Serving {
    /// Serves HTTP/1.1 until the other end leaves or the server closes.
    ///
    /// The protocol is not sniffed: where TLS is spoken, it is what was agreed on there (ALPN), and that is decided
    /// by the caller; without TLS it is HTTP/1.1.
    pub(super) async fn http1<I>(&self, stream: I, connection: Connection, seat: Seat)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let seat = Arc::new(seat);
        let own = seat.clone();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            let at_work = seat.request();
            request.extensions_mut().insert(connection);
            let answer = router.clone().oneshot(request.map(axum::body::Body::new));
            answer.map_ok(move |answer| answer.map(|body| Sending { body, _at_work: at_work }))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(served);
        let (mut asked_to_close, mut dismissed) = (false, false);
        loop {
            tokio::select! {
                outcome = &mut served => {
                    if let Err(error) = outcome {
                        tracing::debug!(?connection, %error, "a connection ended early");
                    }
                    return;
                }
                () = self.closing.cancelled(), if !asked_to_close => {
                    asked_to_close = true;
                    served.as_mut().graceful_shutdown();
                }
                () = own.dismissed(), if !dismissed => {
                    dismissed = true;
                    if own.is_idle() {
                        return;
                    }
                    // A request came in between: it is answered first.
                    served.as_mut().graceful_shutdown();
                }
                () = self.ending.cancelled() => return,
            }
        }
    }
}

/// The body of an answer, which keeps its connection at work until it has been sent.
struct Sending {
    body: axum::body::Body,
    _at_work: AtWork,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
