//! Which repository a name means, and who may do what there.

use super::{Inner, Registry, RegistryError};
use crate::access::{Principal, Right};
use crate::names::{Digest, RepoName};
use crate::repos::Writer;

impl Registry {
    /// The repository that a name means, whether it is there or not; `None` for what is no name.
    #[must_use]
    pub fn meaning(&self, name: &str) -> Option<RepoName> {
        meant(&self.0.resolve(name), name)
    }
}

impl Inner {
    /// The repository that `who` has the right in. Rights come first, so that who has none learns nothing.
    pub(super) fn repository(
        &self,
        who: &Principal,
        right: Right,
        name: &str,
    ) -> Result<RepoName, RegistryError> {
        let resolved = self.resolve(name);
        match &meant(&resolved, name) {
            Some(meant) if who.may_in(right, meant) => {}
            Some(meant) => return Err(refusal(who, right, meant, name)),
            None if who.needs_credentials() => return Err(RegistryError::Unauthorized),
            None => {}
        }
        let repo = resolved?;
        if matches!(right, Right::Push | Right::Delete) && !self.repositories.writable(&repo, Writer::Client)
        {
            return Err(RegistryError::Denied { why: "only Pantry itself writes to this repository" });
        }
        Ok(repo)
    }

    /// A first segment that is no repository means the default one, when there is such.
    pub(super) fn resolve(&self, name: &str) -> Result<RepoName, RegistryError> {
        let repo = RepoName::parse(name).map_err(RegistryError::NameInvalid)?;
        if self.repositories.exists(repo.root()) {
            return Ok(repo);
        }
        let default = self.config.default_repository.as_deref().ok_or_else(|| unknown(name))?;
        let repo = RepoName::parse(&format!("{default}/{name}")).map_err(RegistryError::NameInvalid)?;
        if self.repositories.exists(repo.root()) { Ok(repo) } else { Err(unknown(name)) }
    }
}

/// What rights are asked about. Rights and tokens cover names that mean nothing here too: who holds them is told that
/// nothing is there, and not to come with another token.
fn meant(resolved: &Result<RepoName, RegistryError>, name: &str) -> Option<RepoName> {
    resolved.as_ref().ok().cloned().or_else(|| RepoName::parse(name).ok())
}

/// Why somebody may not: without credentials they are asked for; who may not even pull is told what is told of a
/// repository that is not there.
fn refusal(who: &Principal, right: Right, repo: &RepoName, name: &str) -> RegistryError {
    if who.needs_credentials() {
        RegistryError::Unauthorized
    } else if who.is_bearer() && (who.could_in(right, repo) || who.is_anonymous()) {
        // Another token would do; of nobody known it is not said what somebody could.
        RegistryError::InsufficientScope
    } else if who.could_in(Right::Pull, repo) {
        RegistryError::Denied { why: "your rights in this repository do not allow this" }
    } else {
        unknown(name)
    }
}

/// That no repository of this name is there, for this caller.
fn unknown(name: &str) -> RegistryError {
    RegistryError::NameUnknown { name: name.chars().take(255).collect() }
}

/// Refuses who may not list repositories.
pub(super) fn may_list(who: &Principal) -> Result<(), RegistryError> {
    if who.may_list() {
        Ok(())
    } else if who.is_bearer() {
        Err(RegistryError::InsufficientScope)
    } else {
        Err(RegistryError::Unauthorized)
    }
}

pub(super) fn digest(text: &str) -> Result<Digest, RegistryError> {
    Digest::parse(text).map_err(RegistryError::DigestInvalid)
}
