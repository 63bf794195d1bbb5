//! Taking away what was judged, judged again in the transaction that does it.

use super::judge::{Verdict, judge_tag, judge_untagged};
use super::survey::{
    Newest, Pending, Surveyed, SurveyedManifest, has_parent, has_tag, manifest_facts, named, tag_facts,
};
use crate::names::{Digest, Millis, RepoName};
use crate::repos::companions::companion_tags;
use crate::repos::manifests::delete_manifest;
use crate::repos::parse::lists_manifests;
use crate::repos::removal;
use crate::repos::settings::{RepositorySettings, settings};
use crate::repos::tables::{KEEPS, MANIFESTS, PULLED, PulledRecord, REFERRERS, TAGS};
use crate::repos::tags::delete_tag;
use crate::state::{Read, Scan, StateError, Tx};

/// So many referrers and children of one image are looked at; further ones have no tag then, and go by that rule.
const WITH_IMAGE_CAP: usize = 1_000;
/// After so many rows a transaction ends, so that nobody waits for long; the rest goes in further ones.
const ROWS: usize = 1_000;

/// What a transaction took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Tags, as `name:tag`.
    pub tags: Vec<String>,
    /// How many manifests went.
    pub manifests: u64,
    /// About so many rows went with them.
    rows: usize,
    /// Some that were judged are left for another transaction.
    pub more: bool,
}

/// How a removal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// What still deserved it was taken away.
    Done(Removed),
    /// The rules, or the tags that are kept as the last ones, are no longer those of the survey; nothing was done.
    Outdated,
}

/// Removes tags that were judged, and manifests that nothing else keeps then.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn remove_tags(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    rules: &RepositorySettings,
    newest: &Newest,
    pending: Pending<'_>,
    judged: &[Surveyed],
) -> Result<Removal, StateError> {
    if settings(tx, repo.root())? != *rules || !still_newest(tx, repo, newest)? {
        return Ok(Removal::Outdated);
    }
    let mut removed = Removed::default();
    for tag in judged {
        if removed.rows >= ROWS {
            removed.more = true;
            break;
        }
        let Some(record) = tx.get(&TAGS, &(repo.clone(), tag.tag.clone()))? else { continue };
        let fresh =
            tag_facts(tx, repo, newest, pending, tag.tag.clone(), record.digest.clone(), record.set_at)?;
        let same = fresh.digest == tag.digest && fresh.set_at == tag.set_at;
        if !same || judge_tag(rules, &fresh.tag, &fresh.facts, now) != Verdict::RemoveTag {
            continue;
        }
        delete_tag(tx, repo, &tag.tag)?;
        removed.tags.push(format!("{repo}:{}", tag.tag));
        with_image(tx, now, repo, rules, record.digest, &mut removed)?;
    }
    Ok(Removal::Done(removed))
}

/// Those that are kept as the last ones are there, set as late as then.
fn still_newest(view: &impl Read, repo: &RepoName, newest: &Newest) -> Result<bool, StateError> {
    for (set_at, tag) in &newest.members {
        let record = view.get(&TAGS, &(repo.clone(), tag.clone()))?;
        let Some(record) = record.filter(|record| record.set_at >= *set_at) else { return Ok(false) };
        // Its manifest has just gone, and it will.
        if view.get(&MANIFESTS, &(repo.clone(), record.digest))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes manifests without a tag that were judged.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn remove_untagged(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    rules: &RepositorySettings,
    pending: Pending<'_>,
    judged: &[SurveyedManifest],
) -> Result<Removal, StateError> {
    if settings(tx, repo.root())? != *rules {
        return Ok(Removal::Outdated);
    }
    let mut removed = Removed::default();
    for manifest in judged {
        if removed.rows >= ROWS {
            removed.more = true;
            break;
        }
        let key = (repo.clone(), manifest.digest.clone());
        let Some(record) = tx.get(&MANIFESTS, &key)? else { continue };
        if has_tag(tx, repo, &manifest.digest)? {
            continue;
        }
        let fresh = manifest_facts(tx, repo, pending, manifest.digest.clone(), &record)?;
        if judge_untagged(rules, &fresh.facts, now) == Verdict::RemoveUntagged {
            with_image(tx, now, repo, rules, fresh.digest, &mut removed)?;
        }
    }
    Ok(Removal::Done(removed))
}

/// Removes a manifest that was to go with an image, and whose turn did not come, unless something keeps it by now.
pub(in crate::repos) fn remove_leftover(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<Removed, StateError> {
    let rules = settings(tx, repo.root())?;
    let mut removed = Removed::default();
    with_image(tx, now, repo, &rules, name.clone(), &mut removed)?;
    Ok(removed)
}

/// Removes a manifest that nothing keeps any more, and what lives with it: its referrers, what is named after it, its
/// children that no other manifest lists.
fn with_image(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    rules: &RepositorySettings,
    image: Digest,
    removed: &mut Removed,
) -> Result<(), StateError> {
    let mut waiting = vec![image];
    while let Some(digest) = waiting.pop() {
        let key = (repo.clone(), digest.clone());
        if removed.rows >= ROWS {
            if tx.get(&MANIFESTS, &key)?.is_some() {
                removal::leave(tx, now, repo, &digest)?;
            }
            continue;
        }
        let Some(record) = tx.get(&MANIFESTS, &key)? else { continue };
        let about_another = match &record.subject {
            Some(subject) => tx.get(&MANIFESTS, &(repo.clone(), subject.clone()))?.is_some(),
            None => false,
        };
        if about_another || has_tag(tx, repo, &digest)? || has_parent(tx, repo, &digest, &record.stored)? {
            continue;
        }
        let referrers = tx.scan(&REFERRERS, &Scan::prefix(&key), WITH_IMAGE_CAP)?;
        let kept = tx.scan(&KEEPS, &Scan::prefix(&key), WITH_IMAGE_CAP)?;
        let mut children = Vec::new();
        if lists_manifests(&record.media_type) {
            for ((_, _, stored), ()) in &kept {
                children.extend(named(tx, repo, stored.clone())?);
            }
        }
        // Before the manifest, which would take them along uncounted. One that may not move stays, as everywhere.
        for tag in companion_tags(tx, repo, &digest)?.into_iter().filter(|tag| !rules.is_immutable(tag)) {
            if let Some(companion) = tx.get(&TAGS, &(repo.clone(), tag.clone()))? {
                delete_tag(tx, repo, &tag)?;
                removed.tags.push(format!("{repo}:{tag}"));
                waiting.push(companion.digest);
            }
        }
        delete_manifest(tx, now, repo, &digest)?;
        removed.manifests += 1;
        removed.rows += 1 + referrers.len() + kept.len();
        waiting.extend(referrers.into_iter().map(|((_, _, referrer), _)| referrer));
        waiting.extend(children);
    }
    Ok(())
}

/// Records when manifests were asked for; those that are gone are left out.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn note_pulled(tx: &mut Tx<'_>, pulled: &[(RepoName, Digest, Millis)]) -> Result<(), StateError> {
    for (repo, digest, at) in pulled {
        let key = (repo.clone(), digest.clone());
        if tx.get(&MANIFESTS, &key)?.is_none() {
            continue;
        }
        if tx.get(&PULLED, &key)?.is_none_or(|record| record.at < *at) {
            tx.put(&PULLED, &key, &PulledRecord { at: *at })?;
        }
    }
    Ok(())
}
