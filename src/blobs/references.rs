//! Which blobs are known, and who refers to them. Everything here happens in the caller's transaction.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::pins::Pin;
use super::totals;
use super::uploads::UPLOADS;
use crate::names::{Digest, Millis, UploadId};
use crate::state::{MAX_RAW_BYTES, Raw, Read, Scan, StateError, Table, Tx, record};

/// Blobs of at most this many bytes live in the state file, in the commit of the record that names them.
pub const INLINE_BYTES: usize = MAX_RAW_BYTES;

pub(super) const BLOBS: Table<Digest, BlobRecord> = Table::new("blobs");
pub(super) const INLINE: Table<Digest, Raw> = Table::new("blob_bytes");
/// Digest, kind of owner, key of owner: all owners of a digest are one short range.
pub(super) const REFERENCES: Table<(Digest, String, String), ()> = Table::new("blob_references");
/// Blobs whose bytes are not what their name says, or are gone.
pub(super) const DAMAGED: Table<Digest, DamageRecord> = Table::new("blob_damage");

/// A known blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobRecord {
    pub(super) size: u64,
    /// Whether its bytes are in `blob_bytes` instead of a file.
    pub(super) inline: bool,
    /// When its last reference went; absent while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unreferenced_since: Option<Millis>,
    /// What is wrong with its bytes, which nobody gets to see then; there is a row in `blob_damage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) damage: Option<Damage>,
}
record!(BlobRecord, 1);

/// What is wrong with the bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// They are not those of its digest; they were set aside.
    Damaged,
    /// They are not there.
    Missing,
}

/// When damage was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DamageRecord {
    pub(super) found_at: Millis,
    pub(super) damage: Damage,
    pub(super) size: u64,
}
record!(DamageRecord, 1);

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
    /// Keeps collection away from the file until it is named, or nobody wants to name it any more.
    pin: Option<Arc<Pin>>,
}

impl Stored {
    /// Bytes that somebody refers to already, so that linking them needs their digest only.
    ///
    /// *Limits*: it says nothing about whether they are still there when they are linked; where nobody refers to them
    /// [`super::Blobs::hold`] is the way.
    #[must_use]
    pub fn known(digest: Digest, size: u64) -> Self {
        Self { digest, size, bytes: None, upload: None, pin: None }
    }

    /// Bytes that `link` will write into the state.
    pub(super) fn inline(digest: Digest, bytes: Bytes) -> Self {
        Self { digest, size: bytes.len() as u64, bytes: Some(bytes), upload: None, pin: None }
    }

    /// Bytes that are a durable file, which stays at least as long as the pin.
    pub(super) fn file(digest: Digest, size: u64, pin: Pin) -> Self {
        Self { digest, size, bytes: None, upload: None, pin: Some(Arc::new(pin)) }
    }

    /// Whether these bytes are here for certain: in hand, or in a file that nobody can take away.
    fn is_at_hand(&self) -> bool {
        self.bytes.is_some() || self.pin.is_some()
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

/// Makes the blob known and refers to it, in the transaction of the record that names the digest. Idempotent. Bytes
/// that are at hand heal a blob whose own were damaged or lost.
///
/// # Errors
/// [`StateError`] when the records cannot be read or the owner's key is too long.
pub fn link(tx: &mut Tx<'_>, stored: &Stored, owner: &Owner) -> Result<(), StateError> {
    let digest = &stored.digest;
    if let Some(upload) = &stored.upload {
        tx.delete(&UPLOADS, upload)?;
    }
    let before = tx.get(&BLOBS, digest)?;
    let healed = before.as_ref().is_some_and(|record| record.damage.is_some()) && stored.is_at_hand();
    if healed {
        tx.delete(&DAMAGED, digest)?;
    }
    if let Some(record) = &before
        && !healed
    {
        return refer(tx, digest, record, owner);
    }
    if let Some(record) = before.filter(|_| healed) {
        // It may have been recorded without anybody knowing its size.
        totals::went(tx, record.size)?;
    }
    totals::came(tx, stored.size)?;
    // Bytes that were believed to be known and are not: the name stands and its bytes are said to be missing.
    let damage = (!stored.is_at_hand()).then_some(Damage::Missing);
    let record =
        BlobRecord { size: stored.size, inline: stored.bytes.is_some(), unreferenced_since: None, damage };
    tx.put(&BLOBS, digest, &record)?;
    if let Some(bytes) = &stored.bytes {
        tx.put(&INLINE, digest, &Raw(bytes.to_vec()))?;
    }
    if let Some(damage) = damage {
        let lost = DamageRecord { found_at: Millis::default(), damage, size: stored.size };
        tx.put(&DAMAGED, digest, &lost)?;
    }
    tx.put(&REFERENCES, &owner.row(digest), &())
}

fn refer(tx: &mut Tx<'_>, digest: &Digest, record: &BlobRecord, owner: &Owner) -> Result<(), StateError> {
    let row = owner.row(digest);
    if tx.get(&REFERENCES, &row)?.is_none() {
        tx.put(&REFERENCES, &row, &())?;
    }
    if record.unreferenced_since.is_some() {
        tx.put(&BLOBS, digest, &BlobRecord { unreferenced_since: None, ..record.clone() })?;
    }
    Ok(())
}

/// As [`link`], for a digest that is already known; `false` when it isn't, or its bytes are damaged, and nothing is
/// written then.
///
/// # Errors
/// As [`link`].
pub fn link_known(tx: &mut Tx<'_>, digest: &Digest, owner: &Owner) -> Result<bool, StateError> {
    match tx.get(&BLOBS, digest)?.filter(|record| record.damage.is_none()) {
        Some(record) => refer(tx, digest, &record, owner).map(|()| true),
        None => Ok(false),
    }
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

/// As [`unlink`], for small bytes that nobody else was ever told of: when nobody else refers to them they go at once,
/// without a grace.
///
/// # Errors
/// As [`link`].
pub fn discard(tx: &mut Tx<'_>, digest: &Digest, owner: &Owner, now: Millis) -> Result<(), StateError> {
    unlink(tx, digest, owner, now)?;
    let inline = tx.get(&BLOBS, digest)?.filter(|record| record.inline && record.damage.is_none());
    if let Some(record) = inline
        && tx.scan(&REFERENCES, &Scan::prefix(digest), 1)?.is_empty()
    {
        tx.delete(&BLOBS, digest)?;
        tx.delete(&INLINE, digest)?;
        totals::went(tx, record.size)?;
    }
    Ok(())
}

/// The size of a known blob, in bytes; `None` as well for one whose bytes are damaged, so that they are sent again.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn is_known(view: &impl Read, digest: &Digest) -> Result<Option<u64>, StateError> {
    let record = view.get(&BLOBS, digest)?;
    Ok(record.filter(|record| record.damage.is_none()).map(|record| record.size))
}

/// Whether the bytes of a known blob were found damaged or gone.
pub(super) fn is_flagged(view: &impl Read, digest: &Digest) -> Result<bool, StateError> {
    Ok(view.get(&BLOBS, digest)?.is_some_and(|record| record.damage.is_some()))
}

/// Begins the grace of a blob anew when nothing refers to it, since somebody was told that it is here; a write only
/// then. `false` when it is not known.
///
/// # Errors
/// As [`link`].
#[cfg(test)]
pub(crate) fn renew(tx: &mut Tx<'_>, digest: &Digest, now: Millis) -> Result<bool, StateError> {
    let Some(record) = tx.get(&BLOBS, digest)?.filter(|record| record.damage.is_none()) else {
        return Ok(false);
    };
    if record.unreferenced_since.is_some_and(|since| since < now) {
        tx.put(&BLOBS, digest, &BlobRecord { unreferenced_since: Some(now), ..record })?;
    }
    Ok(true)
}

/// Whether this owner refers to the digest.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn refers(view: &impl Read, digest: &Digest, owner: &Owner) -> Result<bool, StateError> {
    Ok(view.get(&REFERENCES, &owner.row(digest))?.is_some())
}

/// Whether an owner of this kind, whose key begins with `prefix`, refers to the digest. Reads one row.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn has_owner(view: &impl Read, digest: &Digest, kind: &str, prefix: &str) -> Result<bool, StateError> {
    Ok(!owner_keys(view, digest, kind, prefix, 1)?.is_empty())
}

/// The keys of the owners of this kind whose key begins with `prefix` and is longer, `limit` (≤ 1,000) at most.
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
    let scan = Scan::prefix(&(digest.clone(), kind.to_owned()));
    let scan = scan.after(&(digest.clone(), kind.to_owned(), prefix.to_owned()));
    let rows = view.scan(&REFERENCES, &scan, limit)?;
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
    /// They were found damaged and set aside.
    SetAside,
}

/// Finds a known blob; `None` when no record names it.
pub(super) fn find(view: &impl Read, digest: &Digest) -> Result<Option<Place>, StateError> {
    let Some(record) = view.get(&BLOBS, digest)? else { return Ok(None) };
    match record.damage {
        None => {}
        Some(Damage::Damaged) => return Ok(Some(Place::SetAside)),
        Some(Damage::Missing) => return Ok(Some(Place::Lost)),
    }
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
