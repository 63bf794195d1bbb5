//! Repositories that come and go, and the counters kept with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::World;
use crate::access::{Principal, Role};
use crate::names::{Digest, Millis, Random as _, RepoName, SeededRandom, Tag};
use crate::registry::{RegistryError, RepositoryError};
use crate::repos::{self, RepositorySettings};

pub(super) fn admin() -> Principal {
    Principal::Peer { uid: 0, gid: 0, role: Role::Administrator }
}

pub(super) fn settings(text: &str) -> RepositorySettings {
    serde_json::from_str(text).unwrap()
}

async fn world() -> World {
    let world = World::new().await;
    world.registry.load().await.unwrap();
    world
}

#[tokio::test]
async fn a_repository_comes_is_used_and_goes() {
    let world = world().await;
    let none = RepositorySettings::default();
    world.send(http::Method::POST, "/v2/team/app/blobs/uploads/", &[], "").await.is(404);
    let registry = &world.registry;
    registry.add_repository(&admin(), "team", &none, true).await.unwrap();
    assert!(
        matches!(registry.repository("team").await, Err(RepositoryError::Unknown(_))),
        "it was a dry run"
    );
    registry.add_repository(&admin(), "team", &none, false).await.unwrap();
    let again = registry.add_repository(&admin(), "team", &none, false).await;
    assert!(matches!(again, Err(RepositoryError::Exists(_))));
    for bad in ["", "Team", "a/b", "a..b", "-a", &"a".repeat(64)] {
        let refused = registry.add_repository(&admin(), bad, &none, false).await;
        assert!(matches!(refused, Err(RepositoryError::Name { .. })), "{bad:?}");
    }
    world.push_image("team/app", "v1", b"1").await;
    world.push_image("team/app", "v2", b"2").await;
    world.push_image("team/b", "v1", b"1").await;
    let kept = registry.remove_repository(&admin(), "team", false, false).await;
    assert!(
        matches!(kept, Err(RepositoryError::NotEmpty { totals, .. }) if totals.images == 2 && totals.tags == 3)
    );
    registry.remove_repository(&admin(), "team", true, true).await.unwrap();
    world.head("/v2/team/app/manifests/v1").await.is(200);
    let gone = registry.remove_repository(&admin(), "team", true, false).await.unwrap();
    assert_eq!((gone.totals.images, gone.totals.manifests, gone.totals.tags), (2, 3, 3));
    world.get("/v2/team/app/tags/list").await.is(404);
    assert_eq!(world.get("/v2/_catalog").await.json()["repositories"], serde_json::json!([]));
    registry.add_repository(&admin(), "team", &none, false).await.unwrap();
    assert_eq!(registry.repository("team").await.unwrap().totals, repos::Totals::default());
    world.get("/v2/team/app/manifests/v1").await.is(404);
    world.push_image("team/app", "v1", b"1").await;
}

#[tokio::test]
async fn pantrys_own_repositories_are_left_alone() {
    let world = world().await;
    for name in ["packages", "pantry"] {
        let set = world.registry.set_repository(&admin(), name, &settings("{}"), false).await;
        assert!(matches!(set, Err(RepositoryError::Reserved(_))), "{name}");
        let removed = world.registry.remove_repository(&admin(), name, true, false).await;
        assert!(matches!(removed, Err(RepositoryError::Reserved(_))), "{name}");
        let tag =
            world.registry.delete_image_tag(&admin(), name, &format!("{name}/base"), "latest", false).await;
        assert!(matches!(tag, Err(RepositoryError::Reserved(_))), "{name}");
    }
    world.registry.remove_repository(&admin(), "local", false, false).await.unwrap();
    world.registry.load().await.unwrap();
    let refused = world.registry.manifest(&admin(), "local/app", "v1").await;
    assert!(
        matches!(refused, Err(RegistryError::NameUnknown { .. })),
        "what was removed stays so over a start"
    );
}

/// Removal that stopped half-way goes on with the next pass, and nobody sees the rest meanwhile.
#[tokio::test]
async fn what_a_stopped_removal_left_goes_with_the_next_pass() {
    let world = world().await;
    world.push_image("local/app", "v1", b"1").await;
    let now = Millis(1);
    let begun = world.state.write(move |tx| repos::begin_removal(tx, now, "local", true)).await.unwrap();
    assert_eq!(begun, repos::Removing::Begun);
    world.registry.load().await.unwrap();
    world.get("/v2/local/app/manifests/v1").await.is(404);
    let busy = world.registry.add_repository(&admin(), "local", &settings("{}"), false).await;
    assert!(matches!(busy, Err(RepositoryError::Going(_))));
    world.registry.retention_page(None).await.unwrap();
    world.registry.add_repository(&admin(), "local", &settings("{}"), false).await.unwrap();
    world.get("/v2/local/app/manifests/v1").await.is(404);
}

/// Whatever is pushed, moved and deleted: the counters are the sums of what the lists tell.
#[tokio::test]
async fn counters_are_what_a_count_would_find() {
    let world = world().await;
    let random = SeededRandom::new(7);
    let mut digests: Vec<(String, Digest)> = Vec::new();
    for _ in 0..120 {
        let mut bytes = [0_u8; 4];
        random.fill(&mut bytes);
        let repo = format!("local/app{}", bytes[0] % 3);
        let tag = format!("v{}", bytes[1] % 4);
        match bytes[2] % 4 {
            0 | 1 => digests.push((repo.clone(), world.push_image(&repo, &tag, &[bytes[3] % 5]).await)),
            2 => _ = world.delete(&format!("/v2/{repo}/manifests/{tag}")).await,
            _ => {
                if let Some((repo, digest)) = digests.get(usize::from(bytes[3]) % digests.len().max(1)) {
                    world.delete(&format!("/v2/{repo}/manifests/{digest}")).await;
                    world.delete(&format!("/v2/{repo}/blobs/{}", Digest::of(&[bytes[3] % 5]))).await;
                }
            }
        }
        let totals = world.registry.repository("local").await.unwrap().totals;
        let images = world.registry.images("local", None, 100).await.unwrap();
        let mut tags = 0;
        for image in &images {
            let listed = world.registry.image_tags("local", image.name.as_str(), None, 100).await.unwrap();
            assert_eq!(listed.len() as u64, image.tags, "{}", image.name);
            tags += image.tags;
        }
        assert_eq!(totals.images, images.len() as u64);
        assert_eq!(totals.tags, tags);
        assert_eq!(totals.manifests, images.iter().map(|image| image.manifests).sum::<u64>());
        assert_eq!(totals.bytes, images.iter().map(|image| image.bytes).sum::<u64>());
    }
    world.registry.remove_repository(&admin(), "local", true, false).await.unwrap();
    let names = world.registry.repositories(None, 100).await.unwrap();
    assert_eq!(names.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["packages", "pantry"]);
}

#[tokio::test]
async fn images_are_listed_by_repository_also_when_names_stand_between() {
    let world = world().await;
    world.registry.add_repository(&admin(), "local-x", &settings("{}"), false).await.unwrap();
    for repo in ["local", "local-x/a", "local/a", "local/b/c"] {
        world.push_blob(repo, b"x").await;
    }
    let list = async |name: &str, after: Option<&str>, limit| {
        let found = world.registry.images(name, after.map(str::to_owned), limit).await.unwrap();
        found.into_iter().map(|image| image.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list("local", None, 10).await, ["local", "local/a", "local/b/c"]);
    assert_eq!(list("local", None, 1).await, ["local"]);
    assert_eq!(list("local", Some("local"), 1).await, ["local/a"]);
    assert_eq!(list("local", Some("local/a"), 5).await, ["local/b/c"]);
    assert_eq!(list("local-x", None, 10).await, ["local-x/a"]);
}

/// The best of many attempts, so that a busy machine counts little.
async fn best(mut act: impl AsyncFnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..25 {
        let began = Instant::now();
        act().await;
        best = best.min(began.elapsed());
    }
    best
}

/// Pages cost what they have, not what there is besides.
#[tokio::test]
async fn pages_and_counters_cost_the_same_with_much_in_the_repository() {
    let world = world().await;
    let digest = world.push_image("local/few", "t000000", b"1").await;
    world.push_image("local/many", "t000000", b"1").await;
    let fill = async |name: &'static str, to: usize| {
        for from in (0..to).step_by(1_000) {
            let digest = digest.clone();
            let write = world.state.write(move |tx| {
                let repo = RepoName::parse(name).unwrap();
                for n in from..from + 1_000 {
                    repos::set_tag(tx, Millis(1), &repo, &Tag::parse(&format!("t{n:06}")).unwrap(), &digest)?;
                }
                Ok(())
            });
            write.await.unwrap();
        }
    };
    fill("local/few", 1_000).await;
    fill("local/many", 20_000).await;
    let mut costs = BTreeMap::new();
    for repo in ["few", "many"] {
        let path = format!("/v2/local/{repo}/tags/list?n=100&last=t000500");
        let page = best(async || _ = world.get(&path).await.is(200)).await;
        let name = format!("local/{repo}");
        let told = best(async || {
            let tags = world.registry.image_tags("local", &name, Some("t000500"), 100).await.unwrap();
            assert_eq!(tags.len(), 100);
        })
        .await;
        costs.insert(repo, (page, told));
    }
    let show = best(async || _ = world.registry.repository("local").await.unwrap()).await;
    let (few, many) = (costs["few"], costs["many"]);
    assert!(many.0 < few.0 * 3 && many.1 < few.1 * 3, "{costs:?}");
    assert!(show < few.0, "{show:?} to show 21,000 tags, {few:?} for a page");
    assert_eq!(world.registry.repository("local").await.unwrap().totals.tags, 21_000);
}
