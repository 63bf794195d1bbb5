//! One connection: HTTP/1.1 or HTTP/2 with deadlines and bounds, over whatever carries it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::crowd::Seat;
use super::pace::Paced;
use super::share::{Holder, Part};
use super::streams::{Streams, Watch};
use super::transfer::{Receiving, Sending};
use crate::config::LimitsConfig;

/// A request may have so many header lines.
pub(super) const MAX_HEADERS: usize = 100;
/// All header lines of a request together, over HTTP/2 as they are when unpacked.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Buffered for one connection at most; also the piece in which bodies are read.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// What a client may send on one stream before it is read, and on all streams of a connection together.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// A frame of a body has so many bytes at most.
const FRAME_BYTES: u32 = 64 * 1024;
/// Streams that a client opened and reset before they were looked at; more end the connection (CVE-2023-44487).
const PENDING_RESETS: usize = 32;
/// Streams that we reset for the client's errors; more end the connection (CVE-2025-8671).
const ERROR_RESETS: usize = 128;
/// Another sign of life is asked for after this, and must come within the same time.
const PING: Duration = Duration::from_secs(20);
/// Who is asked to leave has so long to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a request came from; in the extensions of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Connection {
    /// The network.
    Tcp {
        /// The other end.
        remote: SocketAddr,
        /// The address of ours that it came to.
        local: Option<SocketAddr>,
        /// Whether it is encrypted, so that this server's own addresses begin with `https://`.
        tls: bool,
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
        matches!(self, Self::Local { .. } | Self::Tcp { tls: true, .. })
    }
}

/// How long things may take on a connection, and how much of it there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header: Duration,
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
    pub(super) stall: Duration,
    pub(super) streams: u32,
    /// What one address may have of what all share, as of the connections.
    pub(super) part: Part,
}

impl Limits {
    pub(super) fn of(config: &LimitsConfig) -> Self {
        Self {
            header: Duration::from_millis(config.header_timeout_ms),
            handshake: Duration::from_millis(config.handshake_timeout_ms),
            idle: Duration::from_millis(config.idle_timeout_ms),
            stall: Duration::from_millis(config.stall_timeout_ms),
            streams: config.streams,
            part: Part { of_one: config.per_address_connections, of_all: config.connections },
        }
    }
}

/// What all connections of a server share.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) router: Router,
    pub(super) limits: Limits,
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
        let seat = Arc::new(seat);
        let stream = Paced::one_by_one(stream, &self.limits, seat.clone());
        let service = tower::service_fn(self.answering(connection, seat.clone()));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            // The stream measures it, as it can tell a header that has begun from one that nobody has sent.
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_BYTES as usize)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(served);
        self.attend(served, http1::Connection::graceful_shutdown, connection, &seat).await;
    }

    /// Serves HTTP/2 in the same way.
    pub(super) async fn http2<I>(&self, stream: I, connection: Connection, seat: Seat)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let seat = Arc::new(seat);
        let stream = Paced::shared(stream, &self.limits);
        let service = tower::service_fn(self.answering(connection, seat.clone()));
        let served = http2::Builder::new(Streams::new(self.limits.stall))
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_frame_size(FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(MAX_BUFFER_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(ERROR_RESETS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(served);
        self.attend(served, http2::Connection::graceful_shutdown, connection, &seat).await;
    }

    /// Brings a request to the router, and its answer back with what keeps an eye on it.
    fn answering(
        &self,
        connection: Connection,
        seat: Arc<Seat>,
    ) -> impl FnMut(Request<Incoming>) -> Answering + Clone + use<> {
        let (router, stall) = (self.router.clone(), self.limits.stall);
        let holder = Holder::new(&connection, self.limits.part);
        move |request: Request<Incoming>| {
            let at_work = seat.request();
            let mut request = request.map(|body| {
                if body.is_end_stream() {
                    axum::body::Body::empty()
                } else {
                    axum::body::Body::new(Receiving::new(body, stall))
                }
            });
            request.extensions_mut().insert(connection);
            let answer = holder.holds(router.clone().oneshot(request));
            Box::pin(async move {
                let watch = Watch::of_this_stream();
                Ok(answer.await?.map(|body| Sending::new(body, watch, at_work)))
            })
        }
    }

    /// Waits for the end of a connection; asks for it when the server closes, when somebody else needs the place, and
    /// when nothing was asked for a long time.
    async fn attend<C>(
        &self,
        mut served: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
        connection: Connection,
        seat: &Seat,
    ) where
        C: Future<Output = hyper::Result<()>>,
    {
        let (mut asked_to_close, mut dismissed) = (false, false);
        // Four looks in a row that see nothing going on are a whole idle time.
        let mut looks = tokio::time::interval(self.limits.idle / 4);
        let (mut quiet, mut begun) = (0, seat.begun());
        looks.tick().await;
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
                    end(served.as_mut());
                }
                () = seat.dismissed(), if !dismissed => {
                    dismissed = true;
                    if seat.is_idle() {
                        return;
                    }
                    // A request came in between: it is answered first.
                    end(served.as_mut());
                }
                _ = looks.tick() => {
                    let still = seat.is_idle() && seat.begun() == begun;
                    (quiet, begun) = (if still { quiet + 1 } else { 0 }, seat.begun());
                    if quiet > 4 {
                        end(served.as_mut());
                        let _left = tokio::time::timeout(FAREWELL, served.as_mut()).await;
                        return;
                    }
                }
                () = self.ending.cancelled() => return,
            }
        }
    }
}

type Answering =
    futures_util::future::BoxFuture<'static, Result<http::Response<Sending>, std::convert::Infallible>>;
