//! Manifests in, out and away.

use bytes::Bytes;

use super::blobs::event;
use super::{Registry, RegistryError};
use crate::access::{Action, Principal};
use crate::audit;
use crate::names::{Digest, Reference, RepoName, Tag};
use crate::repos::{self, StoredManifest};

/// A manifest of more bytes than this is parsed off the async threads.
const PARSE_INLINE_BYTES: usize = 64 * 1024;
/// One request may set this many tags.
const TAGS_CAP: usize = 100;

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
        reference: &str,
        extra_tags: &[String],
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<ManifestPut, RegistryError> {
        let repo = self.0.repository(who, Action::Push, name)?;
        if bytes.len() as u64 > self.0.manifest_cap_bytes {
            return Err(RegistryError::ManifestTooLarge { cap: self.0.manifest_cap_bytes });
        }
        let (digest, tags) = name_of(reference, extra_tags, &bytes)?;
        let parsed = parse(content_type, &bytes).await?;
        let subject = parsed.subject.clone();
        let stored = self.0.blobs.put(bytes).await?;
        let put = ManifestPut { repo, digest, subject, tags };
        let event = event(who, "registry.manifest.put", &put.repo, reference);
        let now = self.0.clock.now();
        let wanted = put.clone();
        let single = match Reference::parse(reference) {
            Ok(Reference::Tag(tag)) => Some(tag),
            _ => None,
        };
        self.0.faults.pass("registry.manifest.before-record");
        let outcome = self
            .0
            .state
            .write(move |tx| {
                let tags: Vec<Tag> = single.iter().chain(&wanted.tags).cloned().collect();
                let done = repos::put_manifest_named(
                    tx,
                    now,
                    &wanted.repo,
                    &wanted.digest,
                    &stored,
                    &parsed,
                    &tags,
                )?;
                if done.is_ok() {
                    audit::append(tx, now, &event)?;
                }
                Ok(done)
            })
            .await?;
        self.0.faults.pass("registry.manifest.after-record");
        match outcome {
            Ok(_) => {
                self.0.repositories.pushed(&put.repo);
                Ok(put)
            }
            Err(missing) => Err(RegistryError::ManifestBlobUnknown { missing }),
        }
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
        let repo = self.0.repository(who, Action::Pull, name)?;
        let asked = parse_asked(&repo, reference)?;
        let key = repo.clone();
        let found = self.0.state.read(move |view| repos::get_manifest(view, &key, &asked)).await?;
        let found = found.ok_or_else(|| unknown(&repo, reference))?;
        self.0.pulls.note(&repo, &found.digest, self.0.clock.now());
        self.0.repositories.pulled(&repo);
        Ok(found)
    }

    /// The exact bytes of a manifest that was found.
    ///
    /// # Errors
    /// [`RegistryError::Blobs`] when they cannot be read, or are not what their digest says.
    pub async fn manifest_bytes(&self, found: &StoredManifest) -> Result<Bytes, RegistryError> {
        Ok(self.0.blobs.read_small(&found.stored, found.size).await?)
    }

    /// Removes a tag, or by digest a manifest with all its tags.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none.
    pub async fn delete_manifest(
        &self,
        who: &Principal,
        name: &str,
        reference: &str,
    ) -> Result<(), RegistryError> {
        let repo = self.deletable(who, name)?;
        let asked = parse_asked(&repo, reference)?;
        let event = event(who, "registry.manifest.delete", &repo, reference);
        let (key, now) = (repo.clone(), self.0.clock.now());
        let deleted = self
            .0
            .state
            .write(move |tx| {
                let deleted = match &asked {
                    Reference::Tag(tag) => repos::delete_tag(tx, now, &key, tag)?,
                    Reference::Digest(digest) => repos::delete_manifest(tx, now, &key, digest)?,
                };
                if deleted {
                    audit::append(tx, now, &event)?;
                }
                Ok(deleted)
            })
            .await?;
        if deleted { Ok(()) } else { Err(unknown(&repo, reference)) }
    }
}

/// The digest under which the bytes are put, and the tags that the query asks for.
fn name_of(
    reference: &str,
    extra_tags: &[String],
    bytes: &[u8],
) -> Result<(Digest, Vec<Tag>), RegistryError> {
    if extra_tags.len() > TAGS_CAP {
        return Err(RegistryError::UploadInvalid { why: "one request may set 100 tags at most" });
    }
    let tags: Result<Vec<Tag>, _> = extra_tags.iter().map(|tag| Tag::parse(tag)).collect();
    let tags = tags.map_err(RegistryError::TagInvalid)?;
    if !reference.contains(':') {
        Tag::parse(reference).map_err(RegistryError::TagInvalid)?;
        return Ok((Digest::of(bytes), tags));
    }
    let expected = Digest::parse(reference).map_err(RegistryError::DigestInvalid)?;
    if expected.names(bytes) {
        return Ok((expected, tags));
    }
    Err(RegistryError::DigestMismatch { expected, found: Digest::of(bytes) })
}

async fn parse(content_type: Option<&str>, bytes: &Bytes) -> Result<repos::ParsedManifest, RegistryError> {
    if bytes.len() <= PARSE_INLINE_BYTES {
        return Ok(repos::parse_manifest(content_type, bytes)?);
    }
    let (content_type, bytes) = (content_type.map(str::to_owned), bytes.clone());
    let parsed =
        tokio::task::spawn_blocking(move || repos::parse_manifest(content_type.as_deref(), &bytes)).await;
    Ok(parsed.expect("invariant: parsing neither panics nor is cancelled")?)
}

/// A reference that is asked for: what is no digest is refused as such, what is no tag is simply not there.
fn parse_asked(repo: &RepoName, reference: &str) -> Result<Reference, RegistryError> {
    Reference::parse(reference).map_err(|error| {
        if reference.contains(':') { RegistryError::DigestInvalid(error) } else { unknown(repo, reference) }
    })
}

fn unknown(repo: &RepoName, reference: &str) -> RegistryError {
    RegistryError::ManifestUnknown { repo: repo.clone(), reference: reference.chars().take(200).collect() }
}
