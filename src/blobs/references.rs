//! Which blobs are known, and who refers to them. Everything here happens in the caller's transaction.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::uploads::UPLOADS;
use crate::names::{Digest, Millis, UploadId};
use crate::state::{MAX_RAW_BYTES, Raw, Read, Scan, StateError, Table, Tx, record};

/// Blobs of at most this many bytes live in the state file, in the commit of the record that names them.
pub const INLINE_BYTES: usize = MAX_RAW_BYTES;

const BLOBS: Table<Digest, BlobRecord> = Table::new("blobs");
const INLINE: Table<Digest, Raw> = Table::new("blob_bytes");
/// Digest, kind of owner, key of owner: all owners of a digest are one short range.
const REFERENCES: Table<(Digest, String, String), ()> = Table::new("blob_references");

/// A known blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BlobRecord {
    size: u64,
    /// Whether its bytes are in `blob_bytes` instead of a file.
    inline: bool,
    /// When its last reference went; absent while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreferenced_since: Option<Millis>,
}
record!(BlobRecord, 1);

/// Who refers to a digest: a kind and a key, e.g. `Owner::new("manifest", "local/app@sha256:…")`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    kind: &'static str,
    key: String,
}

impl Owner {
    /// The owner of this kind and key; the same pair is the same owner.
    #[must_use]
    pub fn new(kind: &'static str, key: impl Into<String>) -> Self {
        Self { kind, key: key.into() }
    }

    fn row(&self, digest: &Digest) -> (Digest, String, String) {
        (digest.clone(), self.kind.to_owned(), self.key.clone())
    }
}

/// Bytes that are durable on disk, or small enough to be recorded inline, and not yet named by a record.
#[derive(Clone)]
pub struct Stored {
    /// The sha256 digest of the bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// The bytes themselves, when they are to be written with the record.
    bytes: Option<Bytes>,
    /// The upload they came by, whose record ends when the blob becomes known.
    upload: Option<UploadId>,
}

impl Stored {
    /// Bytes that are known already, so that linking them needs their digest only.
    #[must_use]
    pub fn known(digest: Digest, size: u64) -> Self {
        Self::file(digest, size)
    }

    /// Bytes that `link` will write into the state.
    pub(super) fn inline(digest: Digest, bytes: Bytes) -> Self {
        Self { digest, size: bytes.len() as u64, bytes: Some(bytes), upload: None }
    }

    /// Bytes that are a durable file.
    pub(super) fn file(digest: Digest, size: u64) -> Self {
        Self { digest, size, bytes: None, upload: None }
    }

    pub(super) fn with_upload(self, upload: UploadId) -> Self {
        Self { upload: Some(upload), ..self }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("inline", &self.bytes.is_some())
            .finish_non_exhaustive()
    }
}

/// Makes the blob known and refers to it, in the transaction of the record that names the digest. Idempotent.
///
/// # Errors
/// [`StateError`] when the records cannot be read or the owner's key is too long.
pub fn link(tx: &mut Tx<'_>, stored: &Stored, owner: &Owner) -> Result<(), StateError> {
    let digest = &stored.digest;
    if let Some(upload) = &stored.upload {
        tx.delete(&UPLOADS, upload)?;
    }
    if !link_known(tx, digest, owner)? {
        let record =
            BlobRecord { size: stored.size, inline: stored.bytes.is_some(), unreferenced_since: None };
        tx.put(&BLOBS, digest, &record)?;
        if let Some(bytes) = &stored.bytes {
            tx.put(&INLINE, digest, &Raw(bytes.to_vec()))?;
        }
        tx.put(&REFERENCES, &owner.row(digest), &())?;
    }
    Ok(())
}

/// As [`link`], for a digest that is already known; `false` when it isn't, and nothing is written then.
///
/// # Errors
/// As [`link`].
pub fn link_known(tx: &mut Tx<'_>, digest: &Digest, owner: &Owner) -> Result<bool, StateError> {
    let Some(record) = tx.get(&BLOBS, digest)? else { return Ok(false) };
    let row = owner.row(digest);
    if tx.get(&REFERENCES, &row)?.is_none() {
        tx.put(&REFERENCES, &row, &())?;
    }
    if record.unreferenced_since.is_some() {
        tx.put(&BLOBS, digest, &BlobRecord { unreferenced_since: None, ..record })?;
    }
    Ok(true)
}

/// Removes the reference; a blob that has none left gets its time of last reference. Idempotent.
///
/// # Errors
/// As [`link`].
pub fn unlink(tx: &mut Tx<'_>, digest: &Digest, owner: &Owner, now: Millis) -> Result<(), StateError> {
    let row = owner.row(digest);
    if tx.get(&REFERENCES, &row)?.is_none() {
        return Ok(());
    }
    tx.delete(&REFERENCES, &row)?;
    if tx.scan(&REFERENCES, &Scan::prefix(digest), 1)?.is_empty()
        && let Some(record) = tx.get(&BLOBS, digest)?
    {
        tx.put(&BLOBS, digest, &BlobRecord { unreferenced_since: Some(now), ..record })?;
    }
    Ok(())
}

/// The size of a known blob, in bytes.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn is_known(view: &impl Read, digest: &Digest) -> Result<Option<u64>, StateError> {
    Ok(view.get(&BLOBS, digest)?.map(|record| record.size))
}

/// The keys of owners of a digest, of one kind and beginning with `prefix`, `limit` at most.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn owner_keys(
    view: &impl Read,
    digest: &Digest,
    kind: &str,
    prefix: &str,
    limit: usize,
) -> Result<Vec<String>, StateError> {
    let from = (digest.clone(), kind.to_owned(), prefix.to_owned());
    let rows = view.scan(&REFERENCES, &Scan::prefix(&(digest.clone(), kind.to_owned())).after(&from), limit)?;
    Ok(rows.into_iter().map(|((_, _, key), ())| key).take_while(|key| key.starts_with(prefix)).collect())
}

/// Where the bytes of a known blob are.
pub(super) enum Place {
    Inline(Bytes),
    File {
        size: u64,
    },
    /// They should be in the state, but are not.
    Lost,
}

/// Finds a known blob; `None` when no record names it.
pub(super) fn find(view: &impl Read, digest: &Digest) -> Result<Option<Place>, StateError> {
    let Some(record) = view.get(&BLOBS, digest)? else { return Ok(None) };
    if !record.inline {
        return Ok(Some(Place::File { size: record.size }));
    }
    let bytes = view.get(&INLINE, digest)?;
    Ok(Some(bytes.map_or(Place::Lost, |Raw(bytes)| Place::Inline(Bytes::from(bytes)))))
}

/// Since when nothing refers to the blob.
#[cfg(test)]
pub(super) fn unreferenced_since(view: &impl Read, digest: &Digest) -> Result<Option<Millis>, StateError> {
    Ok(view.get(&BLOBS, digest)?.and_then(|record| record.unreferenced_since))
}
