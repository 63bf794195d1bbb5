//! Blobs going out, and away.

use super::naming::digest;
use super::{Inner, Registry, RegistryError};
use crate::access::{Principal, Right};
use crate::audit;
use crate::blobs::{BlobError, Reader};
use crate::names::{Digest, Millis, RepoName};
use crate::repos;
use crate::state::{StateError, Tx};

/// A blob that a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobFound {
    /// Where it was found.
    pub repo: RepoName,
    /// As the client named it.
    pub digest: Digest,
    /// The SHA-256 under which its bytes lie.
    pub stored: Digest,
    /// In bytes.
    pub size: u64,
}

impl Registry {
    /// Finds a blob; reads no bytes.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when the repository does not hold it.
    pub async fn blob(&self, who: &Principal, name: &str, text: &str) -> Result<BlobFound, RegistryError> {
        let repo = self.0.repository(who, Right::Pull, name)?;
        let digest = digest(text)?;
        let key = (repo.clone(), digest.clone());
        let now = self.0.clock.now();
        let (at, due) = self
            .0
            .state
            .read_few(move |view| {
                let at = repos::blob_at(view, &key.0, &key.1)?;
                // What was found damaged counts as not there, so that it is pushed again.
                let at = match at {
                    Some(at) if crate::blobs::is_known(view, &at.stored)?.is_some() => Some(at),
                    _ => None,
                };
                let due = at.is_some() && repos::renewal_due(view, now, &key.0, &key.1)?;
                Ok::<_, StateError>((at, due))
            })
            .await?;
        // Whoever is told "it is here" has the whole grace to name it. It may have been let go of at this moment.
        let held = if due {
            let key = (repo.clone(), digest.clone());
            let ahead = self.0.renew_ahead;
            self.0.state.write(move |tx| repos::renew_blob(tx, now, ahead, &key.0, &key.1)).await?
        } else {
            true
        };
        match at.filter(|_| held) {
            Some(at) => Ok(BlobFound { repo, digest, stored: at.stored, size: at.size }),
            None => Err(RegistryError::BlobUnknown { repo, digest }),
        }
    }

    /// Opens the bytes of a blob that was found.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when they are gone, or others than they should be: from then on the blob counts
    /// as not there, so that a push heals it.
    pub async fn open(&self, found: &BlobFound) -> Result<Reader, RegistryError> {
        let unknown =
            || RegistryError::BlobUnknown { repo: found.repo.clone(), digest: found.digest.clone() };
        match self.0.blobs.open_blob(&found.stored).await {
            Ok(Some(reader)) => Ok(reader),
            Ok(None) => {
                tracing::error!(
                    repository = %found.repo, digest = %found.digest, "a blob that is recorded has no bytes"
                );
                Err(unknown())
            }
            Err(error) => {
                Err(if self.sets_aside(&found.stored, &error).await { unknown() } else { error.into() })
            }
        }
    }

    /// Acts on damage where it is first seen: without that, whoever asks would be told for ever that the blob is here,
    /// and never push it again. `false` for a failure that says nothing about the bytes, such as one of the disk, and
    /// where a second look finds them intact.
    pub(super) async fn sets_aside(&self, stored: &Digest, error: &BlobError) -> bool {
        if !matches!(error, BlobError::Missing(_) | BlobError::Damaged(_)) {
            return false;
        }
        let (blobs, digest) = (self.0.blobs.clone(), stored.clone());
        // It goes on also when the client stops waiting.
        let looked = tokio::spawn(async move { blobs.quarantine(&digest).await });
        match looked.await {
            Ok(Ok(damage)) => damage.is_some(),
            // Somebody is storing the same bytes at this moment, which heals them; or the disk fails.
            Ok(Err(error)) => {
                tracing::warn!(digest = %stored, %error, "a blob that seems damaged could not be looked at again");
                false
            }
            Err(_) => false,
        }
    }

    /// Unlinks a blob from a repository.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when the repository does not hold it.
    pub async fn delete_blob(&self, who: &Principal, name: &str, text: &str) -> Result<(), RegistryError> {
        let repo = self.deletable(who, name)?;
        let digest = digest(text)?;
        let event = event(who, "registry.blob.delete", &repo, &digest.to_string());
        let key = (repo.clone(), digest.clone());
        self.0.faults.pass("registry.blob-delete.before-record");
        let delete = move |tx: &mut Tx<'_>, now| repos::delete_blob(tx, now, &key.0, &key.1);
        let deleted = self.0.write_told(event, delete).await?;
        self.0.faults.pass("registry.blob-delete.after-record");
        if deleted { Ok(()) } else { Err(RegistryError::BlobUnknown { repo, digest }) }
    }

    pub(super) fn deletable(&self, who: &Principal, name: &str) -> Result<RepoName, RegistryError> {
        let repo = self.0.repository(who, Right::Delete, name)?;
        if self.0.config.delete { Ok(repo) } else { Err(RegistryError::Unsupported { what: "deleting" }) }
    }
}

impl Inner {
    /// Writes, with the line in the audit log where something was done; tells whether it was.
    pub(super) async fn write_told(
        &self,
        event: audit::Event,
        act: impl Fn(&mut Tx<'_>, Millis) -> Result<bool, StateError> + Send + 'static,
    ) -> Result<bool, StateError> {
        let now = self.clock.now();
        let written = self.state.write(move |tx| {
            let done = act(tx, now)?;
            if done {
                audit::append(tx, now, &event)?;
            }
            Ok(done)
        });
        written.await
    }
}

/// The audit line of something that a client changed.
pub(super) fn event(who: &Principal, action: &str, repo: &RepoName, what: &str) -> audit::Event {
    audit::Event {
        who: who.label(),
        action: action.to_owned(),
        subject: format!("{repo}@{what}"),
        outcome: "done".to_owned(),
        why: String::new(),
    }
}
