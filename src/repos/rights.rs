//! Which repositories there are, and who may write to them.

use crate::names::RepoName;

/// On whose behalf something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A client of the registry, whoever it is.
    Client,
    /// Pantry itself: publishing, and its own images.
    Pantry,
}

/// The local repositories of a fresh root, and whether clients write to them.
const LOCAL: [(&str, bool); 3] = [("local", true), ("packages", false), ("pantry", false)];

/// Tells whether `who` may write below the first segment of `repo`; never for a repository that does not exist.
#[must_use]
pub fn writable(repo: &RepoName, who: Writer) -> bool {
    LOCAL.iter().any(|&(name, clients)| name == repo.root() && (clients || who == Writer::Pantry))
}

/// Tells whether there is a repository of this name, which is the first segment of what a client asks for.
#[must_use]
pub fn exists_root(name: &str) -> bool {
    LOCAL.iter().any(|&(local, _)| local == name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn clients_write_to_local_only() {
        let repo = |text| RepoName::parse(text).unwrap();
        assert!(writable(&repo("local/a/b"), Writer::Client));
        assert!(!writable(&repo("packages/acme/x"), Writer::Client));
        assert!(writable(&repo("packages/acme/x"), Writer::Pantry));
        assert!(!writable(&repo("pantry/base"), Writer::Client));
        assert!(!writable(&repo("locale/a"), Writer::Pantry));
        assert!(exists_root("pantry") && !exists_root("Pantry") && !exists_root(""));
    }
}
