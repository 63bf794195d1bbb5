//! How keys become bytes whose order is that of the keys.

use super::StateError;
use crate::names::{
    Algorithm, ChangeId, CommandName, Digest, Millis, Nonce, PackId, PackageName, PublisherName, RepoName,
    SubmissionId, Tag, UploadId, Version,
};

/// The most bytes that a whole key may have.
pub const MAX_KEY_BYTES: usize = 1_024;

/// How a key becomes ordered bytes, such that the first members of a tuple are a prefix of it.
///
/// *Shape*: text ends in `00` (a `00` or `01` within is written as `01 01` or `01 02`), numbers are eight bytes
/// big-endian, a digest is one byte for the algorithm and its raw value. Every encoding tells its own end.
pub trait Key: Sized {
    /// Appends the key to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes the key off the front of `bytes`.
    ///
    /// # Errors
    /// [`StateError::KeyInvalid`] when the bytes are not of this shape.
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError>;
}

/// The bytes of a whole key.
pub(super) fn key_bytes(key: &impl Key) -> Result<Vec<u8>, StateError> {
    let mut out = Vec::with_capacity(64);
    key.encode(&mut out);
    if out.len() > MAX_KEY_BYTES {
        return Err(StateError::KeyTooLarge { size: out.len(), cap: MAX_KEY_BYTES });
    }
    Ok(out)
}

/// The key whose bytes these are, all of them.
pub(super) fn whole_key<K: Key>(mut bytes: &[u8]) -> Result<K, StateError> {
    let key = K::decode(&mut bytes)?;
    if bytes.is_empty() { Ok(key) } else { Err(StateError::KeyInvalid { expected: "key without a rest" }) }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize, expected: &'static str) -> Result<&'a [u8], StateError> {
    let (front, rest) = bytes.split_at_checked(count).ok_or(StateError::KeyInvalid { expected })?;
    *bytes = rest;
    Ok(front)
}

fn take_byte(bytes: &mut &[u8], expected: &'static str) -> Result<u8, StateError> {
    Ok(take(bytes, 1, expected)?[0])
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            0 => out.extend([1, 1]),
            1 => out.extend([1, 2]),
            other => out.push(other),
        }
    }
    out.push(0);
}

fn take_text(bytes: &mut &[u8], expected: &'static str) -> Result<String, StateError> {
    let mut text = Vec::new();
    loop {
        match take_byte(bytes, expected)? {
            0 => break,
            1 => match take_byte(bytes, expected)? {
                escaped @ (1 | 2) => text.push(escaped - 1),
                _ => return Err(StateError::KeyInvalid { expected }),
            },
            other => text.push(other),
        }
    }
    String::from_utf8(text).map_err(|_| StateError::KeyInvalid { expected })
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        take_text(bytes, "text")
    }
}

impl Key for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        let raw = take(bytes, 8, "number")?;
        Ok(raw.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

impl Key for Millis {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        u64::decode(bytes).map(Self)
    }
}

macro_rules! textual_key {
    ($($name:ty, $expected:literal;)*) => { $(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                put_text(self.as_str(), out);
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
                Self::parse(&take_text(bytes, $expected)?)
                    .map_err(|_| StateError::KeyInvalid { expected: $expected })
            }
        }
    )* };
}

textual_key! {
    RepoName, "repository name";
    Tag, "tag";
    PublisherName, "publisher name";
    PackageName, "package name";
    CommandName, "command name";
    SubmissionId, "submission id";
    ChangeId, "change id";
    UploadId, "upload id";
    Nonce, "nonce";
}

impl Key for PackId {
    fn encode(&self, out: &mut Vec<u8>) {
        self.publisher.encode(out);
        self.name.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        Ok(Self { publisher: PublisherName::decode(bytes)?, name: PackageName::decode(bytes)? })
    }
}

const DIGEST: &str = "digest";

impl Key for Digest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        let nibble = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
        out.extend(self.hex().as_bytes().chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])));
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        match take_byte(bytes, DIGEST)? {
            1 => raw_hash(bytes).map(Self::from_sha256),
            2 => raw_hash(bytes).map(Self::from_sha512),
            _ => Err(StateError::KeyInvalid { expected: DIGEST }),
        }
    }
}

fn raw_hash<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StateError> {
    take(bytes, N, DIGEST)?.try_into().map_err(|_| StateError::KeyInvalid { expected: DIGEST })
}

const VERSION: &str = "version";
/// Marks in the encoding of a version; a pre-release comes before its release, its end before more of it, and a
/// numeric identifier before any other.
mod mark {
    pub(super) const END: u8 = 0;
    pub(super) const NUMBER: u8 = 1;
    pub(super) const WORD: u8 = 2;
    pub(super) const PRE_RELEASE: u8 = 1;
    pub(super) const RELEASE: u8 = 2;
}

impl Key for Version {
    fn encode(&self, out: &mut Vec<u8>) {
        let text = self.to_string();
        let (core, pre_release) = match text.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (text.as_str(), None),
        };
        for number in core.split('.') {
            number.parse::<u64>().expect("invariant: the numbers of a version fit 64 bits").encode(out);
        }
        let Some(pre_release) = pre_release else { return out.push(mark::RELEASE) };
        out.push(mark::PRE_RELEASE);
        for identifier in pre_release.split('.') {
            if identifier.bytes().all(|b| b.is_ascii_digit()) {
                out.push(mark::NUMBER);
                out.push(
                    u8::try_from(identifier.len()).expect("invariant: a version has 128 characters at most"),
                );
                out.extend(identifier.as_bytes());
            } else {
                out.push(mark::WORD);
                put_text(identifier, out);
            }
        }
        out.push(mark::END);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        let refuse = || StateError::KeyInvalid { expected: VERSION };
        let mut text = format!("{}.{}.{}", u64::decode(bytes)?, u64::decode(bytes)?, u64::decode(bytes)?);
        match take_byte(bytes, VERSION)? {
            mark::RELEASE => {}
            mark::PRE_RELEASE => {
                let mut separator = '-';
                loop {
                    let identifier = match take_byte(bytes, VERSION)? {
                        mark::END => break,
                        mark::NUMBER => {
                            let length = usize::from(take_byte(bytes, VERSION)?);
                            String::from_utf8(take(bytes, length, VERSION)?.to_vec()).map_err(|_| refuse())?
                        }
                        mark::WORD => take_text(bytes, VERSION)?,
                        _ => return Err(refuse()),
                    };
                    text.push(separator);
                    text.push_str(&identifier);
                    separator = '.';
                }
            }
            _ => return Err(refuse()),
        }
        Self::parse(&text).map_err(|_| refuse())
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        Ok((A::decode(bytes)?, B::decode(bytes)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
        self.2.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, StateError> {
        Ok((A::decode(bytes)?, B::decode(bytes)?, C::decode(bytes)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(key: &impl Key) -> Vec<u8> {
        key_bytes(key).unwrap()
    }

    fn any_version() -> impl Strategy<Value = Version> {
        let identifier = prop_oneof!["0|[1-9][0-9]{0,20}", "[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,3}"];
        (0..3_u64, 0..3_u64, any::<u64>(), proptest::collection::vec(identifier, 0..4)).prop_map(
            |(major, minor, patch, pre)| {
                let mut text = format!("{major}.{minor}.{patch}");
                if !pre.is_empty() {
                    text = format!("{text}-{}", pre.join("."));
                }
                Version::parse(&text).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn encoded_keys_order_as_their_tuples_and_decode_to_them(
            a in ("[\u{0}\u{1}\u{2}a\u{ff}é]{0,4}", any::<u64>(), "[\u{0}\u{1}ab]{0,3}"),
            b in ("[\u{0}\u{1}\u{2}a\u{ff}é]{0,4}", any::<u64>(), "[\u{0}\u{1}ab]{0,3}"),
        ) {
            prop_assert_eq!(bytes_of(&a).cmp(&bytes_of(&b)), a.cmp(&b));
            prop_assert_eq!(whole_key::<(String, u64, String)>(&bytes_of(&a)).unwrap(), a);
        }

        #[test]
        fn encoded_versions_order_by_semantic_precedence(
            a in (any_version(), "[ab]{0,2}"),
            b in (any_version(), "[ab]{0,2}"),
        ) {
            prop_assert_eq!(bytes_of(&a).cmp(&bytes_of(&b)), a.cmp(&b));
            prop_assert_eq!(whole_key::<(Version, String)>(&bytes_of(&a)).unwrap(), a);
        }

        #[test]
        fn foreign_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = whole_key::<(String, u64)>(&bytes);
            let _ = whole_key::<(Digest, RepoName)>(&bytes);
            let _ = whole_key::<Version>(&bytes);
            let _ = whole_key::<PackId>(&bytes);
        }
    }

    #[test]
    fn digests_are_stored_raw_and_order_as_they_are() {
        let keys = [Digest::of(b"a"), Digest::of(b"b"), Digest::sha512_of(b"a")];
        for a in &keys {
            assert_eq!(&whole_key::<Digest>(&bytes_of(a)).unwrap(), a);
            for b in &keys {
                assert_eq!(bytes_of(a).cmp(&bytes_of(b)), a.cmp(b));
            }
        }
        assert_eq!(bytes_of(&keys[0]).len(), 33);
    }

    #[test]
    fn a_key_has_a_cap_and_no_rest() {
        assert_eq!(key_bytes(&"x".repeat(MAX_KEY_BYTES)).unwrap_err().code(), "state_key_too_large");
        assert_eq!(whole_key::<u64>(&[0; 9]).unwrap_err().code(), "state_key_invalid");
    }
}
