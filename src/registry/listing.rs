//! Lists, a page at a time: tags and the catalogue.

use super::naming::may_list;
use super::{Registry, RegistryError};
use crate::access::{Principal, Reach, Right};
use crate::names::RepoName;
use crate::repos;

/// A page has this many entries at most, and when the client names no number.
const PAGE: usize = 500;

/// A part of an ordered list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it is the list of, where it is of something.
    pub of: Option<RepoName>,
    /// The entries in byte order.
    pub entries: Vec<String>,
    /// There is more after the last entry; the size of the page that goes on.
    pub more: Option<usize>,
    /// The client asked for more than a page has; so many are given.
    pub limited: Option<usize>,
}

/// How much a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    entries: usize,
    /// More was asked for.
    limited: bool,
}

impl Size {
    fn asked(n: Option<&str>) -> Result<Self, RegistryError> {
        let Some(text) = n else { return Ok(Self { entries: PAGE, limited: false }) };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RegistryError::NumberInvalid { name: "n" });
        }
        let asked = text.parse().unwrap_or(usize::MAX);
        Ok(Self { entries: asked.min(PAGE), limited: asked > PAGE })
    }

    /// One entry more than the page has tells whether there is a next one.
    fn to_read(self) -> usize {
        if self.entries == 0 { 0 } else { self.entries + 1 }
    }

    /// Cuts what was read with one entry too many.
    fn page(self, of: Option<RepoName>, mut entries: Vec<String>) -> Page {
        let more = (self.entries > 0 && entries.len() > self.entries).then_some(self.entries);
        entries.truncate(self.entries);
        Page { of, entries, more, limited: more.filter(|_| self.limited) }
    }
}

impl Registry {
    /// Tells whether a client may pull from this repository, or from any when none is named.
    ///
    /// # Errors
    /// The [`RegistryError`] that the pull would end with.
    pub fn check_pull(&self, who: &Principal, name: Option<&str>) -> Result<(), RegistryError> {
        match name {
            Some(name) => self.0.repository(who, Right::Pull, name).map(drop),
            None if who.needs_credentials() => Err(RegistryError::Unauthorized),
            None => Ok(()),
        }
    }

    /// The tags of a repository after `last`.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`] when the repository holds nothing.
    pub async fn tags(
        &self,
        who: &Principal,
        name: &str,
        n: Option<&str>,
        last: Option<String>,
    ) -> Result<Page, RegistryError> {
        let repo = self.0.repository(who, Right::Pull, name)?;
        let size = Size::asked(n)?;
        let (key, read) = (repo.clone(), size.to_read());
        let tags = self.0.state.read(move |view| repos::tags(view, &key, last.as_deref(), read)).await?;
        let tags = tags.ok_or_else(|| RegistryError::NameUnknown { name: repo.to_string() })?;
        Ok(size.page(Some(repo), tags.iter().map(ToString::to_string).collect()))
    }

    /// The repositories after `last`.
    ///
    /// # Errors
    /// [`RegistryError`] when the caller may not pull, or `n` is no number.
    pub async fn catalogue(
        &self,
        who: &Principal,
        n: Option<&str>,
        last: Option<String>,
    ) -> Result<Page, RegistryError> {
        may_list(who)?;
        let size = Size::asked(n)?;
        let read = size.to_read();
        let (reach, repositories) = (who.reach(), self.0.repositories.clone());
        let names = self
            .0
            .state
            .read(move |view| {
                let seen = |root: &str| repositories.exists(root);
                match &reach {
                    Reach::Everything => repos::catalogue(view, &seen, last.as_deref(), read),
                    Reach::Below(names) => repos::catalogue_below(view, &seen, names, last.as_deref(), read),
                }
            })
            .await?;
        Ok(size.page(None, names.iter().map(ToString::to_string).collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_with_a_link_exactly_when_there_is_more() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        let page = |have: usize, n: &str| Size::asked(Some(n)).unwrap().page(None, names(have));
        assert_eq!(page(3, "2"), Page { of: None, entries: names(2), more: Some(2), limited: None });
        assert_eq!(page(2, "2").more, None);
        assert_eq!(page(0, "0"), Page { of: None, entries: vec![], more: None, limited: None });
        assert_eq!(page(PAGE + 1, "501").limited, Some(PAGE));
        assert_eq!((page(PAGE, "501").limited, page(PAGE + 1, "500").limited), (None, None));
    }

    #[test]
    fn the_size_of_a_page_is_a_number() {
        let size = |n| Size::asked(n).map(|size| (size.entries, size.limited));
        assert_eq!(size(None).unwrap(), (PAGE, false));
        assert_eq!(size(Some("0")).unwrap(), (0, false));
        assert_eq!(size(Some("7")).unwrap(), (7, false));
        assert_eq!(size(Some("99999999999999999999999")).unwrap(), (PAGE, true));
        for bad in ["", "-1", "x", "+1"] {
            assert!(size(Some(bad)).is_err(), "{bad}");
        }
    }
}
