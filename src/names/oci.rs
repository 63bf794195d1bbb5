//! Names of the OCI distribution API.

use super::text::textual;
use super::{Digest, NameError};

/// The name of a repository in the registry, such as `local/team/app`.
///
/// *Limits*: 255 characters. *Source*: OCI distribution specification, section Pulling manifests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(String);
textual!(RepoName, "repository name");

impl RepoName {
    fn check(text: &str) -> Result<(), &'static str> {
        if text.len() > 255 {
            return Err("it may have 255 characters at most");
        }
        if text.split('/').all(is_path_component) {
            Ok(())
        } else {
            Err("each part between `/` must be lowercase letters and digits, joined by `.`, `_`, `__` or `-`")
        }
    }

    /// The first path segment, which names the repository of the configuration.
    #[must_use]
    pub fn root(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        if alphanumeric(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && !alphanumeric(bytes[at]) {
            at += 1;
        }
        let separator = &bytes[start..at];
        let allowed = matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-');
        if !allowed {
            return false;
        }
    }
    true
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);
textual!(Tag, "tag");

impl Tag {
    fn check(text: &str) -> Result<(), &'static str> {
        const RULE: &str =
            "it must be 1 to 128 letters, digits, `_`, `.` or `-`, not starting with `.` or `-`";
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first && text.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            Ok(())
        } else {
            Err(RULE)
        }
    }
}

/// A tag or a digest: what a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A name that may move.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl Reference {
    /// Parses a digest where there is a colon, a tag elsewhere.
    ///
    /// # Errors
    /// [`NameError`] when the text is neither.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.contains(':') {
            Digest::parse(text).map(Self::Digest)
        } else {
            Tag::parse(text).map(Self::Tag)
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_of_the_specification() {
        for good in ["a", "a/b", "a.b/c_d", "a__b", "a---b", "0/1", "local/team/app-1"] {
            assert!(RepoName::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "A", "a..b", "a___b", "a_.b", "-a", "a-", "a b", "a/../b", "é", &long]
        {
            assert!(RepoName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(RepoName::parse("packages/acme/x").unwrap().root(), "packages");
    }

    #[test]
    fn a_colon_means_a_digest() {
        assert!(matches!(Reference::parse("v1.0"), Ok(Reference::Tag(_))));
        assert!(Reference::parse("sha256:baddigeststring").is_err());
        assert!(Reference::parse("").is_err());
        assert!(Reference::parse(".hidden").is_err());
        assert!(Reference::parse(&"x".repeat(129)).is_err());
    }
}
