//! Taking away much, a part a transaction.
//!
//! A manifest may have any number of tags and keep 40,000 blobs; a repository may hold millions of rows. Both go in two
//! steps: one row decides that they are not seen any more, and everything else follows in transactions of bounded size,
//! between which others write. What a crash leaves stays on record and goes with the next start or the next pass.

use super::catalogue::{count, images};
use super::holdings::delete_blob;
use super::manifests::{self, delete_manifest};
use super::retention::{Removed, remove_leftover};
use super::tables::{
    BLOBS, CatalogueRecord, KEEPS, MANIFESTS, REPOSITORIES, TAGS, TAGS_OF, TOTALS, UNFINISHED,
    UnfinishedRecord,
};
use super::tags::delete_tag;
use super::wanted;
use crate::blobs;
use crate::names::{Digest, Millis, RepoName};
use crate::state::{Key, Read, Scan, StateError, Table, Tx, Value};

/// One transaction takes away this many tags of a manifest, blobs that it kept, and names that it waited for.
const ROWS: usize = 500;
/// A repository that is going stays on record for this long, so that what a request wrote that was under way goes too.
const GOING_MILLIS: u64 = 24 * 3_600 * 1_000;
/// One transaction of the removal of a repository takes away this many tags or blobs,
const DRAIN_ROWS: usize = 200;
/// or this many manifests, each with a part of what it keeps.
const DRAIN_MANIFESTS: usize = 20;

/// Whether the removal of this manifest goes on.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn is_unfinished(view: &impl Read, repo: &RepoName, name: &Digest) -> Result<bool, StateError> {
    Ok(view.get(&UNFINISHED, &(repo.clone(), name.clone()))?.is_some())
}

/// Whether an image has manifests of which something is left.
pub(super) fn has_unfinished(view: &impl Read, repo: &RepoName) -> Result<bool, StateError> {
    Ok(!view.scan(&UNFINISHED, &Scan::prefix(repo), 1)?.is_empty())
}

/// Leaves a manifest to a transaction of its own ([`finish_removal`]).
pub(super) fn leave(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest) -> Result<(), StateError> {
    tx.put(&UNFINISHED, &(repo.clone(), name.clone()), &UnfinishedRecord { since: now })
}

/// Takes away what a manifest had whose own row has just gone; what is too much for this transaction is left on record.
pub(super) fn take_rest(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<(), StateError> {
    if !take_part(tx, now, repo, name)? {
        leave(tx, now, repo, name)?;
    }
    Ok(())
}

/// The manifest is put again: nothing of the one before may be left, as its tags would be seen again.
pub(super) fn clear(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest) -> Result<(), StateError> {
    let key = (repo.clone(), name.clone());
    if tx.get(&UNFINISHED, &key)?.is_none() {
        return Ok(());
    }
    if tx.get(&MANIFESTS, &key)?.is_none() {
        while !take_part(tx, now, repo, name)? {}
    }
    tx.delete(&UNFINISHED, &key)
}

/// `false` when something is left.
fn take_part(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest) -> Result<bool, StateError> {
    let key = (repo.clone(), name.clone());
    let tags = tx.scan(&TAGS_OF, &Scan::prefix(&key), ROWS)?;
    let mut gone = 0;
    for (row, ()) in &tags {
        let tag = (repo.clone(), row.2.clone());
        if tx.get(&TAGS, &tag)?.is_some_and(|record| record.digest == *name) {
            tx.delete(&TAGS, &tag)?;
            gone += 1;
        }
        tx.delete(&TAGS_OF, row)?;
    }
    if gone > 0 {
        count(tx, repo, |held| held.tags = held.tags.saturating_sub(gone))?;
    }
    let space = ROWS - tags.len();
    if space == 0 {
        return Ok(false);
    }
    let owner = manifests::owner(repo, name);
    let kept = tx.scan(&KEEPS, &Scan::prefix(&key), space)?;
    for (row, ()) in &kept {
        blobs::unlink(tx, &row.2, &owner, now)?;
        super::idle::left(tx, now, repo, &row.2)?;
        tx.delete(&KEEPS, row)?;
    }
    let space = space - kept.len();
    Ok(space > 0 && wanted::forget(tx, repo, name, space)? < space)
}

/// Manifests whose removal is not finished, of one image or of all, `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn unfinished(
    view: &impl Read,
    of: Option<&RepoName>,
    limit: usize,
) -> Result<Vec<(RepoName, Digest)>, StateError> {
    let scan = of.map_or_else(Scan::all, Scan::prefix);
    Ok(view.scan(&UNFINISHED, &scan, limit)?.into_iter().map(|(key, _)| key).collect())
}

/// Goes on with the removal of a manifest in a transaction of bounded size; gives what retention took with it, and
/// `None` when something is left.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn finish_removal(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<Option<Removed>, StateError> {
    let key = (repo.clone(), name.clone());
    if tx.get(&UNFINISHED, &key)?.is_none() {
        return Ok(Some(Removed::default()));
    }
    if tx.get(&MANIFESTS, &key)?.is_none() {
        if !take_part(tx, now, repo, name)? {
            return Ok(None);
        }
        tx.delete(&UNFINISHED, &key)?;
        return Ok(Some(Removed::default()));
    }
    // It went with an image and its turn did not come.
    tx.delete(&UNFINISHED, &key)?;
    remove_leftover(tx, now, repo, name).map(Some)
}

/// How many repositories are going that hold something still.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn going_with_content(view: &impl Read) -> Result<u64, StateError> {
    let mut number = 0;
    for root in super::going(view)? {
        number += u64::from(first_image(view, &root)?.is_some());
    }
    Ok(number)
}

/// Takes away a part of what a repository holds that is going, in a transaction of bounded size; gives how many rows,
/// 0 when nothing is left. The record itself goes when no request of before can be under way any more.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn drain(tx: &mut Tx<'_>, now: Millis, root: &str) -> Result<usize, StateError> {
    let key = root.to_owned();
    let Some(record) = tx.get(&REPOSITORIES, &key)? else { return Ok(0) };
    let Some(removed_at) = record.removed_at else { return Ok(0) };
    let Some(image) = first_image(tx, root)? else {
        if now.0 >= removed_at.0.saturating_add(GOING_MILLIS) {
            tx.delete(&REPOSITORIES, &key)?;
            tx.delete(&TOTALS, &key)?;
        }
        return Ok(0);
    };
    let tags = tx.scan(&TAGS, &Scan::prefix(&image), DRAIN_ROWS)?;
    for ((_, tag), _) in &tags {
        delete_tag(tx, &image, tag)?;
    }
    if !tags.is_empty() {
        return Ok(tags.len());
    }
    let manifests = tx.scan(&MANIFESTS, &Scan::prefix(&image), DRAIN_MANIFESTS)?;
    for ((_, digest), _) in &manifests {
        delete_manifest(tx, now, &image, digest)?;
    }
    if !manifests.is_empty() {
        return Ok(manifests.len());
    }
    if let Some((repo, name)) = unfinished(tx, Some(&image), 1)?.first() {
        finish_removal(tx, now, repo, name)?;
        return Ok(1);
    }
    let blobs = tx.scan(&BLOBS, &Scan::prefix(&image), DRAIN_ROWS)?;
    for ((_, digest), _) in &blobs {
        delete_blob(tx, now, &image, digest)?;
    }
    if !blobs.is_empty() {
        return Ok(blobs.len());
    }
    // It is counted as holding something and holds nothing: the next image must not wait for it.
    count(tx, &image, |held| *held = CatalogueRecord::default())?;
    Ok(1)
}

/// An image that holds something, also when it is not counted as such.
fn first_image(view: &impl Read, root: &str) -> Result<Option<RepoName>, StateError> {
    if let Some(image) = images(view, root, None, 1)?.into_iter().next() {
        return Ok(Some(image.name));
    }
    for found in [
        first_row(view, &MANIFESTS, root)?,
        first_row(view, &TAGS, root)?,
        first_row(view, &UNFINISHED, root)?,
        first_row(view, &BLOBS, root)?,
    ] {
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn first_row<K: Key, V: Value>(
    view: &impl Read,
    table: &Table<(RepoName, K), V>,
    root: &str,
) -> Result<Option<RepoName>, StateError> {
    if let Ok(bare) = RepoName::parse(root)
        && !view.scan(table, &Scan::prefix(&bare), 1)?.is_empty()
    {
        return Ok(Some(bare));
    }
    let scan = Scan::all().after(&(format!("{root}/"), String::new()));
    let rows = view.scan(table, &scan, 1)?;
    Ok(rows.into_iter().map(|((repo, _), _)| repo).find(|repo| repo.root() == root))
}
