//! Manifests that are about another one.

use std::collections::BTreeMap;

use super::parse::ParsedManifest;
use super::tables::{REFERRERS, ReferrerRecord};
use crate::names::{Digest, RepoName};
use crate::state::{Read, Scan, StateError, Tx};

/// Annotations up to this many bytes, as JSON, stand in the index itself.
const ANNOTATIONS_INLINE_BYTES: usize = 8 * 1024;

/// One entry of the index of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The manifest, as it was named.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
    /// The manifest's own type, or that of its configuration.
    pub artifact_type: Option<String>,
    /// Its annotations; `None` when they are too large for the index and must be read from the manifest.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The manifests of `repo` whose subject is `subject`, after `after` (exclusive) in order of their digests, `limit`
/// (≤ 1,000) at most. The subject need not exist.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn referrers(
    view: &impl Read,
    repo: &RepoName,
    subject: &Digest,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Referrer>, StateError> {
    let mut scan = Scan::prefix(&(repo.clone(), subject.clone()));
    if let Some(after) = after {
        scan = scan.after(&(repo.clone(), subject.clone(), after.clone()));
    }
    let rows = view.scan(&REFERRERS, &scan, limit)?;
    Ok(rows
        .into_iter()
        .map(|((_, _, digest), record)| Referrer {
            digest,
            media_type: record.media_type,
            size: record.size,
            artifact_type: record.artifact_type,
            annotations: record.annotations,
        })
        .collect())
}

/// Enters a manifest into the index of its subject.
pub(super) fn enter(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    subject: &Digest,
    name: &Digest,
    (media_type, size): (&str, u64),
    parsed: &ParsedManifest,
) -> Result<(), StateError> {
    let fits =
        serde_json::to_vec(&parsed.annotations).is_ok_and(|json| json.len() <= ANNOTATIONS_INLINE_BYTES);
    let record = ReferrerRecord {
        media_type: media_type.to_owned(),
        size,
        artifact_type: parsed.referrer_type().map(str::to_owned),
        annotations: fits.then(|| parsed.annotations.clone()),
    };
    tx.put(&REFERRERS, &(repo.clone(), subject.clone(), name.clone()), &record)
}

/// Takes a manifest out of the index of its subject.
pub(super) fn leave(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    subject: &Digest,
    name: &Digest,
) -> Result<(), StateError> {
    tx.delete(&REFERRERS, &(repo.clone(), subject.clone(), name.clone()))
}
