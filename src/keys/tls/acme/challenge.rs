//! What the port shows to an authority that looks for its proof.
//!
//! Source: RFC 8737.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::PrivateKeyDer;

use crate::keys::KeyError;
use crate::keys::tls::provider;

/// The protocol of the proof, which carries nothing else (RFC 8737, section 6.2).
pub const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// The proofs of orders under way, by name in lower case; clones share them.
#[derive(Clone, Default)]
pub(in crate::keys::tls) struct Challenges(Arc<RwLock<HashMap<String, Arc<ServerConfig>>>>);

/// A proof that is shown until this is dropped.
pub(super) struct Held {
    challenges: Challenges,
    name: String,
}

impl Challenges {
    /// How to agree with a client that asks for a proof and for nothing else; `None` for everybody else, and when none
    /// is under way for the name.
    pub(in crate::keys::tls) fn asked_by(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        if protocols.next() != Some(ACME_PROTOCOL) || protocols.next().is_some() {
            return None;
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// Shows the proof of a name: a certificate with the digest of the key authorization in it.
    pub(super) fn show(&self, name: &str, digest: &[u8]) -> Result<Held, KeyError> {
        let made = |source| KeyError::Make { source };
        let tls = |source| KeyError::Tls { source };
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(made)?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate().map_err(made)?;
        let certificate = params.self_signed(&key).map_err(made)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let private = provider().key_provider.load_private_key(private).map_err(tls)?;
        // Made here and so in order; the usual check would not read a certificate with this critical extension.
        let certified = CertifiedKey::new(vec![certificate.der().clone()], private);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ACME_PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let name = name.to_ascii_lowercase();
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.insert(name.clone(), Arc::new(config));
        drop(shown);
        Ok(Held { challenges: self.clone(), name })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.challenges.0.write().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_there_until_it_is_dropped() {
        let challenges = Challenges::default();
        let held = challenges.show("Registry.Example", &[7; 32]).unwrap();
        let names = || challenges.0.read().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(), ["registry.example"]);
        drop(held);
        assert!(names().is_empty());
    }
}
