//! Retention: which tags and manifests of an image stay, and why; and taking away what does not.
//!
//! `judge` decides from facts and the time alone. `survey` reads the facts, a page at a time. `remove` takes away what
//! was judged, after it has judged it again from what its own transaction sees.

mod judge;
mod remove;
mod survey;

pub use judge::{Kept, ManifestFacts, TagFacts, Verdict, judge_tag, judge_untagged};
pub(super) use remove::remove_leftover;
pub use remove::{Removal, Removed, note_pulled, remove_tags, remove_untagged};
pub use survey::{Newest, NewestBuilder, Surveyed, SurveyedManifest, manifests_page, survey_page, tags_page};

use super::tables::MANIFESTS;
use crate::names::{Digest, RepoName};
use crate::state::{Read, StateError};

/// Whether something else than a tag is a reason for the manifest to stay: an index of the image lists it, or what it
/// is about is there.
pub(super) fn is_bound(view: &impl Read, repo: &RepoName, digest: &Digest) -> Result<bool, StateError> {
    let Some(record) = view.get(&MANIFESTS, &(repo.clone(), digest.clone()))? else { return Ok(false) };
    let facts = survey::manifest_facts(view, repo, &|_, _| None, digest.clone(), &record)?.facts;
    Ok(facts.child || facts.referrer)
}
