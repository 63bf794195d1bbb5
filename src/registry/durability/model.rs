//! What may be there: exactly what was acknowledged, and of what was under way all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::RegistryError;
use super::world::{CONTENTS, MANIFESTS, REPOS, TAGS, World, blob_path, parts_of, root, who};
use crate::blobs::upload_offset;
use crate::names::{Digest, UploadId};

/// Something in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Blob { repo: usize, content: usize },
    Manifest { repo: usize, manifest: usize },
    Tag { repo: usize, tag: usize },
}

impl Key {
    fn all() -> impl Iterator<Item = Self> {
        (0..REPOS.len()).flat_map(|repo| {
            let blobs = (0..CONTENTS.len()).map(move |content| Self::Blob { repo, content });
            let manifests = (0..MANIFESTS.len()).map(move |manifest| Self::Manifest { repo, manifest });
            blobs.chain(manifests).chain((0..TAGS.len()).map(move |tag| Self::Tag { repo, tag }))
        })
    }
}

/// An upload that was begun and not ended.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) repo: usize,
    pub(super) id: String,
    pub(super) content: usize,
}

/// What may be where; what is absent is `None` in any case.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    may_be: BTreeMap<Key, BTreeSet<Option<usize>>>,
    pub(super) uploads: Vec<Open>,
}

impl Model {
    fn of(&self, key: Key) -> BTreeSet<Option<usize>> {
        self.may_be.get(&key).cloned().unwrap_or_else(|| BTreeSet::from([None]))
    }

    /// A change has begun: both are possible now.
    pub(super) fn begun(&mut self, key: Key, value: Option<usize>) {
        let mut values = self.of(key);
        values.insert(value);
        self.may_be.insert(key, values);
    }

    /// A change was acknowledged.
    pub(super) fn done(&mut self, key: Key, value: Option<usize>) {
        self.may_be.insert(key, BTreeSet::from([value]));
    }

    /// The tags that point to the manifest.
    pub(super) fn tags_of(&self, repo: usize, manifest: usize) -> Vec<usize> {
        let points = |tag: &usize| self.of(Key::Tag { repo, tag: *tag }).contains(&Some(manifest));
        (0..TAGS.len()).filter(points).collect()
    }

    /// Compares the registry with the model, and then knows what is there.
    pub(super) async fn check(&mut self, world: &World, when: &str) {
        for key in Key::all() {
            let found = match key {
                Key::Blob { repo, content } => world.blob(REPOS[repo], content).await.then_some(0),
                Key::Manifest { repo, manifest } => world.manifest(REPOS[repo], &MANIFESTS[manifest].1).await,
                Key::Tag { repo, tag } => world.manifest(REPOS[repo], TAGS[tag]).await,
            };
            let may_be = self.of(key);
            assert!(may_be.contains(&found), "{when}: {key:?} is {found:?}, it may be {may_be:?}");
            if let (Key::Manifest { .. } | Key::Tag { .. }, Some(manifest)) = (key, found) {
                for part in parts_of(manifest) {
                    let (bytes, digest) = &CONTENTS[part];
                    let digest = Digest::parse(digest).unwrap();
                    let read = world.blobs.read_small(&digest, 1 << 30).await;
                    let read = read.unwrap_or_else(|error| panic!("{when}: {key:?} lacks {digest}: {error}"));
                    assert!(read == *bytes, "{when}: {key:?} has other bytes under {digest}");
                }
                if let Key::Tag { repo, .. } = key {
                    let whole = world.manifest(REPOS[repo], &MANIFESTS[manifest].1).await;
                    assert_eq!(whole, Some(manifest), "{when}: {key:?} points to nothing");
                }
            }
            self.done(key, found);
        }
        Self::leaks(world, when).await;
    }

    /// A file under a digest has the bytes of that digest, whether a record names it or not; a file of an upload has
    /// a record. Gives how many files no record names.
    pub(super) async fn leaks(world: &World, when: &str) -> usize {
        let mut leaked = 0;
        for path in world.disk.files_below(&root().join("blobs")) {
            let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
            assert_eq!(path, blob_path(&digest));
            let digest = Digest::parse(&digest).unwrap();
            assert!(digest.names(&world.disk.bytes(&path)), "{when}: {digest} has other bytes");
            leaked += usize::from(world.blobs.size(&digest).await.unwrap().is_none());
        }
        leaked
    }

    /// After a start: no file of an upload without a record.
    pub(super) async fn check_uploads_are_swept(world: &World, when: &str) {
        for name in world.disk.names(&root().join("uploads")) {
            let id = UploadId::parse(name.to_str().unwrap()).unwrap();
            let key = id.clone();
            let offset = world.state.read(move |view| upload_offset(view, &key)).await.unwrap();
            assert!(offset.is_some(), "{when}: upload {id} has a file and no record");
        }
    }

    /// Every upload that was not ended goes on and becomes its blob, or is said not to be there.
    pub(super) async fn finish_uploads(&mut self, world: &World, when: &str) -> usize {
        let mut resumed = 0;
        for Open { repo, id, content } in std::mem::take(&mut self.uploads) {
            let status = world.registry.upload_status(&who(), REPOS[repo], &id).await;
            let received = match status {
                Ok(upload) => upload.received,
                Err(RegistryError::UploadUnknown) => continue,
                Err(error) => panic!("{when}: upload {id} neither goes on nor is unknown: {error}"),
            };
            let finished = world.finish(REPOS[repo], &id, content, received).await;
            finished.unwrap_or_else(|error| panic!("{when}: upload {id} stops at its end: {error}"));
            self.done(Key::Blob { repo, content }, Some(0));
            resumed += 1;
        }
        resumed
    }
}
