//! The certificate that the port shows, where it comes from, and how it is exchanged while the server runs.
//!
//! Invariants: a pair of certificate and key is taken as a whole or not at all, so that a bad new one leaves the old
//! one in use; connections that are open keep what they agreed on.

mod acme;
mod authority;
mod files;
mod names;
mod source;
mod trust;
mod validity;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ClientHello;
use serde::Serialize;

use super::KeyError;
use crate::config::Config;
use crate::names::{Clock, Digest};
use acme::Acme;
use files::Stamp;
use source::{Current, Source};

pub use acme::{ACME_PROTOCOL, AcmeInfo};

/// TLS of the port; clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    source: Source,
    current: RwLock<Current>,
    /// The files as they were looked at last.
    seen: Mutex<Vec<Option<Stamp>>>,
    /// Where an authority is asked for certificates.
    acme: Option<Acme>,
}

/// What the port shows, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct TlsInfo {
    /// Where the certificate comes from: `self_signed`, `files` or `acme`.
    pub mode: &'static str,
    /// SHA-256 of the certificate, as certificate tools print it.
    pub certificate_sha256: String,
    /// When the certificate ends (RFC 3339).
    pub not_after: String,
    /// SHA-256 of the authority of this server's own, where that is what clients are to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_sha256: Option<String>,
    /// The file of that authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_file: Option<String>,
    /// Why the last attempt to exchange the certificate failed; the one before is still shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How it goes with the authority, where one is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeInfo>,
}

/// What came of looking for another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Everything is as it was.
    Same,
    /// Another one is shown from now on.
    Exchanged,
}

impl Tls {
    /// Reads or makes what the configuration names; `None` where TLS is off.
    ///
    /// # Errors
    /// When files can't be read or made, or certificate and key do not belong together.
    pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Option<Self>, KeyError> {
        let acme = Acme::of(config, clock.clone());
        let Some(source) = Source::of(config, clock) else { return Ok(None) };
        let seen = Mutex::new(source.stamps());
        let current = RwLock::new(source.load()?);
        Ok(Some(Self(Arc::new(Inner { source, current, seen, acme }))))
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Option<Stamp>>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a connection is agreed on that begins with `hello`: by the certificate of the port, or, for an authority
    /// that looks for its proof, by that proof.
    #[must_use]
    pub fn server_config(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let proof = self.0.acme.as_ref().and_then(|acme| acme.challenges.asked_by(hello));
        proof.unwrap_or_else(|| self.current().config.clone())
    }

    /// What is shown now.
    #[must_use]
    pub fn info(&self) -> TlsInfo {
        let (mut info, renew_at) = {
            let current = self.current();
            (current.info.clone(), current.renew_at)
        };
        info.acme = self.0.acme.as_ref().map(|acme| acme.info(renew_at));
        info
    }

    /// Shows another certificate when a file has changed, or when one of our own is about to end or lacks a name; does
    /// nothing else otherwise. Blocks on files.
    ///
    /// # Errors
    /// When what changed can't be used; the one before is then still shown, and this is not tried again before the next
    /// change.
    pub fn refresh(&self) -> Result<Refreshed, KeyError> {
        let stamps = self.0.source.stamps();
        let changed = *self.seen() != stamps;
        if !changed && !self.0.source.is_due(&self.current()) {
            return Ok(Refreshed::Same);
        }
        *self.seen() = stamps;
        self.exchange()
    }

    /// As [`Tls::refresh`], whether a file has changed or not.
    ///
    /// # Errors
    /// When what is there can't be used; the one before is then still shown.
    pub fn reload(&self) -> Result<Refreshed, KeyError> {
        *self.seen() = self.0.source.stamps();
        self.exchange()
    }

    fn exchange(&self) -> Result<Refreshed, KeyError> {
        let loaded = self.0.source.load();
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(loaded) => {
                let same = loaded.leaf() == current.leaf();
                *current = loaded;
                Ok(if same { Refreshed::Same } else { Refreshed::Exchanged })
            }
            Err(error) => {
                let mut told = error.to_string();
                if let Some(source) = std::error::Error::source(&error) {
                    told = format!("{told}: {source}");
                }
                current.info.last_error = Some(told);
                Err(error)
            }
        }
    }
}

/// The cryptography of every TLS connection here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// As certificate tools print it: `AB:CD:…`.
fn fingerprint(der: &[u8]) -> String {
    let hex = Digest::of(der).hex().to_ascii_uppercase();
    let pairs: Vec<&str> = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]).collect();
    pairs.join(":")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
