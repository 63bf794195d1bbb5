//! Which repository a name means, and who may do what there.

use super::{Inner, RegistryError};
use crate::access::{Action, Principal};
use crate::names::{Digest, RepoName};
use crate::repos::Writer;

impl Inner {
    /// The repository that `who` may do `action` in. Rights come first, so that who has none learns nothing.
    pub(super) fn repository(
        &self,
        who: &Principal,
        action: Action,
        name: &str,
    ) -> Result<RepoName, RegistryError> {
        allow(who, action)?;
        let repo = self.resolve(name)?;
        if matches!(action, Action::Push | Action::DeleteContent)
            && !self.repositories.writable(&repo, Writer::Client)
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
        let unknown = || RegistryError::NameUnknown { name: name.chars().take(255).collect() };
        let default = self.config.default_repository.as_deref().ok_or_else(unknown)?;
        let repo = RepoName::parse(&format!("{default}/{name}")).map_err(RegistryError::NameInvalid)?;
        if self.repositories.exists(repo.root()) { Ok(repo) } else { Err(unknown()) }
    }
}

/// Refuses who may not: with the demand for credentials when none were shown.
pub(super) fn allow(who: &Principal, action: Action) -> Result<(), RegistryError> {
    if who.may(action) {
        return Ok(());
    }
    match who {
        Principal::Anonymous { .. } => Err(RegistryError::Unauthorized),
        _ => Err(RegistryError::Denied { why: "your role does not allow this" }),
    }
}

pub(super) fn digest(text: &str) -> Result<Digest, RegistryError> {
    Digest::parse(text).map_err(RegistryError::DigestInvalid)
}
