use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::info::tests::sample;
use super::super::{PackError, load};
use super::*;
use crate::names::{Faults, ManualClock, Reference, SeededRandom};
use crate::rootfs::LayerWriter;
use crate::state::State;

async fn open(root: &Path) -> (State, Blobs) {
    let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
    let clock = Arc::new(ManualClock::at(Millis(1)));
    let random = Arc::new(SeededRandom::new(1));
    let blobs = Blobs::open(root, state.clone(), clock, random, Faults::none()).await.unwrap();
    (state, blobs)
}

/// A base layer that is stored and known, as importing the bundle leaves it.
async fn base(state: &State, blobs: &Blobs) -> Base {
    let mut layer = LayerWriter::new(Vec::new());
    layer.directory("usr", 0o755).unwrap();
    let (bytes, digests) = layer.finish().unwrap();
    let stored = blobs.put(bytes.into()).await.unwrap();
    let owner = crate::blobs::Owner::new("test", "base");
    let kept = stored.clone();
    state.write(move |tx| crate::blobs::link(tx, &kept, &owner)).await.unwrap();
    Base {
        layer: LayerRef { digest: stored.digest, diff_id: Digest::parse(&digests.diff_id).unwrap() },
        size: stored.size,
        python_version: "3.11.2".to_owned(),
        platform: "linux/amd64".to_owned(),
    }
}

fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("greeter.py"), b"print('hello')").unwrap();
    dir
}

fn input(base: &Base, source: &Path, dependencies: Option<&Path>) -> BuildInput {
    let mut info = sample();
    info.base = base.layer.diff_id.clone();
    BuildInput {
        info,
        base: base.clone(),
        dependencies: dependencies.map(Path::to_owned),
        source: source.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builds_of_the_same_are_the_same_and_read_back() {
    let root = tempfile::tempdir().unwrap();
    let (state, blobs) = open(root.path()).await;
    let base = base(&state, &blobs).await;
    let (one, two, dependencies) = (source(), source(), source());
    let first = build(&blobs, &input(&base, one.path(), Some(dependencies.path()))).unwrap();
    let second = build(&blobs, &input(&base, two.path(), Some(dependencies.path()))).unwrap();
    assert_eq!(first.manifest.digest, second.manifest.digest);
    assert_eq!(first.manifest_bytes, second.manifest_bytes);
    assert_eq!(first.layers.len(), 3);
    let empty = tempfile::tempdir().unwrap();
    let third = build(&blobs, &input(&base, one.path(), Some(empty.path()))).unwrap();
    assert_eq!(third.layers.len(), 2, "no dependencies, no layer");
    assert_ne!(third.manifest.digest, first.manifest.digest);

    let repo = RepoName::parse("packages/acme/greeter").unwrap();
    let (name, placed) = (repo.clone(), first.clone());
    let tags = [Tag::parse("1.0.0").unwrap()];
    for _ in 0..2 {
        let (name, placed, tags) = (name.clone(), placed.clone(), tags.clone());
        state.write(move |tx| place(tx, Millis(2), &name, &placed, &tags)).await.unwrap();
    }
    let tag = Reference::Tag(tags[0].clone());
    let found = state.read(move |view| repos::get_manifest(view, &repo, &tag)).await.unwrap().unwrap();
    assert_eq!(found.digest, first.manifest.digest);

    let pack = load(&blobs, &found.digest).await.unwrap();
    assert_eq!(pack.info, input(&base, one.path(), None).info);
    assert_eq!(pack.layers, first.layers.iter().map(|(layer, _)| layer.clone()).collect::<Vec<_>>());
    assert_eq!(pack.env, environment());
    assert_eq!(pack.size, first.layers.iter().map(|(_, stored)| stored.size).sum::<u64>());
    assert_eq!(pack.blobs().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_is_one_that_any_engine_runs() {
    let root = tempfile::tempdir().unwrap();
    let (state, blobs) = open(root.path()).await;
    let base = base(&state, &blobs).await;
    let source = source();
    let built = build(&blobs, &input(&base, source.path(), None)).unwrap();
    let text = config(&input(&base, source.path(), None).info, &built.layers, &["a", "b"]).unwrap();
    assert_eq!(
        Digest::of(
            config(
                &input(&base, source.path(), None).info,
                &built.layers,
                &["pantry: base", "pantry: application"]
            )
            .unwrap()
            .as_bytes()
        ),
        built.config.digest
    );
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["config"]["User"], "65532:65532");
    assert_eq!(value["config"]["WorkingDir"], "/opt/app");
    assert_eq!(value["config"]["Entrypoint"], serde_json::json!(["/usr/bin/python3", "-m", "greeter"]));
    assert_eq!((&value["os"], &value["architecture"]), (&"linux".into(), &"amd64".into()));
    assert_eq!(value["created"], EPOCH);
    let manifest: serde_json::Value = serde_json::from_slice(&built.manifest_bytes).unwrap();
    assert!(manifest.get("artifactType").is_none());
    assert_eq!(manifest["mediaType"], MANIFEST_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_source_stores_no_layer() {
    let root = tempfile::tempdir().unwrap();
    let (state, blobs) = open(root.path()).await;
    let base = base(&state, &blobs).await;
    let source = source();
    std::os::unix::fs::symlink("../../etc", source.path().join("out")).unwrap();
    let error = build(&blobs, &input(&base, source.path(), None)).unwrap_err();
    assert_eq!(error.code(), "pack_content_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_breaks_off_is_not_stored_as_a_whole_one() {
    let root = tempfile::tempdir().unwrap();
    let (_, blobs) = open(root.path()).await;
    let source = source();
    let contents = Contents::of(source.path()).unwrap();
    // Grown between the listing and the writing.
    fs_err::write(source.path().join("greeter.py"), vec![1; 1_000_000]).unwrap();
    let error = store_layer(&blobs, contents, APP_DIR).unwrap_err();
    assert!(matches!(error, PackError::Rootfs(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_contradict_themselves_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (state, blobs) = open(root.path()).await;
    let base = base(&state, &blobs).await;
    let source = source();
    let built = build(&blobs, &input(&base, source.path(), None)).unwrap();
    let good: serde_json::Value = serde_json::from_slice(&built.manifest_bytes).unwrap();
    let info = good["annotations"][super::super::ANNOTATION].as_str().unwrap().to_owned();
    let cases: BTreeMap<&str, (&str, serde_json::Value)> = [
        ("no annotation", ("not_a_pack", with(&good, "/annotations", serde_json::json!({})))),
        (
            "an index",
            (
                "pack_not_readable",
                with(&good, "/mediaType", "application/vnd.oci.image.index.v1+json".into()),
            ),
        ),
        ("no layers", ("pack_not_readable", with(&good, "/layers", serde_json::json!([])))),
        (
            "zstd layers",
            (
                "pack_not_readable",
                with(&good, "/layers/0/mediaType", "application/vnd.oci.image.layer.v1.tar+zstd".into()),
            ),
        ),
        (
            "a layer too few",
            ("pack_not_readable", with(&good, "/layers", serde_json::json!([good["layers"][0]]))),
        ),
        (
            "an annotation with more",
            ("pack_not_readable", annotated(&good, &info.replace("\"name\"", "\"more\":1,\"name\""))),
        ),
        (
            "a command with a path",
            ("pack_not_readable", annotated(&good, &info.replace("\"greet\"", "\"../../etc/x\""))),
        ),
        (
            "a program with tricks",
            ("pack_info_invalid", annotated(&good, &info.replace("/usr/bin/python3", "/usr/../x"))),
        ),
        (
            "another platform",
            ("pack_not_readable", annotated(&good, &info.replace("linux/amd64", "linux/arm64"))),
        ),
        ("deep brackets", ("pack_not_readable", annotated(&good, &"[".repeat(1_000_000)))),
    ]
    .into();
    for (case, (code, document)) in cases {
        let stored = blobs.put(serde_json::to_vec(&document).unwrap().into()).await.unwrap();
        let (kept, config) = (stored.clone(), built.config.clone());
        let owner = crate::blobs::Owner::new("test", case);
        state
            .write(move |tx| {
                crate::blobs::link(tx, &kept, &owner)?;
                crate::blobs::link(tx, &config, &owner)
            })
            .await
            .unwrap();
        let error = load(&blobs, &stored.digest).await.expect_err(case);
        assert_eq!(error.code(), code, "{case}: {error}");
    }
    assert!(matches!(load(&blobs, &Digest::of(b"unknown")).await, Err(PackError::Blob(_))));
}

fn with(good: &serde_json::Value, pointer: &str, value: serde_json::Value) -> serde_json::Value {
    let mut document = good.clone();
    *document.pointer_mut(pointer).unwrap() = value;
    document
}

fn annotated(good: &serde_json::Value, info: &str) -> serde_json::Value {
    let mut document = good.clone();
    document["annotations"][super::super::ANNOTATION] = info.into();
    document
}
