//! Names of packages, publishers, versions and commands.

use serde::{Deserialize, Serialize};

use super::text::textual;
use super::{NameError, RepoName, Tag};

/// `^[a-z][a-z0-9_-]{0,63}$` without runs of separators and without one at the end.
fn check_package_like(text: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "it must be 1 to 64 lowercase letters, digits, `-` or `_`, starting with a letter";
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 64 || !bytes[0].is_ascii_lowercase() {
        return Err(SHAPE);
    }
    let separator = |b: u8| b == b'-' || b == b'_';
    if !bytes.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || separator(b)) {
        return Err(SHAPE);
    }
    if bytes.windows(2).any(|pair| separator(pair[0]) && separator(pair[1]))
        || separator(bytes[bytes.len() - 1])
    {
        return Err("separators may neither follow each other nor stand at the end");
    }
    Ok(())
}

/// The name of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(String);
textual!(PackageName, "package name");

impl PackageName {
    fn check(text: &str) -> Result<(), &'static str> {
        check_package_like(text)
    }

    /// The form in which two names are the same: `_` becomes `-`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.replace('_', "-")
    }
}

/// The name of an account that publishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublisherName(String);
textual!(PublisherName, "publisher name");

impl PublisherName {
    fn check(text: &str) -> Result<(), &'static str> {
        check_package_like(text)
    }

    /// The publisher of what is submitted over the local socket.
    #[must_use]
    pub fn local() -> Self {
        Self("local".to_owned())
    }
}

/// A command that an installed pack offers: `^[a-z0-9][a-z0-9._-]{0,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandName(String);
textual!(CommandName, "command name");

impl CommandName {
    fn check(text: &str) -> Result<(), &'static str> {
        const RULE: &str =
            "it must be 1 to 64 lowercase letters, digits, `.`, `_` or `-`, starting with a letter or digit";
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = text.bytes().next().is_some_and(alphanumeric);
        if first && text.len() <= 64 && text.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b)) {
            Ok(())
        } else {
            Err(RULE)
        }
    }
}

/// A version after Semantic Versioning 2.0, without build metadata (a `+` cannot stand in a tag).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

impl Version {
    /// Parses the text.
    ///
    /// # Errors
    /// [`NameError`] for what is not a semantic version, has build metadata, or does not fit into a tag.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |rule| NameError::new("version", text, rule);
        let version = semver::Version::parse(text)
            .map_err(|_| refuse("it must follow Semantic Versioning 2.0, such as 1.2.0 or 1.2.0-beta.1"))?;
        if !version.build.is_empty() {
            return Err(refuse("build metadata (`+…`) is not allowed, as it cannot stand in a tag"));
        }
        if text.len() > 128 {
            return Err(refuse("it may have 128 characters at most"));
        }
        Ok(Self(version))
    }

    /// The tag under which this version is published.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::parse(&self.to_string()).expect("invariant: a semantic version without build metadata is a tag")
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Version {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A package of a publisher: `acme/weather`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackId {
    /// Who publishes it.
    pub publisher: PublisherName,
    /// What it is called.
    pub name: PackageName,
}

impl PackId {
    /// Parses `<publisher>/<name>`.
    ///
    /// # Errors
    /// [`NameError`] when there is no slash or one of the two is not valid.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (publisher, name) = text
            .split_once('/')
            .ok_or_else(|| NameError::new("package", text, "it must be <publisher>/<name>"))?;
        Ok(Self { publisher: PublisherName::parse(publisher)?, name: PackageName::parse(name)? })
    }

    /// The repository in which its versions are published: `packages/<publisher>/<name>`.
    #[must_use]
    pub fn repository(&self) -> RepoName {
        RepoName::parse(&format!("packages/{self}"))
            .expect("invariant: publisher and package names are path components of a repository name")
    }
}

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.publisher, self.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn package_names_follow_their_rule() {
        for good in ["a", "greeter", "a-b_c", "x1"] {
            assert!(PackageName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "A", "a--b", "a-_b", "a-", "a.b", "../x", &"a".repeat(65)] {
            assert!(PackageName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            PackageName::parse("a_b").unwrap().canonical(),
            PackageName::parse("a-b").unwrap().canonical()
        );
    }

    #[test]
    fn versions_are_semantic_and_fit_a_tag() {
        assert!(Version::parse("1.0.0-rc.1").unwrap() < Version::parse("1.0.0").unwrap());
        for bad in ["1", "1.0", "v1.0.0", "1.0.0+linux", "01.0.0", ""] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Version::parse("1.2.3-a").unwrap().tag().as_str(), "1.2.3-a");
    }

    #[test]
    fn command_names_are_no_paths() {
        for bad in ["../../etc/x", "a/b", "", "a\nb", "-x", ".x", "é", &"a".repeat(65)] {
            assert!(CommandName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_package_is_published_below_packages() {
        assert_eq!(PackId::parse("acme/w_x").unwrap().repository().as_str(), "packages/acme/w_x");
        assert!(PackId::parse("acme").is_err());
    }
}
