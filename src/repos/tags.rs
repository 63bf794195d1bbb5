//! Tags: names that move.

use super::catalogue::{count, cursor, exists};
use super::settings::settings;
use super::tables::{MANIFESTS, TAGS, TAGS_OF, TagRecord};
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Tx};

/// Points the tag to a manifest of the repository; `false` when there is no such manifest (nothing is written).
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn set_tag(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    tag: &Tag,
    digest: &Digest,
) -> Result<bool, StateError> {
    if tx.get(&MANIFESTS, &(repo.clone(), digest.clone()))?.is_none() {
        return Ok(false);
    }
    let key = (repo.clone(), tag.clone());
    if let Some(before) = tx.get(&TAGS, &key)? {
        tx.delete(&TAGS_OF, &(repo.clone(), before.digest, tag.clone()))?;
    } else {
        count(tx, repo, |held| held.tags += 1)?;
    }
    tx.put(&TAGS, &key, &TagRecord { digest: digest.clone(), set_at: now })?;
    tx.put(&TAGS_OF, &(repo.clone(), digest.clone(), tag.clone()), &())?;
    Ok(true)
}

/// Removes the tag, and nothing else; `false` when there is none.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn delete_tag(tx: &mut Tx<'_>, _now: Millis, repo: &RepoName, tag: &Tag) -> Result<bool, StateError> {
    let key = (repo.clone(), tag.clone());
    let Some(record) = tx.get(&TAGS, &key)? else { return Ok(false) };
    tx.delete(&TAGS, &key)?;
    tx.delete(&TAGS_OF, &(repo.clone(), record.digest, tag.clone()))?;
    count(tx, repo, |held| held.tags = held.tags.saturating_sub(1))?;
    Ok(true)
}

/// The first of these tags that points to something else than `digest` and may not move.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn moved_immutable<'a>(
    view: &impl Read,
    repo: &RepoName,
    tags: &'a [Tag],
    digest: &Digest,
) -> Result<Option<&'a Tag>, StateError> {
    let settings = settings(view, repo.root())?;
    for tag in tags.iter().filter(|tag| settings.is_immutable(tag)) {
        if target(view, repo, tag)?.is_some_and(|before| before != *digest) {
            return Ok(Some(tag));
        }
    }
    Ok(None)
}

/// A tag of this manifest that may not move, so that neither may the manifest go.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn immutable_tag_of(
    view: &impl Read,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Option<Tag>, StateError> {
    let settings = settings(view, repo.root())?;
    if settings.immutable_tags.is_empty() {
        return Ok(None);
    }
    let mut scan = Scan::prefix(&(repo.clone(), digest.clone()));
    loop {
        let page = view.scan(&TAGS_OF, &scan, MAX_SCAN_ROWS)?;
        let Some((last, ())) = page.last() else { return Ok(None) };
        scan = scan.after(last);
        if let Some(((_, _, tag), ())) = page.into_iter().find(|((_, _, tag), ())| settings.is_immutable(tag))
        {
            return Ok(Some(tag));
        }
    }
}

/// Removes every tag of a manifest.
pub(super) fn delete_tags_of(tx: &mut Tx<'_>, repo: &RepoName, digest: &Digest) -> Result<(), StateError> {
    loop {
        let page = tx.scan(&TAGS_OF, &Scan::prefix(&(repo.clone(), digest.clone())), 1_000)?;
        if page.is_empty() {
            return Ok(());
        }
        let gone = page.len() as u64;
        count(tx, repo, |held| held.tags = held.tags.saturating_sub(gone))?;
        for (key, ()) in page {
            tx.delete(&TAGS, &(repo.clone(), key.2.clone()))?;
            tx.delete(&TAGS_OF, &key)?;
        }
    }
}

/// The manifest that a tag points to.
pub(super) fn target(view: &impl Read, repo: &RepoName, tag: &Tag) -> Result<Option<Digest>, StateError> {
    Ok(view.get(&TAGS, &(repo.clone(), tag.clone()))?.map(|record| record.digest))
}

/// The tags after `after` (exclusive, need not exist) in byte order, `limit` (≤ 1,000) at most; `None` when the
/// repository holds nothing.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn tags(
    view: &impl Read,
    repo: &RepoName,
    after: Option<&str>,
    limit: usize,
) -> Result<Option<Vec<Tag>>, StateError> {
    if !exists(view, repo)? {
        return Ok(None);
    }
    if limit == 0 {
        return Ok(Some(Vec::new()));
    }
    let mut scan = Scan::prefix(repo);
    if let Some(after) = after {
        scan = scan.after(&(repo.clone(), cursor(after)));
    }
    let rows = view.scan(&TAGS, &scan, limit)?;
    Ok(Some(rows.into_iter().map(|((_, tag), _)| tag).collect()))
}
