//! Tags: names that move.

use super::catalogue::{count, cursor, exists};
use super::removal::has_unfinished;
use super::settings::{RepositorySettings, settings};
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
pub fn delete_tag(tx: &mut Tx<'_>, repo: &RepoName, tag: &Tag) -> Result<bool, StateError> {
    let key = (repo.clone(), tag.clone());
    let Some(record) = tx.get(&TAGS, &key)? else { return Ok(false) };
    let seen = is_there(tx, repo, &record.digest)?;
    tx.delete(&TAGS, &key)?;
    tx.delete(&TAGS_OF, &(repo.clone(), record.digest, tag.clone()))?;
    count(tx, repo, |held| held.tags = held.tags.saturating_sub(1))?;
    Ok(seen)
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
        if let Some(before) = target(view, repo, tag)?
            && before != *digest
            && is_there(view, repo, &before)?
        {
            return Ok(Some(tag));
        }
    }
    Ok(None)
}

/// What one look at the tags of a manifest tells of whether one of them may not move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImmutableTag {
    /// This one may not, so that neither may the manifest go.
    Is(Tag),
    /// All of them may.
    None,
    /// Those up to this one may, and there are more.
    NotUpTo(Tag),
}

/// Looks through at most [`MAX_SCAN_ROWS`] tags of this manifest, those after `after`, for one that `settings`, which are
/// those of the repository, let not move.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn immutable_tag_of(
    view: &impl Read,
    repo: &RepoName,
    digest: &Digest,
    settings: &RepositorySettings,
    after: Option<&Tag>,
) -> Result<ImmutableTag, StateError> {
    if settings.immutable_tags.is_empty() {
        return Ok(ImmutableTag::None);
    }
    let mut scan = Scan::prefix(&(repo.clone(), digest.clone()));
    if let Some(after) = after {
        scan = scan.after(&(repo.clone(), digest.clone(), after.clone()));
    }
    let page = view.scan(&TAGS_OF, &scan, MAX_SCAN_ROWS)?;
    let more = page.len() == MAX_SCAN_ROWS;
    let mut last = None;
    for ((_, _, tag), ()) in page {
        if settings.is_immutable(&tag) {
            return Ok(ImmutableTag::Is(tag));
        }
        last = Some(tag);
    }
    Ok(last.filter(|_| more).map_or(ImmutableTag::None, ImmutableTag::NotUpTo))
}

/// The tags of an image after `after` with their records, `limit` at most. Those of a manifest that has gone are left
/// out, which are many perhaps.
pub(super) fn seen_rows(
    view: &impl Read,
    repo: &RepoName,
    after: Option<String>,
    limit: usize,
) -> Result<Vec<(Tag, TagRecord)>, StateError> {
    let going = has_unfinished(view, repo)?;
    let mut found = Vec::new();
    let mut from = after;
    while found.len() < limit {
        let scan = Scan::prefix(repo);
        let scan = from.as_ref().map_or(scan.clone(), |from| scan.after(&(repo.clone(), from.clone())));
        let want = if going { MAX_SCAN_ROWS } else { limit };
        let page = view.scan(&TAGS, &scan, want)?;
        let ended = page.len() < want;
        from = page.last().map(|((_, tag), _)| tag.to_string());
        for ((_, tag), record) in page {
            let seen = !going || is_there(view, repo, &record.digest)?;
            if seen && found.len() < limit {
                found.push((tag, record));
            }
        }
        if ended {
            break;
        }
    }
    Ok(found)
}

fn is_there(view: &impl Read, repo: &RepoName, digest: &Digest) -> Result<bool, StateError> {
    Ok(view.get(&MANIFESTS, &(repo.clone(), digest.clone()))?.is_some())
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
    let rows = seen_rows(view, repo, after.map(cursor), limit)?;
    Ok(Some(rows.into_iter().map(|(tag, _)| tag).collect()))
}
