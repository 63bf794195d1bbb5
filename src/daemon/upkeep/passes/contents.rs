//! Every blob is hashed again, and what is damaged is set aside.

use tokio::sync::Mutex;

use super::failure;
use crate::blobs::{self, BlobError, Blobs, Damage, Pace, Verdict};
use crate::changes::TaskFailure;
use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::names::Digest;
use crate::repos;
use crate::state::State;

/// Blobs of one step; the place is saved between steps.
const PAGE: usize = 50;
/// Manifests that a line about a damaged blob names.
const AFFECTED: usize = 5;

/// Hashes everything again.
pub(in crate::daemon::upkeep) struct Contents {
    state: State,
    blobs: Blobs,
    /// One for all blobs; there is one run at a time.
    pace: Mutex<Pace>,
}

impl Contents {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone(), blobs: parts.blobs.clone(), pace: Mutex::default() }
    }

    /// Looks at one blob and acts on what is found.
    async fn look(
        &self,
        digest: &Digest,
        order: &Order,
        pace: &mut Pace,
        account: &mut Account,
    ) -> Result<(), TaskFailure> {
        let key = digest.clone();
        let names = self.state.read(move |view| repos::names_of(view, &key)).await?;
        let mut read = 0;
        let verdict = self.blobs.verify(digest, &names, pace, |bytes| read += bytes).await;
        account.note("bytes", read);
        account.seen += 1;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // A bad sector: the others are looked at all the same.
            Err(error @ BlobError::Io { .. }) => {
                account.count("unreadable", 1);
                let (why, needed) = (failure(&error).message, self.needed_by(digest).await?);
                account.tell(format!("{digest} cannot be read: {why}{needed}"));
                return Ok(());
            }
            Err(error) => return Err(failure(&error)),
        };
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
                    Err(error @ BlobError::Io { .. }) => {
                        account.count("not_set_aside", 1);
                        let (why, needed) = (failure(&error).message, self.needed_by(digest).await?);
                        account.tell(format!("{digest} is damaged and is not set aside yet: {why}{needed}"));
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
        Damage::Damaged => "damaged",
    }
}

fn told(damage: Damage) -> &'static str {
    match damage {
        Damage::Missing => "is missing",
        Damage::Damaged => "is damaged",
    }
}

impl Pass for Contents {
    const NAME: &'static str = "contents";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let after = from.and_then(|text| Digest::parse(&text).ok());
        let page = self.state.read(move |view| blobs::known(view, after.as_ref(), PAGE)).await?;
        let mut pace = self.pace.lock().await;
        pace.limit(order.bytes_per_second);
        for blob in &page {
            self.look(&blob.digest, order, &mut pace, account).await?;
        }
        Ok(page.last().filter(|_| page.len() == PAGE).map(|blob| blob.digest.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::blobs::{INLINE_BYTES, Owner, link};
    use crate::names::{Faults, ManualClock, Millis, SystemRandom};

    #[tokio::test]
    async fn a_blob_that_cannot_be_read_does_not_hide_the_damage_of_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let (clock, random) = (Arc::new(ManualClock::at(Millis(1))), Arc::new(SystemRandom));
        let blobs = Blobs::open(folder.path(), state.clone(), clock, random, Faults::none()).await.unwrap();
        let mut digests = Vec::new();
        for content in 0..3 {
            let stored = blobs.put(Bytes::from(vec![content; INLINE_BYTES + 1])).await.unwrap();
            digests.push(stored.digest.clone());
            state.write(move |tx| link(tx, &stored, &Owner::new("test", "one"))).await.unwrap();
        }
        digests.sort();
        let path =
            |digest: &Digest| folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
        // In the order of the run: the first can't be opened, the second is gone, the third is sound.
        fs_err::remove_file(path(&digests[0])).unwrap();
        fs_err::os::unix::fs::symlink(path(&digests[0]), path(&digests[0])).unwrap();
        fs_err::remove_file(path(&digests[1])).unwrap();
        let contents = Contents { state, blobs, pace: Mutex::default() };
        let mut account = Account::default();
        let next = contents.step(None, &Order::default(), &mut account).await.unwrap();
        assert_eq!((next, account.seen, account.done), (None, 3, 2));
        let counts: Vec<(&str, u64)> =
            account.counts.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        let bytes = INLINE_BYTES as u64 + 1;
        assert_eq!(counts, [("bytes", bytes), ("intact", 1), ("missing", 1), ("unreadable", 1)]);
        assert!(account.lines[0].starts_with(&format!("{} cannot be read: ", digests[0])), "{account:?}");
    }
}
