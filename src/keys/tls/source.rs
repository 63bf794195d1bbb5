//! Where the certificate comes from, and what is made of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::acme;
use super::authority::Authority;
use super::files::{self, Pair, Stamp};
use super::names::Wanted;
use super::{TlsInfo, fingerprint, provider, validity};
use crate::config::{AcmeConfig, Config, TlsMode};
use crate::keys::KeyError;
use crate::names::{Clock, Millis};

/// The protocols that are spoken, the preferred one first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// A certificate of our own is made anew when it lasts no longer than this.
const RENEW_BEFORE: Duration = Duration::from_hours(60 * 24);

/// What the configuration names.
pub(super) struct Source {
    mode: TlsMode,
    keys_dir: PathBuf,
    /// Where the authority of this server's own is for everybody to read.
    public_authority: PathBuf,
    /// The files of certificate and key, where somebody else keeps them.
    files: Option<(PathBuf, PathBuf)>,
    client_ca: Option<PathBuf>,
    /// What is asked of an authority, where one is.
    acme: Option<AcmeConfig>,
    names: Wanted,
    clock: Arc<dyn Clock>,
}

/// What is shown.
pub(super) struct Current {
    pub(super) config: Arc<ServerConfig>,
    pub(super) info: TlsInfo,
    chain: Vec<CertificateDer<'static>>,
    not_after: Millis,
    /// Made here, and so renewed here.
    own: bool,
    /// When the authority is to be asked for another one, where this one is the authority's.
    pub(super) renew_at: Option<Millis>,
}

impl Current {
    /// The certificate of the server itself.
    pub(super) fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf.as_ref())
    }
}

impl Source {
    /// `None` where TLS is off.
    pub(super) fn of(config: &Config, clock: Arc<dyn Clock>) -> Option<Self> {
        let tls = &config.tls;
        let keys_dir = config.root.join("keys");
        if tls.mode == TlsMode::Off {
            return None;
        }
        let files = tls.certificate.clone().zip(tls.key.clone()).filter(|_| tls.mode == TlsMode::Files);
        Some(Self {
            mode: tls.mode,
            public_authority: config.root.join("ca.pem"),
            files,
            client_ca: tls.client_ca.clone(),
            acme: Some(tls.acme.clone()).filter(|_| tls.mode == TlsMode::Acme),
            names: Wanted::of(config),
            keys_dir,
            clock,
        })
    }

    /// What the files look like now.
    pub(super) fn stamps(&self) -> Vec<Option<Stamp>> {
        let pair = self.files.iter().flat_map(|(certificate, key)| [certificate, key]);
        let issued = self.acme.as_ref().map(|_| acme::file(&self.keys_dir));
        pair.chain(&self.client_ca).chain(&issued).map(|path| Stamp::of(path)).collect()
    }

    /// Tells whether the certificate is one of our own that has to be made anew, or one of an authority that has ended.
    pub(super) fn is_due(&self, current: &Current) -> bool {
        let ends = self.clock.now().after(RENEW_BEFORE) >= current.not_after;
        let ended = current.renew_at.is_some() && current.not_after <= self.clock.now();
        ended || current.own && (ends || !self.names.all_in(current.leaf()))
    }

    /// Everything anew.
    pub(super) fn load(&self) -> Result<Current, KeyError> {
        let asked = self.acme.as_ref();
        let issued = asked.and_then(|asked| acme::kept(&self.keys_dir, asked, self.clock.now()));
        let renew_at = issued.as_ref().map(|issued| issued.renew_at);
        let (pair, authority) = if let Some((certificate, key)) = &self.files {
            (Pair::read(certificate, key)?, None)
        } else if let Some(issued) = issued {
            (issued.pair, None)
        } else {
            let authority = Authority::open(&self.keys_dir, self.clock.now())?;
            let pair = authority.certificate(&self.names, RENEW_BEFORE)?;
            files::put(&self.public_authority, authority.pem().as_bytes(), 0o644)?;
            (pair, Some(authority))
        };
        let Pair { chain, certified, path } = pair;
        let leaf = chain.first().cloned().ok_or_else(|| KeyError::NoCertificate { path: path.clone() })?;
        let not_after = validity::not_after(&leaf).ok_or(KeyError::NoCertificate { path })?;
        if not_after <= self.clock.now() {
            tracing::error!(not_after = %not_after, "the certificate of the port has ended; clients will refuse it");
        }
        let info = TlsInfo {
            mode: self.mode.as_str(),
            certificate_sha256: fingerprint(&leaf),
            not_after: not_after.rfc3339(),
            authority_sha256: authority.as_ref().map(|authority| fingerprint(authority.der())),
            authority_file: authority.as_ref().map(|_| self.public_authority.display().to_string()),
            last_error: None,
            acme: None,
        };
        let config = Arc::new(self.server_config(certified)?);
        Ok(Current { config, info, chain, not_after, own: authority.is_some(), renew_at })
    }

    fn server_config(&self, shown: CertifiedKey) -> Result<ServerConfig, KeyError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| KeyError::Tls { source })?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in files::certificates(path)? {
                    let added = roots.add(certificate);
                    added.map_err(|source| KeyError::Unusable { path: path.clone(), source })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|_| KeyError::NoCertificate { path: path.clone() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let resolver = SingleCertAndKey::from(shown);
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // Tickets keep what a resumption needs at the client's; nothing of it is held here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer =
            rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|source| KeyError::Tls { source })?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}
