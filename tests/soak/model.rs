//! What the server has acknowledged: what must be there, what may be gone, what must not be there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::random::Dice;

/// Between two clocks that count the same grace, one of them in whole milliseconds.
const MARGIN: Duration = Duration::from_millis(200);

/// Bytes that can be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub seed: u64,
    pub size: usize,
}

impl Recipe {
    pub fn bytes(self) -> Bytes {
        Dice::new(self.seed).bytes(self.size).into()
    }
}

/// The name of some bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// A blob that a repository was said to hold.
pub struct Blob {
    pub recipe: Recipe,
    /// When the server was last asked to keep it: uploaded, mounted, found by HEAD, or left by its last manifest.
    pub since: Instant,
}

/// A manifest that was acknowledged.
pub struct Manifest {
    pub bytes: Bytes,
    /// The blobs that it keeps.
    pub keeps: Vec<String>,
}

/// One repository, written by one worker alone.
#[derive(Default)]
pub struct Repository {
    pub name: String,
    pub blobs: BTreeMap<String, Blob>,
    pub manifests: BTreeMap<String, Manifest>,
    pub tags: BTreeMap<String, String>,
    /// Tags and manifests that were deleted and not put again.
    pub gone: Vec<String>,
}

impl Repository {
    /// Whether a manifest keeps the blob.
    pub fn keeps(&self, digest: &str) -> bool {
        self.manifests.values().any(|manifest| manifest.keeps.iter().any(|kept| kept == digest))
    }

    /// Blobs that no manifest keeps, oldest first.
    pub fn loose(&self) -> Vec<String> {
        let mut loose: Vec<_> = self.blobs.iter().filter(|(digest, _)| !self.keeps(digest)).collect();
        loose.sort_by_key(|(_, blob)| blob.since);
        loose.into_iter().map(|(digest, _)| digest.clone()).collect()
    }

    /// Whether a blob must still have been there when an answer came: it is kept, or its grace had not ended.
    pub fn must_hold(&self, digest: &str, answered: Instant, grace: Duration) -> bool {
        let Some(blob) = self.blobs.get(digest) else { return false };
        self.keeps(digest) || answered.saturating_duration_since(blob.since) + MARGIN < grace
    }

    /// Takes note that the server was asked at this time to keep the blob.
    pub fn renew(&mut self, digest: &str, asked: Instant) {
        if let Some(blob) = self.blobs.get_mut(digest) {
            blob.since = blob.since.max(asked);
        }
    }

    /// Forgets a manifest and its tags; its blobs are loose from when the server was first asked.
    pub fn forget_manifest(&mut self, digest: &str, asked: Instant) {
        let Some(manifest) = self.manifests.remove(digest) else { return };
        self.tags.retain(|_, target| target != digest);
        for kept in manifest.keeps {
            self.renew(&kept, asked);
        }
        self.gone.push(digest.to_owned());
    }
}
