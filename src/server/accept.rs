//! Binding, the accept loop, and the orderly end.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{App, ServerParts};
use super::connection::{Connection, Limits, Serving};
use super::crowd::{Crowd, Seat};
use super::handshake::{Begun, begin};
use super::metrics::Metrics;
use super::{ServerError, router, socket};
use crate::config::Config;
use crate::keys::Tls;
use crate::registry::Registry;

/// Requests under way have so long to end when the server closes.
const DRAIN: Duration = Duration::from_secs(5);
/// Accepting pauses so long after an error that concerns the process (no descriptor left), instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle uploads are looked after.
const TEND: Duration = Duration::from_secs(15);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1_024;
/// The kernel takes so much of an answer beyond what it can send at once: else it is megabytes for each client that
/// reads slowly, and half of that must be taken before it shows that one reads at all.
const UNSENT_BYTES: u32 = 256 * 1024;

/// Makes servers.
pub struct Server;

impl Server {
    /// Listens on the configured address and on the local socket; nothing is answered until [`Bound::serve`].
    ///
    /// # Errors
    /// [`ServerError`] when one of the two can't be listened on.
    pub async fn bind(config: &Config, parts: ServerParts) -> Result<Bound, ServerError> {
        let tcp = listen(config.listen)?;
        let address =
            tcp.local_addr().map_err(|source| ServerError::Listen { listen: config.listen, source })?;
        let config = Config { listen: address, ..config.clone() };
        let (local, socket_path) = socket::listen(&config.root).await?;
        let crowd = Crowd::new(config.limits.connections, config.limits.per_address_connections);
        let limits = Limits::of(&config.limits);
        let closing = CancellationToken::new();
        let (registry, tls) = (parts.registry.clone(), parts.tls.clone());
        let metrics = Metrics::new();
        metrics.attend(crowd.clone());
        let app = App::new(config, parts, metrics, closing.clone());
        let ending = CancellationToken::new();
        let serving = Serving { router: router::router(&app), limits, closing, ending };
        Ok(Bound { tcp, local, socket_path, address, serving, crowd, registry, tls })
    }
}

/// Listens on a TCP address.
fn listen(listen: SocketAddr) -> Result<TcpListener, ServerError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortInUse { listen },
        _ => ServerError::Listen { listen, source },
    };
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    // A port in TIME_WAIT after a restart is taken again; one that somebody listens on is not.
    socket.set_reuseaddr(true).map_err(failed)?;
    // What is accepted has it from here.
    if let Err(error) = SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "connections are served without TCP_NOTSENT_LOWAT");
    }
    socket.bind(listen).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)
}

/// A server that listens.
pub struct Bound {
    tcp: TcpListener,
    local: UnixListener,
    socket_path: PathBuf,
    address: SocketAddr,
    serving: Serving,
    crowd: Crowd,
    registry: Registry,
    tls: Option<Tls>,
}

impl Bound {
    /// The TCP address, with the port that was really taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The local socket.
    #[must_use]
    pub fn socket_path(&self) -> &std::path::Path {
        &self.socket_path
    }

    /// Answers until `shutdown` resolves; then lets requests under way end (5 s at most), puts uploads aside, and
    /// removes the local socket.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { tcp, local, socket_path, address: _, serving, crowd, registry, tls } = self;
        let connections = TaskTracker::new();
        let loops = TaskTracker::new();
        loops.spawn(accept_tcp(tcp, tls, serving.clone(), crowd.clone(), connections.clone()));
        loops.spawn(accept_local(local, serving.clone(), crowd, connections.clone()));
        loops.spawn(tend(registry.clone(), serving.closing.clone()));
        loops.close();
        shutdown.await;
        serving.closing.cancel();
        loops.wait().await;
        // Gone before the drain: who connects now is told so by the system.
        if let Err(error) = fs_err::remove_file(&socket_path) {
            tracing::debug!(%error, "the local socket was gone already");
        }
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests were cut off at the end of the drain");
            serving.ending.cancel();
            connections.wait().await;
        }
        registry.close().await;
    }
}

/// Accepts over TCP until the server closes.
pub(super) async fn accept_tcp(
    listener: TcpListener,
    tls: Option<Tls>,
    serving: Serving,
    crowd: Crowd,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.closing.cancelled() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(entered) = enter(&crowd, Some(remote.ip()), &serving).await else { return };
        let Some(seat) = entered else {
            tracing::debug!(%remote, "a connection is closed, as its address has its share");
            continue;
        };
        let local = stream.local_addr().ok();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is served without TCP_NODELAY");
        }
        let (serving, tls) = (serving.clone(), tls.clone());
        connections.spawn(async move {
            let connection = Connection::Tcp { remote, local, tls: tls.is_some() };
            match tls {
                None => serving.http1(stream, connection, seat).await,
                Some(tls) => serve_tls(stream, &tls, &serving, connection, seat).await,
            }
        });
    }
}

/// Agrees on TLS and serves what was agreed on. The place is taken since the connection was accepted.
async fn serve_tls(stream: TcpStream, tls: &Tls, serving: &Serving, connection: Connection, seat: Seat) {
    let begun = tokio::select! {
        begun = begin(stream, tls, serving.limits.handshake) => begun,
        () = seat.dismissed() => return,
        () = serving.closing.cancelled() => return,
    };
    match begun {
        Ok(Begun::Http2(stream)) => serving.http2(stream, connection, seat).await,
        Ok(Begun::Http1(stream)) => serving.http1(stream, connection, seat).await,
        Ok(Begun::Ended) => {}
        Err(error) => tracing::debug!(?connection, %error, "no TLS was agreed on"),
    }
}

async fn accept_local(listener: UnixListener, serving: Serving, crowd: Crowd, connections: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.closing.cancelled() => return,
        };
        let (stream, credentials) = match accepted.and_then(|(stream, _)| {
            let credentials = stream.peer_cred()?;
            Ok((stream, credentials))
        }) {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(entered) = enter(&crowd, None, &serving).await else { return };
        let Some(seat) = entered else { continue };
        let connection = Connection::Local { uid: credentials.uid(), gid: credentials.gid() };
        let serving = serving.clone();
        connections.spawn(async move { serving.http1(stream, connection, seat).await });
    }
}

/// A place for one more connection, if it may have one; `None` when the server closes.
async fn enter(crowd: &Crowd, peer: Option<IpAddr>, serving: &Serving) -> Option<Option<Seat>> {
    tokio::select! {
        seat = crowd.enter(peer) => Some(seat),
        () = serving.closing.cancelled() => None,
    }
}

/// Waits after an error of the process; one of the connection alone is nothing.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "accepting connections pauses");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn tend(registry: Registry, closing: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TEND) => registry.tend().await,
            () = closing.cancelled() => return,
        }
    }
}
