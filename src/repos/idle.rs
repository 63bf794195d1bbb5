//! Blobs that a repository holds and none of its manifests keeps.
//!
//! A push brings the blobs before the manifest, so a blob is held for a while without one. When a manifest goes, its
//! blobs are in the same place again. A repository holds such a blob for the grace, counted from when it was last
//! pushed, mounted or asked for, or its last manifest went; a client that was told "it is here" has that long to name
//! it.

use std::time::Duration;

use super::holdings::delete_blob;
use super::tables::BLOBS;
use super::wanted;
use crate::blobs;
use crate::names::{Digest, Millis, RepoName};
use crate::state::{Read, Scan, StateError, Tx};

/// Rows of one transaction.
const PAGE: usize = 200;
/// A blob has this many names in a repository at most: one for each algorithm.
const NAMES: usize = 10;

/// Whether a manifest of the repository keeps these bytes, or waits for this name of theirs.
fn is_kept(view: &impl Read, repo: &RepoName, name: &Digest, stored: &Digest) -> Result<bool, StateError> {
    Ok(blobs::has_owner(view, stored, "manifest", &format!("{repo}@"))?
        || wanted::is_wanted(view, repo, name)?)
}

/// As [`touch`], when the blob was pushed or mounted again: what a manifest keeps has no time, so nothing is written.
pub(super) fn pushed(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    match tx.get(&BLOBS, &(repo.clone(), name.clone()))? {
        Some(record) if is_kept(tx, repo, name, &record.stored)? => Ok(true),
        Some(_) => touch(tx, now, repo, name),
        None => Ok(false),
    }
}

/// Begins the time anew; `false` when the repository does not hold the blob.
pub(super) fn touch(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    let key = (repo.clone(), name.clone());
    let Some(mut record) = tx.get(&BLOBS, &key)? else { return Ok(false) };
    if record.touched_at < now {
        record.touched_at = now;
        tx.put(&BLOBS, &key, &record)?;
    }
    Ok(true)
}

/// A manifest that kept these bytes went: when it was the last one, the time of those who hold them begins.
pub(super) fn left(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, stored: &Digest) -> Result<(), StateError> {
    let prefix = format!("{repo}@");
    if blobs::has_owner(tx, stored, "manifest", &prefix)? {
        return Ok(());
    }
    for key in blobs::owner_keys(tx, stored, "repository", &prefix, NAMES)? {
        if let Some(name) = key.strip_prefix(&prefix).and_then(|name| Digest::parse(name).ok())
            && wanted::arrived(tx, repo, &name, stored)? == 0
        {
            touch(tx, now, repo, &name)?;
        }
    }
    Ok(())
}

/// Whether somebody who is now told that the blob is here must be given time to name it: no manifest of the repository
/// keeps it.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn renewal_due(
    view: &impl Read,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    let Some(record) = view.get(&BLOBS, &(repo.clone(), name.clone()))? else { return Ok(false) };
    // What was touched ahead of now has its whole grace yet, and more.
    Ok(record.touched_at < now && !is_kept(view, repo, name, &record.stored)?)
}

/// Gives the blob its whole grace again, and `ahead` in addition, so that for so long the next one who asks need not
/// write; `false` when the repository does not hold it any more.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn renew_blob(
    tx: &mut Tx<'_>,
    now: Millis,
    ahead: Duration,
    repo: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    touch(tx, now.after(ahead), repo, name)
}

/// What one call of [`let_go`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// From where the next call goes on; `None` at the end.
    pub next: Option<(RepoName, Digest)>,
    /// How many blobs of repositories were looked at.
    pub seen: u64,
    /// Which were let go of.
    pub let_go: Vec<(RepoName, Digest)>,
}

/// Looks at a page of what repositories hold after `after`, and lets go of what no manifest keeps and nobody touched
/// for the grace; in a dry run (`act` false) only tells.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn let_go(
    tx: &mut Tx<'_>,
    now: Millis,
    after: Option<&(RepoName, Digest)>,
    grace: Duration,
    act: bool,
) -> Result<Idle, StateError> {
    let scan = after.map_or_else(Scan::all, |key| Scan::all().after(key));
    let page = tx.scan(&BLOBS, &scan, PAGE)?;
    let mut idle = Idle { seen: page.len() as u64, ..Idle::default() };
    if page.len() == PAGE {
        idle.next = page.last().map(|(key, _)| key.clone());
    }
    for ((repo, name), record) in page {
        let touched = record.touched_at.max(record.added_at);
        if now.since(touched) < grace || is_kept(tx, &repo, &name, &record.stored)? {
            continue;
        }
        if act {
            // Nobody wanted it since then, so that is when the grace of its bytes began too.
            delete_blob(tx, touched.min(now), &repo, &name)?;
        }
        idle.let_go.push((repo, name));
    }
    Ok(idle)
}
