//! The index of referrers: what refers to a manifest by its `subject`, and what clients say of it under a fallback tag.

mod fallback;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use fallback::Fallback;

use super::manifests::parse;
use super::naming::digest;
use super::{Registry, RegistryError};
use crate::access::{Principal, Right};
use crate::blobs::BlobError;
use crate::names::{Digest, Reference, RepoName};
use crate::repos::{self, Referrer, StoredManifest};

/// The index tells this many at a time.
const PAGE: usize = 100;
/// An index stops growing beyond this.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// A filtered index looks at this many pages before it answers with what it has and where to go on.
const SCANS: usize = 10;
/// A part of the index of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrersPage {
    /// The JSON of an OCI index.
    pub index: Vec<u8>,
    /// The list was filtered by the type asked for.
    pub filtered: bool,
    /// There may be more after this one.
    pub next: Option<Digest>,
    /// The fallback tag names more than are taken in, or its index is too large to be read.
    pub limited: bool,
    /// Something is left out since the bytes that tell it are damaged or gone.
    pub damaged: bool,
}

/// A page as it fills.
struct Filling<'a> {
    wanted: Option<&'a str>,
    listed: Vec<Value>,
    bytes: usize,
    /// The last that was looked at.
    seen: Option<Digest>,
    next: Option<Digest>,
    damaged: bool,
}

impl Registry {
    /// The index of what refers to a manifest; empty for an unknown subject, and for an unknown repository.
    ///
    /// # Errors
    /// [`RegistryError::DigestInvalid`] when the subject or `last` is no digest.
    pub async fn referrers(
        &self,
        who: &Principal,
        name: &str,
        subject: &str,
        artifact_type: Option<&str>,
        last: Option<&str>,
    ) -> Result<ReferrersPage, RegistryError> {
        let repo = match self.0.repository(who, Right::Pull, name) {
            Ok(repo) => Some(repo),
            Err(RegistryError::NameUnknown { .. }) => None,
            Err(other) => return Err(other),
        };
        let subject = digest(subject)?;
        let last = last.map(digest).transpose()?;
        let mut page = Filling {
            wanted: artifact_type,
            listed: vec![],
            bytes: 0,
            seen: last,
            next: None,
            damaged: false,
        };
        let mut limited = false;
        if let Some(repo) = repo {
            let (fallback, more) = self.fallback(&repo, &subject, &mut page).await?;
            limited = more;
            self.fill(&repo, &subject, fallback, &mut page).await?;
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": page.listed,
        });
        let (filtered, next, damaged) = (artifact_type.is_some(), page.next, page.damaged);
        Ok(ReferrersPage { index: index.to_string().into_bytes(), filtered, next, limited, damaged })
    }

    /// Merges both kinds in the order of their digests; what is in both is told as the manifest itself says it.
    async fn fill(
        &self,
        repo: &RepoName,
        subject: &Digest,
        mut fallback: BTreeMap<Digest, Referrer>,
        page: &mut Filling<'_>,
    ) -> Result<(), RegistryError> {
        if let Some(seen) = &page.seen {
            fallback = fallback.split_off(seen);
            fallback.remove(seen);
        }
        let mut fallback = fallback.into_values().peekable();
        for _ in 0..SCANS {
            let found = self.referrers_after(repo, subject, page.seen.clone()).await?;
            let full = found.len() == PAGE;
            for referrer in found {
                while let Some(before) = fallback.next_if(|before| before.digest < referrer.digest) {
                    if !self.add(repo, before, page).await? {
                        return Ok(());
                    }
                }
                fallback.next_if(|same| same.digest == referrer.digest);
                if !self.add(repo, referrer, page).await? {
                    return Ok(());
                }
            }
            if !full {
                for rest in fallback {
                    if !self.add(repo, rest, page).await? {
                        return Ok(());
                    }
                }
                return Ok(());
            }
        }
        page.next.clone_from(&page.seen);
        Ok(())
    }

    /// Adds one, unless it is of another type than wanted; `false` when the page is full and goes on with it.
    async fn add(
        &self,
        repo: &RepoName,
        referrer: Referrer,
        page: &mut Filling<'_>,
    ) -> Result<bool, RegistryError> {
        let at = referrer.digest.clone();
        // Asked for the empty type, it is those that have none.
        if page.wanted.is_none_or(|wanted| referrer.artifact_type.as_deref().unwrap_or_default() == wanted) {
            if page.listed.len() == PAGE || page.bytes > PAGE_BYTES {
                page.next.clone_from(&page.seen);
                return Ok(false);
            }
            let entry = self.descriptor(repo, referrer, page).await?;
            page.bytes += entry.to_string().len();
            page.listed.push(entry);
        }
        page.seen = Some(at);
        Ok(true)
    }

    async fn referrers_after(
        &self,
        repo: &RepoName,
        subject: &Digest,
        after: Option<Digest>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let (repo, subject) = (repo.clone(), subject.clone());
        let read = move |view: &crate::state::View<'_>| {
            repos::referrers(view, &repo, &subject, after.as_ref(), PAGE)
        };
        Ok(self.0.state.read(read).await?)
    }

    /// What the fallback tag of the subject names and the repository holds, and whether it names more than is taken in.
    async fn fallback(
        &self,
        repo: &RepoName,
        subject: &Digest,
        page: &mut Filling<'_>,
    ) -> Result<(BTreeMap<Digest, Referrer>, bool), RegistryError> {
        let (key, tag) = (repo.clone(), Reference::Tag(repos::fallback_tag(subject)));
        let found = self.0.state.read(move |view| repos::get_manifest(view, &key, &tag)).await?;
        let Some(found) = found else { return Ok(Default::default()) };
        if found.size > fallback::DOCUMENT_BYTES {
            return Ok((BTreeMap::new(), true));
        }
        let Some(bytes) = self.sound_bytes(&found, page).await? else { return Ok(Default::default()) };
        let read = tokio::task::spawn_blocking(move || fallback::read(&bytes)).await;
        // Under this tag may stand anything; what is no index tells nothing.
        let Ok(Some(Fallback { named, more })) = read else { return Ok(Default::default()) };
        let repo = repo.clone();
        let held = move |view: &crate::state::View<'_>| {
            let mut held = BTreeMap::new();
            for (digest, referrer) in named {
                if let Some(there) = repos::get_manifest(view, &repo, &Reference::Digest(digest.clone()))? {
                    let own = Referrer { size: there.size, media_type: there.media_type, ..referrer };
                    held.insert(digest, own);
                }
            }
            Ok(held)
        };
        Ok((self.0.state.read(held).await?, more))
    }

    /// The descriptor of a referrer, with its annotations copied up.
    async fn descriptor(
        &self,
        repo: &RepoName,
        referrer: Referrer,
        page: &mut Filling<'_>,
    ) -> Result<Value, RegistryError> {
        let annotations = match referrer.annotations {
            Some(annotations) => annotations,
            None => self.annotations(repo, &referrer.digest, page).await?,
        };
        let mut entry = json!({
            "mediaType": referrer.media_type,
            "digest": referrer.digest,
            "size": referrer.size,
        });
        if let Some(artifact_type) = referrer.artifact_type {
            entry["artifactType"] = artifact_type.into();
        }
        if !annotations.is_empty() {
            entry["annotations"] = json!(annotations);
        }
        Ok(entry)
    }

    /// Annotations that are too large for the index, from the manifest itself.
    async fn annotations(
        &self,
        repo: &RepoName,
        name: &Digest,
        page: &mut Filling<'_>,
    ) -> Result<BTreeMap<String, String>, RegistryError> {
        let (key, reference) = (repo.clone(), Reference::Digest(name.clone()));
        let found = self.0.state.read(move |view| repos::get_manifest(view, &key, &reference)).await?;
        let Some(found) = found else { return Ok(BTreeMap::default()) };
        let Some(bytes) = self.sound_bytes(&found, page).await? else { return Ok(BTreeMap::default()) };
        Ok(parse(Some(&found.media_type), &bytes).await?.annotations)
    }

    /// The bytes of a manifest; `None` when they are damaged or gone, without which the index is answered.
    async fn sound_bytes(
        &self,
        found: &StoredManifest,
        page: &mut Filling<'_>,
    ) -> Result<Option<Bytes>, RegistryError> {
        match self.manifest_bytes(found).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::Blobs(
                error @ (BlobError::Damaged(_) | BlobError::Missing(_) | BlobError::Unknown(_)),
            )) => {
                tracing::warn!(manifest = %found.digest, %error, "referrers are told without a damaged manifest");
                page.damaged = true;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}
