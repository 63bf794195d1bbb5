//! Where a registry answers, and how it wants to be spoken to.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

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
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match trust {
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
            Trust::File(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path)? {
                    roots.add(certificate?)?;
                }
                ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        };
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
        let mut stream = TcpStream::connect(self.address)
            .with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Wire::Plain(stream)) };
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let mut session = ClientConnection::new(Arc::clone(config), name)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(Wire::Tls(Box::new(StreamOwned::new(session, stream))))
    }
}

/// A connection, plain or not.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
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

/// Believes every certificate, but checks that its key signed.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
