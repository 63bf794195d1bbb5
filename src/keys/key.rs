//! One signing key.

use crate::config::MIN_KEY_BYTES;
use crate::names::Digest;

use super::KeyError;

/// A key with which results are signed.
#[derive(Clone)]
pub struct CallbackKey {
    text: String,
    id: String,
}

impl CallbackKey {
    /// Takes the UTF-8 bytes of the text as they are; nothing is decoded or trimmed.
    ///
    /// # Errors
    /// When there are fewer than 32.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        if text.len() < MIN_KEY_BYTES {
            return Err(KeyError::TooShort { found: text.len() });
        }
        let id = Digest::of(text.as_bytes()).hex().chars().take(8).collect();
        Ok(Self { text: text.to_owned(), id })
    }

    /// Names the key in logs: the first 8 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl std::fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_32_bytes_taken_as_they_are() {
        assert!(matches!(CallbackKey::from_text(&"k".repeat(31)), Err(KeyError::TooShort { found: 31 })));
        let key = CallbackKey::from_text(&format!(" {} ", "é".repeat(16))).unwrap();
        assert_eq!(key.bytes().len(), 34);
    }

    #[test]
    fn the_id_tells_keys_apart_and_debug_shows_no_key() {
        let text = "k".repeat(32);
        let key = CallbackKey::from_text(&text).unwrap();
        assert_eq!(key.id(), &Digest::of(text.as_bytes()).hex()[..8]);
        assert!(!format!("{key:?}").contains(&text));
    }
}
