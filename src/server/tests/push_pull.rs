//! What was pushed is pulled, byte for byte.

use super::*;

#[tokio::test]
async fn an_image_that_was_pushed_is_pulled_as_it_was() {
    let world = World::new().await;
    world.get("/v2/").await.is(200);
    let layer = noise(1, 1 << 20);
    let digest = world.push_image("local/team/app", "1.0", &layer).await;
    let manifest = image(&layer).to_string();
    for reference in ["1.0".to_owned(), digest.to_string()] {
        let pulled = world.get(&format!("/v2/local/team/app/manifests/{reference}")).await;
        pulled.is(200);
        assert_eq!(pulled.body, manifest.as_bytes());
        assert_eq!(pulled.header("content-type"), IMAGE);
        assert_eq!(pulled.header("docker-content-digest"), digest.to_string());
        assert_eq!(pulled.header("docker-distribution-api-version"), "registry/2.0");
        let head = world.head(&format!("/v2/local/team/app/manifests/{reference}")).await;
        assert_eq!(head.header("content-length"), manifest.len().to_string());
        assert!(head.body.is_empty());
    }
    let blob = Digest::of(&layer);
    let pulled = world.get(&format!("/v2/local/team/app/blobs/{blob}")).await;
    assert_eq!(pulled.body, layer);
    assert_eq!(pulled.header("accept-ranges"), "bytes");
    let head = world.head(&format!("/v2/local/team/app/blobs/{blob}")).await;
    assert_eq!(head.is(200).header("content-length"), (1 << 20).to_string());
    let etag = format!("\"{blob}\"");
    let path = format!("/v2/local/team/app/blobs/{blob}");
    world.send(Method::GET, &path, &[("if-none-match", &etag)], Body::empty()).await.is(304);
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart() {
    let world = World::new().await;
    let layer = noise(2, 300_000);
    world.push_image("local/app", "v1", &layer).await;
    let world = world.restart().await;
    world.get("/v2/local/app/manifests/v1").await.is(200);
    assert_eq!(world.get(&format!("/v2/local/app/blobs/{}", Digest::of(&layer))).await.body, layer);
}

#[tokio::test]
async fn all_four_types_of_manifests_are_taken() {
    let world = World::new().await;
    let child = world.push_image("local/app", "child", b"layer").await;
    let child_size = image(b"layer").to_string().len();
    let list = json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": IMAGE, "digest": child, "size": child_size}],
    });
    let docker_list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let docker_image = "application/vnd.docker.distribution.manifest.v2+json";
    let mut plain = image(b"layer");
    plain.as_object_mut().unwrap().remove("mediaType");
    for (tag, kind, manifest) in
        [("index", INDEX, &list), ("list", docker_list, &list), ("docker", docker_image, &plain)]
    {
        world.put_manifest("local/app", tag, kind, manifest).await.is(201);
        let pulled = world.get(&format!("/v2/local/app/manifests/{tag}")).await;
        assert_eq!(pulled.is(200).header("content-type"), kind);
    }
}

#[tokio::test]
async fn ranges_are_answered_as_asked() {
    let world = World::new().await;
    let content = noise(3, 700_000);
    let blob = world.push_blob("local/app", &content).await;
    let path = format!("/v2/local/app/blobs/{blob}");
    let ranged = async |range: &str| world.send(Method::GET, &path, &[("range", range)], Body::empty()).await;
    let part = ranged("bytes=262100-262200").await;
    assert_eq!(part.is(206).body, content[262_100..=262_200]);
    assert_eq!(part.header("content-range"), "bytes 262100-262200/700000");
    assert_eq!(ranged("bytes=699990-").await.is(206).body, content[699_990..]);
    assert_eq!(ranged("bytes=-10").await.is(206).body, content[699_990..]);
    assert_eq!(ranged("bytes=0-9,5-9").await.is(200).body, content);
    for bad in ["bytes=500-0", "bytes=700000-", "bytes=5000000-10000000"] {
        let refused = ranged(bad).await;
        assert_eq!(refused.is(416).header("content-range"), "bytes */700000");
    }
    let stale = [("range", "bytes=0-9"), ("if-range", "\"sha256:other\"")];
    world.send(Method::GET, &path, &stale, Body::empty()).await.is(200);
}

#[tokio::test]
async fn the_empty_blob_and_a_second_digest_work() {
    let world = World::new().await;
    let empty = world.push_blob("local/app", b"").await;
    let pulled = world.get(&format!("/v2/local/app/blobs/{empty}")).await;
    assert_eq!(pulled.is(200).header("content-length"), "0");
    for content in [noise(4, 100), noise(5, 100_000)] {
        let digest = Digest::sha512_of(&content);
        let path = format!("/v2/local/app/blobs/uploads/?digest={digest}");
        world.send(Method::POST, &path, &[], content.clone()).await.is(201);
        let pulled = world.get(&format!("/v2/local/app/blobs/{digest}")).await;
        assert_eq!(pulled.is(200).header("docker-content-digest"), digest.to_string());
        assert_eq!(pulled.body, content);
    }
    let manifest = image(b"");
    world.push_blob("local/app", b"{}").await;
    let digest = Digest::sha512_of(manifest.to_string().as_bytes());
    let path = format!("/v2/local/app/manifests/{digest}?tag=a&tag=b");
    let put = world.send(Method::PUT, &path, &[("content-type", IMAGE)], manifest.to_string()).await;
    let tags: Vec<_> = put.is(201).headers.get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["a", "b"]);
    let pulled = world.get("/v2/local/app/manifests/b").await;
    assert_eq!(pulled.is(200).header("docker-content-digest"), digest.to_string());
}

#[tokio::test]
async fn deleting_takes_what_was_named_and_nothing_else() {
    let world = World::new().await;
    let digest = world.push_image("local/app", "a", b"layer").await;
    world.put_manifest("local/app", "b", IMAGE, &image(b"layer")).await.is(201);
    world.push_image("local/other", "a", b"layer").await;
    world.delete("/v2/local/app/manifests/a").await.is(202);
    world.head("/v2/local/app/manifests/a").await.is(404);
    world.delete("/v2/local/app/manifests/a").await.is(404);
    world.get("/v2/local/app/manifests/b").await.is(200);
    world.delete(&format!("/v2/local/app/manifests/{digest}")).await.is(202);
    world.get("/v2/local/app/manifests/b").await.is(404);
    world.get(&format!("/v2/local/app/manifests/{digest}")).await.is(404);
    assert_eq!(world.get("/v2/local/app/tags/list").await.is(200).json()["tags"], json!([]));
    let blob = format!("/v2/local/app/blobs/{}", Digest::of(b"layer"));
    world.delete(&blob).await.is(202);
    world.head(&blob).await.is(404);
    world.delete(&blob).await.is(404);
    world.delete(&format!("/v2/local/app/blobs/{}", Digest::of(b"{}"))).await.is(202);
    // A repository that holds nothing is in no list; the one beside it has lost nothing.
    assert_eq!(world.get("/v2/_catalog").await.json()["repositories"], json!(["local/other"]));
    world.get("/v2/local/app/tags/list").await.is(404);
    assert_eq!(
        world.get(&format!("/v2/local/other/blobs/{}", Digest::of(b"layer"))).await.body,
        b"layer"[..]
    );
}

#[tokio::test]
async fn a_large_manifest_that_rotted_never_goes_out() {
    let world = World::new().await;
    world.push_blob("local/app", b"{}").await;
    world.push_blob("local/app", b"layer").await;
    let mut manifest = image(b"layer");
    manifest["annotations"] = json!({"note": "x".repeat(700_000)});
    world.put_manifest("local/app", "v1", IMAGE, &manifest).await.is(201);
    let text = manifest.to_string();
    let digest = Digest::of(text.as_bytes());
    let path = "/v2/local/app/manifests/v1";
    assert_eq!(world.get(path).await.is(200).body, text.as_bytes());
    let part = world.send(Method::GET, path, &[("range", "bytes=10-19,600000-600009")], Body::empty()).await;
    assert_eq!(part.is(206).header("docker-content-digest"), digest.to_string());
    let file = world.folder.path().join(format!("blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()));
    let mut bytes = fs_err::read(&file).unwrap();
    assert_eq!(bytes, text.as_bytes());
    bytes[600_000] ^= 1;
    let aside = file.with_extension("aside");
    fs_err::rename(&file, &aside).unwrap();
    fs_err::write(&file, &bytes).unwrap();
    // It is another file now, so that it does not help that the first one was looked at a moment ago.
    let rotten = world.get(path).await;
    assert!(rotten.status.is_server_error() || rotten.status == StatusCode::NOT_FOUND, "{}", rotten.status);
    assert_ne!(rotten.code(), "BLOB_UNKNOWN");
    assert_eq!(world.get(path).await.is(404).code(), "MANIFEST_UNKNOWN");
    world.put_manifest("local/app", "v1", IMAGE, &manifest).await.is(201);
    assert_eq!(world.get(path).await.is(200).body, text.as_bytes());
}
