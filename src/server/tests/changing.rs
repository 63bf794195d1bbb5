//! What a put or a delete changes, and under which conditions.

use super::*;
use crate::names::{Clock as _, RepoName};
use crate::repos;

fn marked(layer: &[u8], mark: &str) -> Value {
    let mut manifest = image(layer);
    manifest["annotations"] = json!({"mark": mark});
    manifest
}

#[tokio::test]
async fn a_manifest_is_put_only_under_its_conditions() {
    let world = World::new().await;
    let first = world.push_image("local/app", "v1", b"layer").await;
    let put = async |reference: &str, name: &str, value: &str, mark: &str| {
        let body = marked(b"layer", mark).to_string();
        let path = format!("/v2/local/app/manifests/{reference}");
        world.send(Method::PUT, &path, &[("content-type", IMAGE), (name, value)], body).await
    };
    let etag = format!("\"{first}\"");
    assert_eq!(put("none", "if-match", "*", "a").await.is(412).code(), "MANIFEST_INVALID");
    put("v1", "if-match", "\"sha256:other\"", "a").await.is(412);
    put("v1", "if-none-match", "*", "a").await.is(412);
    put("v1", "if-none-match", &etag, "a").await.is(412);
    put("v1", "if-match", &format!("W/{etag}"), "a").await.is(412);
    let same = world.head("/v2/local/app/manifests/v1").await;
    assert_eq!(same.header("etag"), etag);
    let second = put("v1", "if-match", &format!("\"x\", {etag}"), "a").await;
    let second = second.is(201).header("etag").to_owned();
    // Of two that read the same, one writes.
    put("v1", "if-match", &etag, "b").await.is(412);
    put("v1", "if-match", &second, "b").await.is(201);
    put("v1", "if-match", "*", "c").await.is(201);
    put("new", "if-none-match", "*", "c").await.is(201);
    put("new", "if-none-match", "*", "c").await.is(412);
}

#[tokio::test]
async fn an_immutable_tag_neither_moves_nor_goes() {
    let world = World::new().await;
    world.set(json!({"immutable_tags": ["v*"]})).await;
    let digest = world.push_image("local/app", "v1", b"layer").await;
    let other = marked(b"layer", "other");
    let moved = world.put_manifest("local/app", "v1", IMAGE, &other).await;
    assert_eq!(moved.is(403).code(), "DENIED");
    let name = Digest::of(other.to_string().as_bytes());
    let by_parameter = world.put_manifest("local/app", &format!("{name}?tag=a&tag=v1"), IMAGE, &other).await;
    assert_eq!(by_parameter.is(403).code(), "DENIED");
    // A refused put leaves nothing, neither the manifest nor another tag.
    world.get("/v2/local/app/manifests/a").await.is(404);
    world.get(&format!("/v2/local/app/manifests/{name}")).await.is(404);
    world.put_manifest("local/app", "v1", IMAGE, &image(b"layer")).await.is(201);
    world.put_manifest("local/app", "latest", IMAGE, &other).await.is(201);
    world.put_manifest("local/app", "latest", IMAGE, &image(b"layer")).await.is(201);
    assert_eq!(world.delete("/v2/local/app/manifests/v1").await.is(403).code(), "DENIED");
    assert_eq!(world.delete(&format!("/v2/local/app/manifests/{digest}")).await.is(403).code(), "DENIED");
    world.delete("/v2/local/app/manifests/v2").await.is(404);
    world.delete("/v2/local/app/manifests/latest").await.is(202);
    world.set(json!({})).await;
    world.delete("/v2/local/app/manifests/v1").await.is(202);
}

#[tokio::test]
async fn a_manifest_of_very_many_tags_goes_unless_one_of_them_is_immutable() {
    let world = World::new().await;
    world.set(json!({"immutable_tags": ["*-final"]})).await;
    let digest = world.push_image("local/app", "first", b"layer").await;
    for page in 0..11 {
        let tags: Vec<String> = (0..100).map(|n| format!("tag=b-{page:02}-{n:02}")).collect();
        let path = format!("{digest}?{}", tags.join("&"));
        world.put_manifest("local/app", &path, IMAGE, &image(b"layer")).await.is(201);
    }
    world.put_manifest("local/app", "z-final", IMAGE, &image(b"layer")).await.is(201);
    let path = format!("/v2/local/app/manifests/{digest}");
    assert_eq!(world.delete(&path).await.is(403).code(), "DENIED");
    world.get("/v2/local/app/manifests/b-00-00").await.is(200);
    world.set(json!({"immutable_tags": ["*-last"]})).await;
    world.delete(&path).await.is(202);
    for gone in ["first", "b-10-99", "z-final"] {
        world.get(&format!("/v2/local/app/manifests/{gone}")).await.is(404);
    }
}

#[tokio::test]
async fn a_sparse_repository_takes_manifests_before_their_content() {
    let world = World::new().await;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(IMAGE, image(b"layer").to_string().as_bytes()), descriptor(IMAGE, b"never")],
    });
    assert_eq!(
        world.put_manifest("local/app", "i", INDEX, &index).await.is(400).code(),
        "MANIFEST_BLOB_UNKNOWN"
    );
    world.set(json!({"sparse": true})).await;
    world.put_manifest("local/app", "i", INDEX, &index).await.is(201);
    world.put_manifest("local/app", "v1", IMAGE, &image(b"layer")).await.is(201);
    world.get("/v2/local/app/manifests/i").await.is(200);
    world.get(&format!("/v2/local/app/blobs/{}", Digest::of(b"layer"))).await.is(404);
    world.push_blob("local/app", b"layer").await;
    world.get(&format!("/v2/local/app/blobs/{}", Digest::of(b"layer"))).await.is(200);
    for reference in ["i", "v1"] {
        let digest = world.head(&format!("/v2/local/app/manifests/{reference}")).await;
        let digest = digest.header("docker-content-digest").to_owned();
        world.delete(&format!("/v2/local/app/manifests/{digest}")).await.is(202);
    }
    world.put_manifest("packages/x", "v1", IMAGE, &image(b"layer")).await.is(403);
}

#[tokio::test]
async fn a_refused_large_manifest_leaves_no_file() {
    let world = World::new().await;
    world.push_image("local/app", "v1", b"layer").await;
    let files = || {
        let folders = fs_err::read_dir(world.folder.path().join("blobs/sha256")).unwrap();
        let files = folders.flat_map(|folder| fs_err::read_dir(folder.unwrap().path()).unwrap());
        files.count() + world.uploads()
    };
    let before = files();
    let mut large = image(b"never sent");
    large["annotations"] = json!({"large": "x".repeat(300_000)});
    let refused = world.put_manifest("local/app", "v2", IMAGE, &large).await;
    assert_eq!(refused.is(400).code(), "MANIFEST_BLOB_UNKNOWN");
    let wrong = format!("sha256:{}", "0".repeat(64));
    world.put_manifest("local/app", &wrong, IMAGE, &large).await.is(400);
    assert_eq!(files(), before);
    // One that only its transaction refuses is known as unreferenced.
    let mut late = image(b"layer");
    late["annotations"] = large["annotations"].clone();
    let headers = [("content-type", IMAGE), ("if-none-match", "*")];
    world.send(Method::PUT, "/v2/local/app/manifests/v1", &headers, late.to_string()).await.is(412);
    let digest = Digest::of(late.to_string().as_bytes());
    world.get(&format!("/v2/local/app/manifests/{digest}")).await.is(404);
    let known = world.state.read(move |view| crate::blobs::is_known(view, &digest)).await.unwrap();
    assert!(known.is_some());
}

#[tokio::test]
async fn the_audit_log_tells_which_manifest_was_put() {
    let world = World::new().await;
    world.push_image("local/app", "v1", b"layer").await;
    let manifest = image(b"layer");
    let digest = Digest::of(manifest.to_string().as_bytes());
    let tags: Vec<String> = (0..12).map(|n| format!("tag=t{n}")).collect();
    let path = format!("{digest}?{}", tags.join("&"));
    world.put_manifest("local/app", &path, IMAGE, &manifest).await.is(201);
    world.put_manifest("local/app", &digest.to_string(), IMAGE, &manifest).await.is(201);
    let entries = world.state.read(|view| crate::audit::list(view, None, 10)).await.unwrap();
    let put: Vec<_> = entries.iter().filter(|entry| entry.event.action == "registry.manifest.put").collect();
    assert!(put.len() == 3 && put.iter().all(|entry| entry.event.subject == format!("local/app@{digest}")));
    let mut why: Vec<&str> = put.iter().map(|entry| entry.event.why.as_str()).collect();
    why.sort_unstable();
    assert_eq!(why, ["", "tagged t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 2 more", "tagged v1"]);
}

/// A HEAD of a blob that no manifest keeps is written down, but not every one.
#[tokio::test]
async fn being_asked_for_again_and_again_costs_one_write_a_slice_of_the_grace() {
    const GRACE: Duration = Duration::from_hours(1);
    let world = World::new().await;
    world.push_blob("local/app", b"layer").await;
    let digest = Digest::of(b"layer");
    let path = format!("/v2/local/app/blobs/{digest}");
    let due = || {
        let (now, name) = (world.clock.now(), digest.clone());
        let repo = RepoName::parse("local/app").unwrap();
        let due = world.state.read(move |view| repos::renewal_due(view, now, &repo, &name));
        async { due.await.unwrap() }
    };
    let held = |after: Duration| {
        let now = world.clock.now().after(after);
        let idle = world.state.write(move |tx| repos::let_go(tx, now, None, GRACE, false));
        async { idle.await.unwrap().let_go.is_empty() }
    };
    assert!(!due().await, "it was pushed at this moment");
    world.clock.advance(GRACE / 2);
    assert!(due().await);
    for _ in 0..3 {
        world.head(&path).await.is(200);
        assert!(!due().await, "the first of them wrote ahead");
        world.clock.advance(GRACE / 8);
        assert!(!due().await);
        world.head(&path).await.is(200);
        // Who asks last before the next write has the whole grace as well.
        assert!(held(GRACE.checked_sub(Duration::from_millis(1)).unwrap()).await && !held(GRACE).await);
        world.clock.advance(Duration::from_millis(1));
        assert!(due().await);
    }
    // What a manifest keeps has no time that anybody would write.
    world.push_image("local/app", "v1", b"layer").await;
    world.clock.advance(GRACE);
    world.push_blob("local/app", b"layer").await;
    assert!(!due().await && held(GRACE * 2).await);
}

#[tokio::test]
async fn one_request_sets_many_tags_but_not_any_number() {
    let world = World::new().await;
    world.push_image("local/app", "v1", b"layer").await;
    let manifest = image(b"layer");
    let digest = Digest::of(manifest.to_string().as_bytes());
    let path = |count: usize| {
        let tags: Vec<String> = (0..count).map(|n| format!("tag=t{n}")).collect();
        format!("{digest}?{}&tag=t0", tags.join("&"))
    };
    let put = world.put_manifest("local/app", &path(90), IMAGE, &manifest).await;
    let lines: Vec<&str> =
        put.is(201).headers.get_all("oci-tag").iter().map(|value| value.to_str().unwrap()).collect();
    let taken: Vec<&str> = lines.iter().flat_map(|line| line.split(", ")).collect();
    assert_eq!(taken, (0..90).map(|n| format!("t{n}")).collect::<Vec<_>>(), "each once");
    assert!(put.headers.len() < 50, "clients take a hundred header lines: {}", put.headers.len());
    world.get("/v2/local/app/manifests/t89").await.is(200);
    assert_eq!(
        world.put_manifest("local/app", &path(200), IMAGE, &manifest).await.is(414).code(),
        "MANIFEST_INVALID"
    );
    let bad = format!("{digest}?tag=good&tag=.bad");
    world.put_manifest("local/app", &bad, IMAGE, &manifest).await.is(400);
    world.get("/v2/local/app/manifests/good").await.is(404);
}

#[tokio::test]
async fn an_anonymous_mount_finds_what_is_there() {
    let world = World::new().await;
    let blob = world.push_blob("local/a", &noise(20, 50_000)).await;
    let mount = async |to: &str, query: &str| {
        world.send(Method::POST, &format!("/v2/{to}/blobs/uploads/?{query}"), &[], Body::empty()).await
    };
    let mounted = mount("local/b", &format!("mount={blob}")).await;
    assert_eq!(mounted.is(201).header("location"), format!("/v2/local/b/blobs/{blob}"));
    assert_eq!(mounted.header("docker-content-digest"), blob.to_string());
    world.delete(&format!("/v2/local/a/blobs/{blob}")).await.is(202);
    world.get(&format!("/v2/local/b/blobs/{blob}")).await.is(200);
    mount("local/c", &format!("mount={blob}")).await.is(201);
    for query in [
        format!("mount={}", Digest::of(b"nowhere")),
        format!("mount={blob}&from=local/a"),
        format!("mount={blob}&from=elsewhere/x"),
        format!("mount={blob}&from=No%20Name"),
    ] {
        let begun = mount("local/d", &query).await;
        assert!(begun.is(202).header("location").starts_with("/v2/local/d/blobs/uploads/"), "{query}");
    }
    world.delete(&format!("/v2/local/b/blobs/{blob}")).await.is(202);
    world.delete(&format!("/v2/local/c/blobs/{blob}")).await.is(202);
    mount("local/d", &format!("mount={blob}")).await.is(202);
}

#[tokio::test]
async fn extensions_are_told_and_limits_are_said() {
    let world = World::new().await;
    let all = world.get("/v2/_oci/ext/discover").await;
    assert_eq!(all.is(200).json()["extensions"][0]["name"], "_oci");
    let own = world.get("/v2/local/app/_oci/ext/discover").await;
    assert_eq!(own.is(200).json()["extensions"][0]["endpoints"], json!(["local/app/_oci/ext/discover"]));
    world.get("/v2/elsewhere/app/_oci/ext/discover").await.is(404);
    world.push_image("local/app", "v1", b"layer").await;
    let few = world.get("/v2/local/app/tags/list?n=100000").await;
    assert_eq!((few.is(200).header("warning"), few.header("link")), ("", ""));
    let manifest = image(b"layer");
    let digest = Digest::of(manifest.to_string().as_bytes());
    for page in 0..6 {
        let tags: Vec<String> = (0..100).map(|n| format!("tag=t{page}-{n}")).collect();
        let path = format!("{digest}?{}", tags.join("&"));
        world.put_manifest("local/app", &path, IMAGE, &manifest).await.is(201);
    }
    let many = world.get("/v2/local/app/tags/list?n=100000").await;
    assert!(many.is(200).header("warning").starts_with("299 - \""), "{:?}", many.headers);
    assert!(many.header("link").contains("rel=\"next\""));
}
