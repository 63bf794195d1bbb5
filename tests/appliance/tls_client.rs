//! A client's side of TLS. The benches use it too.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::ensure;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned, WantsVerifier,
};

/// A connection with the handshake done.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Who believes somebody, and has yet to say whether they show a certificate of their own.
pub type Believing = ConfigBuilder<ClientConfig, WantsClientCert>;

/// Believes the authorities, or the very certificates, in this PEM.
pub fn believing(pem: &[u8]) -> anyhow::Result<Believing> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "there is no certificate to believe");
    Ok(client()?.with_root_certificates(roots))
}

/// Believes whoever answers: to look at what they show, or on a machine of one's own.
pub fn believing_anybody() -> anyhow::Result<Believing> {
    let verifier = Arc::new(Anybody(aws_lc_rs::default_provider()));
    Ok(client()?.dangerous().with_custom_certificate_verifier(verifier))
}

fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
}

/// Makes the handshake with who should have that name.
pub fn handshake(config: Arc<ClientConfig>, name: &str, mut stream: TcpStream) -> io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

#[derive(Debug)]
struct Anybody(CryptoProvider);

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

    // The certificate of a proof has an extension that is critical and unknown, and so can't be read as usual.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
