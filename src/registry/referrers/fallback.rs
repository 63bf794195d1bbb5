//! What of the index under a fallback tag is taken in. Any client that pushes may have written it, so what is held of it
//! has bounds of its own, whatever it says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::names::Digest;
use crate::repos::Referrer;

/// A larger document is not even read.
pub(super) const DOCUMENT_BYTES: u64 = 1024 * 1024;
/// So many of its entries are taken in.
const ENTRIES: usize = 1_000;
/// The annotations of an entry that are longer than this are read from the manifest itself,
const ANNOTATIONS_BYTES: usize = 8 * 1024;
/// and so are all others once those that are held would take more than this together.
const HELD_BYTES: usize = 512 * 1024;
/// What holding an annotation takes besides its text.
const PAIR_BYTES: usize = 64;

/// What was taken in.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// By digest; the last one counts where one is named twice.
    pub(super) named: BTreeMap<Digest, Referrer>,
    /// The document names more than is taken in.
    pub(super) more: bool,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(default, borrow)]
    manifests: Entries<'a>,
}

/// The first entries of the list; the rest is skipped as it goes by.
#[derive(Default)]
struct Entries<'a> {
    first: Vec<Entry<'a>>,
    more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: String,
    digest: Digest,
    size: u64,
    artifact_type: Option<String>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct First;

        impl<'de> Visitor<'de> for First {
            type Value = Entries<'de>;

            fn expecting(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
                into.write_str("a list of descriptors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Entries::default();
                while entries.first.len() < ENTRIES {
                    let Some(entry) = list.next_element()? else { return Ok(entries) };
                    entries.first.push(entry);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    entries.more = true;
                }
                Ok(entries)
            }
        }

        from.deserialize_seq(First)
    }
}

/// Reads the document; `None` when it is no index, or larger than [`DOCUMENT_BYTES`].
pub(super) fn read(bytes: &[u8]) -> Option<Fallback> {
    if bytes.len() as u64 > DOCUMENT_BYTES {
        return None;
    }
    let Document { manifests: Entries { first, more } } = serde_json::from_slice(bytes).ok()?;
    let mut held = 0;
    let mut named = BTreeMap::new();
    for entry in first {
        let annotations = match entry.annotations {
            Some(text) if text.get().len() > ANNOTATIONS_BYTES || held > HELD_BYTES => None,
            Some(text) => {
                let pairs: Option<BTreeMap<String, String>> = serde_json::from_str(text.get()).ok()?;
                let pairs = pairs.unwrap_or_default();
                held += text.get().len() + pairs.len() * PAIR_BYTES;
                Some(pairs)
            }
            None => Some(BTreeMap::new()),
        };
        let referrer = Referrer {
            digest: entry.digest.clone(),
            media_type: entry.media_type,
            size: entry.size,
            artifact_type: entry.artifact_type.filter(|text| !text.is_empty()),
            annotations,
        };
        named.insert(entry.digest, referrer);
    }
    Some(Fallback { named, more })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(n: usize, annotations: &Value) -> Value {
        let digest = Digest::of(n.to_string().as_bytes());
        json!({"mediaType": "a/b", "digest": digest, "size": n, "annotations": annotations})
    }

    fn document(entries: &[Value]) -> Vec<u8> {
        json!({"manifests": entries}).to_string().into_bytes()
    }

    /// A map with as many annotations as `bytes` of JSON can have, or nearly so.
    fn crowded(bytes: usize) -> Value {
        (0..bytes / 9).map(|n| (format!("{n:x}"), Value::from(""))).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn only_the_first_entries_are_held_however_many_there_are() {
        let entries: Vec<_> = (0..=ENTRIES).map(|n| entry(n, &Value::Null)).collect();
        let all = read(&document(&entries[..ENTRIES])).unwrap();
        assert_eq!((all.named.len(), all.more), (ENTRIES, false));
        let one_more = read(&document(&entries)).unwrap();
        assert_eq!((one_more.named.len(), one_more.more), (ENTRIES, true));
        // What is skipped need not even be a descriptor.
        let mut odd = entries[..ENTRIES].to_vec();
        odd.extend((0..50_000).map(Value::from));
        let odd = read(&document(&odd)).unwrap();
        assert_eq!((odd.named.len(), odd.more), (ENTRIES, true));
    }

    #[test]
    fn annotations_are_held_up_to_a_bound_for_each_and_for_all() {
        let long = json!({"long": "a".repeat(ANNOTATIONS_BYTES)});
        let read_one = read(&document(&[entry(0, &long), entry(1, &json!({"a": "b"}))])).unwrap();
        let held =
            |n: usize, from: &Fallback| from.named[&Digest::of(n.to_string().as_bytes())].annotations.clone();
        assert_eq!(held(0, &read_one), None, "read from the manifest itself");
        assert_eq!(held(1, &read_one), Some([("a".to_owned(), "b".to_owned())].into()));

        let entries: Vec<_> = (0..120).map(|n| entry(n, &crowded(ANNOTATIONS_BYTES))).collect();
        let bytes = document(&entries);
        assert!(bytes.len() as u64 <= DOCUMENT_BYTES);
        let crowded = read(&bytes).unwrap();
        assert_eq!(crowded.named.len(), 120);
        let pairs: usize =
            crowded.named.values().filter_map(|one| one.annotations.as_ref()).map(BTreeMap::len).sum();
        assert!(pairs > 0 && pairs * PAIR_BYTES <= HELD_BYTES + ANNOTATIONS_BYTES * 8, "{pairs}");
        assert!(crowded.named.values().any(|one| one.annotations.is_none()));
    }

    #[test]
    fn what_is_too_large_or_no_index_tells_nothing() {
        let mut large = document(&[entry(0, &Value::Null)]);
        large.resize(usize::try_from(DOCUMENT_BYTES).unwrap(), b' ');
        assert_eq!(read(&large).unwrap().named.len(), 1);
        large.push(b' ');
        assert!(read(&large).is_none());
        for odd in [&br#"{"manifests":{}}"#[..], b"1", b"{\"manifests\":[1]}", b"", b"{"] {
            assert!(read(odd).is_none());
        }
        assert!(read(&document(&[entry(0, &json!({"a": 1}))])).is_none());
        assert!(read(b"{}").unwrap().named.is_empty());
    }
}
