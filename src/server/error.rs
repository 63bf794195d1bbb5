//! Why the server can't start.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another program listens there.
    #[error("another program already listens on {listen}")]
    PortInUse {
        /// The address that was configured.
        listen: SocketAddr,
    },
    /// The address can't be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address that was configured.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another Pantry answers on the local socket.
    #[error("another Pantry answers on {}", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path of the local socket is longer than the system takes.
    #[error("the path of the local socket, {}, is longer than {cap} bytes", path.display())]
    SocketPathTooLong {
        /// The socket.
        path: PathBuf,
        /// The most that the system takes.
        cap: usize,
    },
    /// The local socket can't be made.
    #[error("cannot make the local socket {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl ServerError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PortInUse { .. } => "port_in_use",
            Self::Listen { .. } => "listen_failed",
            Self::SocketInUse { .. } => "root_in_use",
            Self::SocketPathTooLong { .. } => "socket_path_too_long",
            Self::Socket { .. } => "socket_failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PortInUse { .. } => {
                "stop that program, or choose another address with --listen or `listen:`".to_owned()
            }
            Self::Listen { .. } => "choose an address of this machine with --listen or `listen:`".to_owned(),
            Self::SocketInUse { .. } => "stop it, or choose another folder with --root".to_owned(),
            Self::SocketPathTooLong { .. } => "choose a folder with a shorter path with --root".to_owned(),
            Self::Socket { .. } => "look whether the folder belongs to the user that runs Pantry".to_owned(),
        })
    }
}
