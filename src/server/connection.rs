//! One connection: HTTP/1.1 with deadlines, over whatever carries it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

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
    pub(super) async fn http1<I>(&self, stream: I, connection: Connection)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(connection);
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(served);
        let mut asked_to_close = false;
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
                () = self.ending.cancelled() => return,
            }
        }
    }
}
