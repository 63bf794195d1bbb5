//! What may be there: exactly what was acknowledged, and of what was under way all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use super::super::RegistryError;
use super::chores::inspect;
use super::world::{
    CONTENTS, MANIFESTS, REPOS, TAGS, TEAM, TEAMS, World, blob_path, is_aside, parts_of, root, who,
};
use crate::blobs::upload_offset;
use crate::names::{Clock as _, Digest, Millis, UploadId};

/// Something in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Blob { repo: usize, content: usize },
    Manifest { repo: usize, manifest: usize },
    Tag { repo: usize, tag: usize },
}

impl Key {
    pub(super) fn all() -> impl Iterator<Item = Self> {
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
    /// So much of it has come for certain, also after such a loss.
    pub(super) floor: Option<(u64, Loss)>,
}

/// How everything ended; each may take more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    /// The process ended: what was written is there.
    Process,
    /// The power went: what was not synced is there or not.
    Power,
    /// The disk failed, which ends uploads.
    Disk,
}

/// What is known of bytes that were spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soundness {
    /// They are found out, or not yet; or they are healed, or not yet.
    Unsure,
    /// They were set aside, and count as not there.
    Flagged,
}

/// What may be where; what is absent is `None` in any case.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// What is there; a blob that a repository holds is not seen while its bytes are flagged.
    may_be: BTreeMap<Key, BTreeSet<Option<usize>>>,
    pub(super) uploads: Vec<Open>,
    /// Whether the repository that comes and goes may be there. When it is not, nothing is that it held.
    pub(super) team: BTreeSet<bool>,
    /// When a client was last told that a repository has a blob.
    told: BTreeMap<(usize, usize), Millis>,
    /// When a manifest was last put.
    put: BTreeMap<(usize, usize), Millis>,
    /// Contents that were spoiled and are not healed for certain.
    pub(super) soundness: BTreeMap<usize, Soundness>,
    /// Contents whose damaged bytes were set aside.
    pub(super) aside: BTreeSet<usize>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            may_be: BTreeMap::new(),
            uploads: Vec::new(),
            team: BTreeSet::from([true]),
            told: BTreeMap::new(),
            put: BTreeMap::new(),
            soundness: BTreeMap::new(),
            aside: BTreeSet::new(),
        }
    }
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

    /// A client has its answer, at this time.
    pub(super) fn answered(&mut self, key: Key, value: Option<usize>, now: Millis) {
        self.done(key, value);
        match key {
            Key::Blob { repo, content } if value.is_some() => {
                self.promised(repo, content, now);
                // Its bytes are new ones, where they were not sound.
                self.soundness.remove(&content);
            }
            Key::Manifest { repo, manifest } if value.is_some() => {
                self.put.insert((repo, manifest), now);
            }
            _ => {}
        }
    }

    /// A change failed, and may have taken place.
    pub(super) fn failed(&mut self, key: Key, value: Option<usize>) {
        if let (Key::Blob { content, .. }, Some(_)) = (key, value)
            && let Some(soundness) = self.soundness.get_mut(&content)
        {
            *soundness = Soundness::Unsure;
        }
    }

    /// A client was told that the repository has the blob.
    pub(super) fn promised(&mut self, repo: usize, content: usize, now: Millis) {
        self.told.insert((repo, content), now);
    }

    /// Whether a client has time yet to name the blob.
    pub(super) fn is_promised(&self, repo: usize, content: usize, now: Millis, grace: Duration) -> bool {
        self.told.get(&(repo, content)).is_some_and(|told| now.since(*told) < grace)
    }

    fn keepers(content: usize) -> impl Iterator<Item = usize> {
        (0..MANIFESTS.len()).filter(move |manifest| parts_of(*manifest).any(|part| part == content))
    }

    /// Whether a manifest of the repository keeps the blob for certain.
    pub(super) fn is_kept(&self, repo: usize, content: usize) -> bool {
        Self::keepers(content).any(|manifest| self.is_there(Key::Manifest { repo, manifest }))
    }

    /// Whether a manifest of the repository may keep the blob.
    pub(super) fn may_be_kept(&self, repo: usize, content: usize) -> bool {
        let may_be = |manifest| self.of(Key::Manifest { repo, manifest }) != BTreeSet::from([None]);
        Self::keepers(content).any(may_be)
    }

    /// Whether it is there for certain.
    pub(super) fn is_there(&self, key: Key) -> bool {
        !self.of(key).contains(&None)
    }

    /// Whether the rules may remove the manifest: the tag that stays does not point to it, and one that goes does, or
    /// it is old.
    pub(super) fn may_retire(&self, repo: usize, manifest: usize, now: Millis, age: Duration) -> bool {
        let kept = self.of(Key::Tag { repo, tag: 0 }) == BTreeSet::from([Some(manifest)]);
        let tagged = self.tags_of(repo, manifest).into_iter().any(|tag| tag > 0);
        let fresh = self.put.get(&(repo, manifest)).is_some_and(|put| now.since(*put) < age);
        !kept && (tagged || !fresh)
    }

    /// Whether the rules have to: a tag that goes points to it for certain, and the one that stays does not.
    pub(super) fn must_retire(&self, repo: usize, manifest: usize) -> bool {
        let points = |tag| self.of(Key::Tag { repo, tag }) == BTreeSet::from([Some(manifest)]);
        (1..TAGS.len()).any(points) && !self.of(Key::Tag { repo, tag: 0 }).contains(&Some(manifest))
    }

    /// The repository that comes and goes is there, or nothing is that it held.
    pub(super) fn team_is(&mut self, there: bool) {
        self.team = BTreeSet::from([there]);
        if !there {
            let held = |key: &Key| match key {
                Key::Blob { repo, .. } | Key::Manifest { repo, .. } | Key::Tag { repo, .. } => *repo == TEAMS,
            };
            self.may_be.retain(|key, _| !held(key));
        }
    }

    /// What is there is something that may be, and is certain now.
    pub(super) fn found(&mut self, key: Key, found: Option<usize>, when: &str) {
        let may_be = self.of(key);
        assert!(may_be.contains(&found), "{when}: {key:?} is {found:?}, it may be {may_be:?}");
        self.done(key, found);
    }

    /// The tags that may point to the manifest.
    pub(super) fn tags_of(&self, repo: usize, manifest: usize) -> Vec<usize> {
        let points = |tag: &usize| self.of(Key::Tag { repo, tag: *tag }).contains(&Some(manifest));
        (0..TAGS.len()).filter(points).collect()
    }

    /// Compares the registry with the model, and then knows what is there.
    pub(super) async fn check(&mut self, world: &World, when: &str) {
        let there = world.team().await;
        assert!(self.team.contains(&there), "{when}: {TEAM} is there: {there}, it may be {:?}", self.team);
        self.team_is(there);
        let flagged = self.check_soundness(world, when).await;
        for key in Key::all() {
            let found = match key {
                Key::Blob { repo, content } => world.blob(REPOS[repo], content).await.then_some(0),
                Key::Manifest { repo, manifest } => world.manifest(REPOS[repo], &MANIFESTS[manifest].1).await,
                Key::Tag { repo, tag } => world.manifest(REPOS[repo], TAGS[tag]).await,
            };
            if let Key::Blob { content, .. } = key
                && flagged.contains(&content)
            {
                assert_eq!(found, None, "{when}: {key:?} is seen, though its bytes were set aside");
                continue;
            }
            self.found(key, found, when);
            if let (Key::Manifest { .. } | Key::Tag { .. }, Some(manifest)) = (key, found) {
                for part in parts_of(manifest).filter(|part| !flagged.contains(part)) {
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
        }
        Self::leaks(world, when).await;
    }

    /// Looks at what was spoiled, as a verification would; gives the contents that count as not there.
    async fn check_soundness(&mut self, world: &World, when: &str) -> BTreeSet<usize> {
        for (content, soundness) in self.soundness.clone() {
            if soundness == Soundness::Unsure {
                let inspected = world.steady(|| inspect(world, content)).await;
                inspected
                    .unwrap_or_else(|error| panic!("{when}: content {content} cannot be verified: {error}"));
            }
        }
        let mut flagged = BTreeSet::new();
        for (content, (_, digest)) in CONTENTS.iter().enumerate() {
            let known = world.known(content).await.unwrap();
            let damage = known.as_ref().and_then(|known| known.damage);
            match self.soundness.get(&content) {
                Some(Soundness::Flagged) if known.is_some() => {
                    assert!(damage.is_some(), "{when}: content {content} was set aside and counts as sound");
                }
                None => assert_eq!(damage, None, "{when}: content {content} was never spoiled"),
                Some(_) => {}
            }
            if damage.is_some() {
                self.soundness.insert(content, Soundness::Flagged);
                flagged.insert(content);
            } else {
                self.soundness.remove(&content);
            }
            let lost = self.aside.contains(&content) && !is_aside(&world.disk, digest);
            assert!(!lost, "{when}: the damaged bytes of content {content} were set aside and are gone");
        }
        flagged
    }

    /// After a start: rows, references and files fit together, and nothing is left of what was to be removed.
    pub(super) async fn check_order(world: &World, when: &str) {
        assert_eq!(world.flaws().await, [], "{when}");
        assert_eq!(world.registry.unfinished_removals().await.unwrap(), 0, "{when}");
    }

    /// A file under a digest has the bytes of that digest, whether a record names it or not, unless the record says that
    /// it is damaged. Gives how many files no record names.
    pub(super) async fn leaks(world: &World, when: &str) -> usize {
        let (mut leaked, known) = (0, world.all_known().await.unwrap());
        for path in world.disk.files_below(&root().join("blobs")) {
            let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
            assert_eq!(path, blob_path(&digest));
            let digest = Digest::parse(&digest).unwrap();
            let record = known.iter().find(|known| known.digest == digest);
            leaked += usize::from(record.is_none());
            if record.is_none_or(|record| record.damage.is_none()) {
                assert!(digest.names(&world.disk.bytes(&path)), "{when}: {digest} has other bytes");
            }
        }
        leaked
    }

    /// After a start: no file of an upload without a record.
    pub(super) async fn check_uploads_are_swept(world: &World, when: &str) {
        for name in world.disk.names(&root().join("uploads")) {
            let name = name.to_str().unwrap();
            let id = UploadId::parse(name.trim_end_matches(".mark")).unwrap();
            let key = id.clone();
            let offset = world.state.read(move |view| upload_offset(view, &key)).await.unwrap();
            assert!(offset.is_some(), "{when}: upload {id} has a file and no record");
        }
    }

    /// Every upload that was not ended goes on and becomes its blob, or is said not to be there. One of which some was
    /// put aside, or came in chunks that said where they stand and were answered, has at least that; it is unknown
    /// only after a loss that may have taken it.
    pub(super) async fn finish_uploads(&mut self, world: &World, loss: Loss, when: &str) -> Resumed {
        let mut resumed = Resumed::default();
        for Open { repo, id, content, floor } in std::mem::take(&mut self.uploads) {
            let (size, digest) = (CONTENTS[content].0.len() as u64, &CONTENTS[content].1);
            let gone = repo == TEAMS && !self.team.contains(&true);
            let status = world.registry.upload_status(&who(), REPOS[repo], &id).await;
            let received = match status {
                Ok(upload) => upload.received,
                Err(RegistryError::NameUnknown { .. }) if gone => continue,
                Err(RegistryError::UploadUnknown) if floor.is_none_or(|(_, survived)| loss > survived) => {
                    continue;
                }
                Err(error) => {
                    panic!("{when}: upload {id} of {floor:?} neither goes on nor is unknown: {error}")
                }
            };
            let least = floor.map_or(0, |(least, survived)| if loss > survived { 0 } else { least });
            assert!(least <= received, "{when}: {id}: {received} of {floor:?}");
            assert!(received <= size, "{when}: {id} has {received} bytes of {size}");
            let finished = world.finish(REPOS[repo], &id, content, received).await;
            finished
                .unwrap_or_else(|error| panic!("{when}: upload {id} of {digest} stops at its end: {error}"));
            self.answered(Key::Blob { repo, content }, Some(0), world.clock.now());
            resumed.any += 1;
            resumed.ranged += usize::from(floor.is_some_and(|(_, survived)| survived == Loss::Process));
        }
        resumed
    }
}

/// How many uploads went on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resumed {
    pub(super) any: usize,
    /// Those whose chunks said where they stand.
    pub(super) ranged: usize,
}
