//! Rights in repositories, and the patterns on which they are granted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::RepoName;

/// What somebody may do in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Read its content, and know that it exists.
    Pull,
    /// Write content into it.
    Push,
    /// Delete content from it.
    Delete,
    /// Everything in it, its settings too.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Delete, Self::Admin];

    /// The word for it in the API, in scopes and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// The right of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == word)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of rights; [`Right::Admin`] brings the others along.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(0b1111);

    /// The set of these.
    #[must_use]
    pub fn of(rights: &[Right]) -> Self {
        rights.iter().fold(Self::NONE, |set, right| set.with(*right))
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, right: Right) -> Self {
        if right == Right::Admin { Self::ALL } else { Self(self.0 | right.bit()) }
    }

    /// Reads `pull,push`; `None` when a word is no right, or there is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').try_fold(Self::NONE, |set, word| Some(set.with(Right::parse(word.trim())?)))
    }

    /// Whether the right is in the set.
    #[must_use]
    pub fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in one or the other.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights in the set, weakest first.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, right) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(right.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Right::as_str))
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().try_fold(Self::NONE, |set, word| {
            let unknown = || serde::de::Error::custom("a right is pull, push, delete or admin");
            Ok(set.with(Right::parse(word).ok_or_else(unknown)?))
        })
    }
}

/// The repositories that a grant is about: all, or a name and everything below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `*`: every repository.
    All,
    /// A name in whole segments: `local/team` is `local/team` and `local/team/app`, not `local/team-b`.
    Below(RepoName),
}

impl Pattern {
    /// Reads `*` or a name; `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" { Some(Self::All) } else { RepoName::parse(text).ok().map(Self::Below) }
    }

    /// Whether the repository is meant; [`Grants`] answer that for many patterns at once.
    #[cfg(test)]
    pub(super) fn covers(&self, repo: &RepoName) -> bool {
        match self {
            Self::All => true,
            Self::Below(name) => is_below(name.as_str(), repo.as_str()),
        }
    }
}

/// Whether `name` is `above`, or a name below it.
pub(super) fn is_below(above: &str, name: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(name) => name.fmt(f),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("a pattern is `*` or the name of a repository");
        Self::parse(&text).ok_or_else(wrong)
    }
}

/// Rights on the repositories of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Which repositories.
    pub pattern: Pattern,
    /// What may be done there.
    pub rights: Rights,
}

/// Everything that somebody may do in repositories; cheap to clone, and asked without a walk over all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    all: Rights,
    /// Sorted by name, each name once.
    below: Arc<[(RepoName, Rights)]>,
}

impl Grants {
    /// These rights everywhere.
    #[must_use]
    pub fn everywhere(all: Rights) -> Self {
        Self { all, below: Arc::default() }
    }

    /// All of these together.
    pub fn of<'a>(scopes: impl IntoIterator<Item = (&'a Pattern, Rights)>) -> Self {
        let mut all = Rights::NONE;
        let mut below: BTreeMap<&RepoName, Rights> = BTreeMap::new();
        for (pattern, rights) in scopes {
            match pattern {
                Pattern::All => all = all.union(rights),
                Pattern::Below(name) => {
                    let entry = below.entry(name).or_default();
                    *entry = entry.union(rights);
                }
            }
        }
        Self { all, below: below.into_iter().map(|(name, rights)| (name.clone(), rights)).collect() }
    }

    /// The rights in one repository: those of its own name and of every name above it.
    #[must_use]
    pub fn rights_in(&self, repo: &RepoName) -> Rights {
        let mut rights = self.all;
        if self.below.is_empty() {
            return rights;
        }
        let name = repo.as_str();
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            if let Ok(found) = self.below.binary_search_by(|(below, _)| below.as_str().cmp(&name[..end])) {
                rights = rights.union(self.below[found].1);
            }
        }
        rights
    }

    /// Whether the right is among those in the repository.
    #[must_use]
    pub fn allow(&self, right: Right, repo: &RepoName) -> bool {
        self.all.contains(right) || self.rights_in(repo).contains(right)
    }

    /// Where there is this right.
    #[must_use]
    pub fn reach(&self, right: Right) -> Reach {
        if self.all.contains(right) {
            return Reach::Everything;
        }
        let names = self.below.iter().filter(|(_, rights)| rights.contains(right)).map(|(name, _)| name);
        Reach::below(names.cloned().collect())
    }
}

/// The repositories in which somebody has a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    Everything,
    /// Those of these names and below them: in order, and none below another.
    Below(Vec<RepoName>),
}

impl Reach {
    fn below(mut names: Vec<RepoName>) -> Self {
        names.sort_unstable();
        let all: std::collections::BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        names.retain(|name| {
            let name = name.as_str();
            !name.match_indices('/').any(|(end, _)| all.contains(&name[..end]))
        });
        names.dedup();
        Self::Below(names)
    }

    /// Whether it has a repository of this name, or one below it.
    #[must_use]
    pub fn touches(&self, root: &RepoName) -> bool {
        match self {
            Self::Everything => true,
            Self::Below(names) => names
                .iter()
                .any(|name| is_below(root.as_str(), name.as_str()) || is_below(name.as_str(), root.as_str())),
        }
    }

    /// Whether there is no repository in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Below(names) if names.is_empty())
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Everything, reach) | (reach, Self::Everything) => reach.clone(),
            (Self::Below(one), Self::Below(two)) => {
                let inside = |names: &[RepoName], above: &[RepoName]| -> Vec<RepoName> {
                    let under = |name: &&RepoName| above.iter().any(|a| is_below(a.as_str(), name.as_str()));
                    names.iter().filter(under).cloned().collect()
                };
                let mut both = inside(one, two);
                both.extend(inside(two, one));
                Self::below(both)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repo(text: &str) -> RepoName {
        RepoName::parse(text).unwrap()
    }

    fn grants(entries: &[(&str, &str)]) -> Grants {
        let parsed: Vec<(Pattern, Rights)> = entries
            .iter()
            .map(|(pattern, rights)| (Pattern::parse(pattern).unwrap(), Rights::parse(rights).unwrap()))
            .collect();
        Grants::of(parsed.iter().map(|(pattern, rights)| (pattern, *rights)))
    }

    #[test]
    fn a_pattern_covers_whole_segments() {
        let team = Pattern::parse("local/team").unwrap();
        assert!(team.covers(&repo("local/team")) && team.covers(&repo("local/team/app/x")));
        assert!(!team.covers(&repo("local/team-b")) && !team.covers(&repo("local")));
        assert!(Pattern::parse("*").unwrap().covers(&repo("x")));
        for bad in ["", "local/", "local/*", "**", "/local", "Local"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn administering_a_repository_brings_every_right_in_it() {
        let admin = Rights::parse("admin").unwrap();
        assert_eq!((admin, admin.to_string().as_str()), (Rights::ALL, "pull,push,delete,admin"));
        assert_eq!(Rights::parse("push, pull").unwrap().to_string(), "pull,push");
        for bad in ["", "pull,", "PULL", "write"] {
            assert_eq!(Rights::parse(bad), None, "{bad}");
        }
        let written = serde_json::to_string(&Rights::of(&[Right::Pull, Right::Delete])).unwrap();
        assert_eq!(written, r#"["pull","delete"]"#);
        assert_eq!(serde_json::from_str::<Rights>(&written).unwrap().to_string(), "pull,delete");
        assert!(serde_json::from_str::<Rights>(r#"["all"]"#).is_err());
    }

    #[test]
    fn rights_of_a_name_and_of_those_above_it_add_up() {
        let grants = grants(&[("local", "pull"), ("local/team", "push"), ("local/team/app", "delete")]);
        assert_eq!(grants.rights_in(&repo("local/x")).to_string(), "pull");
        assert_eq!(grants.rights_in(&repo("local/team/b")).to_string(), "pull,push");
        assert_eq!(grants.rights_in(&repo("local/team/app/x")).to_string(), "pull,push,delete");
        assert_eq!(grants.rights_in(&repo("packages/a")), Rights::NONE);
    }

    #[test]
    fn the_reach_has_no_name_below_another() {
        let one = grants(&[("a", "pull"), ("a-b", "pull"), ("a/b", "pull"), ("c/d", "pull"), ("e", "push")]);
        let reach = one.reach(Right::Pull);
        assert_eq!(reach, Reach::Below(vec![repo("a"), repo("a-b"), repo("c/d")]));
        let two = grants(&[("a/x", "pull"), ("c", "pull")]).reach(Right::Pull);
        assert_eq!(reach.intersection(&two), Reach::Below(vec![repo("a/x"), repo("c/d")]));
        assert_eq!(reach.intersection(&Reach::Everything), reach);
        assert!(grants(&[("e", "push")]).reach(Right::Pull).is_empty());
    }

    proptest! {
        /// The binary search says what asking every pattern says.
        #[test]
        fn lookups_agree_with_the_patterns(
            entries in proptest::collection::vec(("[ab](/[ab]){0,3}|\\*", 1_u8..16), 0..8),
            name in "[ab](/[ab]){0,4}",
        ) {
            let parsed: Vec<(Pattern, Rights)> =
                entries.iter().map(|(text, bits)| (Pattern::parse(text).unwrap(), Rights(*bits))).collect();
            let name = repo(&name);
            let wanted = parsed
                .iter()
                .filter(|(pattern, _)| pattern.covers(&name))
                .fold(Rights::NONE, |set, (_, rights)| set.union(*rights));
            let grants = Grants::of(parsed.iter().map(|(pattern, rights)| (pattern, *rights)));
            prop_assert_eq!(grants.rights_in(&name), wanted);
            let reached = match grants.reach(Right::Pull) {
                Reach::Everything => true,
                Reach::Below(names) => names.iter().any(|above| is_below(above.as_str(), name.as_str())),
            };
            prop_assert_eq!(reached, wanted.contains(Right::Pull));
        }
    }
}
