//! The key of the token service.

use std::path::Path;

use crate::config::{MIN_KEY_BYTES, Secret};
use crate::names::Random;

use super::{KeyError, ring};

/// Where it is kept, below the keys folder.
const FILE: &str = "token-signing-key";

/// The key with which the token service signs; whoever removes its file and starts anew ends all tokens.
#[derive(Clone)]
pub struct TokenKey(Secret);

impl TokenKey {
    /// Reads the key that is kept below `keys_dir`, or makes it at the first start.
    ///
    /// # Errors
    /// When the file can't be made, is open to others, or holds too little for a key.
    pub fn open(keys_dir: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let secret = Secret::load_or_create(keys_dir, FILE, || ring::fresh(random))?;
        let found = secret.expose().len();
        if found < MIN_KEY_BYTES { Err(KeyError::TokenKeyTooShort { found }) } else { Ok(Self(secret)) }
    }

    /// The key itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::SeededRandom;

    #[test]
    fn the_key_is_made_once_and_a_cut_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let first = TokenKey::open(&keys, &SeededRandom::new(1)).unwrap();
        let again = TokenKey::open(&keys, &SeededRandom::new(2)).unwrap();
        assert_eq!((first.bytes(), first.bytes().len()), (again.bytes(), 43));
        fs_err::write(keys.join(FILE), "short\n").unwrap();
        assert!(matches!(
            TokenKey::open(&keys, &SeededRandom::new(1)),
            Err(KeyError::TokenKeyTooShort { .. })
        ));
    }
}
