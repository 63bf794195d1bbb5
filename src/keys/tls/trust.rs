//! How this machine's own clients know the certificate of the port.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Tls, provider};
use crate::keys::KeyError;

impl Tls {
    /// What a client of this process agrees on: the very certificate that the port shows at that moment is good by
    /// whatever name, as the key to it is ours; any other has to be good by this machine's own trust.
    ///
    /// # Errors
    /// When the cryptography can't be set up.
    pub fn client_config(&self) -> Result<ClientConfig, KeyError> {
        let verifier = Own { tls: self.clone(), provider: provider(), others: OnceLock::new() };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| KeyError::Tls { source })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(config)
    }
}

struct Own {
    tls: Tls,
    provider: Arc<CryptoProvider>,
    /// This machine's own trust; read when it is first needed.
    others: OnceLock<Option<rustls_platform_verifier::Verifier>>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.tls.current().leaf() {
            return Ok(ServerCertVerified::assertion());
        }
        let others =
            self.others.get_or_init(|| rustls_platform_verifier::Verifier::new(self.provider.clone()).ok());
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let others = others.as_ref().ok_or(unknown)?;
        others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
