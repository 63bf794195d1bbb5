//! What an operator sets for a repository.

use serde::{Deserialize, Serialize};

use super::glob::TagPattern;
use super::tables::REPOSITORIES;
use crate::names::Tag;
use crate::state::{Read, StateError};

/// A list of patterns has this many at most.
const PATTERNS_CAP: usize = 32;
/// `keep_last` is this at most: so many tags are compared again in each transaction that removes some.
const KEEP_LAST_CAP: u32 = 500;
/// An untagged manifest is left alone for this long at least: the children of an index come before it.
const UNTAGGED_SECONDS_FLOOR: u64 = 3_600;
/// No time in the rules is longer: a hundred years.
const SECONDS_CAP: u64 = 100 * 366 * 86_400;

/// The settings of a repository; the default is none at all.
///
/// *Shape*: JSON, each field may be missing; unknown ones are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RepositorySettings {
    /// Manifests are taken without what they refer to.
    pub sparse: bool,
    /// Tags that match one of these never move to another digest, and retention never removes them.
    #[schema(value_type = Vec<String>)]
    pub immutable_tags: Vec<TagPattern>,
    /// What may go by itself.
    pub retention: Retention,
}

/// The retention rules of a repository. Without any of the first three nothing that has a tag is removed; with some,
/// a tag stays when at least one of them keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Keeps this many tags of an image, those that were set last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Keeps tags that match one of these.
    #[schema(value_type = Vec<String>)]
    pub keep_tags: Vec<TagPattern>,
    /// Keeps tags whose manifest was pulled, or that were set, within this many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_within_seconds: Option<u64>,
    /// Removes manifests without a tag that were neither put nor pulled for this many seconds, 3,600 at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged_after_seconds: Option<u64>,
}

/// Why settings are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {why}")]
pub struct SettingsError {
    /// Which of them.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl RepositorySettings {
    /// Whether the tag may not move to another digest.
    #[must_use]
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable_tags.iter().any(|pattern| pattern.matches(tag))
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`SettingsError`] names the first that is out of them.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |field, why| Err(SettingsError { field, why });
        let rules = &self.retention;
        for (field, patterns) in
            [("immutable_tags", &self.immutable_tags), ("retention.keep_tags", &rules.keep_tags)]
        {
            if patterns.len() > PATTERNS_CAP {
                return refuse(field, "has 32 patterns at most");
            }
        }
        if rules.keep_last.is_some_and(|keep| keep == 0 || keep > KEEP_LAST_CAP) {
            return refuse("retention.keep_last", "is 1 to 500");
        }
        if rules.pulled_within_seconds.is_some_and(|seconds| seconds == 0 || seconds > SECONDS_CAP) {
            return refuse("retention.pulled_within_seconds", "is 1 second to a hundred years");
        }
        let untagged = UNTAGGED_SECONDS_FLOOR..=SECONDS_CAP;
        if rules.untagged_after_seconds.is_some_and(|seconds| !untagged.contains(&seconds)) {
            return refuse("retention.untagged_after_seconds", "is 3600 seconds to a hundred years");
        }
        Ok(())
    }
}

impl Retention {
    /// Whether nothing is ever removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.limits_tags() && self.untagged_after_seconds.is_none()
    }

    /// Whether there is a rule that decides over tags.
    #[must_use]
    pub fn limits_tags(&self) -> bool {
        self.keep_last.is_some() || !self.keep_tags.is_empty() || self.pulled_within_seconds.is_some()
    }
}

/// The settings of the repository whose name is the first segment `root`; the default for one that has none.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn settings(view: &impl Read, root: &str) -> Result<RepositorySettings, StateError> {
    Ok(view.get(&REPOSITORIES, &root.to_owned())?.map(|record| record.settings).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_bounded_and_unknown_ones_are_refused() {
        let read = |text: &str| serde_json::from_str::<RepositorySettings>(text);
        let good = read(
            r#"{"sparse":true,"immutable_tags":["v*"],"retention":{"keep_last":3,"untagged_after_seconds":3600}}"#,
        )
        .unwrap();
        good.check().unwrap();
        assert!(
            good.is_immutable(&Tag::parse("v1").unwrap()) && !good.is_immutable(&Tag::parse("1").unwrap())
        );
        assert!(RepositorySettings::default().retention.is_empty() && !good.retention.is_empty());
        assert!(read(r#"{"immutable":["v*"]}"#).is_err());
        assert!(read(r#"{"immutable_tags":["v["]}"#).is_err());
        for bad in [
            r#"{"retention":{"keep_last":0}}"#,
            r#"{"retention":{"keep_last":501}}"#,
            r#"{"retention":{"pulled_within_seconds":0}}"#,
            r#"{"retention":{"untagged_after_seconds":3599}}"#,
            r#"{"retention":{"pulled_within_seconds":18446744073709551615}}"#,
        ] {
            assert!(read(bad).unwrap().check().is_err(), "{bad}");
        }
        let many = RepositorySettings {
            immutable_tags: vec![TagPattern::parse("a").unwrap(); PATTERNS_CAP + 1],
            ..RepositorySettings::default()
        };
        assert_eq!(many.check().unwrap_err().field, "immutable_tags");
    }
}
