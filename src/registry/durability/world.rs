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
use crate::blobs::{self, BlobError, Blobs, Cursor, Disk, Flaw, KnownBlob, OwnerView, Sweep};
use crate::config::RegistryConfig;
use crate::names::{Clock as _, Digest, Faults, ManualClock, Millis, Random, SeededRandom, SystemRandom};
use crate::repos::{self, RepositorySettings};
use crate::state::{State, StateError};

/// The first two are images of a repository that stays and has rules, the last one of [`TEAM`].
pub(super) const REPOS: [&str; 3] = ["local/a", "local/b", "team/c"];
/// A repository that comes and goes as a whole.
pub(super) const TEAM: &str = "team";
/// Where the image of [`TEAM`] stands in [`REPOS`].
pub(super) const TEAMS: usize = 2;
/// Retention keeps the first of [`TAGS`] and no other.
const RULES: &str = r#"{"retention":{"keep_tags":["one"],"untagged_after_seconds":3600}}"#;
/// How long repositories hold a blob that no manifest keeps; manifests without a tag stay as long.
pub(super) const GRACE: Duration = Duration::from_hours(1);
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
    pub(super) clock: Arc<ManualClock>,
}

/// Somebody who may push and delete.
pub(super) fn who() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

impl World {
    /// Opens what is on the disk, as a start of the program does.
    pub(super) async fn open(disk: &Disk, faults: Faults) -> Result<Self, BlobError> {
        Self::open_at(disk, faults, Millis(1_700_000_000_000)).await
    }

    /// As [`World::open`], at this time. What an earlier process began to remove is removed when this returns.
    pub(super) async fn open_at(disk: &Disk, faults: Faults, now: Millis) -> Result<Self, BlobError> {
        let state = State::open_on(disk.state_file(&root().join("state.redb")), faults.clone())?;
        let clock = Arc::new(ManualClock::at(now));
        let files = Arc::new(disk.clone());
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open_on(files, root(), state.clone(), clock.clone(), random, faults.clone()).await?;
        let registry = Registry::new(RegistryParts {
            state: state.clone(),
            blobs: blobs.clone(),
            clock: clock.clone(),
            faults,
            config: RegistryConfig { default_repository: None, delete: true },
            manifest_cap_bytes: 1 << 20,
            grace: GRACE,
        });
        registry.load().await?;
        registry.resume_removals().await?;
        Ok(Self { disk: disk.clone(), state, blobs, registry, clock })
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

    /// Sends a chunk and says where it stands.
    pub(super) async fn append_at(
        &self,
        repo: &str,
        id: &str,
        from: usize,
        bytes: &[u8],
    ) -> Result<u64, RegistryError> {
        let range = format!("{from}-{}", from + bytes.len() - 1);
        let chunk = Chunk { content_range: Some(&range), ..chunk(bytes) };
        Ok(self.registry.append_upload(&who(), repo, id, chunk).await?.received)
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
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. }) => None,
            Err(error) => panic!("{repo} {reference}: {error}"),
        }
    }

    /// Whether a blob is there, and then whether its bytes are.
    pub(super) async fn blob(&self, repo: &str, content: usize) -> bool {
        let (bytes, digest) = &CONTENTS[content];
        let found = match self.steady(|| self.registry.blob(&MAY, repo, digest)).await {
            Ok(found) => found,
            Err(RegistryError::BlobUnknown { .. } | RegistryError::NameUnknown { .. }) => return false,
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

    /// What the records say of all contents, wherever they are held; flagged or not.
    pub(super) async fn all_known(&self) -> Result<Vec<KnownBlob>, RegistryError> {
        self.steady(|| async { Ok(self.state.read(|view| blobs::known(view, None, 1_000)).await?) }).await
    }

    /// What the records say of a content.
    pub(super) async fn known(&self, content: usize) -> Result<Option<KnownBlob>, RegistryError> {
        let digest = &CONTENTS[content].1;
        Ok(self.all_known().await?.into_iter().find(|known| known.digest.to_string() == *digest))
    }

    /// Whether the repository that comes and goes is there, once what is in memory is what the records say: after a
    /// failure that takes a while.
    pub(super) async fn team(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let recorded = self.steady(|| async {
                Ok(self.state.read(|view| repos::repository(view, TEAM)).await?.is_some())
            });
            let (recorded, seen) = (recorded.await.unwrap(), self.registry.names().exists(TEAM));
            if recorded == seen {
                return seen;
            }
            assert!(Instant::now() < deadline, "{TEAM} is there: {seen} in memory, {recorded} on record");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What a repair would find: rows that do not fit together, references without owner, records without bytes.
    pub(super) async fn flaws(&self) -> Vec<Flaw> {
        const OWNERS: [(&str, OwnerView); 2] =
            [("manifest", repos::manifest_stands), ("repository", repos::repository_stands)];
        let (mut flaws, mut after) = (Vec::new(), None::<String>);
        loop {
            let from = after.take();
            let rows = self.state.write(move |tx| repos::mend(tx, from.as_deref(), false)).await.unwrap();
            flaws.extend(rows.flaws);
            after = rows.next;
            if after.is_none() {
                break;
            }
        }
        let now = self.clock.now();
        let references =
            self.state.write(move |tx| blobs::mend_references(tx, None, &OWNERS, false, now)).await;
        flaws.extend(references.unwrap().flaws);
        flaws.extend(self.blobs.mend(None, false).await.unwrap().flaws);
        flaws
    }

    /// Asks again while the state is opening its file again after a failure.
    pub(super) async fn steady<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, RegistryError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match ask().await {
                Err(
                    RegistryError::State(StateError::Failed)
                    | RegistryError::Blobs(BlobError::State(StateError::Failed)),
                ) if Instant::now() < deadline => {
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
    let rules: RepositorySettings = serde_json::from_str(RULES).unwrap();
    world.registry.set_repository(&who(), "local", &rules, false).await.unwrap();
    let none = RepositorySettings::default();
    world.registry.add_repository(&who(), TEAM, &none, false).await.unwrap();
    world.state.close().await.unwrap();
    drop(world);
    disk.after_power_loss(0)
}

/// Whether an aside place has the bytes that a digest had when it was found damaged.
pub(super) fn is_aside(disk: &Disk, digest: &str) -> bool {
    let hex = digest.trim_start_matches("sha256:");
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(hex));
    disk.files_below(&root().join("quarantine")).iter().any(named)
}

/// Where a digest's file is.
pub(super) fn blob_path(digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    root().join("blobs/sha256").join(&hex[..2]).join(hex)
}
