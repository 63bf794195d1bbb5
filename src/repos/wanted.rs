//! What manifests name and their repository lacks: in a sparse repository anything, in others layers that are not
//! distributed.
//!
//! A row waits for each until a blob or manifest of that name enters the repository, whose transaction then makes the
//! manifest keep it as if it had been there from the beginning. A subject is not among them: nothing keeps it for those
//! that are about it.

use super::manifests::owner;
use super::tables::{KEEPS, WANTED, WANTS};
use crate::blobs;
use crate::names::{Digest, RepoName};
use crate::state::{Read, Scan, StateError, Tx};

/// So many manifests get what they wait for in one transaction. While more wait the blob is held for them, and the next
/// ones get it when the last of these has gone.
const PAGE: usize = 1_000;

/// Remembers what a manifest lacks.
pub(super) fn want(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    manifest: &Digest,
    names: &[Digest],
) -> Result<(), StateError> {
    for name in names {
        tx.put(&WANTED, &(repo.clone(), name.clone(), manifest.clone()), &())?;
        tx.put(&WANTS, &(repo.clone(), manifest.clone(), name.clone()), &())?;
    }
    Ok(())
}

/// Forgets what a manifest lacks, `limit` (≤ 1,000) names at most; gives how many.
pub(super) fn forget(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    manifest: &Digest,
    limit: usize,
) -> Result<usize, StateError> {
    let page = tx.scan(&WANTS, &Scan::prefix(&(repo.clone(), manifest.clone())), limit)?;
    let gone = page.len();
    for ((repo, manifest, name), ()) in page {
        got(tx, repo, manifest, name)?;
    }
    Ok(gone)
}

/// Removes one row, from both sides.
pub(super) fn got(tx: &mut Tx<'_>, repo: RepoName, manifest: Digest, name: Digest) -> Result<(), StateError> {
    tx.delete(&WANTED, &(repo.clone(), name.clone(), manifest.clone()))?;
    tx.delete(&WANTS, &(repo, manifest, name))
}

/// Whether a manifest of the repository waits for this name.
pub(super) fn is_wanted(view: &impl Read, repo: &RepoName, name: &Digest) -> Result<bool, StateError> {
    Ok(!view.scan(&WANTED, &Scan::prefix(&(repo.clone(), name.clone())), 1)?.is_empty())
}

/// Makes the manifests that wait for this name keep its bytes; gives how many did. To be called when the name has
/// entered the repository.
pub(super) fn arrived(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    name: &Digest,
    stored: &Digest,
) -> Result<usize, StateError> {
    let waiting = tx.scan(&WANTED, &Scan::prefix(&(repo.clone(), name.clone())), PAGE)?;
    let mut kept = 0;
    for ((repo, name, manifest), ()) in waiting {
        if !keep(tx, repo, manifest, name, stored)? {
            break;
        }
        kept += 1;
    }
    Ok(kept)
}

/// Makes one manifest keep what it waited for; `false` when the bytes are not known.
pub(super) fn keep(
    tx: &mut Tx<'_>,
    repo: RepoName,
    manifest: Digest,
    name: Digest,
    stored: &Digest,
) -> Result<bool, StateError> {
    if !blobs::link_known(tx, stored, &owner(&repo, &manifest))? {
        return Ok(false);
    }
    tx.put(&KEEPS, &(repo.clone(), manifest.clone(), stored.clone()), &())?;
    got(tx, repo, manifest, name)?;
    Ok(true)
}
