//! The tables of this part and their records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::RepositorySettings;
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::state::{Table, record};

/// Repositories, by the first segment of the names below them.
pub(super) const REPOSITORIES: Table<String, RepositoryRecord> = Table::new("repos.repositories");

/// What is known of a blob that a repository holds, by the digest as it was named.
pub(super) const BLOBS: Table<(RepoName, Digest), BlobRecord> = Table::new("repos.blobs");
/// Which repositories hold a blob: the reverse of [`BLOBS`], for mounts that name no source.
pub(super) const HOLDERS: Table<(Digest, RepoName), ()> = Table::new("repos.holders");
/// Manifests of a repository.
pub(super) const MANIFESTS: Table<(RepoName, Digest), ManifestRecord> = Table::new("repos.manifests");
/// The bytes that a manifest keeps: (repository, manifest, SHA-256 of what it refers to).
pub(super) const KEEPS: Table<(RepoName, Digest, Digest), ()> = Table::new("repos.keeps");
/// What manifests name and the repository lacks: (repository, name, manifest).
pub(super) const WANTED: Table<(RepoName, Digest, Digest), ()> = Table::new("repos.wanted");
/// The reverse of [`WANTED`]: (repository, manifest, name), so that the rows go with the manifest.
pub(super) const WANTS: Table<(RepoName, Digest, Digest), ()> = Table::new("repos.wants");
/// Tags of a repository.
pub(super) const TAGS: Table<(RepoName, Tag), TagRecord> = Table::new("repos.tags");
/// Tags of a manifest: the reverse of [`TAGS`], so that deleting by digest reads its own tags only.
pub(super) const TAGS_OF: Table<(RepoName, Digest, Tag), ()> = Table::new("repos.tags-of");
/// Manifests that name a subject: (repository, subject, manifest).
pub(super) const REFERRERS: Table<(RepoName, Digest, Digest), ReferrerRecord> = Table::new("repos.referrers");
/// When clients asked for a manifest last, to the minute.
pub(super) const PULLED: Table<(RepoName, Digest), PulledRecord> = Table::new("repos.pulled");
/// Manifests that are gone and of whose tags and kept blobs something is left, and those that are to go with an image
/// whose removal was too long for one transaction.
pub(super) const UNFINISHED: Table<(RepoName, Digest), UnfinishedRecord> = Table::new("repos.unfinished");
/// What the images of a repository hold together, by its first segment.
pub(super) const TOTALS: Table<String, TotalsRecord> = Table::new("repos.totals");
/// Names that hold something.
pub(super) const CATALOGUE: Table<RepoName, CatalogueRecord> = Table::new("repos.catalogue");

/// A repository of the registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RepositoryRecord {
    /// What the operator set.
    #[serde(default)]
    pub(super) settings: RepositorySettings,
    /// When it was made.
    pub(super) created_at: Millis,
    /// Since when it is going: it is not seen any more, and what it holds goes page by page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removed_at: Option<Millis>,
}
record!(RepositoryRecord, 1);

/// A blob of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BlobRecord {
    /// The SHA-256 under which the bytes lie.
    pub(super) stored: Digest,
    /// In bytes.
    pub(super) size: u64,
    /// When the repository got it.
    pub(super) added_at: Millis,
    /// When it was last pushed, mounted, asked for while no manifest kept it, or lost by its last manifest. A time
    /// ahead of now was written so that not everybody who asks has to write.
    #[serde(default)]
    pub(super) touched_at: Millis,
}
record!(BlobRecord, 1);

/// A manifest of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ManifestRecord {
    /// The SHA-256 under which the bytes lie.
    pub(super) stored: Digest,
    /// As it is answered in `Content-Type`.
    pub(super) media_type: String,
    /// In bytes.
    pub(super) size: u64,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Digest>,
    /// When it was put last.
    pub(super) pushed_at: Millis,
}
record!(ManifestRecord, 1);

/// A tag.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TagRecord {
    /// The manifest that it points to.
    pub(super) digest: Digest,
    /// When it was set last.
    pub(super) set_at: Millis,
}
record!(TagRecord, 1);

/// What the index of referrers tells about one of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReferrerRecord {
    /// The media type of the manifest.
    pub(super) media_type: String,
    /// In bytes.
    pub(super) size: u64,
    /// The manifest's own type, or that of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    /// The manifest's annotations; `None` when they are too large to stand here and must be read from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}
record!(ReferrerRecord, 1);

/// How much a repository holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CatalogueRecord {
    /// Rows in [`MANIFESTS`].
    pub(super) manifests: u64,
    /// Rows in [`BLOBS`].
    pub(super) blobs: u64,
    /// Rows in [`TAGS`].
    #[serde(default)]
    pub(super) tags: u64,
    /// Bytes of these manifests and blobs.
    #[serde(default)]
    pub(super) bytes: u64,
}
record!(CatalogueRecord, 1);

/// What all images of a repository hold: the sum of their rows in [`CATALOGUE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TotalsRecord {
    /// Rows in [`CATALOGUE`].
    pub(super) images: u64,
    /// Rows in [`MANIFESTS`].
    pub(super) manifests: u64,
    /// Rows in [`TAGS`].
    pub(super) tags: u64,
    /// Rows in [`BLOBS`].
    pub(super) blobs: u64,
    /// Bytes of these manifests and blobs.
    pub(super) bytes: u64,
}
record!(TotalsRecord, 1);

/// When a manifest was asked for last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PulledRecord {
    pub(super) at: Millis,
}
record!(PulledRecord, 1);

/// A removal that goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct UnfinishedRecord {
    /// When it began.
    pub(super) since: Millis,
}
record!(UnfinishedRecord, 1);
