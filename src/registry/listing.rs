//! Lists, a page at a time: tags, the catalogue, referrers.

use serde_json::json;

use super::naming::{allow, digest};
use super::{Registry, RegistryError};
use crate::access::{Action, Principal};
use crate::names::{Digest, Reference, RepoName};
use crate::repos::{self, Referrer};

/// A page has this many entries at most, and when the client names no number.
const PAGE: usize = 500;
/// The index of referrers tells this many at a time.
const REFERRERS_PAGE: usize = 100;
/// An index of referrers stops growing beyond this.
const REFERRERS_BYTES: usize = 4 * 1024 * 1024;
/// A filtered index looks at this many pages before it answers with what it has and where to go on.
const REFERRERS_SCANS: usize = 10;

/// A part of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it is the list of, where it is of something.
    pub of: Option<RepoName>,
    /// The entries in byte order.
    pub entries: Vec<String>,
    /// There is more after the last entry; the size of the page that goes on.
    pub more: Option<usize>,
}

/// A part of the index of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferrersPage {
    /// The JSON of an OCI index.
    pub index: Vec<u8>,
    /// The list was filtered by the type asked for.
    pub filtered: bool,
    /// There may be more after this one.
    pub next: Option<Digest>,
}

/// How many are asked for; `None` when the client doesn't say.
fn page_size(n: Option<&str>) -> Result<usize, RegistryError> {
    let Some(text) = n else { return Ok(PAGE) };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RegistryError::NumberInvalid { name: "n" });
    }
    Ok(text.parse::<usize>().unwrap_or(PAGE).min(PAGE))
}

/// Cuts what was read with one entry too many.
fn page(of: Option<RepoName>, mut entries: Vec<String>, size: usize) -> Page {
    let more = (size > 0 && entries.len() > size).then_some(size);
    entries.truncate(size);
    Page { of, entries, more }
}

impl Registry {
    /// The tags of a repository after `last`.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`] when the repository holds nothing.
    pub async fn tags(
        &self,
        who: &Principal,
        name: &str,
        n: Option<&str>,
        last: Option<String>,
    ) -> Result<Page, RegistryError> {
        let repo = self.0.repository(who, Action::Pull, name)?;
        let size = page_size(n)?;
        let key = repo.clone();
        let read = if size == 0 { 0 } else { size + 1 };
        let tags = self.0.state.read(move |view| repos::tags(view, &key, last.as_deref(), read)).await?;
        let tags = tags.ok_or_else(|| RegistryError::NameUnknown { name: repo.to_string() })?;
        Ok(page(Some(repo), tags.iter().map(ToString::to_string).collect(), size))
    }

    /// The repositories after `last`.
    ///
    /// # Errors
    /// [`RegistryError`] when the caller may not pull, or `n` is no number.
    pub async fn catalogue(
        &self,
        who: &Principal,
        n: Option<&str>,
        last: Option<String>,
    ) -> Result<Page, RegistryError> {
        allow(who, Action::Pull)?;
        let size = page_size(n)?;
        let read = if size == 0 { 0 } else { size + 1 };
        let names = self.0.state.read(move |view| repos::catalogue(view, last.as_deref(), read)).await?;
        Ok(page(None, names.iter().map(ToString::to_string).collect(), size))
    }

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
        allow(who, Action::Pull)?;
        let subject = digest(subject)?;
        let mut after = last.map(digest).transpose()?;
        let repo = match self.0.resolve(name) {
            Ok(repo) => Some(repo),
            Err(RegistryError::NameUnknown { .. }) => None,
            Err(other) => return Err(other),
        };
        let mut listed = Vec::new();
        let mut weight = 0;
        let mut next = None;
        if let Some(repo) = repo {
            'pages: for scan in 1..=REFERRERS_SCANS {
                let found = self.referrers_after(&repo, &subject, after.take()).await?;
                let full = found.len() == REFERRERS_PAGE;
                for referrer in found {
                    after = Some(referrer.digest.clone());
                    if artifact_type.is_some_and(|wanted| referrer.artifact_type.as_deref() != Some(wanted)) {
                        continue;
                    }
                    let entry = self.descriptor(&repo, referrer).await?;
                    weight += entry.to_string().len();
                    listed.push(entry);
                    if listed.len() == REFERRERS_PAGE || weight > REFERRERS_BYTES {
                        next = after.take();
                        break 'pages;
                    }
                }
                if !full {
                    break;
                }
                if scan == REFERRERS_SCANS {
                    next = after.take();
                }
            }
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": listed,
        });
        Ok(ReferrersPage { index: index.to_string().into_bytes(), filtered: artifact_type.is_some(), next })
    }

    async fn referrers_after(
        &self,
        repo: &RepoName,
        subject: &Digest,
        after: Option<Digest>,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let (repo, subject) = (repo.clone(), subject.clone());
        let read = move |view: &crate::state::View<'_>| {
            repos::referrers(view, &repo, &subject, after.as_ref(), REFERRERS_PAGE)
        };
        Ok(self.0.state.read(read).await?)
    }

    /// The descriptor of a referrer, with its annotations copied up.
    async fn descriptor(
        &self,
        repo: &RepoName,
        referrer: Referrer,
    ) -> Result<serde_json::Value, RegistryError> {
        let annotations = match referrer.annotations {
            Some(annotations) => annotations,
            None => self.annotations(repo, &referrer.digest).await?,
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
    ) -> Result<std::collections::BTreeMap<String, String>, RegistryError> {
        let (key, reference) = (repo.clone(), Reference::Digest(name.clone()));
        let found = self.0.state.read(move |view| repos::get_manifest(view, &key, &reference)).await?;
        let Some(found) = found else { return Ok(std::collections::BTreeMap::default()) };
        let bytes = self.manifest_bytes(&found).await?;
        Ok(repos::parse_manifest(Some(&found.media_type), &bytes)?.annotations)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_a_link_exactly_when_there_is_more() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(page(None, names(3), 2), Page { of: None, entries: names(2), more: Some(2) });
        assert_eq!(page(None, names(2), 2).more, None);
        assert_eq!(page(None, names(0), 0), Page { of: None, entries: vec![], more: None });
    }

    #[test]
    fn the_size_of_a_page_is_a_number() {
        assert_eq!(page_size(None).unwrap(), PAGE);
        assert_eq!(page_size(Some("0")).unwrap(), 0);
        assert_eq!(page_size(Some("7")).unwrap(), 7);
        assert_eq!(page_size(Some("99999999999999999999999")).unwrap(), PAGE);
        for bad in ["", "-1", "x", "+1"] {
            assert!(page_size(Some(bad)).is_err(), "{bad}");
        }
    }
}
