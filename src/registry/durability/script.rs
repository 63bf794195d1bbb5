//! Random scripts of requests, run against a registry and its model.

use futures_util::future::join_all;

use super::super::{BeginUpload, Begun, Conditions, PutManifest, RegistryError};
use super::chores::{Chore, Rot};
use super::model::{Key, Loss, Model, Open};
use super::world::{CONTENTS, IMAGE, MANIFESTS, REPOS, TAGS, World, body, who};
use crate::names::{Clock as _, Random as _, SeededRandom};

/// One request, or the few that make a push.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Push {
        repo: usize,
        content: usize,
        way: Way,
    },
    /// Pushes at the same time.
    Together(Vec<Act>),
    Mount {
        from: usize,
        to: usize,
        content: usize,
    },
    Put {
        repo: usize,
        manifest: usize,
        tag: Option<usize>,
    },
    DeleteTag {
        repo: usize,
        tag: usize,
    },
    DeleteManifest {
        repo: usize,
        manifest: usize,
    },
    DeleteBlob {
        repo: usize,
        content: usize,
    },
    Cancel {
        repo: usize,
        content: usize,
    },
    /// Removes what nobody refers to, without grace.
    Collect,
    /// Begins an upload, has it put aside, and leaves it there.
    Leave {
        repo: usize,
        content: usize,
    },
    /// Begins an upload with chunks that say where they stand, and leaves it as it is.
    LeaveRanged {
        repo: usize,
        content: usize,
    },
    Chore(Chore),
}

/// How a blob is pushed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Whole,
    Session,
    /// Put aside in the middle.
    Resumed,
    /// In chunks that say where they stand.
    Ranged,
}

/// So many chunks of this kind make an upload.
const CHUNKS: usize = 4;

/// Random numbers of a seed.
pub(super) struct Dice(SeededRandom);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    pub(super) fn below(&self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % end as u64).unwrap()
    }

    fn way(&self) -> Way {
        [Way::Whole, Way::Session, Way::Resumed, Way::Ranged][self.below(4)]
    }

    fn shuffled(&self, mut acts: Vec<Act>, into: &mut Vec<Act>) {
        while !acts.is_empty() {
            into.push(acts.swap_remove(self.below(acts.len())));
        }
    }

    fn act(&self) -> Act {
        let (repo, content) = (self.below(REPOS.len()), self.below(CONTENTS.len()));
        let (manifest, tag) = (self.below(MANIFESTS.len()), self.below(TAGS.len()));
        let file = 2 + self.below(CONTENTS.len() - 2);
        let rot = [Rot::Flipped, Rot::Cut, Rot::CutForRepair, Rot::Lost][self.below(4)];
        match self.below(19) {
            0 | 1 => Act::Push { repo, content, way: self.way() },
            2 => {
                let first = (0..CONTENTS.len()).filter(|content| content % 2 == tag % 2);
                Act::Together(first.map(|content| Act::Push { repo, content, way: self.way() }).collect())
            }
            3 => Act::Mount { from: repo, to: (repo + 1) % REPOS.len(), content },
            4..=6 => Act::Put { repo, manifest, tag: (content > 0).then_some(tag) },
            7 => Act::DeleteTag { repo, tag },
            8 => Act::DeleteManifest { repo, manifest },
            9 => Act::DeleteBlob { repo, content },
            10 => Act::Collect,
            11 => Act::Leave { repo, content },
            12 => Act::LeaveRanged { repo, content },
            13 => Act::Chore(Chore::Ask { repo, content }),
            14 => Act::Chore(Chore::LetGo { patient: content > 0 }),
            15 => Act::Chore(Chore::Retain),
            16 => Act::Chore(Chore::Wait { minutes: 40 }),
            17 => Act::Chore(if content > 1 { Chore::AddTeam } else { Chore::RemoveTeam }),
            _ => Act::Chore(Chore::Rot { content: file, rot }),
        }
    }
}

/// Every kind of request once, in an order of the seed's, among others.
pub(super) fn script(seed: u64) -> Vec<Act> {
    let dice = Dice::new(seed);
    let mut script: Vec<Act> = [(0, 0), (0, 2), (0, 3), (2, 0), (2, 2)]
        .into_iter()
        .map(|(repo, content)| Act::Push { repo, content, way: dice.way() })
        .collect();
    let mut rest = vec![
        Act::Put { repo: 0, manifest: 0, tag: Some(0) },
        Act::Put { repo: 0, manifest: 1, tag: Some(0) },
        Act::Put { repo: 0, manifest: 3, tag: None },
        Act::Mount { from: 0, to: 1, content: 2 },
        Act::Push { repo: 1, content: 4, way: Way::Resumed },
        Act::Push { repo: 1, content: 3, way: Way::Session },
        Act::Together((0..3).map(|content| Act::Push { repo: 1, content, way: dice.way() }).collect()),
        Act::Cancel { repo: 0, content: 4 },
        Act::Leave { repo: 0, content: 4 },
        Act::DeleteTag { repo: 0, tag: 0 },
        Act::DeleteManifest { repo: 0, manifest: 1 },
        Act::DeleteBlob { repo: 0, content: 3 },
        Act::DeleteBlob { repo: 1, content: 4 },
        Act::Collect,
        Act::Together(vec![
            Act::Collect,
            Act::Push { repo: 1, content: 4, way: Way::Whole },
            Act::Mount { from: 0, to: 1, content: 3 },
        ]),
        Act::Put { repo: 2, manifest: 0, tag: Some(1) },
        Act::Push { repo: 1, content: 4, way: Way::Ranged },
        Act::LeaveRanged { repo: 0, content: 3 },
        Act::LeaveRanged { repo: 1, content: 2 },
        Act::Chore(Chore::Ask { repo: 0, content: 3 }),
        Act::Chore(Chore::Wait { minutes: 40 }),
        Act::Chore(Chore::Wait { minutes: 40 }),
        Act::Chore(Chore::LetGo { patient: true }),
        Act::Chore(Chore::Rot { content: 2, rot: Rot::Flipped }),
    ];
    rest.extend((0..4).map(|_| dice.act()));
    dice.shuffled(rest, &mut script);
    // What takes away most comes after the rest.
    let mut end: Vec<Act> = vec![
        Act::Chore(Chore::RemoveTeam),
        Act::Chore(Chore::AddTeam),
        Act::Push { repo: 2, content: 3, way: dice.way() },
        Act::Push { repo: 0, content: 2, way: dice.way() },
        Act::Put { repo: 0, manifest: 0, tag: Some(2) },
        Act::Chore(Chore::Retain),
        Act::Chore(Chore::Ask { repo: 1, content: 2 }),
        Act::Chore(Chore::LetGo { patient: false }),
        Act::Chore(Chore::Rot { content: 4, rot: Rot::Cut }),
        Act::Chore(Chore::Rot { content: 3, rot: Rot::Lost }),
        Act::Collect,
    ];
    end.extend((0..2).map(|_| dice.act()));
    dice.shuffled(end, &mut script);
    script
}

/// Whether the server is to blame, so that nobody knows whether it was done.
pub(super) fn is_fault(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Blobs(_) | RegistryError::State(_))
}

impl Act {
    /// What it changes when it is done.
    fn changes(&self, model: &Model) -> Vec<(Key, Option<usize>)> {
        match *self {
            Self::Push { repo, content, .. } | Self::Mount { to: repo, content, .. } => {
                vec![(Key::Blob { repo, content }, Some(0))]
            }
            Self::Put { repo, manifest, tag } => {
                let tag = tag.map(|tag| (Key::Tag { repo, tag }, Some(manifest)));
                [(Key::Manifest { repo, manifest }, Some(manifest))].into_iter().chain(tag).collect()
            }
            Self::DeleteTag { repo, tag } => vec![(Key::Tag { repo, tag }, None)],
            Self::DeleteManifest { repo, manifest } => {
                let tags =
                    model.tags_of(repo, manifest).into_iter().map(|tag| (Key::Tag { repo, tag }, None));
                [(Key::Manifest { repo, manifest }, None)].into_iter().chain(tags).collect()
            }
            Self::DeleteBlob { repo, content } => vec![(Key::Blob { repo, content }, None)],
            Self::Together(_)
            | Self::Collect
            | Self::Cancel { .. }
            | Self::Leave { .. }
            | Self::LeaveRanged { .. }
            | Self::Chore(_) => Vec::new(),
        }
    }

    /// Does it. The model learns what was acknowledged; after a fault of the server it keeps both in mind.
    pub(super) async fn run(&self, world: &World, model: &mut Model) -> Result<(), RegistryError> {
        if let Self::Together(acts) = self {
            return together(acts, world, model).await;
        }
        if let Self::Chore(chore) = self {
            return chore.run(world, model).await;
        }
        let before = model.clone();
        let changes = self.changes(model);
        for (key, value) in &changes {
            model.begun(*key, *value);
        }
        let mut uploads = Vec::new();
        let outcome = self.send(world, &mut uploads).await;
        match &outcome {
            Ok(true) => {
                let now = world.clock.now();
                for (key, value) in changes {
                    model.answered(key, value, now);
                }
            }
            Err(error) if is_fault(error) => {
                for (key, value) in changes {
                    model.failed(key, value);
                }
            }
            Ok(false) | Err(_) => *model = before,
        }
        model.uploads.append(&mut uploads);
        outcome.map(drop)
    }

    /// Sends the requests; `false` when they were answered and changed nothing. Uploads that stay open are told.
    async fn send(&self, world: &World, uploads: &mut Vec<Open>) -> Result<bool, RegistryError> {
        let registry = &world.registry;
        match *self {
            Self::Push { repo, content, way: Way::Whole } => {
                world.push_whole(REPOS[repo], content).await?;
            }
            Self::Push { repo, content, way: Way::Ranged } => {
                let received = ranged(world, repo, content, CHUNKS - 1, uploads).await?;
                // From here on it may be a blob.
                uploads[0].floor = None;
                let id = uploads[0].id.clone();
                world.finish(REPOS[repo], &id, content, received).await?;
                uploads.clear();
            }
            Self::LeaveRanged { repo, content } => {
                ranged(world, repo, content, CHUNKS / 2, uploads).await?;
                return Ok(false);
            }
            Self::Push { repo, content, way } => {
                let (bytes, name) = (&CONTENTS[content].0, REPOS[repo]);
                let id = world.begin(name).await?;
                uploads.push(Open { repo, id: id.clone(), content, floor: None });
                let half = bytes.len() / 2;
                let mut received = world.append(name, &id, &bytes[..half]).await?;
                if matches!(way, Way::Resumed) {
                    put_aside(world, &mut uploads[0], received).await;
                    received = world.append(name, &id, &bytes[half..half + half / 2]).await?;
                }
                uploads[0].floor = None;
                world.finish(name, &id, content, received).await?;
                uploads.clear();
            }
            Self::Mount { from, to, content } => {
                let digest = Some(CONTENTS[content].1.as_str());
                let asked = BeginUpload { mount: digest, from: Some(REPOS[from]), ..BeginUpload::default() };
                let begun = registry.begin_upload(&who(), REPOS[to], asked, body(&[])).await?;
                return Ok(matches!(begun, Begun::Created(_)));
            }
            Self::Put { repo, manifest, tag } => {
                let (bytes, digest) = &MANIFESTS[manifest];
                let reference = tag.map_or(digest.as_str(), |tag| TAGS[tag]);
                let bytes = bytes.clone();
                let put = PutManifest {
                    reference,
                    tags: &[],
                    content_type: Some(IMAGE),
                    conditions: Conditions::default(),
                    bytes,
                };
                registry.put_manifest(&who(), REPOS[repo], put).await?;
            }
            Self::DeleteTag { repo, tag } => registry.delete_manifest(&who(), REPOS[repo], TAGS[tag]).await?,
            Self::DeleteManifest { repo, manifest } => {
                registry.delete_manifest(&who(), REPOS[repo], &MANIFESTS[manifest].1).await?;
            }
            Self::DeleteBlob { repo, content } => {
                registry.delete_blob(&who(), REPOS[repo], &CONTENTS[content].1).await?;
            }
            Self::Cancel { repo, content } => {
                let id = world.begin(REPOS[repo]).await?;
                uploads.push(Open { repo, id: id.clone(), content, floor: None });
                world.append(REPOS[repo], &id, &CONTENTS[content].0).await?;
                registry.close().await;
                registry.cancel_upload(&who(), REPOS[repo], &id).await?;
                uploads.clear();
                return Ok(false);
            }
            Self::Leave { repo, content } => {
                let id = world.begin(REPOS[repo]).await?;
                uploads.push(Open { repo, id: id.clone(), content, floor: None });
                let bytes = &CONTENTS[content].0;
                let received = world.append(REPOS[repo], &id, &bytes[..bytes.len() / 3]).await?;
                put_aside(world, &mut uploads[0], received).await;
                return Ok(false);
            }
            Self::Collect => {
                world.collect().await?;
                return Ok(false);
            }
            Self::Together(_) | Self::Chore(_) => unreachable!("taken apart before"),
        }
        Ok(true)
    }
}

/// Has every upload put aside; where that has ended, a loss of power takes nothing of them.
async fn put_aside(world: &World, upload: &mut Open, received: u64) {
    world.registry.close().await;
    if world.disk.has_power() {
        upload.floor = Some((received, Loss::Power));
    }
}

/// Begins an upload and sends its first chunks, each of which says where it stands; gives how much has come.
async fn ranged(
    world: &World,
    repo: usize,
    content: usize,
    chunks: usize,
    uploads: &mut Vec<Open>,
) -> Result<u64, RegistryError> {
    let (bytes, name) = (&CONTENTS[content].0, REPOS[repo]);
    let id = world.begin(name).await?;
    uploads.push(Open { repo, id: id.clone(), content, floor: None });
    let size = bytes.len() / CHUNKS;
    let mut received = 0;
    for chunk in 0..chunks {
        let from = chunk * size;
        received = world.append_at(name, &id, from, &bytes[from..from + size]).await?;
        assert_eq!(received, (from + size) as u64);
        uploads[0].floor = Some((received, Loss::Process));
    }
    Ok(received)
}

async fn together(acts: &[Act], world: &World, model: &mut Model) -> Result<(), RegistryError> {
    for act in acts {
        act.changes(model).into_iter().for_each(|(key, value)| model.begun(key, value));
    }
    let sent = acts.iter().map(|act| async move {
        let mut uploads = Vec::new();
        let outcome = act.send(world, &mut uploads).await;
        (act, outcome, uploads)
    });
    let mut failed = Ok(());
    for (act, outcome, mut uploads) in join_all(sent).await {
        model.uploads.append(&mut uploads);
        match outcome {
            Ok(true) => {
                let now = world.clock.now();
                for (key, value) in act.changes(model) {
                    model.answered(key, value, now);
                }
            }
            Ok(false) => {}
            Err(error) => {
                for (key, value) in act.changes(model) {
                    model.failed(key, value);
                }
                failed = Err(error);
            }
        }
    }
    failed
}
