//! Names of accounts and groups, and the subjects of grants.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::AccessError;

/// A name has this many characters at most.
const LONGEST: usize = 64;

/// The name of a user, a group or a token.
///
/// *Shape*: letters and digits of ASCII, and `.`, `_`, `-`, `@`, `+` behind the first of them. *Limits*: 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(String);

impl AccountName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`AccessError::NameInvalid`].
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
        if first && text.len() <= LONGEST && text.bytes().all(known) {
            return Ok(Self(text.to_owned()));
        }
        Err(AccessError::NameInvalid { given: text.chars().take(LONGEST).collect() })
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `anonymous`: everybody, with credentials or without.
    Anonymous,
    /// `group:<name>`: the members of a group.
    Group(AccountName),
    /// `user:<name>`: one user.
    User(AccountName),
}

impl Subject {
    /// Reads `user:<name>`, `group:<name>` or `anonymous`.
    ///
    /// # Errors
    /// [`AccessError::SubjectInvalid`], or [`AccessError::NameInvalid`] for the name in it.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        match text.split_once(':') {
            Some(("user", name)) => AccountName::parse(name).map(Self::User),
            Some(("group", name)) => AccountName::parse(name).map(Self::Group),
            None if text == "anonymous" => Ok(Self::Anonymous),
            _ => Err(AccessError::SubjectInvalid { given: text.chars().take(LONGEST).collect() }),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

macro_rules! as_text {
    ($($name:ty),*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )* };
}
as_text!(AccountName, Subject);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["ann", "A.nn-1", "ann@example.org", "0", "a+b_c", &"a".repeat(64)] {
            assert_eq!(AccountName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "@a", "a:b", "a/b", "a b", "é", "a\n", &"a".repeat(65)] {
            assert_eq!(AccountName::parse(bad).unwrap_err().code(), "account_name_invalid", "{bad}");
        }
    }

    #[test]
    fn subjects_read_as_they_are_written() {
        for text in ["anonymous", "user:ann", "group:team"] {
            assert_eq!(Subject::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "ann", "user:", "role:admin", "anonymous:", "user:a:b"] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }
}
