//! The decision, from facts and the time.

use std::time::Duration;

use serde::Serialize;

use crate::names::{Millis, Tag};
use crate::repos::settings::RepositorySettings;

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagFacts {
    /// It is one of the `keep_last` of its image that were set last.
    pub among_last: bool,
    /// When it was set, or its manifest was asked for, whichever is later.
    pub used_at: Millis,
    /// It is named after a manifest (`sha256-…`, with or without `.sig`, `.att`, `.sbom`): whether that one is there.
    pub companion_of: Option<bool>,
}

/// What is known of a manifest that no tag points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// A manifest that is there lists it.
    pub child: bool,
    /// It is about a manifest that is there.
    pub referrer: bool,
    /// When it was put, or asked for, whichever is later.
    pub used_at: Millis,
}

/// Whether something stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Kept),
    /// A tag that no rule keeps; with it goes its manifest, unless something else keeps that.
    RemoveTag,
    /// A manifest without a tag that nobody has used for long.
    RemoveUntagged,
}

/// Why something stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// There is no rule about it.
    NoRule,
    /// The tag may not move, and so not go.
    Immutable,
    /// The tag is one of those that were set last.
    KeepLast,
    /// The tag matches a pattern.
    KeepTags,
    /// It was set, put or pulled lately.
    UsedLately,
    /// It belongs to an image that is there.
    WithImage,
    /// An index that is there lists it.
    InIndex,
}

impl Verdict {
    /// The word for it in answers and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Keep(Kept::NoRule) => "no_rule",
            Self::Keep(Kept::Immutable) => "immutable",
            Self::Keep(Kept::KeepLast) => "keep_last",
            Self::Keep(Kept::KeepTags) => "keep_tags",
            Self::Keep(Kept::UsedLately) => "used_lately",
            Self::Keep(Kept::WithImage) => "with_image",
            Self::Keep(Kept::InIndex) => "in_index",
            Self::RemoveTag => "no_rule_keeps_it",
            Self::RemoveUntagged => "untagged",
        }
    }

    /// Whether it stays.
    #[must_use]
    pub fn keeps(self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

fn lately(used_at: Millis, seconds: u64, now: Millis) -> bool {
    now.since(used_at) < Duration::from_secs(seconds)
}

/// Decides over a tag.
#[must_use]
pub fn judge_tag(settings: &RepositorySettings, tag: &Tag, facts: &TagFacts, now: Millis) -> Verdict {
    let rules = &settings.retention;
    if settings.is_immutable(tag) {
        return Verdict::Keep(Kept::Immutable);
    }
    match facts.companion_of {
        Some(true) => return Verdict::Keep(Kept::WithImage),
        // Its image is gone, or not there yet: as old as what has no tag must be.
        Some(false) => {
            return match rules.untagged_after_seconds {
                None => Verdict::Keep(Kept::NoRule),
                Some(seconds) if lately(facts.used_at, seconds, now) => Verdict::Keep(Kept::UsedLately),
                Some(_) => Verdict::RemoveTag,
            };
        }
        None => {}
    }
    if !rules.limits_tags() {
        return Verdict::Keep(Kept::NoRule);
    }
    if rules.keep_tags.iter().any(|pattern| pattern.matches(tag)) {
        return Verdict::Keep(Kept::KeepTags);
    }
    if rules.keep_last.is_some() && facts.among_last {
        return Verdict::Keep(Kept::KeepLast);
    }
    if rules.pulled_within_seconds.is_some_and(|seconds| lately(facts.used_at, seconds, now)) {
        return Verdict::Keep(Kept::UsedLately);
    }
    Verdict::RemoveTag
}

/// Decides over a manifest that no tag points to.
#[must_use]
pub fn judge_untagged(settings: &RepositorySettings, facts: &ManifestFacts, now: Millis) -> Verdict {
    if facts.child {
        return Verdict::Keep(Kept::InIndex);
    }
    if facts.referrer {
        return Verdict::Keep(Kept::WithImage);
    }
    match settings.retention.untagged_after_seconds {
        None => Verdict::Keep(Kept::NoRule),
        Some(seconds) if lately(facts.used_at, seconds, now) => Verdict::Keep(Kept::UsedLately),
        Some(_) => Verdict::RemoveUntagged,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn settings(text: &str) -> RepositorySettings {
        let settings: RepositorySettings = serde_json::from_str(text).unwrap();
        settings.check().unwrap();
        settings
    }

    fn ago(seconds: u64) -> Millis {
        Millis(NOW.0 - seconds * 1_000)
    }

    #[test]
    fn tags() {
        let none = r#"{"retention":{"untagged_after_seconds":3600}}"#;
        let last = r#"{"retention":{"keep_last":2}}"#;
        let named = r#"{"retention":{"keep_tags":["v*"]}}"#;
        let pulled = r#"{"retention":{"pulled_within_seconds":60}}"#;
        let all = r#"{"immutable_tags":["r?"],"retention":{"keep_last":2,"keep_tags":["v*"],"pulled_within_seconds":60,"untagged_after_seconds":3600}}"#;
        // Settings, tag, among the last, used so many seconds ago, companion of, what comes out.
        let table = [
            ("{}", "a", false, 1_000_000, None, "no_rule"),
            (none, "a", false, 1_000_000, None, "no_rule"),
            (last, "a", true, 1_000_000, None, "keep_last"),
            (last, "a", false, 0, None, "no_rule_keeps_it"),
            (named, "v1", false, 1_000_000, None, "keep_tags"),
            (named, "1", true, 0, None, "no_rule_keeps_it"),
            (pulled, "a", false, 59, None, "used_lately"),
            (pulled, "a", true, 60, None, "no_rule_keeps_it"),
            (all, "r1", false, 1_000_000, None, "immutable"),
            (all, "r1", false, 1_000_000, Some(false), "immutable"),
            (all, "v1", true, 0, None, "keep_tags"),
            (all, "a", true, 0, None, "keep_last"),
            (all, "a", false, 30, None, "used_lately"),
            (all, "a", false, 61, None, "no_rule_keeps_it"),
            (all, "sha256-x", false, 1_000_000, Some(true), "with_image"),
            (all, "sha256-x", false, 3_599, Some(false), "used_lately"),
            (all, "sha256-x", true, 3_600, Some(false), "no_rule_keeps_it"),
            (last, "sha256-x", false, 1_000_000, Some(false), "no_rule"),
        ];
        for (text, tag, among_last, seconds, companion_of, expected) in table {
            let facts = TagFacts { among_last, used_at: ago(seconds), companion_of };
            let found = judge_tag(&settings(text), &Tag::parse(tag).unwrap(), &facts, NOW);
            assert_eq!(found.reason(), expected, "{text} {tag} {facts:?}");
            assert_eq!(found.keeps(), expected != "no_rule_keeps_it");
        }
    }

    #[test]
    fn manifests_without_a_tag() {
        let rule = r#"{"retention":{"untagged_after_seconds":3600}}"#;
        let sparse = r#"{"sparse":true,"retention":{"untagged_after_seconds":3600}}"#;
        let table = [
            ("{}", false, false, 1_000_000, "no_rule"),
            (r#"{"retention":{"keep_last":1}}"#, false, false, 1_000_000, "no_rule"),
            (rule, true, false, 1_000_000, "in_index"),
            (rule, false, true, 1_000_000, "with_image"),
            (rule, false, false, 3_599, "used_lately"),
            (rule, false, false, 3_600, "untagged"),
            (sparse, false, false, 1_000_000, "untagged"),
            (sparse, true, false, 1_000_000, "in_index"),
        ];
        for (text, child, referrer, seconds, expected) in table {
            let facts = ManifestFacts { child, referrer, used_at: ago(seconds) };
            assert_eq!(judge_untagged(&settings(text), &facts, NOW).reason(), expected, "{text} {facts:?}");
        }
    }

    #[test]
    fn a_clock_that_went_back_removes_nothing() {
        let rule = settings(r#"{"retention":{"pulled_within_seconds":60,"untagged_after_seconds":3600}}"#);
        let facts =
            TagFacts { among_last: false, used_at: NOW.after(Duration::from_hours(9)), companion_of: None };
        assert!(judge_tag(&rule, &Tag::parse("a").unwrap(), &facts, NOW).keeps());
    }
}
