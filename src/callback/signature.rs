//! Signing.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::{CallbackKey, CallbackRing};
use crate::names::{Nonce, SubmissionId, hex};

/// The header that carries the signature.
pub const HEADER: &str = "x-pantry-hmac";

/// Signs with the ring's current key; what the job that reports is given in place of keys.
#[derive(Clone, Debug)]
pub struct Signer(CallbackRing);

impl Signer {
    /// Signs with the current key of that ring.
    #[must_use]
    pub fn new(ring: CallbackRing) -> Self {
        Self(ring)
    }

    /// The header's value and the id of the key. What is sent must be these very bytes.
    #[must_use]
    pub fn sign(&self, id: &SubmissionId, nonce: &Nonce, body: &[u8]) -> (String, String) {
        let key = self.0.current();
        (sign(key, id, nonce, body), key.id().to_owned())
    }
}

/// The header's value: 64 lowercase hexadecimal digits of HMAC-SHA256(key, `{id}|{nonce}|` + body).
#[must_use]
pub fn sign(key: &CallbackKey, id: &SubmissionId, nonce: &Nonce, body: &[u8]) -> String {
    hex(&mac(key.bytes(), id, nonce, body))
}

pub(super) fn mac(key: &[u8], id: &SubmissionId, nonce: &Nonce, body: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    for piece in [id.as_str().as_bytes(), b"|", nonce.as_str().as_bytes(), b"|", body] {
        mac.update(piece);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use crate::names::SystemRandom;

    use super::*;

    const BODY: &str = r#"{"passed": true, "summary": "PASS - 11/11 tests passed", "test_count": 11, "pass_count": 11, "fail_count": 0, "errors": [], "raw_output": ""}"#;

    #[test]
    fn both_vectors_hold() {
        let key = CallbackKey::from_text(&"k".repeat(32)).unwrap();
        let (id, nonce) = (SubmissionId::parse("42").unwrap(), Nonce::parse("nonce-0001").unwrap());
        assert_eq!(
            sign(&key, &id, &nonce, b""),
            "b6b55f597768ba6a1b2fd620366a86b9fbac4829ff760e41029fdf76acbbaf46"
        );
        assert_eq!(BODY.len(), 141);
        assert_eq!(
            sign(&key, &id, &nonce, BODY.as_bytes()),
            "2449f51de84d5ee366630d3e71624b03298087ea37eafd0e478db958d61fce07"
        );
    }

    #[test]
    fn a_signer_uses_the_current_key() {
        let (new, old) = ("n".repeat(32), "o".repeat(32));
        let ring =
            CallbackRing::open(Path::new("/nonexistent"), Some(&new), Some((&old, None)), &SystemRandom)
                .unwrap();
        let (id, nonce) = (SubmissionId::parse("1").unwrap(), Nonce::parse("n").unwrap());
        let (header, key_id) = Signer::new(ring.clone()).sign(&id, &nonce, b"{}");
        assert_eq!(header, sign(ring.current(), &id, &nonce, b"{}"));
        assert_eq!(key_id, ring.current().id());
    }
}
