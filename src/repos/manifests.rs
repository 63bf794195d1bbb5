//! Manifests of a repository and the bytes that they keep.

use std::collections::BTreeSet;

use super::catalogue::count;
use super::companions;
use super::holdings::blob_at;
use super::parse::ParsedManifest;
use super::referrers;
use super::removal;
use super::settings::settings;
use super::tables::{KEEPS, MANIFESTS, ManifestRecord, PULLED};
use super::tags::{ImmutableTag, immutable_tag_of, set_tag, target};
use super::wanted;
use crate::blobs::{self, Owner, Stored};
use crate::names::{Digest, Millis, Reference, RepoName, Tag};
use crate::state::{MAX_SCAN_ROWS, Read, StateError, Tx};

/// A manifest as a repository holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// As it was named when it was put.
    pub digest: Digest,
    /// The SHA-256 under which `blobs` knows its bytes.
    pub stored: Digest,
    /// As it is answered in `Content-Type`.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
}

pub(super) fn owner(repo: &RepoName, name: &Digest) -> Owner {
    Owner::new("manifest", format!("{repo}@{name}"))
}

/// Puts the manifest, whose bytes are stored already, under its SHA-256; links it and what it refers to. Idempotent: a manifest
/// that is held keeps its media type.
///
/// The inner `Err` names what this repository lacks, unless it is `sparse`; then nothing is written.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn put_manifest(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    stored: &Stored,
    parsed: &ParsedManifest,
    tags: &[Tag],
) -> Result<Result<StoredManifest, Vec<Digest>>, StateError> {
    put_manifest_named(tx, now, repo, &stored.digest, stored, parsed, tags)
}

/// As [`put_manifest`], under the name that the client gave (a sha512).
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn put_manifest_named(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
    stored: &Stored,
    parsed: &ParsedManifest,
    tags: &[Tag],
) -> Result<Result<StoredManifest, Vec<Digest>>, StateError> {
    let needs = needs(tx, repo, parsed)?;
    if let Some(lacking) = needs.refused(tx, repo)? {
        return Ok(Err(lacking));
    }
    let key = (repo.clone(), name.clone());
    let owner = owner(repo, name);
    removal::clear(tx, now, repo, name)?;
    let before = tx.get(&MANIFESTS, &key)?;
    // Bytes that do not tell their type are what they were last put as; but who puts them again must not change what
    // an immutable tag is answered as, nor what more tags are than can be looked through here.
    let media_type = match &before {
        Some(held) if held.media_type != parsed.media_type => {
            let settings = settings(tx, repo.root())?;
            match immutable_tag_of(tx, repo, name, &settings, None)? {
                ImmutableTag::None => parsed.media_type.clone(),
                ImmutableTag::Is(_) | ImmutableTag::NotUpTo(_) => held.media_type.clone(),
            }
        }
        _ => parsed.media_type.clone(),
    };
    blobs::link(tx, stored, &owner)?;
    for digest in &needs.here {
        blobs::link_known(tx, digest, &owner)?;
        tx.put(&KEEPS, &(repo.clone(), name.clone(), digest.clone()), &())?;
    }
    if before.is_some() {
        while wanted::forget(tx, repo, name, MAX_SCAN_ROWS)? > 0 {}
    }
    wanted::want(tx, repo, name, &needs.lacking)?;
    wanted::want(tx, repo, name, &needs.elsewhere)?;
    let record = ManifestRecord {
        stored: stored.digest.clone(),
        media_type: media_type.clone(),
        size: stored.size,
        subject: parsed.subject.clone(),
        pushed_at: now,
    };
    tx.put(&MANIFESTS, &key, &record)?;
    wanted::arrived(tx, repo, name, &stored.digest)?;
    if let Some(subject) = &parsed.subject {
        referrers::enter(tx, repo, subject, name, (&media_type, stored.size), parsed)?;
    }
    if before.is_none() {
        count(tx, repo, |held| {
            held.manifests += 1;
            held.bytes = held.bytes.saturating_add(stored.size);
        })?;
    }
    for tag in tags {
        set_tag(tx, now, repo, tag, name)?;
    }
    Ok(Ok(answer(name.clone(), record)))
}

/// What of the manifest's needs the repository lacks; nothing of a `sparse` one.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn lacks(view: &impl Read, repo: &RepoName, parsed: &ParsedManifest) -> Result<Vec<Digest>, StateError> {
    Ok(needs(view, repo, parsed)?.refused(view, repo)?.unwrap_or_default())
}

/// Makes the bytes of a manifest that is refused known and unreferenced, so that collection finds them.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn refuse_bytes(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
    stored: &Stored,
) -> Result<(), StateError> {
    let refused = Owner::new("refused", format!("{repo}@{name}"));
    blobs::link(tx, stored, &refused)?;
    blobs::unlink(tx, &stored.digest, &refused, now)
}

/// What a manifest names, by whether the repository has it.
struct Needs {
    /// The SHA-256 of what is there.
    here: BTreeSet<Digest>,
    /// What is not, as it is named.
    lacking: Vec<Digest>,
    /// Layers that are not distributed, and not there.
    elsewhere: Vec<Digest>,
}

impl Needs {
    /// What the repository would have to have; `None` when it takes the manifest.
    fn refused(&self, view: &impl Read, repo: &RepoName) -> Result<Option<Vec<Digest>>, StateError> {
        let taken = self.lacking.is_empty() || settings(view, repo.root())?.sparse;
        Ok(if taken { None } else { Some(self.lacking.clone()) })
    }
}

fn needs(view: &impl Read, repo: &RepoName, parsed: &ParsedManifest) -> Result<Needs, StateError> {
    let needed: BTreeSet<&Digest> =
        parsed.config.iter().chain(&parsed.layers).chain(&parsed.children).collect();
    let mut needs = Needs { here: BTreeSet::new(), lacking: Vec::new(), elsewhere: Vec::new() };
    for digest in needed {
        match resolve(view, repo, digest)? {
            Some(stored) => _ = needs.here.insert(stored),
            None => needs.lacking.push(digest.clone()),
        }
    }
    for digest in &parsed.elsewhere {
        match resolve(view, repo, digest)? {
            Some(stored) => _ = needs.here.insert(stored),
            None => needs.elsewhere.push(digest.clone()),
        }
    }
    Ok(needs)
}

/// The SHA-256 of a blob or manifest of this repository whose bytes are here.
pub(super) fn resolve(
    view: &impl Read,
    repo: &RepoName,
    name: &Digest,
) -> Result<Option<Digest>, StateError> {
    let stored = match blob_at(view, repo, name)? {
        Some(at) => at.stored,
        None => match view.get(&MANIFESTS, &(repo.clone(), name.clone()))? {
            Some(record) => record.stored,
            None => return Ok(None),
        },
    };
    Ok(blobs::is_known(view, &stored)?.map(|_| stored))
}

fn answer(digest: Digest, record: ManifestRecord) -> StoredManifest {
    StoredManifest { digest, stored: record.stored, media_type: record.media_type, size: record.size }
}

/// The manifest that a tag or digest names in this repository.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn get_manifest(
    view: &impl Read,
    repo: &RepoName,
    reference: &Reference,
) -> Result<Option<StoredManifest>, StateError> {
    let digest = match reference {
        Reference::Digest(digest) => digest.clone(),
        Reference::Tag(tag) => match target(view, repo, tag)? {
            Some(digest) => digest,
            None => return Ok(None),
        },
    };
    let record = view.get(&MANIFESTS, &(repo.clone(), digest.clone()))?;
    Ok(record.map(|record| answer(digest, record)))
}

/// Removes the manifest, all its tags in this repository, and its references; `false` when there is none. None of them
/// is seen any more; what is too much for one transaction goes with [`finish_removal`](super::finish_removal).
///
/// Tags that belong to it by their name ([`companion_tags`](super::companion_tags)) go with it, and so do the manifests
/// that only these named.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn delete_manifest(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    name: &Digest,
) -> Result<bool, StateError> {
    if !delete_alone(tx, now, repo, name)? {
        return Ok(false);
    }
    // Not theirs in turn: a chain of signatures of signatures must not make this transaction long.
    for orphan in companions::orphan(tx, repo, name)? {
        delete_alone(tx, now, repo, &orphan)?;
    }
    Ok(true)
}

fn delete_alone(tx: &mut Tx<'_>, now: Millis, repo: &RepoName, name: &Digest) -> Result<bool, StateError> {
    let key = (repo.clone(), name.clone());
    let Some(record) = tx.get(&MANIFESTS, &key)? else { return Ok(false) };
    blobs::unlink(tx, &record.stored, &owner(repo, name), now)?;
    if let Some(subject) = &record.subject {
        referrers::leave(tx, repo, subject, name)?;
    }
    tx.delete(&MANIFESTS, &key)?;
    tx.delete(&PULLED, &key)?;
    count(tx, repo, |held| {
        held.manifests = held.manifests.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(record.size);
    })?;
    removal::take_rest(tx, now, repo, name)?;
    Ok(true)
}
