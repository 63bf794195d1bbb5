//! What is published: packages, their versions, and which digest a name means.

use serde::{Deserialize, Serialize};

use crate::names::{Digest, PackId, PackageName, PublisherName, Version};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError};

use super::record::{NAMES, NameRecord, VERSIONS, VersionRecord};
use super::refusal::StoreRefusal;
use super::service::Store;

/// Most packages of one page.
const PAGE_CAP: usize = 100;

/// A package that has a published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PackageView {
    /// Its name.
    pub name: String,
    /// Who it belongs to.
    pub publisher: String,
    /// The highest version; a pre-release only where there is nothing else.
    pub latest: String,
    /// What it is for, by its highest version.
    pub description: String,
    /// All published versions, the highest first.
    pub versions: Vec<VersionView>,
}

/// A published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionView {
    /// The version.
    pub version: String,
    /// The digest of its pack's manifest.
    pub digest: String,
    /// When it was published.
    pub published_at: String,
}

impl Store {
    /// Packages by name, after `after`; with a `query` those whose name or description holds it, in any case.
    ///
    /// # Errors
    /// [`StoreRefusal`] when the records can't be read.
    pub async fn packages(
        &self,
        query: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<PackageView>, StoreRefusal> {
        let query = query.map(|query| query.to_lowercase()).filter(|query| !query.is_empty());
        let limit = limit.clamp(1, PAGE_CAP);
        let mut found = Vec::new();
        let mut cursor = after.map(|name| name.replace('_', "-"));
        loop {
            let from = cursor.clone();
            let wanted = query.clone();
            // A transaction a page: an open reader makes the state file grow.
            let (page, last) = self
                .0
                .parts
                .state
                .read(move |view| {
                    let scan = from.map_or_else(Scan::all, |from| Scan::all().after(&from));
                    let rows = view.scan(&NAMES, &scan, PAGE_CAP)?;
                    let last = rows.last().filter(|_| rows.len() == PAGE_CAP).map(|(key, _)| key.clone());
                    let mut page = Vec::new();
                    for (key, row) in rows {
                        let holds = |query: &String| {
                            row.name.as_str().contains(query.as_str())
                                || row.description.to_lowercase().contains(query)
                        };
                        if row.published && wanted.as_ref().is_none_or(holds) {
                            page.extend(package_view(view, &key, &row)?);
                        }
                    }
                    Ok((page, last))
                })
                .await?;
            found.extend(page);
            if found.len() >= limit || last.is_none() {
                found.truncate(limit);
                return Ok(found);
            }
            cursor = last;
        }
    }

    /// One package.
    ///
    /// # Errors
    /// [`StoreRefusal`] when the records can't be read.
    pub async fn package(&self, name: &PackageName) -> Result<Option<PackageView>, StoreRefusal> {
        let key = name.canonical();
        let view = self.0.parts.state.read(move |view| match view.get(&NAMES, &key)? {
            Some(row) if row.published => package_view(view, &key, &row),
            _ => Ok(None),
        });
        Ok(view.await?)
    }
}

/// All published versions of a name, the highest first.
fn versions_of(view: &impl Read, canonical: &str) -> Result<Vec<(Version, VersionRecord)>, StateError> {
    let mut all = Vec::new();
    let mut scan = Scan::prefix(&canonical.to_owned());
    loop {
        let rows = view.scan(&VERSIONS, &scan, MAX_SCAN_ROWS)?;
        let last = rows.last().filter(|_| rows.len() == MAX_SCAN_ROWS).map(|(key, _)| key.clone());
        all.extend(rows.into_iter().map(|((_, version), row)| (version, row)));
        match last {
            Some(key) => scan = scan.after(&key),
            None => break,
        }
    }
    all.sort_by(|(a, _), (b, _)| b.cmp(a));
    Ok(all)
}

/// The highest version; a pre-release only where there is nothing else.
fn latest<T>(versions: &[(Version, T)]) -> Option<&(Version, T)> {
    let stable = versions.iter().filter(|(version, _)| !version.to_string().contains('-'));
    stable.max_by(|(a, _), (b, _)| a.cmp(b)).or_else(|| versions.iter().max_by(|(a, _), (b, _)| a.cmp(b)))
}

fn package_view(
    view: &impl Read,
    canonical: &str,
    row: &NameRecord,
) -> Result<Option<PackageView>, StateError> {
    let versions = versions_of(view, canonical)?;
    Ok(latest(&versions).map(|(latest, _)| PackageView {
        name: row.name.to_string(),
        publisher: row.publisher.to_string(),
        latest: latest.to_string(),
        description: row.description.clone(),
        versions: versions
            .iter()
            .map(|(version, row)| VersionView {
                version: version.to_string(),
                digest: row.digest.to_string(),
                published_at: row.published_at.to_string(),
            })
            .collect(),
    }))
}

/// Which published pack a text means: `name`, `publisher/name`, each with `@version`; none when there is no such.
///
/// # Errors
/// Those of the state.
pub fn resolve_package(
    view: &impl Read,
    text: &str,
) -> Result<Option<(PackId, Version, Digest)>, StateError> {
    let (package, version) = match text.split_once('@') {
        Some((package, version)) => match Version::parse(version) {
            Ok(version) => (package, Some(version)),
            Err(_) => return Ok(None),
        },
        None => (text, None),
    };
    let (publisher, name) = match package.split_once('/') {
        Some((publisher, name)) => match PublisherName::parse(publisher) {
            Ok(publisher) => (Some(publisher), name),
            Err(_) => return Ok(None),
        },
        None => (None, package),
    };
    let Ok(name) = PackageName::parse(name) else { return Ok(None) };
    let canonical = name.canonical();
    let Some(owner) = view.get(&NAMES, &canonical)?.filter(|owner| owner.published) else { return Ok(None) };
    if publisher.is_some_and(|publisher| publisher != owner.publisher) {
        return Ok(None);
    }
    let id = PackId { publisher: owner.publisher, name: owner.name };
    let found = if let Some(version) = version {
        view.get(&VERSIONS, &(canonical, version.clone()))?.map(|row| (version, row.digest))
    } else {
        let versions = versions_of(view, &canonical)?;
        latest(&versions).map(|(version, row)| (version.clone(), row.digest.clone()))
    };
    Ok(found.map(|(version, digest)| (id, version, digest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::names::{Faults, Millis, SubmissionId};
    use crate::state::State;

    fn published(state: &State, name: &str, versions: &[&str]) {
        let name = PackageName::parse(name).unwrap();
        let versions: Vec<Version> = versions.iter().map(|text| Version::parse(text).unwrap()).collect();
        state
            .write_blocking(move |tx| {
                let owner = NameRecord {
                    publisher: PublisherName::local(),
                    name: name.clone(),
                    description: "d".to_owned(),
                    published: true,
                };
                tx.put(&NAMES, &name.canonical(), &owner)?;
                for version in &versions {
                    let row = VersionRecord {
                        digest: Digest::of(version.to_string().as_bytes()),
                        source: None,
                        submission: SubmissionId::parse("s").unwrap(),
                        published_at: Millis(1),
                    };
                    tx.put(&VERSIONS, &(name.canonical(), version.clone()), &row)?;
                }
                Ok(())
            })
            .unwrap();
    }

    #[rstest]
    #[case("my-pack", Some("1.10.0"))]
    #[case("my_pack", Some("1.10.0"))]
    #[case("local/my-pack", Some("1.10.0"))]
    #[case("my-pack@1.9.0", Some("1.9.0"))]
    #[case("local/my-pack@2.0.0-beta.1", Some("2.0.0-beta.1"))]
    #[case("acme/my-pack", None)]
    #[case("my-pack@3.0.0", None)]
    #[case("my-pack@", None)]
    #[case("other", None)]
    #[case("../x", None)]
    #[case("", None)]
    fn a_text_means_a_published_version(#[case] text: &str, #[case] expected: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state.redb"), Faults::none()).unwrap();
        published(&state, "my-pack", &["1.9.0", "1.10.0", "2.0.0-beta.1", "0.1.0"]);
        let found = state.read_blocking(|view| resolve_package(view, text)).unwrap();
        assert_eq!(found.as_ref().map(|(_, version, _)| version.to_string()).as_deref(), expected);
        if let Some((id, version, digest)) = found {
            assert_eq!(id.to_string(), "local/my-pack");
            assert_eq!(digest, Digest::of(version.to_string().as_bytes()));
        }
    }

    #[test]
    fn the_highest_version_is_the_latest_whatever_came_last() {
        let of = |texts: &[&str]| {
            let all: Vec<(Version, ())> = texts.iter().map(|t| (Version::parse(t).unwrap(), ())).collect();
            latest(&all).map(|(version, ())| version.to_string())
        };
        assert_eq!(of(&["1.0.0", "2.0.0", "1.5.0"]).as_deref(), Some("2.0.0"));
        assert_eq!(of(&["1.0.0-rc.1", "1.0.0-rc.2"]).as_deref(), Some("1.0.0-rc.2"));
        assert_eq!(of(&[]), None);
    }
}
