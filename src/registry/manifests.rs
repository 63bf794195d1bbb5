//! Manifests in, out and away.

use std::sync::Arc;

use bytes::Bytes;

use super::blobs::event;
use super::{Conditions, Registry, RegistryError};
use crate::access::{Principal, Right};
use crate::audit;
use crate::blobs::{INLINE_BYTES, Reader};
use crate::names::{Digest, Reference, RepoName, Tag};
use crate::repos::{self, ParsedManifest, StoredManifest};

/// A manifest of more bytes than this is parsed off the async threads.
const PARSE_INLINE_BYTES: usize = 64 * 1024;
/// One request may set this many tags,
const TAGS_CAP: usize = 100;
/// and the audit log tells this many of them.
const TAGS_TOLD: usize = 10;

/// A manifest that a client puts, as it came.
pub struct PutManifest<'a> {
    /// The tag or digest in the path.
    pub reference: &'a str,
    /// The tags in the query.
    pub tags: &'a [String],
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// What must be so.
    pub conditions: Conditions,
    /// The manifest itself.
    pub bytes: Bytes,
}

/// A manifest that a repository has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPut {
    /// Where it is.
    pub repo: RepoName,
    /// As it is named.
    pub digest: Digest,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// The tags that the query asked for.
    pub tags: Vec<Tag>,
}

impl Registry {
    /// Puts a manifest under a tag or its digest: durable when this returns.
    ///
    /// # Errors
    /// [`RegistryError`]; then nothing is visible.
    pub async fn put_manifest(
        &self,
        who: &Principal,
        name: &str,
        asked: PutManifest<'_>,
    ) -> Result<ManifestPut, RegistryError> {
        let repo = self.0.repository(who, Right::Push, name)?;
        let PutManifest { reference, tags, content_type, conditions, bytes } = asked;
        if bytes.len() as u64 > self.0.manifest_cap_bytes {
            return Err(RegistryError::ManifestTooLarge { cap: self.0.manifest_cap_bytes });
        }
        let named = name_of(reference, tags, &bytes)?;
        let parsed = Arc::new(parse(content_type, &bytes).await?);
        let large = bytes.len() > INLINE_BYTES;
        if large {
            // Before they are written: a refused manifest leaves nothing behind.
            self.check_needs(&repo, &parsed).await?;
        }
        let key = (repo.clone(), named.digest.clone());
        if self.0.state.read_few(move |view| repos::is_unfinished(view, &key.0, &key.1)).await? {
            // One of the same digest has gone, and its last tags have not yet.
            self.finish_removals(Some(&repo)).await?;
        }
        let stored = self.0.blobs.put(bytes).await?;
        let put =
            ManifestPut { repo, digest: named.digest, subject: parsed.subject.clone(), tags: named.tags };
        let event = event(who, "registry.manifest.put", &put.repo, &put.digest.to_string());
        let now = self.0.clock.now();
        let wanted = put.clone();
        let asked_for = match &named.single {
            Some(tag) => Reference::Tag(tag.clone()),
            None => Reference::Digest(put.digest.clone()),
        };
        let all: Vec<Tag> = named.single.into_iter().chain(put.tags.iter().cloned()).collect();
        let event = audit::Event { why: tagged(&all), ..event };
        let taggings = Arc::clone(&self.0.taggings);
        self.0.faults.pass("registry.manifest.before-record");
        let outcome = self
            .0
            .state
            .write(move |tx| {
                let (repo, digest) = (&wanted.repo, &wanted.digest);
                let current = repos::get_manifest(tx, repo, &asked_for)?.map(|found| found.digest);
                let refused = if !conditions.hold(current.as_ref()) {
                    Some(Refused::Condition)
                } else if let Some(tag) = repos::moved_immutable(tx, repo, &all, digest)? {
                    Some(Refused::Immutable(tag.clone()))
                } else {
                    taggings.note(digest);
                    let done = repos::put_manifest_named(tx, now, repo, digest, &stored, &parsed, &all)?;
                    done.err().map(Refused::Lacking)
                };
                match &refused {
                    None => audit::append(tx, now, &event)?,
                    Some(_) if large => repos::refuse_bytes(tx, now, repo, digest, &stored)?,
                    Some(_) => {}
                }
                Ok(refused)
            })
            .await?;
        self.0.faults.pass("registry.manifest.after-record");
        match outcome {
            None => {
                self.0.repositories.pushed(&put.repo);
                Ok(put)
            }
            Some(refused) => Err(refused.into()),
        }
    }

    /// Refuses a manifest whose needs the repository lacks, off the thread that writes.
    async fn check_needs(&self, repo: &RepoName, parsed: &Arc<ParsedManifest>) -> Result<(), RegistryError> {
        let (repo, parsed) = (repo.clone(), Arc::clone(parsed));
        let missing = self.0.state.read(move |view| repos::lacks(view, &repo, &parsed)).await?;
        if missing.is_empty() { Ok(()) } else { Err(RegistryError::ManifestBlobUnknown { missing }) }
    }

    /// Finds a manifest by tag or digest; reads no bytes.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when the repository does not hold it.
    pub async fn manifest(
        &self,
        who: &Principal,
        name: &str,
        reference: &str,
    ) -> Result<StoredManifest, RegistryError> {
        let repo = self.0.repository(who, Right::Pull, name)?;
        let asked = parse_asked(&repo, reference)?;
        let key = repo.clone();
        let found = self
            .0
            .state
            .read_few(move |view| {
                // What was found damaged counts as not there, so that it is pushed again.
                match repos::get_manifest(view, &key, &asked)? {
                    Some(found) if crate::blobs::is_known(view, &found.stored)?.is_some() => Ok(Some(found)),
                    _ => Ok::<_, crate::state::StateError>(None),
                }
            })
            .await?;
        let found = found.ok_or_else(|| unknown(&repo, reference))?;
        self.0.pulls.note(&repo, &found.digest, self.0.clock.now());
        self.0.repositories.pulled(&repo);
        Ok(found)
    }

    /// The exact bytes of a manifest that was found.
    ///
    /// # Errors
    /// [`RegistryError::Blobs`] when they cannot be read, or are not what their digest says: then the manifest counts as
    /// not there from now on, so that a push heals it.
    pub async fn manifest_bytes(&self, found: &StoredManifest) -> Result<Bytes, RegistryError> {
        match self.0.blobs.read_small(&found.stored, found.size).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                self.sets_aside(&found.stored, &error).await;
                Err(error.into())
            }
        }
    }

    /// Opens the bytes of a manifest that was found, to be read piece by piece: they are hashed before the first one is.
    ///
    /// # Errors
    /// [`RegistryError::Blobs`] when they cannot be read, or are not what their digest says.
    pub async fn open_manifest(&self, found: &StoredManifest) -> Result<Reader, RegistryError> {
        match self.0.blobs.open_verified(&found.stored).await {
            Ok(reader) => Ok(reader),
            Err(error) => {
                // This once it is a failure; from the next request on the manifest is not there, and can be pushed.
                let _set_aside = self.sets_aside(&found.stored, &error).await;
                Err(error.into())
            }
        }
    }
}

/// Why a manifest is not taken, as its transaction found out.
enum Refused {
    Lacking(Vec<Digest>),
    Immutable(Tag),
    Condition,
}

impl From<Refused> for RegistryError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Lacking(missing) => Self::ManifestBlobUnknown { missing },
            Refused::Immutable(tag) => Self::TagImmutable { tag },
            Refused::Condition => Self::PreconditionFailed,
        }
    }
}

/// The tags that were set, as the audit log tells them.
fn tagged(tags: &[Tag]) -> String {
    let first: Vec<&str> = tags.iter().take(TAGS_TOLD).map(Tag::as_str).collect();
    match tags.len().checked_sub(TAGS_TOLD) {
        _ if first.is_empty() => String::new(),
        Some(more @ 1..) => format!("tagged {} and {more} more", first.join(", ")),
        _ => format!("tagged {}", first.join(", ")),
    }
}

/// What a manifest is to be called.
struct Named {
    digest: Digest,
    /// The tag in the path, unless there is a digest.
    single: Option<Tag>,
    /// The tags in the query.
    tags: Vec<Tag>,
}

/// The digest under which the bytes are put, and the tags that the path and the query ask for.
fn name_of(reference: &str, extra_tags: &[String], bytes: &[u8]) -> Result<Named, RegistryError> {
    if extra_tags.len() > TAGS_CAP {
        return Err(RegistryError::TooManyTags { cap: TAGS_CAP });
    }
    let mut tags = Vec::new();
    for text in extra_tags {
        let tag = Tag::parse(text).map_err(RegistryError::TagInvalid)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if !reference.contains(':') {
        let single = Some(Tag::parse(reference).map_err(RegistryError::TagInvalid)?);
        return Ok(Named { digest: Digest::of(bytes), single, tags });
    }
    let expected = Digest::parse(reference).map_err(RegistryError::DigestInvalid)?;
    if expected.names(bytes) {
        return Ok(Named { digest: expected, single: None, tags });
    }
    let found = Digest::under(expected.algorithm(), bytes);
    Err(RegistryError::DigestMismatch { expected, found })
}

pub(super) async fn parse(
    content_type: Option<&str>,
    bytes: &Bytes,
) -> Result<ParsedManifest, RegistryError> {
    if bytes.len() <= PARSE_INLINE_BYTES {
        return Ok(repos::parse_manifest(content_type, bytes)?);
    }
    let (content_type, bytes) = (content_type.map(str::to_owned), bytes.clone());
    let parsed =
        tokio::task::spawn_blocking(move || repos::parse_manifest(content_type.as_deref(), &bytes)).await;
    Ok(parsed.expect("invariant: parsing neither panics nor is cancelled")?)
}

/// A reference that is asked for: what is no digest is refused as such, what is no tag is simply not there.
pub(super) fn parse_asked(repo: &RepoName, reference: &str) -> Result<Reference, RegistryError> {
    Reference::parse(reference).map_err(|error| {
        if reference.contains(':') { RegistryError::DigestInvalid(error) } else { unknown(repo, reference) }
    })
}

pub(super) fn unknown(repo: &RepoName, reference: &str) -> RegistryError {
    RegistryError::ManifestUnknown { repo: repo.clone(), reference: reference.chars().take(200).collect() }
}
