//! Content digests.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

use super::NameError;

/// A hash algorithm that names content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, under which everything is stored.
    Sha256,
    /// SHA-512, accepted as a second name.
    Sha512,
}

impl Algorithm {
    /// The registered identifier.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// `<algorithm>:<lowercase hex>`, the name of some bytes.
///
/// *Source*: OCI image specification, descriptor, section Digests.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    /// Parses `<algorithm>:<hex>`.
    ///
    /// # Errors
    /// [`NameError`] for an unknown algorithm, a wrong length, or a character that is not lowercase hexadecimal.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |rule| NameError::new("digest", text, rule);
        let (name, hex) = text.split_once(':').ok_or_else(|| refuse("it needs an algorithm and a colon"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(refuse("the algorithm must be sha256 or sha512")),
        };
        if hex.len() != algorithm.hex_len() {
            return Err(refuse("the hexadecimal part has the wrong length"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse("the hexadecimal part must be lowercase 0-9 and a-f"));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }

    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// The digest of `bytes` under an algorithm.
    #[must_use]
    pub fn under(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::of(bytes),
            Algorithm::Sha512 => Self::sha512_of(bytes),
        }
    }

    /// The SHA-512 digest of `bytes`.
    #[must_use]
    pub fn sha512_of(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha512, hex: hex(&Sha512::digest(bytes)) }
    }

    /// The digest whose SHA-256 value is `raw`.
    #[must_use]
    pub fn from_sha256(raw: [u8; 32]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex(&raw) }
    }

    /// The digest whose SHA-512 value is `raw`.
    #[must_use]
    pub fn from_sha512(raw: [u8; 64]) -> Self {
        Self { algorithm: Algorithm::Sha512, hex: hex(&raw) }
    }

    /// Whether it is the digest of `bytes` under its own algorithm.
    #[must_use]
    pub fn names(&self, bytes: &[u8]) -> bool {
        *self == Self::under(self.algorithm, bytes)
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal part, lowercase.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

/// The bytes in lowercase hexadecimal digits.
#[must_use]
pub fn hex(raw: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(raw.len() * 2);
    for byte in raw {
        write!(text, "{byte:02x}").expect("invariant: writing to a String succeeds");
    }
    text
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A SHA-256 that is fed piece by piece.
#[derive(Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// Takes the next piece in.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_sha256(self.0.finalize().into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_blob_has_its_well_known_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(Digest::parse(empty).unwrap(), Sha256Stream::default().finish());
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let long = format!("sha256:{}", "a".repeat(65));
        for text in ["", "sha256", "sha256:", "sha256:baddigeststring", "md5:00", &upper, &long] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_names_only_its_own_bytes() {
        assert!(Digest::sha512_of(b"x").names(b"x"));
        assert!(!Digest::sha512_of(b"x").names(b"y"));
        assert!(Digest::of(b"x").names(b"x"));
    }
}
