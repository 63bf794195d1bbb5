//! Repositories over real records.
#![allow(clippy::unwrap_used)]

mod mending;
mod retiring;
mod wanted;

use std::time::Instant;

use bytes::Bytes;

use super::tables::{CATALOGUE, CatalogueRecord, KEEPS, REPOSITORIES, RepositoryRecord};
use super::*;
use crate::blobs::{Blobs, Stored};
use crate::names::{Digest, Faults, ManualClock, Millis, Reference, RepoName, SystemRandom, Tag};
use crate::state::{Read as _, Scan, State, StateError, Tx};

const NOW: Millis = Millis(1_700_000_000_000);
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Sets what an operator sets.
pub(crate) fn put_settings(
    tx: &mut Tx<'_>,
    root: &str,
    settings: &RepositorySettings,
) -> Result<(), StateError> {
    let record = RepositoryRecord { settings: settings.clone(), created_at: NOW, removed_at: None };
    tx.put(&REPOSITORIES, &root.to_owned(), &record)
}

struct World {
    state: State,
    blobs: Blobs,
    _folder: tempfile::TempDir,
}

fn repo() -> RepoName {
    RepoName::parse("local/app").unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let clock = std::sync::Arc::new(ManualClock::at(NOW));
        let random = std::sync::Arc::new(SystemRandom);
        let blobs = Blobs::open(folder.path(), state.clone(), clock, random, Faults::none()).await.unwrap();
        Self { state, blobs, _folder: folder }
    }

    async fn stored(&self, bytes: &[u8]) -> Stored {
        self.blobs.put(Bytes::copy_from_slice(bytes)).await.unwrap()
    }

    async fn put(&self, manifest: &serde_json::Value, tags: &[&str]) -> Result<Digest, Vec<Digest>> {
        let bytes = manifest.to_string();
        let stored = self.stored(bytes.as_bytes()).await;
        let parsed = parse_manifest(None, bytes.as_bytes()).unwrap();
        let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
        let put = self.state.write(move |tx| put_manifest(tx, NOW, &repo(), &stored, &parsed, &tags));
        put.await.unwrap().map(|found| found.digest)
    }

    async fn add(&self, bytes: &'static [u8]) -> serde_json::Value {
        let stored = self.stored(bytes).await;
        self.state.write(move |tx| add_blob(tx, NOW, &repo(), &stored)).await.unwrap();
        serde_json::json!({"mediaType": "text/plain", "digest": Digest::of(bytes), "size": bytes.len()})
    }

    async fn has(&self, reference: Reference) -> bool {
        self.state.read(move |view| get_manifest(view, &repo(), &reference)).await.unwrap().is_some()
    }
}

fn image(config: &serde_json::Value, mark: &str) -> serde_json::Value {
    serde_json::json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [], "annotations": {"mark": mark},
    })
}

#[tokio::test]
async fn an_immutable_tag_keeps_the_type_that_its_bytes_do_not_tell() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let subject = serde_json::json!({"mediaType": IMAGE, "digest": Digest::of(b"subject"), "size": 7});
    let manifest =
        serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "subject": subject})
            .to_string();
    let stored = world.stored(manifest.as_bytes()).await;
    let digest = stored.digest.clone();
    let settings = serde_json::from_str(r#"{"immutable_tags": ["v*"]}"#).unwrap();
    world.state.write(move |tx| put_settings(tx, "local", &settings)).await.unwrap();
    // Until an immutable tag names it, it is what it was last put as.
    for (kind, text, held) in
        [(DOCKER, "new", DOCKER), (IMAGE, "v1", IMAGE), (DOCKER, "new", IMAGE), (DOCKER, "v1", IMAGE)]
    {
        let parsed = parse_manifest(Some(kind), manifest.as_bytes()).unwrap();
        let (stored, tags) = (stored.clone(), [tag(text)]);
        let put = world.state.write(move |tx| put_manifest(tx, NOW, &repo(), &stored, &parsed, &tags));
        assert_eq!(put.await.unwrap().unwrap().media_type, held);
        for asked in [Reference::Tag(tag(text)), Reference::Digest(digest.clone())] {
            let found = world.state.read(move |view| get_manifest(view, &repo(), &asked)).await.unwrap();
            assert_eq!(found.unwrap().media_type, held);
        }
        let about = Digest::of(b"subject");
        let found = world.state.read(move |view| referrers(view, &repo(), &about, None, 9)).await.unwrap();
        assert_eq!(found[0].media_type, held);
    }
}

#[tokio::test]
async fn companions_go_with_their_image_and_others_stay() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let subject = world.put(&image(&config, "image"), &["v1"]).await.unwrap();
    let companions: Vec<String> =
        ["", ".att", ".sig"].map(|suffix| format!("sha256-{}{suffix}", subject.hex())).into();
    let signature = world.put(&image(&config, "signature"), &[&companions[2]]).await.unwrap();
    let shared = world.put(&image(&config, "shared"), &[&companions[1], "kept"]).await.unwrap();
    let mut index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    index["annotations"] = serde_json::json!({"fall": "back"});
    world.put(&index, &[&companions[0]]).await.unwrap();
    let of = subject.clone();
    let found = world.state.read(move |view| companion_tags(view, &repo(), &of)).await.unwrap();
    let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
    found.sort();
    assert_eq!(found, companions);

    let gone = subject.clone();
    assert!(world.state.write(move |tx| delete_manifest(tx, NOW, &repo(), &gone)).await.unwrap());
    let left = world.state.read(|view| tags(view, &repo(), None, 100)).await.unwrap().unwrap();
    assert_eq!(left, [tag("kept")]);
    assert!(!world.has(Reference::Digest(signature)).await);
    assert!(world.has(Reference::Digest(shared)).await);
}

/// A companion that is more than that outlives its image: an index lists it, or what it is about is there.
#[tokio::test]
async fn a_companion_that_something_else_needs_stays_when_its_image_goes() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let base = image(&config, "base");
    let base_digest = world.put(&base, &["base"]).await.unwrap();
    let subject = world.put(&image(&config, "image"), &["v1"]).await.unwrap();
    let companion = |suffix: &str| format!("sha256-{}{suffix}", subject.hex());
    let child = image(&config, "child");
    let listed = world.put(&child, &[&companion(".sig")]).await.unwrap();
    let mut referrer = image(&config, "about the base");
    referrer["subject"] =
        serde_json::json!({"mediaType": IMAGE, "digest": base_digest, "size": base.to_string().len()});
    let about = world.put(&referrer, &[&companion(".att")]).await.unwrap();
    let alone = world.put(&image(&config, "alone"), &[&companion(".sbom")]).await.unwrap();
    let entry = serde_json::json!({"mediaType": IMAGE, "digest": listed, "size": child.to_string().len()});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    world.put(&index, &["kept"]).await.unwrap();
    assert!(world.state.write(move |tx| delete_manifest(tx, NOW, &repo(), &subject)).await.unwrap());
    let left = world.state.read(|view| tags(view, &repo(), None, 100)).await.unwrap().unwrap();
    assert_eq!(left, [tag("base"), tag("kept")]);
    assert!(world.has(Reference::Digest(listed)).await && world.has(Reference::Digest(about)).await);
    assert!(!world.has(Reference::Digest(alone)).await);
}

#[tokio::test]
async fn an_immutable_companion_stays() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let subject = world.put(&image(&config, "image"), &["v1"]).await.unwrap();
    let companion = format!("sha256-{}.sig", subject.hex());
    world.put(&image(&config, "signature"), &[&companion]).await.unwrap();
    let settings = serde_json::from_str(r#"{"immutable_tags": ["*.sig"]}"#).unwrap();
    world.state.write(move |tx| put_settings(tx, "local", &settings)).await.unwrap();
    world.state.write(move |tx| delete_manifest(tx, NOW, &repo(), &subject)).await.unwrap();
    assert!(world.has(Reference::Tag(tag(&companion))).await);
}

#[tokio::test]
async fn a_sparse_repository_takes_what_it_lacks_and_keeps_what_it_has() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let mut sparse = image(&config, "sparse");
    let lost = Digest::of(b"never there");
    sparse["layers"] = serde_json::json!([{"mediaType": "a/b", "digest": lost, "size": 11}]);
    assert_eq!(world.put(&sparse, &["v1"]).await, Err(vec![lost]));
    let settings = RepositorySettings { sparse: true, ..RepositorySettings::default() };
    world.state.write(move |tx| put_settings(tx, "local", &settings)).await.unwrap();
    let digest = world.put(&sparse, &["v1"]).await.unwrap();
    assert!(world.has(Reference::Tag(tag("v1"))).await);
    let scan = Scan::prefix(&(repo(), digest));
    let kept = world.state.read(move |view| view.scan(&KEEPS, &scan, 10)).await.unwrap();
    let kept: Vec<Digest> = kept.into_iter().map(|((_, _, digest), ())| digest).collect();
    assert_eq!(kept, [Digest::of(b"{}")]);
}

/// An image that is counted and holds nothing, and one that holds something and is not counted, stop no removal.
#[tokio::test]
async fn a_removal_ends_also_when_the_counts_are_wrong() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    world.put(&image(&config, "image"), &["v1"]).await.unwrap();
    let none = RepositorySettings::default();
    world.state.write(move |tx| put_settings(tx, "local", &none)).await.unwrap();
    let spoil = |tx: &mut Tx<'_>| {
        let ghost = RepoName::parse("local/a-ghost").unwrap();
        tx.put(&CATALOGUE, &ghost, &CatalogueRecord { blobs: 3, ..CatalogueRecord::default() })?;
        tx.delete(&CATALOGUE, &repo())?;
        begin_removal(tx, NOW, "local", true)
    };
    assert_eq!(world.state.write(spoil).await.unwrap(), Removing::Begun);
    let mut parts = 0;
    while world.state.write(|tx| drain(tx, NOW, "local")).await.unwrap() > 0 {
        parts += 1;
        assert!(parts < 100);
    }
    assert!(!world.has(Reference::Tag(tag("v1"))).await);
    let held = world.state.read(|view| blob_at(view, &repo(), &Digest::of(b"{}"))).await.unwrap();
    assert_eq!((held, world.state.read(|view| going_with_content(view)).await.unwrap()), (None, 0));
}

/// The largest manifest: what its transactions take is printed, as other writers wait for so long.
#[tokio::test]
async fn the_most_references_fit_into_one_transaction_and_go_in_many() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let mut layers = Vec::new();
    for page in 0..(REFERENCES_CAP - 1) / 1_000 {
        let mut added = Vec::new();
        for at in 0..1_000 {
            let bytes = format!("{page} {at}").into_bytes();
            layers.push(serde_json::json!({
                "mediaType": "a/b", "digest": Digest::of(&bytes), "size": bytes.len(),
            }));
            added.push(world.stored(&bytes).await);
        }
        let all =
            move |tx: &mut Tx<'_>| added.iter().try_for_each(|stored| add_blob(tx, NOW, &repo(), stored));
        world.state.write(all).await.unwrap();
    }
    let count = layers.len() + 1;
    let mut largest = image(&config, "all");
    largest["layers"] = layers.into();
    let began = Instant::now();
    let digest = world.put(&largest, &["all"]).await.unwrap();
    let put = began.elapsed();
    let began = Instant::now();
    let gone = digest.clone();
    assert!(world.state.write(move |tx| delete_manifest(tx, NOW, &repo(), &gone)).await.unwrap());
    let hidden = began.elapsed();
    assert!(!world.has(Reference::Digest(digest.clone())).await);
    let (mut longest, mut parts) = (std::time::Duration::ZERO, 0);
    loop {
        let (began, gone) = (Instant::now(), digest.clone());
        let done = world.state.write(move |tx| finish_removal(tx, NOW, &repo(), &gone)).await.unwrap();
        (longest, parts) = (longest.max(began.elapsed()), parts + 1);
        if done.is_some() {
            break;
        }
    }
    assert!(
        parts > 20 && longest < put,
        "{count} references: put in {put:?}, hidden in {hidden:?}, gone in {parts} parts of {longest:?} at most"
    );
    let scan = Scan::prefix(&(repo(), digest));
    let kept = world.state.read(move |view| view.scan(&KEEPS, &scan, 10)).await.unwrap();
    assert!(kept.is_empty());
}
