//! Removals that are too long for one transaction, and damage that a pull finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::repositories::{admin, settings};
use super::*;
use crate::access::{Pattern, Rights, Subject};
use crate::names::{Clock as _, RepoName, Tag};
use crate::repos;

async fn world() -> World {
    let world = World::new().await;
    world.registry.load().await.unwrap();
    world
}

fn app() -> RepoName {
    RepoName::parse("local/app").unwrap()
}

/// Sets tags `t000000`, `t000001`, ….
async fn tag_often(world: &World, digest: &Digest, count: usize) {
    let now = world.clock.now();
    for from in (0..count).step_by(1_000) {
        let digest = digest.clone();
        let write = world.state.write(move |tx| {
            for n in from..count.min(from + 1_000) {
                repos::set_tag(tx, now, &app(), &Tag::parse(&format!("t{n:06}")).unwrap(), &digest)?;
            }
            Ok(())
        });
        write.await.unwrap();
    }
}

/// Once a manifest with so many tags was deleted in one transaction, and every push waited for it.
#[tokio::test]
async fn others_push_while_a_manifest_with_very_many_tags_goes() {
    const TAGS: usize = 8_000;
    let world = Arc::new(world().await);
    let digest = world.push_image("local/app", "one", b"1").await;
    tag_often(&world, &digest, TAGS).await;
    let (ended, pushes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let pusher = {
        let (world, ended, pushes) = (Arc::clone(&world), Arc::clone(&ended), Arc::clone(&pushes));
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                world.push_blob("local/other", &pushes.load(Ordering::Relaxed).to_le_bytes()).await;
                longest = longest.max(began.elapsed());
                pushes.fetch_add(1, Ordering::Relaxed);
            }
            longest
        })
    };
    while pushes.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let before = pushes.load(Ordering::Relaxed);
    let began = Instant::now();
    world.delete(&format!("/v2/local/app/manifests/{digest}")).await.is(202);
    let (took, meanwhile) = (began.elapsed(), pushes.load(Ordering::Relaxed) - before);
    ended.store(true, Ordering::Relaxed);
    let longest = pusher.await.unwrap();
    assert!(meanwhile >= 5, "{TAGS} tags: {meanwhile} pushes in {took:?}, the longest {longest:?}");
    world.get("/v2/local/app/manifests/t000007").await.is(404);
    assert_eq!(world.registry.repository("local").await.unwrap().totals.tags, 0);
}

/// The first transaction decides; what a crash leaves after it is not seen, and goes with the next start.
#[tokio::test]
async fn a_manifest_and_all_its_tags_go_at_once_also_over_a_crash() {
    let world = world().await;
    let digest = world.push_image("local/app", "one", b"1").await;
    let kept = world.push_image("local/app", "v1", b"2").await;
    tag_often(&world, &digest, 2_500).await;
    let (now, name) = (world.clock.now(), digest.clone());
    world.state.write(move |tx| repos::delete_manifest(tx, now, &app(), &name)).await.unwrap();
    let unseen = async |world: &World| {
        for reference in ["one", "t000000", "t001234", "t002499", &digest.to_string()] {
            world.head(&format!("/v2/local/app/manifests/{reference}")).await.is(404);
        }
        assert_eq!(world.get("/v2/local/app/tags/list").await.json()["tags"], json!(["v1"]));
        assert_eq!(world.get("/v2/local/app/tags/list?n=1&last=t").await.json()["tags"], json!(["v1"]));
        world.delete("/v2/local/app/manifests/t002499").await.is(404);
        world.head("/v2/local/app/manifests/v1").await.is(200);
    };
    assert!(world.registry.repository("local").await.unwrap().totals.tags > 1_000, "the rest is still there");
    unseen(&world).await;
    let world = world.restart().await;
    world.registry.load().await.unwrap();
    unseen(&world).await;
    world.registry.resume_removals().await.unwrap();
    unseen(&world).await;
    let totals = world.registry.repository("local").await.unwrap().totals;
    assert_eq!((totals.manifests, totals.tags), (1, 1));
    world.delete(&format!("/v2/local/app/manifests/{kept}")).await.is(202);
}

/// The tags of the one before must not be seen again with it.
#[tokio::test]
async fn a_manifest_that_is_pushed_again_while_it_goes_has_its_new_tag_only() {
    let world = world().await;
    let digest = world.push_image("local/app", "one", b"1").await;
    tag_often(&world, &digest, 2_500).await;
    let now = world.clock.now();
    world.state.write(move |tx| repos::delete_manifest(tx, now, &app(), &digest)).await.unwrap();
    world.push_image("local/app", "two", b"1").await;
    assert_eq!(world.get("/v2/local/app/tags/list").await.json()["tags"], json!(["two"]));
    world.head("/v2/local/app/manifests/t002499").await.is(404);
    world.registry.resume_removals().await.unwrap();
    world.head("/v2/local/app/manifests/two").await.is(200);
    assert_eq!(world.registry.repository("local").await.unwrap().totals.tags, 1);
}

/// Tags that are going are none of the last ones: those behind them must not go in their place.
#[tokio::test]
async fn retention_does_not_count_tags_that_are_going() {
    let world = world().await;
    world.push_image("local/app", "v1", b"1").await;
    world.clock.advance(Duration::from_mins(1));
    let digest = world.push_image("local/app", "one", b"2").await;
    tag_often(&world, &digest, 1_500).await;
    let rules = settings(r#"{"retention":{"keep_last":2}}"#);
    world.registry.set_repository(&admin(), "local", &rules, false).await.unwrap();
    let now = world.clock.now();
    world.state.write(move |tx| repos::delete_manifest(tx, now, &app(), &digest)).await.unwrap();
    let (found, lines, _) = world.registry.retention_survey(None).await.unwrap();
    assert_eq!((found.tags, lines.len()), (0, 0));
    assert_eq!(world.registry.unfinished_removals().await.unwrap(), 1);
    world.registry.retention_of("local").await.unwrap();
    world.head("/v2/local/app/manifests/v1").await.is(200);
    assert_eq!(world.registry.unfinished_removals().await.unwrap(), 0);
}

/// More than one transaction takes goes with its image nevertheless, although no rule is about what has no tag.
#[tokio::test]
async fn everything_goes_with_an_image_also_when_it_is_much() {
    let world = world().await;
    let subject = world.push_image("local/app", "old", b"1").await;
    let shared: Vec<Digest> = (0..20_u8).map(|n| Digest::of(&[n; 8])).collect();
    for n in 0..20_u8 {
        world.push_blob("local/app", &[n; 8]).await;
    }
    for n in 0..60 {
        let layers: Vec<Value> =
            shared.iter().map(|digest| json!({"mediaType": "a/b", "digest": digest, "size": 8})).collect();
        let mut referrer = image(b"1");
        referrer["layers"] = layers.into();
        referrer["annotations"] = json!({"n": n.to_string()});
        referrer["subject"] = json!({"mediaType": IMAGE, "digest": subject, "size": 1});
        let name = Digest::of(referrer.to_string().as_bytes());
        world.put_manifest("local/app", &name.to_string(), IMAGE, &referrer).await.is(201);
    }
    world.clock.advance(Duration::from_mins(1));
    world.push_image("local/app", "new", b"2").await;
    let rules = settings(r#"{"retention":{"keep_last":1}}"#);
    world.registry.set_repository(&admin(), "local", &rules, false).await.unwrap();
    world.registry.retention_page(None).await.unwrap();
    assert_eq!(world.registry.repository("local").await.unwrap().totals.manifests, 1);
    assert_eq!(world.registry.unfinished_removals().await.unwrap(), 0);
}

/// One of the same name that is made later must not be open to those of before.
#[tokio::test]
async fn grants_go_with_their_repository() {
    let world = world().await;
    for name in ["team", "team-b"] {
        world.registry.add_repository(&admin(), name, &settings("{}"), false).await.unwrap();
    }
    let rights = Rights::parse("pull").unwrap();
    for pattern in ["*", "team", "team/app", "team-b", "local"] {
        let (subject, pattern) = (Subject::parse("anonymous").unwrap(), Pattern::parse(pattern).unwrap());
        world.access.grant(&admin(), &subject, &pattern, rights).await.unwrap();
    }
    let dry = world.registry.remove_repository(&admin(), "team", true, true).await.unwrap();
    let done = world.registry.remove_repository(&admin(), "team", true, false).await.unwrap();
    assert_eq!((dry.grants, done.grants), (2, 2));
    world.access.reload().await.unwrap();
    let left: Vec<String> = world.access.grants().iter().map(|grant| grant.pattern.clone()).collect();
    assert_eq!(left, ["*", "local", "team-b"]);
}

/// Once HEAD went on to say that the blob is here, so that no client ever pushed it again.
#[tokio::test]
async fn a_blob_that_a_pull_finds_gone_or_cut_is_healed_by_a_push() {
    let world = world().await;
    let bytes = noise(1, 100_000);
    let digest = world.push_blob("local/app", &bytes).await;
    let file = world.folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let path = format!("/v2/local/app/blobs/{digest}");
    for damage in ["gone", "cut"] {
        fs_err::remove_file(&file).unwrap();
        if damage == "cut" {
            fs_err::write(&file, &bytes[..5_000]).unwrap();
        }
        world.get(&path).await.is(404);
        world.head(&path).await.is(404);
        world.push_blob("local/app", &bytes).await;
        assert_eq!(world.get(&path).await.is(200).body, bytes, "{damage}");
    }
    // A failure of the disk says nothing about the bytes.
    let aside = world.folder.path().join("aside");
    fs_err::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    world.get(&path).await.is(500);
    world.head(&path).await.is(200);
    fs_err::remove_file(&file).unwrap();
    fs_err::rename(&aside, &file).unwrap();
    assert_eq!(world.get(&path).await.is(200).body, bytes);
}

#[tokio::test]
async fn a_repository_that_is_going_is_not_in_the_catalogue() {
    let world = world().await;
    for name in ["a", "team", "team-b", "z"] {
        world.registry.add_repository(&admin(), name, &settings("{}"), false).await.unwrap();
    }
    for repo in ["a/x", "team", "team-b/x", "team/a", "team/b", "z/x"] {
        world.push_blob(repo, b"x").await;
    }
    let now = world.clock.now();
    world.state.write(move |tx| repos::begin_removal(tx, now, "team", true)).await.unwrap();
    world.registry.load().await.unwrap();
    let list =
        async |query: &str| world.get(&format!("/v2/_catalog{query}")).await.json()["repositories"].clone();
    assert_eq!(list("").await, json!(["a/x", "team-b/x", "z/x"]));
    assert_eq!(list("?n=2").await, json!(["a/x", "team-b/x"]));
    assert_eq!(list("?n=1&last=team/a").await, json!(["z/x"]));
    world.registry.resume_removals().await.unwrap();
    assert_eq!(world.registry.unfinished_removals().await.unwrap(), 0);
    world.registry.add_repository(&admin(), "team", &settings("{}"), false).await.unwrap();
    assert_eq!(list("").await, json!(["a/x", "team-b/x", "z/x"]));
}
