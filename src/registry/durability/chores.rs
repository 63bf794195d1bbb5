//! What happens to a registry besides its clients' requests: time passes, repositories let go of blobs, rules remove,
//! a whole repository goes and comes, bytes rot and are set aside.

use std::time::Duration;

use super::super::{RegistryError, RepositoryError};
use super::model::{Key, Model, Soundness};
use super::world::{CONTENTS, GRACE, MANIFESTS, REPOS, TAGS, TEAM, TEAMS, World, blob_path, root, who};
use crate::blobs::{Pace, Verdict};
use crate::names::{Clock as _, Digest, Reference, RepoName};
use crate::repos::{self, RepositorySettings};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chore {
    Wait {
        minutes: u64,
    },
    /// Somebody asks whether a blob is there, and has its grace to name it when it is.
    Ask {
        repo: usize,
        content: usize,
    },
    /// Repositories let go of what no manifest keeps, after the grace or at once.
    LetGo {
        patient: bool,
    },
    /// The rules of all repositories are applied.
    Retain,
    /// The repository goes with everything that it holds.
    RemoveTeam,
    /// It is made anew.
    AddTeam,
    /// The file of a blob is spoiled, which is found out and acted on.
    Rot {
        content: usize,
        rot: Rot,
    },
}

/// How a file is spoiled, and who finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rot {
    /// A bit is another; verification finds it.
    Flipped,
    /// It is shorter; verification finds it.
    Cut,
    /// It is shorter; repair finds it.
    CutForRepair,
    /// It is gone; repair finds it.
    Lost,
}

impl Chore {
    pub(super) async fn run(self, world: &World, model: &mut Model) -> Result<(), RegistryError> {
        match self {
            Self::Wait { minutes } => world.clock.advance(Duration::from_mins(minutes)),
            Self::Ask { repo, content } => {
                world.registry.blob(&who(), REPOS[repo], &CONTENTS[content].1).await?;
                model.promised(repo, content, world.clock.now());
            }
            Self::LetGo { patient } => let_go(world, model, patient).await?,
            Self::Retain => retain(world, model).await?,
            Self::RemoveTeam => remove_team(world, model).await?,
            Self::AddTeam => add_team(world, model).await?,
            Self::Rot { content, rot } => spoil(world, model, content, rot).await?,
        }
        Ok(())
    }
}

/// Whoever was told that a blob is there has the grace; what a manifest keeps stays; without grace all else goes.
async fn let_go(world: &World, model: &mut Model, patient: bool) -> Result<(), RegistryError> {
    let (now, grace) = (world.clock.now(), if patient { GRACE } else { Duration::ZERO });
    let before = model.clone();
    let may_go = |key: Key| match key {
        Key::Blob { repo, content } => {
            !before.is_kept(repo, content) && !before.is_promised(repo, content, now, grace)
        }
        _ => false,
    };
    Key::all().filter(|key| may_go(*key)).for_each(|key| model.begun(key, None));
    let (mut gone, mut after) = (Vec::new(), None);
    loop {
        let from: Option<(RepoName, Digest)> = after.take();
        let idle = world.state.write(move |tx| repos::let_go(tx, now, from.as_ref(), grace, true)).await?;
        gone.extend(idle.let_go);
        after = idle.next;
        if after.is_none() {
            break;
        }
    }
    *model = before.clone();
    for (repo, name) in gone {
        let repo = REPOS.iter().position(|known| *known == repo.as_str()).unwrap();
        let content = CONTENTS.iter().position(|(_, digest)| *digest == name.to_string()).unwrap();
        let key = Key::Blob { repo, content };
        assert!(
            may_go(key),
            "{key:?} was let go of at {now}, though a manifest keeps it or somebody was told"
        );
        model.done(key, None);
    }
    for key in Key::all() {
        if let Key::Blob { repo, content } = key
            && !patient
            && !before.may_be_kept(repo, content)
        {
            assert!(!model.is_there(key), "{key:?} is held for nobody");
        }
    }
    Ok(())
}

/// One tag stays, and what it points to; the others go with what only they point to.
async fn retain(world: &World, model: &mut Model) -> Result<(), RegistryError> {
    let (now, before) = (world.clock.now(), model.clone());
    for key in Key::all() {
        let may_go = match key {
            Key::Tag { repo, tag } => repo != TEAMS && tag > 0,
            Key::Manifest { repo, manifest } => {
                repo != TEAMS && before.may_retire(repo, manifest, now, GRACE)
            }
            Key::Blob { .. } => false,
        };
        if may_go {
            model.begun(key, None);
        }
    }
    let mut cursor = None;
    loop {
        cursor = world.registry.retention_page(cursor).await?.1;
        if cursor.is_none() {
            break;
        }
    }
    for key in Key::all() {
        let (repo, reference) = match key {
            Key::Tag { repo, tag } => (repo, TAGS[tag]),
            Key::Manifest { repo, manifest } => (repo, MANIFESTS[manifest].1.as_str()),
            Key::Blob { .. } => continue,
        };
        if repo == TEAMS {
            continue;
        }
        let (of, asked) = (RepoName::parse(REPOS[repo]).unwrap(), Reference::parse(reference).unwrap());
        let found = world.state.read(move |view| repos::get_manifest(view, &of, &asked)).await?;
        let found = found.map(|found| found.digest.to_string());
        let found = found.map(|found| MANIFESTS.iter().position(|(_, digest)| *digest == found).unwrap());
        match key {
            Key::Tag { tag, .. } if tag > 0 => assert_eq!(found, None, "{key:?}: no rule keeps it"),
            Key::Manifest { repo, manifest } if before.must_retire(repo, manifest) => {
                assert_eq!(found, None, "{key:?}: its only tags are gone");
            }
            _ => {}
        }
        model.found(key, found, "after retention");
    }
    Ok(())
}

async fn remove_team(world: &World, model: &mut Model) -> Result<(), RegistryError> {
    let before = model.clone();
    model.team.insert(false);
    match world.registry.remove_repository(&who(), TEAM, true, false).await {
        Ok(_) => model.team_is(false),
        Err(RepositoryError::State(error)) => return Err(error.into()),
        Err(RepositoryError::Unknown(_)) => *model = before,
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

async fn add_team(world: &World, model: &mut Model) -> Result<(), RegistryError> {
    let before = model.clone();
    model.team.insert(true);
    match world.registry.add_repository(&who(), TEAM, &RepositorySettings::default(), false).await {
        Ok(_) => model.team_is(true),
        Err(RepositoryError::State(error)) => return Err(error.into()),
        // A removal that failed half way goes on with the next start.
        Err(RepositoryError::Exists(_) | RepositoryError::Going(_)) => *model = before,
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

/// Spoils the file of a sound blob, and acts on it; where that failed before, only the latter.
async fn spoil(world: &World, model: &mut Model, content: usize, rot: Rot) -> Result<(), RegistryError> {
    let (bytes, digest) = &CONTENTS[content];
    let path = blob_path(digest);
    let Some(known) = world.known(content).await? else { return Ok(()) };
    if known.damage.is_some() {
        return Ok(());
    }
    let there = world.disk.files_below(&root().join("blobs")).contains(&path);
    if there && world.disk.bytes(&path) == *bytes {
        match rot {
            Rot::Flipped => world.disk.tamper(&path, |bytes| bytes[20_000] ^= 1),
            Rot::Cut | Rot::CutForRepair => world.disk.tamper(&path, |bytes| bytes.truncate(20_000)),
            Rot::Lost => world.disk.lose(&path),
        }
    }
    model.soundness.insert(content, Soundness::Unsure);
    match rot {
        Rot::Flipped | Rot::Cut => inspect(world, content).await?,
        Rot::CutForRepair | Rot::Lost => {
            let mended = world.blobs.mend(None, true).await?;
            assert_eq!((mended.flaws.len(), mended.next), (1, None), "{:?}", mended.flaws);
        }
    }
    model.soundness.insert(content, Soundness::Flagged);
    if world.known(content).await?.is_some_and(|known| known.damage == Some(crate::blobs::Damage::Damaged)) {
        model.aside.insert(content);
    }
    Ok(())
}

/// Verifies a content, and sets it aside when it is damaged.
pub(super) async fn inspect(world: &World, content: usize) -> Result<(), RegistryError> {
    let digest = Digest::parse(&CONTENTS[content].1).unwrap();
    match world.blobs.verify(&digest, &[], &mut Pace::default(), |_| ()).await? {
        Verdict::Damaged | Verdict::Missing => {
            let damage = world.blobs.quarantine(&digest).await?;
            assert!(damage.is_some(), "{digest} is well at the second look");
        }
        Verdict::Intact { .. } | Verdict::Known(_) | Verdict::Gone => {}
    }
    Ok(())
}
