//! Key rings: the keys with which results are signed and accepted.
//!
//! This part must never print a key, or take one that is too short to be one.
//!
//! Invariants: a [`CallbackKey`] has at least 32 bytes, namely those of the configured text as they are; its id says
//! nothing about it but which one it is; a generated key is on disk, for its owner's eyes only, before it signs.

mod key;
mod ring;

pub use key::CallbackKey;
pub use ring::CallbackRing;

use crate::config::{MIN_KEY_BYTES, SecretFileError};

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file of the generated key can't be used.
    #[error("the callback's signing key cannot be kept")]
    File(#[from] SecretFileError),
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
            Self::TooShort { .. } => "callback_key_too_short",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(file) => file.hint(),
            Self::TooShort { .. } => "make one with `openssl rand -base64 32`".to_owned(),
        })
    }
}
