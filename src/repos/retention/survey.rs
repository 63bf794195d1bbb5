//! The facts, a page at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::judge::{ManifestFacts, TagFacts};
use crate::blobs;
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::repos::tables::{KEEPS, MANIFESTS, ManifestRecord, PULLED, TAGS_OF};
use crate::repos::tags::seen_rows;
use crate::repos::wanted;
use crate::state::{Read, Scan, StateError};

/// The same bytes have so many names in an image at most: one for each algorithm.
const NAMES: usize = 2;
/// So many of those that list a manifest are passed over to find its longer name.
const PARENTS: usize = 100;

/// When a manifest was asked for since the records were written; `None` when it was not.
pub type Pending<'a> = &'a dyn Fn(&RepoName, &Digest) -> Option<Millis>;

/// The tags of an image that were set last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// The oldest of them; `None` when all tags of the image are among them.
    threshold: Option<(Millis, Tag)>,
    /// All of them, when they are to be compared again.
    pub(super) members: Vec<(Millis, Tag)>,
}

impl Newest {
    /// From the oldest of them alone.
    #[must_use]
    pub fn from_threshold(threshold: Option<(Millis, Tag)>) -> Self {
        Self { threshold, members: Vec::new() }
    }

    /// The oldest of them; `None` when all tags of the image are among them.
    #[must_use]
    pub fn threshold(&self) -> Option<&(Millis, Tag)> {
        self.threshold.as_ref()
    }

    pub(super) fn has(&self, set_at: Millis, tag: &Tag) -> bool {
        self.threshold.as_ref().is_none_or(|(at, last)| (set_at, tag) >= (*at, last))
    }
}

/// Finds the tags that were set last, page by page ([`survey_page`]).
#[derive(Debug)]
pub struct NewestBuilder {
    keep: usize,
    heap: BinaryHeap<Reverse<(Millis, Tag)>>,
    more: bool,
}

impl NewestBuilder {
    /// To find this many.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { keep, heap: BinaryHeap::new(), more: false }
    }

    /// Takes a page.
    pub fn take(&mut self, page: Vec<(Tag, Millis)>) {
        for (tag, set_at) in page {
            // What is named after a manifest goes with that and is nobody's version.
            if companion(&tag).is_some() {
                continue;
            }
            self.heap.push(Reverse((set_at, tag)));
            if self.heap.len() > self.keep {
                self.heap.pop();
                self.more = true;
            }
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Newest {
        let members: Vec<_> = self.heap.into_iter().map(|Reverse(member)| member).collect();
        let threshold = if self.more { members.iter().min().cloned() } else { None };
        Newest { threshold, members }
    }
}

/// The tags of an image after `after`, with the time when each was set.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn survey_page(
    view: &impl Read,
    repo: &RepoName,
    after: Option<&Tag>,
    limit: usize,
) -> Result<Vec<(Tag, Millis)>, StateError> {
    let rows = seen_rows(view, repo, after.map(Tag::to_string), limit)?;
    Ok(rows.into_iter().map(|(tag, record)| (tag, record.set_at)).collect())
}

fn below<K: crate::state::Key + Clone>(repo: &RepoName, after: Option<&K>) -> Scan {
    let scan = Scan::prefix(repo);
    match after {
        Some(after) => scan.after(&(repo.clone(), after.clone())),
        None => scan,
    }
}

/// A tag with its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it points to.
    pub digest: Digest,
    /// When it was set.
    pub set_at: Millis,
    /// When its manifest was asked for last, as far as known.
    pub pulled_at: Option<Millis>,
    /// What is judged.
    pub facts: TagFacts,
}

/// The tags of an image after `after` with their facts.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn tags_page(
    view: &impl Read,
    repo: &RepoName,
    newest: &Newest,
    pending: Pending<'_>,
    after: Option<&Tag>,
    limit: usize,
) -> Result<Vec<Surveyed>, StateError> {
    let rows = seen_rows(view, repo, after.map(Tag::to_string), limit)?;
    rows.into_iter()
        .map(|(tag, record)| tag_facts(view, repo, newest, pending, tag, record.digest, record.set_at))
        .collect()
}

/// The facts of one tag.
pub(super) fn tag_facts(
    view: &impl Read,
    repo: &RepoName,
    newest: &Newest,
    pending: Pending<'_>,
    tag: Tag,
    digest: Digest,
    set_at: Millis,
) -> Result<Surveyed, StateError> {
    let pulled_at = pulled_at(view, repo, pending, &digest)?;
    let companion_of = match companion(&tag) {
        Some(image) => Some(image.is_here(view, repo)?),
        None => None,
    };
    let facts = TagFacts {
        among_last: newest.has(set_at, &tag),
        used_at: pulled_at.map_or(set_at, |at| at.max(set_at)),
        companion_of,
    };
    Ok(Surveyed { tag, digest, set_at, pulled_at, facts })
}

fn pulled_at(
    view: &impl Read,
    repo: &RepoName,
    pending: Pending<'_>,
    digest: &Digest,
) -> Result<Option<Millis>, StateError> {
    let recorded = view.get(&PULLED, &(repo.clone(), digest.clone()))?.map(|record| record.at);
    Ok(recorded.max(pending(repo, digest)))
}

/// A manifest that no tag points to, with its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedManifest {
    /// As it was named.
    pub digest: Digest,
    /// When it was put.
    pub pushed_at: Millis,
    /// When it was asked for last, as far as known.
    pub pulled_at: Option<Millis>,
    /// What is judged.
    pub facts: ManifestFacts,
}

/// The manifests without a tag among the next `limit` of an image, and where to go on.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn manifests_page(
    view: &impl Read,
    repo: &RepoName,
    pending: Pending<'_>,
    after: Option<&Digest>,
    limit: usize,
) -> Result<(Vec<SurveyedManifest>, Option<Digest>), StateError> {
    let rows = view.scan(&MANIFESTS, &below(repo, after), limit)?;
    let next = if rows.len() < limit { None } else { rows.last().map(|((_, digest), _)| digest.clone()) };
    let mut found = Vec::new();
    for ((_, digest), record) in rows {
        if !has_tag(view, repo, &digest)? {
            found.push(manifest_facts(view, repo, pending, digest, &record)?);
        }
    }
    Ok((found, next))
}

/// The facts of one manifest.
pub(super) fn manifest_facts(
    view: &impl Read,
    repo: &RepoName,
    pending: Pending<'_>,
    digest: Digest,
    record: &ManifestRecord,
) -> Result<SurveyedManifest, StateError> {
    let pulled_at = pulled_at(view, repo, pending, &digest)?;
    let referrer = match &record.subject {
        Some(subject) => view.get(&MANIFESTS, &(repo.clone(), subject.clone()))?.is_some(),
        None => false,
    };
    let facts = ManifestFacts {
        child: has_parent(view, repo, &digest, &record.stored)?,
        referrer,
        used_at: pulled_at.map_or(record.pushed_at, |at| at.max(record.pushed_at)),
    };
    Ok(SurveyedManifest { digest, pushed_at: record.pushed_at, pulled_at, facts })
}

pub(super) fn has_tag(view: &impl Read, repo: &RepoName, digest: &Digest) -> Result<bool, StateError> {
    Ok(!view.scan(&TAGS_OF, &Scan::prefix(&(repo.clone(), digest.clone())), 1)?.is_empty())
}

/// Whether another manifest of the image lists this one, or waits for it.
pub(super) fn has_parent(
    view: &impl Read,
    repo: &RepoName,
    digest: &Digest,
    stored: &Digest,
) -> Result<bool, StateError> {
    // Each name of the same bytes owns them too, and lists nothing: one more owner than there are names is a parent.
    for key in blobs::owner_keys(view, stored, "manifest", &format!("{repo}@"), NAMES + 1)? {
        if let Some(owner) = owner_name(repo, &key)
            && view.get(&KEEPS, &(repo.clone(), owner, stored.clone()))?.is_some()
        {
            return Ok(true);
        }
    }
    wanted::is_wanted(view, repo, digest)
}

/// The manifests of the image with these bytes, by every name that they have.
pub(super) fn named(view: &impl Read, repo: &RepoName, stored: Digest) -> Result<Vec<Digest>, StateError> {
    let mut found = Vec::new();
    // Nothing leads from the bytes to their longer name but that it owns them, as those do that list it.
    for key in blobs::owner_keys(view, &stored, "manifest", &format!("{repo}@sha512:"), PARENTS)? {
        let Some(name) = owner_name(repo, &key) else { continue };
        let record = view.get(&MANIFESTS, &(repo.clone(), name.clone()))?;
        if record.is_some_and(|record| record.stored == stored) {
            found.push(name);
        }
    }
    found.push(stored);
    Ok(found)
}

fn owner_name(repo: &RepoName, key: &str) -> Option<Digest> {
    Digest::parse(key.strip_prefix(repo.as_str())?.strip_prefix('@')?).ok()
}

/// The manifest that a tag is named after.
pub(super) enum Companion {
    Whole(Digest),
    /// A digest too long for a tag: its beginning.
    Cut(String),
}

impl Companion {
    fn is_here(&self, view: &impl Read, repo: &RepoName) -> Result<bool, StateError> {
        match self {
            Self::Whole(digest) => Ok(view.get(&MANIFESTS, &(repo.clone(), digest.clone()))?.is_some()),
            Self::Cut(text) => {
                let Ok(first) = Digest::parse(&format!("{text}{}", "0".repeat(64))) else { return Ok(false) };
                let rows = view.scan(&MANIFESTS, &below(repo, Some(&first)), 1)?;
                Ok(rows.iter().any(|((_, digest), _)| digest.to_string().starts_with(text)))
            }
        }
    }
}

/// Reads `sha256-<hex>` and `sha512-<first 64 hex>`, alone (the fallback of referrers) or with an ending of cosign.
pub(super) fn companion(tag: &Tag) -> Option<Companion> {
    let text = tag.as_str();
    let name = [".sig", ".att", ".sbom"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text);
    let (algorithm, hex) = name.split_once('-')?;
    if hex.len() != 64 {
        return None;
    }
    match algorithm {
        "sha256" => Digest::parse(&format!("sha256:{hex}")).ok().map(Companion::Whole),
        "sha512" if hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) => {
            Some(Companion::Cut(format!("sha512:{hex}")))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::repos::fallback_tag;

    #[test]
    fn a_companion_tells_what_it_belongs_to() {
        let (short, long) = (Digest::of(b"image"), Digest::sha512_of(b"image"));
        for suffix in ["", ".sig", ".att", ".sbom"] {
            let tag = |digest| Tag::parse(&format!("{}{suffix}", fallback_tag(digest))).unwrap();
            let found = companion(&tag(&short));
            assert!(matches!(found, Some(Companion::Whole(digest)) if digest == short), "{suffix}");
            let found = companion(&tag(&long));
            assert!(
                matches!(found, Some(Companion::Cut(text)) if long.to_string().starts_with(&text)),
                "{suffix}"
            );
        }
        let hex = short.hex();
        for other in ["latest", "sha256-abc", &format!("sha256-{hex}.txt"), &format!("md5-{hex}"), hex] {
            assert!(companion(&Tag::parse(other).unwrap()).is_none(), "{other}");
        }
    }
}
