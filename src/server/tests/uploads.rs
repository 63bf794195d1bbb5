//! Uploads in all their ways.

use super::*;

use futures_util::StreamExt as _;

async fn begin(world: &World) -> String {
    let begun = world.send(Method::POST, "/v2/local/app/blobs/uploads/", &[], Body::empty()).await;
    assert_eq!(begun.is(202).header("range"), "0-0");
    begun.header("location").to_owned()
}

#[tokio::test]
async fn a_stream_and_an_empty_closing_request_make_a_blob() {
    let world = World::new().await;
    let content = noise(1, 3 << 20);
    let location = begin(&world).await;
    let pieces: Vec<std::io::Result<Bytes>> =
        content.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    let patched = world.send(Method::PATCH, &location, &[], stream).await;
    assert_eq!(patched.is(202).header("range"), format!("0-{}", content.len() - 1));
    let digest = Digest::of(&content);
    let closed = world.send(Method::PUT, &format!("{location}?digest={digest}"), &[], Body::empty()).await;
    assert_eq!(closed.is(201).header("docker-content-digest"), digest.to_string());
    let pulled = world.get(closed.header("location")).await;
    assert_eq!(pulled.is(200).body, content);
    world.get(&location).await.is(404);
    assert_eq!(world.uploads(), 0);
}

#[tokio::test]
async fn chunks_must_follow_each_other_and_the_upload_lives_on() {
    let world = World::new().await;
    let location = begin(&world).await;
    let chunk = async |range: &str, content: &'static [u8]| {
        let length = content.len().to_string();
        let headers = [("content-range", range), ("content-length", length.as_str())];
        world.send(Method::PATCH, &location, &headers, content).await
    };
    chunk("0-4", b"hello").await.is(202);
    let refused = chunk("7-8", b"xx").await;
    assert_eq!(refused.is(416).header("range"), "0-4");
    assert_eq!(refused.header("location"), location);
    chunk("5-9", b"xx").await.is(400);
    chunk("9-5", b"xx").await.is(400);
    let digest = Digest::of(b"hello world");
    let close = format!("{location}?digest={digest}");
    let out_of_order = [("content-range", "0-5")];
    world.send(Method::PUT, &close, &out_of_order, " world").await.is(416);
    assert_eq!(world.get(&location).await.is(204).header("range"), "0-4");
    world.send(Method::PUT, &close, &[("content-range", "5-10")], " world").await.is(201);
    assert_eq!(world.get(&format!("/v2/local/app/blobs/{digest}")).await.body, b"hello world"[..]);
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let world = World::new().await;
    for content in [noise(1, 100), noise(2, 200_000)] {
        let other = Digest::of(b"other");
        let path = format!("/v2/local/app/blobs/uploads/?digest={other}");
        let refused = world.send(Method::POST, &path, &[], content.clone()).await;
        assert_eq!(refused.is(400).code(), "DIGEST_INVALID");
        let location = begin(&world).await;
        let refused =
            world.send(Method::PUT, &format!("{location}?digest={other}"), &[], content.clone()).await;
        assert_eq!(refused.is(400).code(), "DIGEST_INVALID");
        world.get(&location).await.is(404);
        world.head(&format!("/v2/local/app/blobs/{}", Digest::of(&content))).await.is(404);
    }
    assert_eq!(world.uploads(), 0);
    assert_eq!(world.get("/v2/_catalog").await.json()["repositories"], json!([]));
}

#[tokio::test]
async fn a_truncated_upload_leaves_nothing_and_a_truncated_chunk_what_came() {
    let world = World::new().await;
    let broken = || {
        let pieces = [Ok(Bytes::from(noise(1, 100_000))), Err(std::io::Error::other("the client left"))];
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    let digest = Digest::of(&noise(1, 100_000));
    let path = format!("/v2/local/app/blobs/uploads/?digest={digest}");
    let refused = world.send(Method::POST, &path, &[], broken()).await;
    assert_eq!(refused.is(400).code(), "BLOB_UPLOAD_INVALID");
    assert_eq!(world.uploads(), 0);
    world.head(&format!("/v2/local/app/blobs/{digest}")).await.is(404);
    let location = begin(&world).await;
    world.send(Method::PATCH, &location, &[], broken()).await.is(400);
    assert_eq!(world.get(&location).await.header("range"), "0-99999");
    world.send(Method::PUT, &format!("{location}?digest={digest}"), &[], Body::empty()).await.is(201);
}

#[tokio::test]
async fn an_upload_survives_idleness_and_a_restart() {
    let world = World::new().await;
    let content = noise(7, 500_000);
    let location = begin(&world).await;
    world.send(Method::PATCH, &location, &[], content[..200_000].to_vec()).await.is(202);
    world.clock.advance(Duration::from_mins(2));
    world.registry.tend().await;
    assert_eq!(world.get(&location).await.is(204).header("range"), "0-199999");
    world.send(Method::PATCH, &location, &[], content[200_000..300_000].to_vec()).await.is(202);
    let world = world.restart().await;
    assert_eq!(world.get(&location).await.is(204).header("range"), "0-299999");
    let elsewhere = location.replace("local/app", "local/other");
    world.get(&elsewhere).await.is(404);
    let close = format!("{location}?digest={}", Digest::of(&content));
    let closed = world.send(Method::PUT, &close, &[], content[300_000..].to_vec()).await;
    assert_eq!(world.get(closed.is(201).header("location")).await.body, content);
    assert_eq!(world.uploads(), 0);
    world.get(&location).await.is(404);
}

#[tokio::test]
async fn an_abandoned_upload_is_removed_after_a_day() {
    let world = World::new().await;
    let location = begin(&world).await;
    world.send(Method::PATCH, &location, &[], noise(8, 200_000)).await.is(202);
    let world = world.restart().await;
    assert_eq!(world.uploads(), 1);
    world.clock.advance(Duration::from_hours(25));
    world.registry.tend().await;
    assert_eq!(world.uploads(), 0);
    world.get(&location).await.is(404);
}

#[tokio::test]
async fn a_cancelled_upload_is_gone_at_once() {
    let world = World::new().await;
    let location = begin(&world).await;
    world.send(Method::PATCH, &location, &[], noise(8, 200_000)).await.is(202);
    world.delete(&location).await.is(204);
    assert_eq!(world.uploads(), 0);
    world.get(&location).await.is(404);
    world.delete(&location).await.is(404);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let world = World::new().await;
    let blob = world.push_blob("local/a", b"content").await;
    let mount = async |query: &str| {
        world.send(Method::POST, &format!("/v2/local/b/blobs/uploads/?{query}"), &[], Body::empty()).await
    };
    let unknown = Digest::of(b"unknown");
    mount(&format!("mount={unknown}&from=local/a")).await.is(202);
    mount(&format!("mount={blob}&from=local/elsewhere")).await.is(202);
    mount(&format!("mount={blob}&from=nowhere/a")).await.is(202);
    world.head(&format!("/v2/local/b/blobs/{blob}")).await.is(404);
    let mounted = mount(&format!("mount={blob}&from=local/a")).await;
    assert_eq!(mounted.is(201).header("docker-content-digest"), blob.to_string());
    assert_eq!(world.get(mounted.header("location")).await.body, b"content"[..]);
    let anonymous = format!("/v2/local/c/blobs/uploads/?mount={blob}");
    world.send(Method::POST, &anonymous, &[], Body::empty()).await.is(201);
    world.delete(&format!("/v2/local/a/blobs/{blob}")).await.is(202);
    world.get(&format!("/v2/local/c/blobs/{blob}")).await.is(200);
}

/// A body of which a part comes, and then nothing for as long as the sender lives.
fn stalling(part: Vec<u8>) -> (Body, tokio::sync::oneshot::Sender<()>) {
    let (sender, held) = tokio::sync::oneshot::channel::<()>();
    let part = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(part))]);
    let rest = futures_util::stream::once(async move {
        _ = held.await;
        Err(std::io::Error::other("the client left"))
    });
    (Body::from_stream(futures_util::StreamExt::chain(part, rest)), sender)
}

#[tokio::test]
async fn a_request_that_stalls_locks_nobody_out_of_its_upload() {
    let world = World::new().await;
    let soon = async |answer: &mut (dyn Future<Output = Answer> + Unpin)| {
        tokio::time::timeout(Duration::from_secs(10), answer).await.expect("it is answered soon")
    };
    for (purpose, status) in [(Method::DELETE, 204), (Method::PATCH, 202)] {
        let location = begin(&world).await;
        let (body, _sender) = stalling(noise(3, 300_000));
        let stalled = world.send(Method::PATCH, &location, &[], body);
        let others = async {
            loop {
                let mut asked = Box::pin(world.get(&location));
                if soon(&mut asked).await.is(204).header("range") == "0-299999" {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let range = [("content-range", "300000-300002")];
            let mut second = Box::pin(world.send(purpose.clone(), &location, &range, "end"));
            soon(&mut second).await.is(status);
        };
        let (stalled, ()) = tokio::join!(stalled, others);
        assert_eq!(stalled.is(409).code(), "BLOB_UPLOAD_INVALID");
        if purpose == Method::PATCH {
            assert_eq!(world.get(&location).await.is(204).header("range"), "0-300002");
            let content = [noise(3, 300_000), b"end".to_vec()].concat();
            let close = format!("{location}?digest={}", Digest::of(&content));
            world.send(Method::PUT, &close, &[], Body::empty()).await.is(201);
        } else {
            world.get(&location).await.is(404);
        }
    }
    assert_eq!(world.uploads(), 0);
}

#[tokio::test]
async fn a_full_disk_is_named_and_ends_the_upload() {
    let world = World::new().await;
    let location = begin(&world).await;
    let id = location.rsplit('/').next().unwrap();
    // Every write to this file fails as on a full disk.
    let file = world.folder.path().join("uploads").join(id);
    fs_err::os::unix::fs::symlink("/dev/full", file).unwrap();
    let content = noise(4, 3 << 20);
    let pieces: Vec<std::io::Result<Bytes>> =
        content.chunks(300_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let pieces = Body::from_stream(futures_util::stream::iter(pieces));
    let refused = world.send(Method::PATCH, &location, &[], pieces).await;
    assert_eq!(refused.is(507).code(), "UNKNOWN");
    assert_eq!(refused.json()["errors"][0]["detail"]["code"], "DISK_FULL");
    assert!(refused.json()["errors"][0]["detail"]["hint"].as_str().unwrap().contains("space"));
    world.get(&location).await.is(404);
    assert_eq!(world.uploads(), 0);
}

#[tokio::test]
async fn slow_uploads_of_one_leave_room_for_others() {
    use crate::access::{Principal, Role};
    use crate::registry::{BeginUpload, Begun, Chunk, RegistryError};

    let world = World::new().await;
    let anonymous = world.access.anonymous();
    let begin = async |who: &Principal, address: &str| {
        let asked = BeginUpload { address: Some(address.parse().unwrap()), ..BeginUpload::default() };
        let nothing = futures_util::stream::empty().boxed();
        match world.registry.begin_upload(who, "local/app", asked, nothing).await {
            Ok(Begun::Upload(upload)) => Ok(upload.id.to_string()),
            Ok(Begun::Created(_)) => panic!("there is no blob"),
            Err(error) => Err(error),
        }
    };
    let mut slow = tokio::task::JoinSet::new();
    let mut refused = 0;
    for _ in 0..100 {
        match begin(&anonymous, "192.0.2.1").await {
            Err(RegistryError::TooManyUploads) => refused += 1,
            begun => {
                let (registry, who, id) = (world.registry.clone(), anonymous.clone(), begun.unwrap());
                let (held, taken) = tokio::sync::oneshot::channel();
                let first = futures_util::stream::once(async move {
                    let _told = held.send(());
                    Ok(Bytes::from_static(b"first"))
                });
                let body = first.chain(futures_util::stream::pending()).boxed();
                slow.spawn(async move {
                    let chunk = Chunk { content_range: None, content_length: None, body };
                    registry.append_upload(&who, "local/app", &id, chunk).await.map(drop)
                });
                taken.await.unwrap();
            }
        }
    }
    assert_eq!((slow.len(), refused), (64, 36));
    begin(&anonymous, "192.0.2.2").await.unwrap();
    begin(&anonymous, "2001:db8::1").await.unwrap();
    let local = Principal::Peer { uid: 0, gid: 0, role: Role::Administrator };
    begin(&local, "192.0.2.1").await.unwrap();
    slow.shutdown().await;
    begin(&anonymous, "192.0.2.1").await.unwrap();
}
