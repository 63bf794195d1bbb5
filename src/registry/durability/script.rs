//! Random scripts of requests, run against a registry and its model.

use futures_util::future::join_all;

use super::super::{BeginUpload, Begun, Conditions, PutManifest, RegistryError};
use super::model::{Key, Model, Open};
use super::world::{CONTENTS, IMAGE, MANIFESTS, REPOS, TAGS, World, body, who};
use crate::names::{Random as _, SeededRandom};

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
}

/// How a blob is pushed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Whole,
    Session,
    /// Put aside in the middle.
    Resumed,
}

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
        [Way::Whole, Way::Session, Way::Resumed][self.below(3)]
    }

    fn act(&self) -> Act {
        let (repo, content) = (self.below(REPOS.len()), self.below(CONTENTS.len()));
        let (manifest, tag) = (self.below(MANIFESTS.len()), self.below(TAGS.len()));
        match self.below(12) {
            0 | 1 => Act::Push { repo, content, way: self.way() },
            2 => {
                let first = (0..CONTENTS.len()).filter(|content| content % 2 == tag % 2);
                Act::Together(first.map(|content| Act::Push { repo, content, way: self.way() }).collect())
            }
            3 => Act::Mount { from: repo, to: 1 - repo, content },
            4..=6 => Act::Put { repo, manifest, tag: (content > 0).then_some(tag) },
            7 => Act::DeleteTag { repo, tag },
            8 => Act::DeleteManifest { repo, manifest },
            9 => Act::DeleteBlob { repo, content },
            10 => Act::Collect,
            _ => Act::Leave { repo, content },
        }
    }
}

/// Every kind of request once, in an order of the seed's, among others.
pub(super) fn script(seed: u64) -> Vec<Act> {
    let dice = Dice::new(seed);
    let mut script: Vec<Act> =
        [0, 2, 3].into_iter().map(|content| Act::Push { repo: 0, content, way: dice.way() }).collect();
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
    ];
    rest.extend((0..4).map(|_| dice.act()));
    while !rest.is_empty() {
        script.push(rest.swap_remove(dice.below(rest.len())));
    }
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
            Self::Together(_) | Self::Collect | Self::Cancel { .. } | Self::Leave { .. } => Vec::new(),
        }
    }

    /// Does it. The model learns what was acknowledged; after a fault of the server it keeps both in mind.
    pub(super) async fn run(&self, world: &World, model: &mut Model) -> Result<(), RegistryError> {
        if let Self::Together(acts) = self {
            return together(acts, world, model).await;
        }
        let before = model.clone();
        let changes = self.changes(model);
        for (key, value) in &changes {
            model.begun(*key, *value);
        }
        let mut uploads = Vec::new();
        let outcome = self.send(world, &mut uploads).await;
        match &outcome {
            Ok(true) => changes.into_iter().for_each(|(key, value)| model.done(key, value)),
            Err(error) if is_fault(error) => {}
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
            Self::Push { repo, content, way } => {
                let (bytes, name) = (&CONTENTS[content].0, REPOS[repo]);
                let id = world.begin(name).await?;
                uploads.push(Open { repo, id: id.clone(), content });
                let half = bytes.len() / 2;
                let mut received = world.append(name, &id, &bytes[..half]).await?;
                if matches!(way, Way::Resumed) {
                    registry.close().await;
                    received = world.append(name, &id, &bytes[half..half + half / 2]).await?;
                }
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
                uploads.push(Open { repo, id: id.clone(), content });
                world.append(REPOS[repo], &id, &CONTENTS[content].0).await?;
                registry.close().await;
                registry.cancel_upload(&who(), REPOS[repo], &id).await?;
                uploads.clear();
                return Ok(false);
            }
            Self::Leave { repo, content } => {
                let id = world.begin(REPOS[repo]).await?;
                uploads.push(Open { repo, id: id.clone(), content });
                let bytes = &CONTENTS[content].0;
                world.append(REPOS[repo], &id, &bytes[..bytes.len() / 3]).await?;
                registry.close().await;
                return Ok(false);
            }
            Self::Collect => {
                world.collect().await?;
                return Ok(false);
            }
            Self::Together(_) => unreachable!("taken apart before"),
        }
        Ok(true)
    }
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
            Ok(true) => act.changes(model).into_iter().for_each(|(key, value)| model.done(key, value)),
            Ok(false) => {}
            Err(error) => failed = Err(error),
        }
    }
    failed
}
