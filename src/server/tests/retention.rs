//! Retention over real pushes, and what it must leave alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::repositories::{admin, settings};
use super::{IMAGE, INDEX, World, descriptor, image};
use crate::names::Digest;
use crate::registry::RetentionEntry;

const DAY: Duration = Duration::from_hours(24);

async fn world(rules: &str) -> World {
    let world = World::new().await;
    world.registry.load().await.unwrap();
    set(&world, rules).await;
    world
}

async fn set(world: &World, rules: &str) {
    world.registry.set_repository(&admin(), "local", &settings(rules), false).await.unwrap();
}

async fn tags(world: &World, repo: &str) -> Vec<String> {
    let answer = world.get(&format!("/v2/{repo}/tags/list")).await;
    if answer.status.as_u16() == 404 {
        return Vec::new();
    }
    answer.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

async fn is_there(world: &World, repo: &str, digest: &Digest) -> bool {
    world.head(&format!("/v2/{repo}/manifests/{digest}")).await.status.as_u16() == 200
}

/// Everything that the preview says, asked for in pages of `limit`.
async fn preview(world: &World, limit: usize) -> Vec<RetentionEntry> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = world.registry.retention_preview("local", after.as_deref(), limit).await.unwrap();
        let (entries, next) = page.unwrap();
        assert!(entries.len() <= limit);
        all.extend(entries);
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

#[tokio::test]
async fn the_last_tags_stay_and_what_nothing_keeps_goes() {
    let world =
        world(r#"{"immutable_tags":["r*"],"retention":{"keep_last":2,"keep_tags":["stable"]}}"#).await;
    let mut digests = Vec::new();
    for (tag, layer) in [("r1", "a"), ("stable", "b"), ("v1", "c"), ("v2", "d"), ("v3", "e"), ("same", "b")] {
        digests.push(world.push_image("local/app", tag, layer.as_bytes()).await);
        world.clock.advance(DAY);
    }
    let entries = preview(&world, 200).await;
    assert_eq!(preview(&world, 1).await, entries);
    let verdicts: Vec<(&str, &str)> =
        entries.iter().map(|entry| (entry.tag.as_deref().unwrap(), entry.reason)).collect();
    assert_eq!(
        verdicts,
        [
            ("r1", "immutable"),
            ("same", "keep_last"),
            ("stable", "keep_tags"),
            ("v1", "no_rule_keeps_it"),
            ("v2", "no_rule_keeps_it"),
            ("v3", "keep_last"),
        ]
    );
    assert_eq!(tags(&world, "local/app").await.len(), 6, "a preview removes nothing");
    let (summary, next) = world.registry.retention_page(None).await.unwrap();
    assert_eq!((summary.images, summary.tags, summary.manifests, next), (1, 2, 2, None));
    assert_eq!(tags(&world, "local/app").await, ["r1", "same", "stable", "v3"]);
    assert!(
        !is_there(&world, "local/app", &digests[2]).await && is_there(&world, "local/app", &digests[1]).await
    );
    let (again, _) = world.registry.retention_page(None).await.unwrap();
    assert_eq!((again.tags, again.manifests), (0, 0), "a second pass finds nothing");
}

#[tokio::test]
async fn children_referrers_and_signatures_live_and_go_with_their_image() {
    let world = world(r#"{"retention":{"keep_last":1,"untagged_after_seconds":3600}}"#).await;
    let mut trees = Vec::new();
    for round in ["old", "new"] {
        let child = world.push_image("local/app", "tmp", round.as_bytes()).await;
        world.delete("/v2/local/app/manifests/tmp").await.is(202);
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [{"mediaType": IMAGE, "digest": child, "size": image(round.as_bytes()).to_string().len()}],
        });
        world.put_manifest("local/app", round, INDEX, &index).await.is(201);
        let index_digest = Digest::of(index.to_string().as_bytes());
        let mut referrer = image(round.as_bytes());
        referrer["subject"] = descriptor(INDEX, index.to_string().as_bytes());
        referrer["artifactType"] = "application/vnd.example".into();
        let referrer_digest = Digest::of(referrer.to_string().as_bytes());
        world.put_manifest("local/app", &referrer_digest.to_string(), IMAGE, &referrer).await.is(201);
        let signature: Value = image(format!("{round} signature").as_bytes());
        world.push_blob("local/app", format!("{round} signature").as_bytes()).await;
        let name = index_digest.to_string().replace(':', "-") + ".sig";
        world.put_manifest("local/app", &name, IMAGE, &signature).await.is(201);
        let signature = Digest::of(signature.to_string().as_bytes());
        trees.push([child, index_digest, referrer_digest, signature]);
        world.clock.advance(DAY);
    }
    let reasons: Vec<&str> = preview(&world, 3).await.iter().map(|entry| entry.reason).collect();
    let count = |wanted: &str| reasons.iter().filter(|reason| **reason == wanted).count();
    assert_eq!(
        (count("with_image"), count("in_index"), count("keep_last"), count("no_rule_keeps_it")),
        (4, 2, 1, 1),
        "{reasons:?}"
    );
    let summary = world.registry.retention_of("local").await.unwrap();
    assert_eq!((summary.tags, summary.manifests), (2, 4), "{summary:?}");
    for digest in &trees[0] {
        assert!(!is_there(&world, "local/app", digest).await, "{digest} of the old image");
    }
    for digest in &trees[1] {
        assert!(is_there(&world, "local/app", digest).await, "{digest} of the new image");
    }
}

#[tokio::test]
async fn who_pulls_keeps_also_over_a_restart() {
    let world = world(r#"{"retention":{"pulled_within_seconds":172800}}"#).await;
    let asked = world.push_image("local/app", "asked", b"1").await;
    world.push_image("local/app", "got", b"2").await;
    world.push_image("local/app", "forgotten", b"3").await;
    world.clock.advance(DAY);
    world.head("/v2/local/app/manifests/asked").await.is(200);
    world.get("/v2/local/app/manifests/got").await.is(200);
    world.clock.advance(DAY);
    let world = world.restart().await;
    world.registry.load().await.unwrap();
    world.registry.retention_page(None).await.unwrap();
    assert_eq!(tags(&world, "local/app").await, ["asked", "got"]);
    // What was noted this moment counts before it is written down.
    world.clock.advance(DAY);
    world.head(&format!("/v2/local/app/manifests/{asked}")).await.is(200);
    world.registry.retention_page(None).await.unwrap();
    assert_eq!(tags(&world, "local/app").await, ["asked"]);
}

#[tokio::test]
async fn what_has_no_tag_goes_when_it_is_old_and_nothing_is_touched_without_rules() {
    let world = world("{}").await;
    let digest = world.push_image("local/app", "moved", b"1").await;
    world.push_image("local/app", "moved", b"2").await;
    world.push_image("local/other", "a", b"3").await;
    world.clock.advance(DAY);
    let (summary, _) = world.registry.retention_page(None).await.unwrap();
    assert_eq!(summary, crate::registry::RetentionSummary::default());
    set(&world, r#"{"retention":{"untagged_after_seconds":90000}}"#).await;
    world.registry.retention_of("local").await.unwrap();
    assert!(is_there(&world, "local/app", &digest).await, "not old enough");
    world.clock.advance(DAY * 2);
    let summary = world.registry.retention_of("local").await.unwrap();
    assert_eq!((summary.tags, summary.manifests), (0, 1));
    assert_eq!(
        (tags(&world, "local/app").await, tags(&world, "local/other").await.len()),
        (vec!["moved".to_owned()], 1)
    );
}

#[tokio::test]
async fn a_pass_goes_through_many_images_in_parts() {
    let world = world(r#"{"retention":{"keep_last":1}}"#).await;
    for n in 0..210 {
        let name = format!("local/app{n:03}");
        world.push_image(&name, "old", b"1").await;
        world.clock.advance(Duration::from_secs(1));
        world.push_image(&name, "new", b"2").await;
    }
    let (mut cursor, mut removed, mut parts) = (None, 0, 0);
    loop {
        let (summary, next) = world.registry.retention_page(cursor).await.unwrap();
        removed += summary.tags;
        parts += 1;
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((removed, parts), (210, 2));
}

/// What was surveyed is no longer true when it is to be removed: nothing goes.
#[tokio::test]
async fn a_survey_that_is_no_longer_true_removes_nothing() {
    use crate::names::{Millis, RepoName};
    use crate::repos::{self, Newest, NewestBuilder, Removal};

    let rules = r#"{"retention":{"keep_last":1}}"#;
    let world = world(rules).await;
    for tag in ["a", "b", "c"] {
        world.push_image("local/app", tag, tag.as_bytes()).await;
        world.clock.advance(DAY);
    }
    let survey = async || {
        let read = world.state.read(|view| {
            let repo = RepoName::parse("local/app").unwrap();
            let mut newest = NewestBuilder::new(1);
            newest.take(repos::survey_page(view, &repo, None, 100)?);
            let newest = newest.finish();
            let page = repos::tags_page(view, &repo, &newest, &|_, _| None, None, 100)?;
            Ok((newest, page))
        });
        read.await.unwrap()
    };
    let remove = async |rules: &str, newest: Newest, page: Vec<repos::Surveyed>, pulled: Option<Millis>| {
        let (rules, now) = (settings(rules), Millis(1_700_000_000_000 + 10 * 86_400_000));
        let write = world.state.write(move |tx| {
            let repo = RepoName::parse("local/app").unwrap();
            repos::remove_tags(tx, now, &repo, &rules, &newest, &|_, _| pulled, &page)
        });
        write.await.unwrap()
    };
    // Other rules than those that hold.
    let (newest, page) = survey().await;
    assert_eq!(remove("{}", newest, page, None).await, Removal::Outdated);
    // The newest tag went meanwhile, so that another one is among the last.
    let (newest, page) = survey().await;
    world.delete("/v2/local/app/manifests/c").await.is(202);
    assert_eq!(remove(rules, newest, page, None).await, Removal::Outdated);
    // A doomed tag was set anew meanwhile, to the same manifest.
    let (newest, page) = survey().await;
    world.push_image("local/app", "a", b"a").await;
    let Removal::Done(removed) = remove(rules, newest, page, None).await else {
        panic!("the newest one is there")
    };
    assert_eq!(removed, repos::Removed::default());
    // Somebody pulled what was doomed, and it is not written down yet.
    let lately = r#"{"retention":{"pulled_within_seconds":86400}}"#;
    set(&world, lately).await;
    let (newest, page) = survey().await;
    let pulled = Some(Millis(1_700_000_000_000 + 10 * 86_400_000));
    let Removal::Done(removed) = remove(lately, newest.clone(), page.clone(), pulled).await else { panic!() };
    assert_eq!(removed, repos::Removed::default());
    let Removal::Done(removed) = remove(lately, newest, page, None).await else { panic!() };
    assert_eq!(removed.tags, ["local/app:a", "local/app:b"]);
}

/// What the settings say may not move is not removed with its image either, and what goes with it is told.
#[tokio::test]
async fn an_immutable_signature_outlives_its_image_and_what_goes_with_it_is_counted() {
    let world = world(r#"{"immutable_tags":["*.sig"],"retention":{"keep_last":1}}"#).await;
    let old = world.push_image("local/app", "v1", b"old").await;
    let name = |ending: &str| format!("{}{ending}", old.to_string().replace(':', "-"));
    let mut companions = Vec::new();
    for ending in [".sig", ".att"] {
        companions.push(world.push_image("local/app", &name(ending), ending.as_bytes()).await);
    }
    world.clock.advance(DAY);
    world.push_image("local/app", "v2", b"new").await;
    let summary = world.registry.retention_of("local").await.unwrap();
    assert_eq!((summary.tags, summary.manifests), (2, 2), "v1 and its attestation");
    assert_eq!(tags(&world, "local/app").await, [name(".sig"), "v2".to_owned()]);
    assert!(
        !is_there(&world, "local/app", &old).await && !is_there(&world, "local/app", &companions[1]).await
    );
    assert!(is_there(&world, "local/app", &companions[0]).await);
    let again = world.registry.retention_of("local").await.unwrap();
    assert_eq!((again.tags, again.manifests), (0, 0));
}
