//! The administration token, and what all tokens of ours have in common.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::names::Random;

use super::AccessError;

/// Where it is kept, below the keys folder.
const FILE: &str = "admin-token";
/// What it starts with, so that scanners for leaked secrets know it.
pub(super) const PREFIX: &str = "pty_";

/// The hash of the administration token; the token itself is only in its file.
pub(super) struct AdminToken {
    hash: [u8; 32],
}

impl AdminToken {
    pub(super) fn load_or_create(keys_dir: &Path, random: &dyn Random) -> Result<Self, AccessError> {
        let secret = Secret::load_or_create(keys_dir, FILE, || fresh(random))?;
        let ours = secret
            .expose()
            .strip_prefix(PREFIX)
            .is_some_and(|rest| URL_SAFE_NO_PAD.decode(rest).is_ok_and(|bytes| bytes.len() == 32));
        if !ours {
            return Err(AccessError::NotAToken { path: keys_dir.join(FILE) });
        }
        Ok(Self { hash: hash(secret.expose()) })
    }

    /// Another one for another token.
    pub(super) fn generation(&self) -> u64 {
        // A hash of the hash: what goes out must not help to know the one that is compared.
        Sha256::digest(self.hash).iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Compares hashes in constant time, so that neither content nor length shows in the time it takes.
    pub(super) fn matches(&self, presented: &[u8; 32]) -> bool {
        presented.ct_eq(&self.hash).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

/// What is kept of a token.
pub(super) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn fresh(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 32];
    random.fill(&mut bytes);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}
