//! Tags that are about a digest by their very name: the fallback of clients for the index of referrers, and those of
//! cosign up to 2.
//!
//! They live and go with their image: deleting it takes them along, and retention asks here before it removes one.

use super::retention::is_bound;
use super::settings::settings;
use super::tables::{TAGS, TAGS_OF};
use super::tags::{delete_tag, target};
use crate::names::{Digest, RepoName, Tag};
use crate::state::{Read, Scan, StateError, Tx};

/// What may follow the digest.
const SUFFIXES: [&str; 4] = ["", ".sig", ".att", ".sbom"];
/// A fallback tag has so many characters of the hexadecimal part at most.
const HEX_CHARACTERS: usize = 64;

/// The fallback tag of a digest, under which clients keep an index of referrers where a registry has none.
///
/// *Source*: OCI distribution specification, section Referrers Tag Schema.
#[must_use]
pub fn fallback_tag(digest: &Digest) -> Tag {
    named(digest, SUFFIXES[0])
}

fn named(digest: &Digest, suffix: &str) -> Tag {
    let hex = digest.hex().get(..HEX_CHARACTERS).unwrap_or(digest.hex());
    Tag::parse(&format!("{}-{hex}{suffix}", digest.algorithm().as_str()))
        .expect("invariant: an algorithm, a dash and 64 hexadecimal digits are a tag")
}

/// The tags of this repository that belong to the manifest of this digest by their name (`sha256-<hex>`, and the same
/// with `.sig`, `.att`, `.sbom`), whether the manifest is there or not.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn companion_tags(view: &impl Read, repo: &RepoName, digest: &Digest) -> Result<Vec<Tag>, StateError> {
    let mut found = Vec::new();
    for suffix in SUFFIXES {
        let tag = named(digest, suffix);
        if view.get(&TAGS, &(repo.clone(), tag.clone()))?.is_some() {
            found.push(tag);
        }
    }
    Ok(found)
}

/// Removes the companion tags of a manifest that has gone, and gives the manifests that nothing keeps any more: no tag,
/// no index, nothing that they are about. Immutable tags stay.
pub(super) fn orphan(tx: &mut Tx<'_>, repo: &RepoName, digest: &Digest) -> Result<Vec<Digest>, StateError> {
    let tags = companion_tags(tx, repo, digest)?;
    if tags.is_empty() {
        return Ok(Vec::new());
    }
    let settings = settings(tx, repo.root())?;
    let mut orphans = Vec::new();
    for tag in tags.iter().filter(|tag| !settings.is_immutable(tag)) {
        let Some(manifest) = target(tx, repo, tag)? else { continue };
        delete_tag(tx, repo, tag)?;
        let untagged = tx.scan(&TAGS_OF, &Scan::prefix(&(repo.clone(), manifest.clone())), 1)?.is_empty();
        if untagged && !is_bound(tx, repo, &manifest)? {
            orphans.push(manifest);
        }
    }
    Ok(orphans)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_tag_is_named_after_its_digest() {
        let digest = Digest::of(b"image");
        assert_eq!(fallback_tag(&digest).as_str(), format!("sha256-{}", digest.hex()));
        let long = Digest::sha512_of(b"image");
        assert_eq!(fallback_tag(&long).as_str(), format!("sha512-{}", &long.hex()[..64]));
    }
}
