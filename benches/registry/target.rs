//! Where a registry answers, and how it wants to be spoken to.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;

use crate::tls_client::{Tls, believing, believing_anybody, handshake};

/// An address, and what each request to it carries.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// As it stands in `Host`.
    host: String,
    authorization: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

/// Whom a client of TLS believes.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The authorities, or the very certificate, in this file.
    File(&'a Path),
    /// Whoever answers: only on a machine of one's own.
    Anybody,
}

impl Target {
    /// Plain HTTP, without credentials.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), authorization: None, tls: None }
    }

    /// `http://HOST:PORT`, `https://HOST:PORT`, or without a scheme, which means plain.
    pub fn parse(url: &str, trust: Trust<'_>) -> anyhow::Result<Self> {
        let secure = url.starts_with("https://");
        let host = url.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let address = host.to_socket_addrs()?.next().context("the name has no address")?;
        let plain = Self { host: host.to_owned(), ..Self::plain(address) };
        if secure { plain.with_tls(trust) } else { Ok(plain) }
    }

    /// The same with this in `Authorization`.
    pub fn authorized(self, value: impl Into<String>) -> Self {
        Self { authorization: Some(value.into()), ..self }
    }

    /// The same over TLS.
    pub fn with_tls(self, trust: Trust<'_>) -> anyhow::Result<Self> {
        let client = match trust {
            Trust::Anybody => believing_anybody()?,
            Trust::File(path) => {
                let pem = fs_err::read(path)?;
                believing(&pem).with_context(|| format!("cannot believe {}", path.display()))?
            }
        };
        let config = client.with_no_client_auth();
        Ok(Self { tls: Some(Arc::new(config)), ..self })
    }

    /// The head of a request: its line and what every request to this target carries, without the empty line.
    pub fn head(&self, line: &str) -> String {
        let mut head = format!("{line} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(authorization) = &self.authorization {
            head.extend(["Authorization: ", authorization, "\r\n"]);
        }
        head
    }

    /// Connects, with the handshake done.
    pub fn connect(&self) -> anyhow::Result<Wire> {
        let stream = TcpStream::connect(self.address)
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Wire::Plain(stream)) };
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let stream = handshake(Arc::clone(config), name.trim_matches(['[', ']']), stream)?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// A connection, plain or not.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// From here on a call that would wait fails instead.
    pub fn set_nonblocking(&self) -> std::io::Result<()> {
        self.socket().set_nonblocking(true)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write_vectored(pieces),
            Self::Tls(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
