//! Tests of blobs on a real folder.
#![allow(clippy::unwrap_used)]

mod collect;
mod content;
#[cfg(feature = "fault-points")]
mod crash;
mod references;
mod uploads;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Blobs, Owner, Stored, link};
use crate::names::{Digest, Faults, ManualClock, Millis, Random, SeededRandom, SystemRandom};
use crate::state::State;

/// A root with its state and blobs, as after a start.
struct Root {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    state: State,
    blobs: Blobs,
}

impl Root {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Millis(1_000)));
        let (state, blobs) = open(folder.path(), Arc::clone(&clock)).await;
        Self { folder, clock, state, blobs }
    }

    /// Closes everything and opens it again, as after a stop.
    async fn restart(self) -> Self {
        let Self { folder, clock, state, blobs } = self;
        drop(blobs);
        state.close().await.unwrap();
        drop(state);
        let (state, blobs) = open(folder.path(), Arc::clone(&clock)).await;
        Self { folder, clock, state, blobs }
    }

    async fn link(&self, stored: &Stored) {
        let stored = stored.clone();
        self.state.write(move |tx| link(tx, &stored, &Owner::new("test", "one"))).await.unwrap();
    }

    fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        self.folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }

    fn uploads(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.folder.path().join("uploads")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn blob_files(&self) -> usize {
        let folders = fs_err::read_dir(self.folder.path().join("blobs/sha256")).unwrap();
        folders.map(|folder| fs_err::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }
}

async fn open(root: &Path, clock: Arc<ManualClock>) -> (State, Blobs) {
    let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
    let blobs =
        Blobs::open(root, state.clone(), clock, Arc::new(SystemRandom), Faults::none()).await.unwrap();
    (state, blobs)
}

/// Bytes that no other seed gives.
fn content(seed: u64, size: usize) -> Bytes {
    let mut block = [0; 4_096];
    SeededRandom::new(seed).fill(&mut block);
    Bytes::from(block.iter().copied().cycle().take(size).collect::<Vec<_>>())
}

/// Waits until something that happens elsewhere has happened.
async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
