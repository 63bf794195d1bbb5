//! How many syncs a push costs: those that its promise needs, and none beside.

use super::super::{Conditions, PutManifest};
use super::world::{CONTENTS, IMAGE, MANIFESTS, REPOS, TAGS, World, fresh, who};
use crate::blobs::Disk;
use crate::names::Faults;

/// The syncs of files, of folders, and of the state since the last time.
struct Costs<'a> {
    disk: &'a Disk,
    before: [u64; 3],
}

impl<'a> Costs<'a> {
    fn of(disk: &'a Disk) -> Self {
        Self { disk, before: disk.syncs() }
    }

    fn since(&mut self) -> [u64; 3] {
        let now = self.disk.syncs();
        let since = [0, 1, 2].map(|kind| now[kind] - self.before[kind]);
        self.before = now;
        since
    }
}

/// Pushes a configuration, a layer that is a file, and the manifest of both under a tag, as clients do.
async fn push_image(world: &World) {
    for content in [0, 2] {
        let id = world.begin(REPOS[0]).await.unwrap();
        let received = world.append(REPOS[0], &id, &CONTENTS[content].0).await.unwrap();
        world.finish(REPOS[0], &id, content, received).await.unwrap();
    }
    let put = PutManifest {
        reference: TAGS[0],
        tags: &[],
        content_type: Some(IMAGE),
        conditions: Conditions::default(),
        bytes: MANIFESTS[0].0.clone(),
    };
    world.registry.put_manifest(&who(), REPOS[0], put).await.unwrap();
}

#[tokio::test]
async fn an_image_costs_its_layers_sync_and_a_commit_for_each_answer_and_the_same_again_one_commit() {
    let disk = fresh().await;
    let world = World::open(&disk, Faults::none()).await.unwrap();
    let mut costs = Costs::of(&disk);
    push_image(&world).await;
    let [files, folders, state] = costs.since();
    // One more where the state file grows.
    assert!((files, folders) == (1, 1) && (6..=7).contains(&state), "{files}, {folders}, {state}");
    push_image(&world).await;
    assert_eq!(costs.since(), [0, 0, 2], "the audit line of the manifest is all that is new");
}

#[tokio::test]
async fn a_hundred_chunks_cost_no_more_than_their_first() {
    let disk = fresh().await;
    let world = World::open(&disk, Faults::none()).await.unwrap();
    let (bytes, mut costs) = (&CONTENTS[4].0, Costs::of(&disk));
    let id = world.begin(REPOS[0]).await.unwrap();
    let size = bytes.len() / 100;
    for chunk in 0..100 {
        let from = chunk * size;
        world.append_at(REPOS[0], &id, from, &bytes[from..from + size]).await.unwrap();
        let [files, folders, state] = costs.since();
        // The records of the session and of its bytes share a commit, or come in one each.
        let most = if chunk == 0 { 5 } else { 0 };
        assert!((files, folders) == (0, 0) && state <= most, "chunk {chunk}: {files}, {folders}, {state}");
    }
    world.finish(REPOS[0], &id, 4, 100 * size as u64).await.unwrap();
    let [files, folders, state] = costs.since();
    assert!((files, folders) == (1, 1) && (2..=3).contains(&state), "{files}, {folders}, {state}");
}
