//! Removals that take more than one transaction: of repositories, and of manifests with very many tags.

use super::Registry;
use super::retention::entry;
use crate::names::RepoName;
use crate::repos::{self, Removal};
use crate::state::{StateError, Tx};

/// Manifests that are read at once whose removal goes on.
const PAGE: usize = 100;

impl Registry {
    /// Goes on with every removal that an earlier process began; nothing of it is seen meanwhile.
    ///
    /// # Errors
    /// [`StateError`] when the state fails.
    pub async fn resume_removals(&self) -> Result<(), StateError> {
        for root in self.0.state.read(|view| repos::going(view)).await? {
            self.drain(&root).await?;
        }
        self.finish_removals(None).await
    }

    /// How many removals there are to go on with.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be read.
    pub async fn unfinished_removals(&self) -> Result<u64, StateError> {
        let read = self.0.state.read(|view| {
            Ok::<_, StateError>(
                repos::going_with_content(view)? + repos::unfinished(view, None, PAGE)?.len() as u64,
            )
        });
        read.await
    }

    /// Takes away everything that a repository holds that is going, a part a transaction.
    pub(super) async fn drain(&self, root: &str) -> Result<(), StateError> {
        loop {
            let (now, asked) = (self.0.clock.now(), root.to_owned());
            let rows = self.0.state.write(move |tx: &mut Tx<'_>| repos::drain(tx, now, &asked)).await?;
            self.0.faults.pass("registry.repository.drained");
            if rows == 0 {
                return Ok(());
            }
        }
    }

    /// Takes away what is left of manifests that are gone, of one image or of all, a part a transaction.
    pub(super) async fn finish_removals(&self, of: Option<&RepoName>) -> Result<(), StateError> {
        loop {
            let asked = of.cloned();
            let rows = self.0.state.read(move |view| repos::unfinished(view, asked.as_ref(), PAGE)).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for key in rows {
                loop {
                    let (now, (repo, name)) = (self.0.clock.now(), key.clone());
                    let write = self.0.state.write(move |tx| {
                        let removed = repos::finish_removal(tx, now, &repo, &name)?;
                        let finished = removed.is_some();
                        if let Some(removed) = removed {
                            entry(tx, now, &repo, &Removal::Done(removed))?;
                        }
                        Ok::<_, StateError>(finished)
                    });
                    let finished = write.await?;
                    self.0.faults.pass("registry.removal.part");
                    if finished {
                        break;
                    }
                }
            }
        }
    }
}
