//! The one pass of a verification: every blob is hashed again, and what is damaged is set aside.

use futures_util::future::BoxFuture;

use super::collection::failure;
use super::keeper::KeeperParts;
use super::order::{Account, Order, Pass};
use crate::blobs::{self, BlobError, Blobs, Damage, Verdict};
use crate::changes::TaskFailure;
use crate::names::Digest;
use crate::repos;
use crate::state::State;

/// Blobs of one step; the place is saved between steps.
const PAGE: usize = 50;
/// Manifests that a line about a damaged blob names.
const AFFECTED: usize = 5;

/// Hashes everything again.
pub(super) struct Contents {
    state: State,
    blobs: Blobs,
}

impl Contents {
    pub(super) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone(), blobs: parts.blobs.clone() }
    }

    /// Looks at one blob and acts on what is found.
    async fn look(&self, digest: &Digest, order: &Order, account: &mut Account) -> Result<(), TaskFailure> {
        let key = digest.clone();
        let names = self.state.read(move |view| repos::names_of(view, &key)).await?;
        let mut read = 0;
        let verdict = self
            .blobs
            .verify(digest, &names, order.bytes_per_second, |bytes| read += bytes)
            .await
            .map_err(|error| failure(&error))?;
        account.note("bytes", read);
        account.seen += 1;
        match verdict {
            Verdict::Intact { false_names } => {
                account.note("intact", 1);
                for name in false_names {
                    account.count("false_names", 1);
                    account.tell(format!("{name} is not a name of the bytes of {digest}"));
                }
            }
            Verdict::Gone => {}
            Verdict::Known(damage) => {
                account.count(known_as(damage), 1);
                account.tell(format!("{digest} {}{}", told(damage), self.needed_by(digest).await?));
            }
            Verdict::Damaged | Verdict::Missing => {
                let found = if order.dry_run {
                    Ok(Some(if verdict == Verdict::Missing { Damage::Missing } else { Damage::Damaged }))
                } else {
                    self.blobs.quarantine(digest).await
                };
                match found {
                    Ok(Some(damage)) => {
                        account.count(known_as(damage), 1);
                        account.tell(format!("{digest} {}{}", told(damage), self.needed_by(digest).await?));
                    }
                    Ok(None) => account.note("intact", 1),
                    Err(BlobError::InUse(_)) => {
                        account.count("busy", 1);
                        account.tell(format!("{digest} is damaged and is being pushed: verify it again"));
                    }
                    Err(error) => return Err(failure(&error)),
                }
            }
        }
        Ok(())
    }

    /// Who is affected, as the end of a line.
    async fn needed_by(&self, digest: &Digest) -> Result<String, TaskFailure> {
        let key = digest.clone();
        let affected = self.state.read(move |view| repos::affected(view, &key, AFFECTED)).await?;
        if affected.is_empty() {
            return Ok(String::new());
        }
        let names: Vec<String> = affected
            .iter()
            .map(|one| match one.tags.first() {
                Some(tag) => format!("{}:{tag}", one.repo),
                None => format!("{}@{}", one.repo, one.digest),
            })
            .collect();
        Ok(format!("; needed by {}", names.join(", ")))
    }
}

fn known_as(damage: Damage) -> &'static str {
    match damage {
        Damage::Missing => "missing",
        _ => "damaged",
    }
}

fn told(damage: Damage) -> &'static str {
    match damage {
        Damage::Missing => "is missing",
        _ => "is damaged",
    }
}

impl Pass for Contents {
    fn name(&self) -> &'static str {
        "contents"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let after = from.and_then(|text| Digest::parse(&text).ok());
            let page = self.state.read(move |view| blobs::known(view, after.as_ref(), PAGE)).await?;
            for blob in &page {
                self.look(&blob.digest, order, account).await?;
            }
            Ok(page.last().filter(|_| page.len() == PAGE).map(|blob| blob.digest.to_string()))
        })
    }
}
