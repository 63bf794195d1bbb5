//! When manifests were asked for, kept in memory and written down about once a minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::names::{Digest, Millis, RepoName};
use crate::repos;
use crate::state::State;

/// They are written so often,
const EVERY: Duration = Duration::from_mins(1);
/// or when there are so many,
const EARLY: usize = 8_192;
/// and beyond so many further manifests are not noted until then.
const CAP: usize = 65_536;
/// One transaction writes so many.
const BATCH: usize = 500;

type Times = HashMap<RepoName, HashMap<Digest, Millis>>;

/// What was asked for since it was last written down. What a crash takes of it is a minute at most.
#[derive(Default)]
pub(super) struct Pulls {
    noted: Mutex<Noted>,
    /// Writes happen one after another.
    flushing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Noted {
    pending: Times,
    count: usize,
    /// On their way into the records.
    writing: Times,
    written_at: Millis,
}

/// When to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// When a minute is over, or there are many.
    WhenDue,
    /// At once.
    Now,
}

impl Pulls {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a client asked for the manifest; a look-up or two in memory.
    pub(super) fn note(&self, repo: &RepoName, digest: &Digest, now: Millis) {
        let mut noted = self.noted();
        if let Some(at) = noted.pending.get_mut(repo).and_then(|image| image.get_mut(digest)) {
            *at = now;
        } else if noted.count < CAP {
            noted.pending.entry(repo.clone()).or_default().insert(digest.clone(), now);
            noted.count += 1;
        }
    }

    /// When the manifest was asked for, as far as the records don't tell yet.
    pub(super) fn last(&self, repo: &RepoName, digest: &Digest) -> Option<Millis> {
        let noted = self.noted();
        let of = |times: &Times| times.get(repo).and_then(|image| image.get(digest)).copied();
        of(&noted.pending).max(of(&noted.writing))
    }

    /// Writes down what was noted. What cannot be written is said in the log, and noted no longer.
    pub(super) async fn flush(&self, state: &State, now: Millis, when: Flush) {
        let _one = self.flushing.lock().await;
        let rows: Vec<_> = {
            let mut noted = self.noted();
            let due = now.since(noted.written_at) >= EVERY || noted.count >= EARLY;
            if noted.count == 0 || (when == Flush::WhenDue && !due) {
                return;
            }
            noted.written_at = now;
            noted.count = 0;
            noted.writing = std::mem::take(&mut noted.pending);
            let rows = noted.writing.iter().flat_map(|(repo, image)| {
                image.iter().map(move |(digest, at)| (repo.clone(), digest.clone(), *at))
            });
            rows.collect()
        };
        for batch in rows.chunks(BATCH).map(<[_]>::to_vec) {
            if let Err(error) = state.write(move |tx| repos::note_pulled(tx, &batch)).await {
                tracing::warn!(error = %error, code = error.code(), "when manifests were pulled is not recorded");
                break;
            }
        }
        self.noted().writing = Times::new();
    }
}
