//! A registry on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};

use super::super::{BeginUpload, Begun, Body, Chunk, Registry, RegistryError, RegistryParts};
use crate::access::{Principal, Role};
use crate::blobs::{BlobError, Blobs, Cursor, Disk, Sweep};
use crate::config::RegistryConfig;
use crate::names::{Digest, Faults, ManualClock, Millis, Random, SeededRandom, SystemRandom};
use crate::state::{State, StateError};

pub(super) const REPOS: [&str; 2] = ["local/a", "local/b"];
pub(super) const TAGS: [&str; 3] = ["one", "two", "three"];
/// Around what lives in the state file, what one write takes, and more.
const SIZES: [usize; 5] = [12, 5_000, 33_000, 100_000, 330_000];

pub(super) static CONTENTS: LazyLock<Vec<(Bytes, String)>> = LazyLock::new(|| {
    let contents = SIZES.iter().enumerate().map(|(seed, &size)| {
        let mut bytes = vec![0; size];
        SeededRandom::new(seed as u64).fill(&mut bytes);
        let digest = Digest::of(&bytes).to_string();
        (Bytes::from(bytes), digest)
    });
    contents.collect()
});

/// Configuration, layers, and how many bytes of annotations; the last one makes a manifest that has a file.
const MANIFEST_PARTS: [(usize, &[usize], usize); 4] =
    [(0, &[2], 0), (0, &[2, 3], 10), (1, &[4], 0), (0, &[3], 40_000)];

pub(super) static MANIFESTS: LazyLock<Vec<(Bytes, String)>> = LazyLock::new(|| {
    let part = |index: usize, kind: &str| -> Value {
        json!({"mediaType": kind, "digest": CONTENTS[index].1, "size": CONTENTS[index].0.len()})
    };
    let manifests = MANIFEST_PARTS.iter().map(|(config, layers, padding)| {
        let bytes = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": part(*config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|layer| part(*layer, "application/vnd.oci.image.layer.v1.tar")).collect::<Vec<_>>(),
            "annotations": {"padding": "x".repeat(*padding)},
        }))
        .unwrap();
        let digest = Digest::of(&bytes).to_string();
        (Bytes::from(bytes), digest)
    });
    manifests.collect()
});

pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a manifest keeps.
pub(super) fn parts_of(manifest: usize) -> impl Iterator<Item = usize> {
    let (config, layers, _) = MANIFEST_PARTS[manifest];
    std::iter::once(config).chain(layers.iter().copied())
}

pub(super) fn root() -> &'static Path {
    Path::new("/root")
}

/// The registry and what it stands on.
pub(super) struct World {
    pub(super) disk: Disk,
    pub(super) state: State,
    pub(super) blobs: Blobs,
    pub(super) registry: Registry,
}

/// Somebody who may push and delete.
pub(super) fn who() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

impl World {
    /// Opens what is on the disk, as a start of the program does.
    pub(super) async fn open(disk: &Disk, faults: Faults) -> Result<Self, BlobError> {
        let state = State::open_on(disk.state_file(&root().join("state.redb")), faults.clone())?;
        let clock = Arc::new(ManualClock::at(Millis(1_700_000_000_000)));
        let files = Arc::new(disk.clone());
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open_on(files, root(), state.clone(), clock.clone(), random, faults.clone()).await?;
        let registry = Registry::new(RegistryParts {
            state: state.clone(),
            blobs: blobs.clone(),
            clock,
            faults,
            config: RegistryConfig { default_repository: None, delete: true },
            manifest_cap_bytes: 1 << 20,
            grace: std::time::Duration::from_hours(1),
        });
        Ok(Self { disk: disk.clone(), state, blobs, registry })
    }

    /// A whole blob in one request.
    pub(super) async fn push_whole(&self, repo: &str, content: usize) -> Result<(), RegistryError> {
        let (bytes, digest) = &CONTENTS[content];
        let asked = BeginUpload { digest: Some(digest), ..BeginUpload::default() };
        match self.registry.begin_upload(&who(), repo, asked, body(bytes)).await? {
            Begun::Created(_) => Ok(()),
            Begun::Upload(_) => panic!("a whole blob was taken as the beginning of one"),
        }
    }

    /// Runs collection to its end, without grace.
    pub(super) async fn collect(&self) -> Result<(), BlobError> {
        let sweep = Sweep { grace_ms: 0, dry_run: false };
        let mut cursor = Cursor::default();
        while cursor != Cursor::End {
            cursor = self.blobs.collect(cursor, sweep).await?.0;
        }
        Ok(())
    }

    pub(super) async fn begin(&self, repo: &str) -> Result<String, RegistryError> {
        match self.registry.begin_upload(&who(), repo, BeginUpload::default(), body(&[])).await? {
            Begun::Upload(upload) => Ok(upload.id.to_string()),
            Begun::Created(_) => panic!("nothing was to be created"),
        }
    }

    pub(super) async fn append(&self, repo: &str, id: &str, bytes: &[u8]) -> Result<u64, RegistryError> {
        Ok(self.registry.append_upload(&who(), repo, id, chunk(bytes)).await?.received)
    }

    /// Sends what is missing and closes the upload.
    pub(super) async fn finish(
        &self,
        repo: &str,
        id: &str,
        content: usize,
        received: u64,
    ) -> Result<(), RegistryError> {
        let (bytes, digest) = &CONTENTS[content];
        let rest = &bytes[usize::try_from(received).unwrap()..];
        self.registry.close_upload(&who(), repo, id, Some(digest), chunk(rest)).await.map(drop)
    }

    /// What a tag or digest names, by the index of the manifest.
    pub(super) async fn manifest(&self, repo: &str, reference: &str) -> Option<usize> {
        let found = self.steady(|| self.registry.manifest(&MAY, repo, reference)).await;
        match found {
            Ok(found) => {
                let index = MANIFESTS.iter().position(|(_, digest)| *digest == found.digest.to_string());
                let index = index.expect("no manifest that nobody put");
                let bytes = self.steady(|| self.registry.manifest_bytes(&found)).await.unwrap();
                assert_eq!(bytes, MANIFESTS[index].0, "the manifest is as it was put");
                Some(index)
            }
            Err(RegistryError::ManifestUnknown { .. }) => None,
            Err(error) => panic!("{repo} {reference}: {error}"),
        }
    }

    /// Whether a blob is there, and then whether its bytes are.
    pub(super) async fn blob(&self, repo: &str, content: usize) -> bool {
        let (bytes, digest) = &CONTENTS[content];
        let found = match self.steady(|| self.registry.blob(&MAY, repo, digest)).await {
            Ok(found) => found,
            Err(RegistryError::BlobUnknown { .. }) => return false,
            Err(error) => panic!("{repo} {digest}: {error}"),
        };
        let pieces: Vec<Bytes> = self
            .steady(|| self.registry.open(&found))
            .await
            .unwrap_or_else(|error| panic!("{repo} {digest} is recorded and cannot be opened: {error}"))
            .stream(None)
            .map(|piece| piece.unwrap())
            .collect()
            .await;
        assert!(pieces.concat() == bytes[..], "{repo} {digest} has other bytes than were put");
        true
    }

    /// Asks again while the state is opening its file again after a failure.
    async fn steady<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, RegistryError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match ask().await {
                Err(RegistryError::State(StateError::Failed)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                answer => return answer,
            }
        }
    }
}

static MAY: LazyLock<Principal> = LazyLock::new(who);

/// A body in pieces, as a network brings them.
pub(super) fn body(bytes: &[u8]) -> Body {
    let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

pub(super) fn chunk(bytes: &[u8]) -> Chunk<'static> {
    Chunk { content_range: None, content_length: None, body: body(bytes) }
}

/// An empty root, with its folders and state made and durable.
pub(super) async fn fresh() -> Disk {
    let disk = Disk::new(root());
    let world = World::open(&disk, Faults::none()).await.unwrap();
    world.state.close().await.unwrap();
    drop(world);
    disk.after_power_loss(0)
}

/// Where a digest's file is.
pub(super) fn blob_path(digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    root().join("blobs/sha256").join(&hex[..2]).join(hex)
}
