//! What each repository holds: blobs, manifests, tags, referrers, and the catalogue of repositories.
//!
//! Local repositories only so far: what was pushed or published here. Every function works inside the caller's
//! transaction or snapshot, so that a push, its references and its audit line are one commit.
//!
//! This part must never read or write content bytes: it knows digests, and `blobs` knows bytes.
//!
//! Invariants:
//! - A row that names a digest has linked it (`blobs::link`) in the transaction that wrote the row; removing the row
//!   unlinks it in the same way.
//! - A manifest is put only together with everything that it needs in the same repository at that moment, unless the
//!   repository is `sparse`. Its own references to these bytes are kept apart from the repository's, so that unlinking a
//!   blob takes no bytes from it.
//! - What a manifest names and its repository lacks is remembered, and kept from the transaction on in which it enters
//!   the repository.
//! - What goes with a manifest goes in transactions of bounded size; from the first one on it and all its tags are not
//!   seen any more, and what is left is on record until it is gone.
//! - A name is in the catalogue exactly while it holds a manifest or a blob; its counters, and those of its
//!   repository, change in the transaction of what they count.
//! - A repository lets go of a blob that none of its manifests keeps and nobody pushed, mounted or asked for during the
//!   grace; whether the bytes go is then decided over all references, not by this repository.
//! - Rows are keyed by the digest *as it was named*; the record says under which SHA-256 the bytes lie, so that a
//!   second name (sha512) costs a row, not a copy.

mod catalogue;
mod companions;
mod glob;
mod holdings;
mod idle;
mod manifests;
mod mend;
mod parse;
mod recount;
mod referrers;
mod removal;
mod repositories;
mod retention;
mod settings;
mod tables;
mod tags;
mod wanted;

#[cfg(test)]
pub(crate) mod tests;

pub use catalogue::{ImageView, Seen, catalogue, catalogue_below, images};
pub use companions::{companion_tags, fallback_tag};
pub use glob::TagPattern;
pub use holdings::{BlobAt, add_blob, add_blob_named, blob_at, delete_blob, holders, mount_blob};
pub use idle::{Idle, let_go, renew_blob, renewal_due};
pub use manifests::{
    StoredManifest, delete_manifest, get_manifest, lacks, put_manifest, put_manifest_named, refuse_bytes,
};
pub use mend::{Affected, affected, manifest_stands, mend, names_of, repository_stands};
pub use parse::{ManifestError, ParsedManifest, REFERENCES_CAP, parse_manifest};
pub use referrers::{Referrer, referrers};
pub use removal::{drain, finish_removal, going_with_content, is_unfinished, unfinished};
pub use repositories::{
    Added, Removing, Repositories, RepositoryView, RootName, Totals, Writer, add_repository, begin_removal,
    going, is_reserved, may_remove, repositories, repository, set_repository,
};
pub use retention::{
    Kept, ManifestFacts, Newest, NewestBuilder, Removal, Removed, Surveyed, SurveyedManifest, TagFacts,
    Verdict, judge_tag, judge_untagged, manifests_page, note_pulled, remove_tags, remove_untagged,
    survey_page, tags_page,
};
pub use settings::{RepositorySettings, Retention, SettingsError, settings};
pub use tags::{ImmutableTag, delete_tag, immutable_tag_of, moved_immutable, set_tag, tags};
