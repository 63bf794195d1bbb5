//! Patterns of tags.

use serde::{Deserialize, Serialize};

use crate::names::Tag;

/// A pattern may have this many characters.
const CHARACTERS: usize = 128;

/// A pattern over whole tags: `*` stands for any characters, also none, `?` for exactly one; the rest is itself.
///
/// *Limits*: 1 to 128 characters, those of a tag and the two wildcards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagPattern(String);

impl TagPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-*?".contains(&b);
        if text.is_empty() || text.len() > CHARACTERS || !text.bytes().all(allowed) {
            return Err(
                "a pattern has 1 to 128 letters, digits, `_`, `.`, `-`, and the wildcards `*` and `?`",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole tag is described by the pattern.
    ///
    /// *Limits*: at most the product of both lengths in steps, however many wildcards there are.
    #[must_use]
    pub fn matches(&self, tag: &Tag) -> bool {
        matches(self.0.as_bytes(), tag.as_str().as_bytes())
    }
}

/// Goes back to the last `*` only: an earlier one could take nothing that this one cannot.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at, read));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star, taken)) = retry else { return false };
                retry = Some((star, taken + 1));
                at = star + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == b'*')
}

impl TryFrom<String> for TagPattern {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<TagPattern> for String {
    fn from(pattern: TagPattern) -> Self {
        pattern.0
    }
}

impl std::fmt::Display for TagPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the definition, without a thought for the cost.
    fn model(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) => model(&pattern[1..], text) || (!text.is_empty() && model(pattern, &text[1..])),
            (Some(b'?'), Some(_)) => model(&pattern[1..], &text[1..]),
            (Some(a), Some(b)) if a == b => model(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    #[test]
    fn patterns_describe_whole_tags() {
        let cases = [
            ("v*", "v1.0", true),
            ("v*", "rv1", false),
            ("*", "latest", true),
            ("v?.?", "v1.0", true),
            ("v?.?", "v1.10", false),
            ("*-rc*", "v1-rc2", true),
            ("release", "release-1", false),
        ];
        for (pattern, tag, expected) in cases {
            let found = TagPattern::parse(pattern).unwrap().matches(&Tag::parse(tag).unwrap());
            assert_eq!(found, expected, "{pattern} {tag}");
        }
        for bad in ["", "a b", "[a]", "é", "a/b", &"*".repeat(129)] {
            assert!(TagPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn many_wildcards_cost_little() {
        let pattern = TagPattern::parse(&"*a".repeat(64)).unwrap();
        assert!(!pattern.matches(&Tag::parse(&"ab".repeat(63)).unwrap()));
    }

    proptest! {
        #[test]
        fn as_the_definition_says(pattern in "[ab*?]{1,8}", tag in "[ab]{1,10}") {
            let found = TagPattern::parse(&pattern).unwrap().matches(&Tag::parse(&tag).unwrap());
            prop_assert_eq!(found, model(pattern.as_bytes(), tag.as_bytes()));
        }
    }
}
