//! What tables hold: versioned JSON records, and exact bytes.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::StateError;

/// The most bytes that a JSON record may have; what is larger belongs in a blob.
pub const MAX_RECORD_BYTES: usize = 256 * 1_024;
/// The most bytes that a [`Raw`] value may have: above it a leaf of the tree takes up to twice its size.
pub const MAX_RAW_BYTES: usize = 32 * 1_024;

/// What a table holds: a versioned JSON record (made by `record!`), or [`Raw`] bytes.
pub trait Value: Sized {
    /// The most bytes that one value may have.
    const MAX_BYTES: usize = MAX_RECORD_BYTES;

    /// The bytes to store.
    ///
    /// # Errors
    /// [`StateError::Record`] when the type cannot be written as JSON.
    fn to_bytes(&self) -> Result<Vec<u8>, StateError>;

    /// The value that was stored as these bytes.
    ///
    /// # Errors
    /// [`StateError::RecordVersion`] for a record of a newer version, [`StateError::Record`] for one that does not
    /// fit the type.
    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError>;
}

/// Exact bytes as a table value (≤ [`MAX_RAW_BYTES`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Vec<u8>);

impl Value for Raw {
    const MAX_BYTES: usize = MAX_RAW_BYTES;

    fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        Ok(self.0.clone())
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        Ok(Self(bytes.to_vec()))
    }
}

/// Nothing: the key says it all.
impl Value for () {
    const MAX_BYTES: usize = 0;

    fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        Ok(Vec::new())
    }
    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.is_empty() { Ok(()) } else { Err(StateError::NotEmpty { size: bytes.len() }) }
    }
}

/// `record!(TagRecord, 1);` makes a serde type a versioned JSON record, stored as `{"v":1,"d":{…}}`.
///
/// A type that changes its meaning raises the version; what it adds has a serde default, as records of older
/// versions are read by the same type.
macro_rules! record {
    ($t:ty, $v:literal) => {
        impl $crate::state::Value for $t {
            fn to_bytes(&self) -> Result<Vec<u8>, $crate::state::StateError> {
                $crate::state::encode_record(self, $v)
            }
            fn from_bytes(bytes: &[u8]) -> Result<Self, $crate::state::StateError> {
                $crate::state::decode_record(bytes, $v)
            }
        }
    };
}
pub(crate) use record;

#[derive(Serialize)]
struct Written<'a, T> {
    v: u16,
    d: &'a T,
}

#[derive(Deserialize)]
struct Stored<'a> {
    v: u16,
    #[serde(borrow)]
    d: &'a RawValue,
}

/// The bytes of a record of this version.
pub(crate) fn encode_record<T: Serialize>(value: &T, version: u16) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(&Written { v: version, d: value })
        .map_err(|source| StateError::Record { step: "encoded", source: Arc::new(source) })
}

/// The record in these bytes, when its version is `known` or older.
pub(crate) fn decode_record<T: DeserializeOwned>(bytes: &[u8], known: u16) -> Result<T, StateError> {
    let broken = |source| StateError::Record { step: "decoded", source: Arc::new(source) };
    let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(broken)?;
    if stored.v > known {
        return Err(StateError::RecordVersion { found: stored.v, known });
    }
    serde_json::from_str(stored.d.get()).map_err(broken)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        #[serde(default)]
        added_later: u32,
    }
    record!(Sample, 2);

    #[test]
    fn a_record_carries_its_version_and_older_ones_are_read() {
        let sample = Sample { name: "a".into(), added_later: 7 };
        let bytes = sample.to_bytes().unwrap();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), r#"{"v":2,"d":{"name":"a","added_later":7}}"#);
        assert_eq!(Sample::from_bytes(&bytes).unwrap(), sample);
        let older = Sample::from_bytes(br#"{"v":1,"d":{"name":"a"}}"#).unwrap();
        assert_eq!(older, Sample { name: "a".into(), added_later: 0 });
    }

    #[test]
    fn a_newer_or_broken_record_is_an_error_that_says_so() {
        let newer = Sample::from_bytes(br#"{"v":3,"d":{"anything":1}}"#).unwrap_err();
        assert_eq!((newer.code(), newer.hint().is_some()), ("state_record_newer", true));
        let deep = format!(r#"{{"v":1,"d":{}1{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        for broken in
            ["", "{}", "null", r#"{"v":1}"#, r#"{"v":1,"d":{}}"#, r#"{"v":-1,"d":{}}"#, "\u{0}", &deep]
        {
            assert_eq!(Sample::from_bytes(broken.as_bytes()).unwrap_err().code(), "state_record_invalid");
        }
        assert_eq!(<() as Value>::from_bytes(b"x").unwrap_err().code(), "state_value_not_empty");
    }
}
