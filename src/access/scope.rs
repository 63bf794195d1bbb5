//! What a client of the token service asks for: `repository:team/app:pull,push`.
//!
//! *Source*: the token authentication of the `distribution` project, "Token Scope Documentation".

use super::right::{Right, Rights};

/// So many scopes of one request count.
const SCOPES_CAP: usize = 100;

/// One scope as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedScope<'a> {
    /// `repository`, `registry`, or what else a client knows; without a class (`repository(plugin)`).
    pub kind: &'a str,
    /// The name, which may begin with `<host>:<port>/`.
    pub name: &'a str,
    /// What is to be done there, as it came.
    pub actions: &'a str,
}

impl<'a> AskedScope<'a> {
    /// Reads all scopes of a request: repeated, and several in one text with blanks between them. What is no scope is
    /// passed over, as nothing is granted on it.
    pub fn parse_all(texts: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        texts
            .into_iter()
            .flat_map(str::split_ascii_whitespace)
            .filter_map(Self::parse)
            .take(SCOPES_CAP)
            .collect()
    }

    /// `<type>:<name>:<actions>`: the type ends at the first colon, the actions begin after the last one.
    fn parse(text: &'a str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        (!name.is_empty()).then_some(Self { kind, name, actions })
    }

    /// The rights among the actions; `*` is all of them, and words that are no right are passed over.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.actions.split(',').fold(Rights::NONE, |rights, word| match word {
            "*" => Rights::ALL,
            word => Right::parse(word).map_or(rights, |right| rights.with(right)),
        })
    }

    /// The name of the repository: without the address that some clients put in front of it.
    #[must_use]
    pub fn repository(&self) -> &'a str {
        match self.name.split_once('/') {
            Some((host, rest)) if host.contains(':') => rest,
            _ => self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_come_repeated_and_in_one_text() {
        let texts =
            ["repository:a/b:pull,push repository:host:5000/c:pull", "registry:catalog:*", "", "x", "a:b"];
        let scopes = AskedScope::parse_all(texts);
        let read: Vec<_> = scopes
            .iter()
            .map(|scope| (scope.kind, scope.name, scope.repository(), scope.rights().to_string()))
            .collect();
        assert_eq!(
            read,
            [
                ("repository", "a/b", "a/b", "pull,push".to_owned()),
                ("repository", "host:5000/c", "c", "pull".to_owned()),
                ("registry", "catalog", "catalog", "pull,push,delete,admin".to_owned()),
            ]
        );
        let plugin = AskedScope::parse_all(["repository(plugin):a:pull,fly"]);
        assert_eq!((plugin[0].kind, plugin[0].rights()), ("repository", Rights::of(&[Right::Pull])));
        assert_eq!(AskedScope::parse_all(["repository::pull"]), []);
        assert_eq!(AskedScope::parse_all(std::iter::repeat_n("a:b:c", 200)).len(), SCOPES_CAP);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,60}") {
            for scope in AskedScope::parse_all([text.as_str()]) {
                let _ = (scope.rights(), scope.repository());
            }
        }
    }
}
