//! The blobs that a repository holds.

use super::catalogue::count;
use super::tables::{BLOBS, BlobRecord, HOLDERS};
use super::wanted;
use crate::blobs::{self, Owner, Stored};
use crate::names::{Digest, Millis, RepoName};
use crate::state::{Read, Scan, StateError, Tx};

/// Where the bytes of a blob lie, and how many they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobAt {
    /// The SHA-256 under which `blobs` knows them.
    pub stored: Digest,
    /// In bytes.
    pub size: u64,
}

pub(super) fn owner(repo: &RepoName, name: &Digest) -> Owner {
    Owner::new("repository", format!("{repo}@{name}"))
}

/// Makes the repository hold the blob: uploaded, mounted, or made by Pantry. Idempotent.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn add_blob(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, stored: &Stored) -> Result<(), StateError> {
    add_blob_named(tx, now, repo, &stored.digest, stored)
}

/// As [`add_blob`], under the name that the client gave (a sha512).
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn add_blob_named(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
    stored: &Stored,
) -> Result<(), StateError> {
    blobs::link(tx, stored, &owner(repo, name))?;
    enter(tx, now, repo, name, BlobAt { stored: stored.digest.clone(), size: stored.size })
}

fn enter(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest, at: BlobAt) -> Result<(), StateError> {
    let key = (repo.clone(), name.clone());
    wanted::arrived(tx, repo, name, &at.stored)?;
    if super::idle::pushed(tx, now, repo, name)? {
        return Ok(());
    }
    let size = at.size;
    let record = BlobRecord { stored: at.stored, size, added_at: now, touched_at: now };
    tx.put(&BLOBS, &key, &record)?;
    tx.put(&HOLDERS, &(name.clone(), repo.clone()), &())?;
    count(tx, repo, |held| {
        held.blobs += 1;
        held.bytes = held.bytes.saturating_add(size);
    })
}

/// Makes `to` hold a blob that `from` holds; `false` when that one does not, or its bytes are gone (nothing is
/// written).
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn mount_blob(
    tx: &mut Tx<'_>,
    now: Millis,
    from: &RepoName,
    to: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    let Some(at) = blob_at(tx, from, name)? else { return Ok(false) };
    if !blobs::link_known(tx, &at.stored, &owner(to, name))? {
        return Ok(false);
    }
    enter(tx, now, to, name, at)?;
    Ok(true)
}

/// Where the bytes of a blob of this repository lie.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn blob_at(view: &impl Read, repo: &RepoName, name: &Digest) -> Result<Option<BlobAt>, StateError> {
    let record = view.get(&BLOBS, &(repo.clone(), name.clone()))?;
    Ok(record.map(|record| BlobAt { stored: record.stored, size: record.size }))
}

/// Some repositories that hold the blob, `limit` at most.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn holders(view: &impl Read, name: &Digest, limit: usize) -> Result<Vec<RepoName>, StateError> {
    let rows = view.scan(&HOLDERS, &Scan::prefix(name), limit)?;
    Ok(rows.into_iter().map(|((_, repo), ())| repo).collect())
}

/// Unlinks the blob from the repository; `false` when it held none. Manifests keep the bytes that they refer to.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn delete_blob(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest) -> Result<bool, StateError> {
    let key = (repo.clone(), name.clone());
    let Some(record) = tx.get(&BLOBS, &key)? else { return Ok(false) };
    blobs::unlink(tx, &record.stored, &owner(repo, name), now)?;
    tx.delete(&BLOBS, &key)?;
    tx.delete(&HOLDERS, &(name.clone(), repo.clone()))?;
    count(tx, repo, |held| {
        held.blobs = held.blobs.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(record.size);
    })?;
    Ok(true)
}
