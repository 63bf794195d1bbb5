//! Retention: which tags and manifests of an image stay, and why; and taking away what does not.
//!
//! `judge` decides from facts and the time alone. `survey` reads the facts, a page at a time. `remove` takes away what
//! was judged, after it has judged it again from what its own transaction sees.

mod judge;
mod remove;
mod survey;

pub use judge::{Kept, ManifestFacts, TagFacts, Verdict, judge_tag, judge_untagged};
pub use remove::{Removal, Removed, note_pulled, remove_tags, remove_untagged};
pub use survey::{Newest, NewestBuilder, Surveyed, SurveyedManifest, manifests_page, survey_page, tags_page};
