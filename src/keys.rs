//! Key rings: the keys with which results are signed and accepted, that of the token service, and the certificate that
//! the port shows.
//!
//! This part must never print a key, or take one that is too short to be one.
//!
//! Invariants: a [`CallbackKey`] has at least 32 bytes, namely those of the configured text as they are; its id says
//! nothing about it but which one it is; a generated key is on disk, for its owner's eyes only, before it signs.

mod key;
mod ring;
mod tls;
mod token;

pub use key::CallbackKey;
pub use ring::CallbackRing;
pub use tls::{ACME_PROTOCOL, AcmeInfo, Refreshed, Tls, TlsInfo};
pub use token::TokenKey;

use std::path::PathBuf;

use crate::config::{MIN_KEY_BYTES, SecretFileError};

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file of the generated key can't be used.
    #[error("a signing key cannot be kept")]
    File(#[from] SecretFileError),
    /// The file of the token service's key holds less than a key.
    #[error("the key of the token service has {found} bytes; it needs {MIN_KEY_BYTES} at least")]
    TokenKeyTooShort {
        /// Its length in bytes.
        found: usize,
    },
    /// The key is too short.
    #[error("a signing key of {found} bytes is too short; it needs {MIN_KEY_BYTES} at least")]
    TooShort {
        /// Its length in bytes.
        found: usize,
    },
    /// A file of TLS can't be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of TLS can't be written.
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of TLS isn't PEM.
    #[error("{} is not PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file that should hold certificates holds none that can be read.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file that should hold a private key holds none that can be read.
    #[error("{} holds no private key", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or the certificate is of a kind that can't be shown.
    #[error("the certificate {} cannot be used", path.display())]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// A certificate of our own can't be made.
    #[error("cannot make a certificate")]
    Make {
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// TLS can't be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

impl KeyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "key_file_unusable",
            Self::TokenKeyTooShort { .. } => "token_key_too_short",
            Self::TooShort { .. } => "callback_key_too_short",
            Self::Unreadable { .. } => "tls_file_unreadable",
            Self::Unwritable { .. } => "tls_file_unwritable",
            Self::NotPem { .. } | Self::NoCertificate { .. } | Self::NoKey { .. } => "tls_file_invalid",
            Self::Unusable { .. } => "tls_certificate_unusable",
            Self::Make { .. } | Self::Tls { .. } => "tls_failed",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(file) => file.hint(),
            Self::TokenKeyTooShort { .. } => {
                "remove keys/token-signing-key, so that a new one is made; clients then log in anew"
                    .to_owned()
            }
            Self::TooShort { .. } => "make one with `openssl rand -base64 32`".to_owned(),
            Self::Unreadable { .. } => {
                "the file must exist, and the user that runs Pantry must be able to read it".to_owned()
            }
            Self::Unwritable { .. } => "look whether the folder is ours and its disk has room".to_owned(),
            Self::NotPem { .. } | Self::NoCertificate { .. } => {
                "a certificate file is PEM: the server's own first, then the chain above it".to_owned()
            }
            Self::NoKey { .. } => "a key file is PEM: one unencrypted private key".to_owned(),
            Self::Unusable { .. } => {
                "compare what `openssl x509 -noout -pubkey` and `openssl pkey -pubout` print for certificate and key"
                    .to_owned()
            }
            Self::Make { .. } | Self::Tls { .. } => return None,
        })
    }
}
