//! Key rings: the keys with which results are signed and accepted, and that of the token service.
//!
//! This part must never print a key, or take one that is too short to be one.
//!
//! Invariants: a [`CallbackKey`] has at least 32 bytes, namely those of the configured text as they are; its id says
//! nothing about it but which one it is; a generated key is on disk, for its owner's eyes only, before it signs.

mod key;
mod ring;
mod token;

pub use key::CallbackKey;
pub use ring::CallbackRing;
pub use token::TokenKey;

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
}

impl KeyError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "key_file_unusable",
            Self::TokenKeyTooShort { .. } => "token_key_too_short",
            Self::TooShort { .. } => "callback_key_too_short",
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
        })
    }
}
