//! Blobs coming in.

use super::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

pub(super) fn every_way_to_push_a_blob_gives_the_same_blob(registry: &mut Registry) {
    let client = registry.client("local/uploads/a");
    for algorithm in ALGORITHMS {
        // In one request.
        let bytes = unique(512);
        let digest = algorithm.of(&bytes);
        assert_eq!(client.status(Method::GET, &format!("blobs/{digest}")), 404);
        let post = client.ask(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        client.created(&post.body(bytes.clone()).send().unwrap(), &digest, &bytes);
        // In two.
        client.push(algorithm, &unique(512));
        // As one stream whose length nobody says.
        let bytes = unique(100_000);
        let digest = algorithm.of(&bytes);
        let stream = reqwest::blocking::Body::new(std::io::Cursor::new(bytes.clone()));
        let patch = client.to(Method::PATCH, client.begin("")).body(stream).send().unwrap();
        assert_eq!((patch.status().as_u16(), header(&patch, "range")), (202, "0-99999"));
        client.created(&client.close(&location(&patch), &digest, vec![]), &digest, &bytes);
        // In chunks; the last one by PATCH, or by the closing PUT.
        for by_put in [false, true] {
            let bytes = unique(3 * 1024 - 5);
            let digest = algorithm.of(&bytes);
            let mut upload = client.begin("");
            for (at, part) in bytes.chunks(1024).enumerate() {
                let last = at == 2;
                if last && by_put {
                    let put = client.chunk(Method::PUT, &upload, Some(&digest), at * 1024, part);
                    client.created(&put, &digest, &bytes);
                    break;
                }
                let patch = client.chunk(Method::PATCH, &upload, None, at * 1024, part);
                assert_eq!(patch.status(), 202);
                assert_eq!(header(&patch, "range"), format!("0-{}", at * 1024 + part.len() - 1));
                upload = location(&patch);
                if last {
                    client.created(&client.close(&upload, &digest, vec![]), &digest, &bytes);
                }
            }
        }
        // Nothing at all, and the smallest document.
        for bytes in [&b""[..], b"{}"] {
            let digest = client.push(algorithm, bytes);
            client.delete(&format!("blobs/{digest}"));
            let digest = algorithm.of(bytes);
            let post = client.ask(Method::POST, &format!("blobs/uploads/?digest={digest}"));
            client.created(&post.body(bytes.to_vec()).send().unwrap(), &digest, bytes);
            client.delete(&format!("blobs/{digest}"));
        }
    }
}

pub(super) fn a_chunk_out_of_order_is_refused_and_the_upload_lives_on(registry: &mut Registry) {
    let client = registry.client("local/uploads/order");
    for by_put in [false, true] {
        let bytes = unique(3 * 1024 - 5);
        let digest = digest(&bytes);
        let mut upload = client.begin("");
        let mut sent = 0_usize;
        for part in bytes.chunks(1024) {
            for wrong in [sent + 1024, sent + 1, sent.saturating_sub(1)] {
                if wrong == sent {
                    continue;
                }
                let refused = if by_put {
                    client.chunk(Method::PUT, &upload, Some(&digest), wrong, part)
                } else {
                    client.chunk(Method::PATCH, &upload, None, wrong, part)
                };
                assert_eq!(refused.status(), 416);
                assert_eq!(header(&refused, "range"), format!("0-{}", sent.max(1) - 1));
                upload = location(&refused);
                assert_eq!(code(refused), "BLOB_UPLOAD_INVALID");
                let status = client.to(Method::GET, upload.clone()).send().unwrap();
                assert_eq!(status.status(), 204);
                assert_eq!(header(&status, "range"), format!("0-{}", sent.max(1) - 1));
                upload = location(&status);
            }
            let patch = client.chunk(Method::PATCH, &upload, None, sent, part);
            assert_eq!(patch.status(), 202);
            upload = location(&patch);
            sent += part.len();
        }
        client.created(&client.close(&upload, &digest, vec![]), &digest, &bytes);
    }
}

pub(super) fn a_chunk_must_be_what_it_says(registry: &mut Registry) {
    let client = registry.client("local/uploads/say");
    let upload = client.begin("");
    for range in ["5-1", "x", "", "0-", "-3", "bytes", "0-1,2-3", "0-99999999999999999999"] {
        let refused = client
            .to(Method::PATCH, upload.clone())
            .header("Content-Range", range)
            .body("abc")
            .send()
            .unwrap();
        assert!((400..500).contains(&refused.status().as_u16()), "{range}: {}", refused.status());
        assert_eq!(client.to(Method::GET, upload.clone()).send().unwrap().status(), 204, "{range}");
    }
    let twice = client
        .to(Method::PATCH, upload.clone())
        .header("Content-Range", "0-2")
        .header("Content-Range", "0-2");
    assert_eq!(twice.body("abc").send().unwrap().status(), 400);
    let longer =
        client.to(Method::PATCH, upload.clone()).header("Content-Range", "0-9").body("abc").send().unwrap();
    assert_eq!(code(longer), "SIZE_INVALID");
    let whole = b"abc";
    client.created(&client.close(&upload, &digest(whole), whole.to_vec()), &digest(whole), whole);
}

pub(super) fn what_is_not_its_digest_is_refused_in_every_way(registry: &mut Registry) {
    let client = registry.client("local/uploads/bad");
    for algorithm in ALGORITHMS {
        let bytes = unique(3_000);
        let digest = algorithm.of(&unique(3_000));
        let post = client.ask(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        let post = post.body(bytes.clone()).send().unwrap();
        let put = client.close(&client.begin(""), &digest, bytes.clone());
        let patched = client.chunk(Method::PATCH, &client.begin(""), None, 0, &bytes);
        let chunked = client.close(&location(&patched), &digest, vec![]);
        let last = client.chunk(Method::PUT, &client.begin(""), Some(&digest), 0, &bytes);
        for refused in [post, put, chunked, last] {
            assert_eq!(refused.status(), 400);
            assert_eq!(code(refused), "DIGEST_INVALID");
        }
        for name in [&digest, &algorithm.of(&bytes)] {
            assert_eq!(client.status(Method::HEAD, &format!("blobs/{name}")), 404);
        }
    }
    let upload = client.begin("");
    for bad in ["sha256:bad", "md5:d41d8cd98f00b204e9800998ecf8427e", "x", ""] {
        assert_eq!(code(client.close(&upload, bad, vec![])), "DIGEST_INVALID", "{bad}");
    }
    assert_eq!(
        client.to(Method::PUT, upload.clone()).body("x").send().unwrap().status(),
        400,
        "no digest at all"
    );
    // None of these took the upload away.
    client.created(&client.close(&upload, &digest(b"x"), b"x".to_vec()), &digest(b"x"), b"x");
}

pub(super) fn an_upload_that_is_cancelled_is_gone(registry: &mut Registry) {
    let files = || std::fs::read_dir(registry.server.root.join("uploads")).unwrap().count();
    let before = files();
    let client = registry.client("local/uploads/cancel");
    for sent in [0, 500_000] {
        let mut upload = client.begin("");
        if sent > 0 {
            upload = location(&client.chunk(Method::PATCH, &upload, None, 0, &unique(sent)));
        }
        assert_eq!(client.to(Method::DELETE, upload.clone()).send().unwrap().status(), 204);
        assert_eq!(client.to(Method::DELETE, upload.clone()).send().unwrap().status(), 404);
        assert_eq!(code(client.to(Method::GET, upload.clone()).send().unwrap()), "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(client.chunk(Method::PATCH, &upload, None, sent, b"more").status(), 404);
        assert_eq!(client.close(&upload, &digest(b""), vec![]).status(), 404);
    }
    assert_eq!(files(), before);
}

pub(super) fn a_blob_is_mounted_from_where_it_is(registry: &mut Registry) {
    let (from, to) = (registry.client("local/mount/a"), registry.client("local/mount/b"));
    for algorithm in ALGORITHMS {
        for named in [true, false] {
            let bytes = unique(50_000);
            let digest = from.push(algorithm, &bytes);
            let source = if named { format!("&from={}", from.repository) } else { String::new() };
            let mount = to.ask(Method::POST, &format!("blobs/uploads/?mount={digest}{source}"));
            to.created(&mount.send().unwrap(), &digest, &bytes);
            from.delete(&format!("blobs/{digest}"));
            to.holds_blob(&digest, &bytes);
            to.delete(&format!("blobs/{digest}"));
            // Nobody has it any more: an ordinary upload begins.
            let mount = to.ask(Method::POST, &format!("blobs/uploads/?mount={digest}{source}"));
            let begun = mount.send().unwrap();
            assert_eq!(begun.status(), 202);
            to.created(&to.close(&location(&begun), &digest, bytes.clone()), &digest, &bytes);
        }
    }
}

pub(super) fn an_algorithm_may_be_announced(registry: &mut Registry) {
    let client = registry.client("local/uploads/announced");
    let bytes = unique(70_000);
    let digest = Algorithm::Sha512.of(&bytes);
    let upload = client.begin("?digest-algorithm=sha512");
    client.created(&client.close(&upload, &digest, bytes.clone()), &digest, &bytes);
    // A hint only: the closing request decides.
    let upload = client.begin("?digest-algorithm=sha512");
    let digest = Algorithm::Sha256.of(&bytes);
    client.created(&client.close(&upload, &digest, bytes.clone()), &digest, &bytes);
    assert_eq!(client.status(Method::POST, "blobs/uploads/?digest-algorithm=crc32"), 400);
}

pub(super) fn an_upload_outlives_a_restart(registry: &mut Registry) {
    let bytes = unique(900_000);
    let client = registry.client("local/uploads/restart");
    let patch = client.chunk(Method::PATCH, &client.begin(""), None, 0, &bytes[..400_000]);
    let upload = location(&patch).path().to_owned();
    registry.restart_with(&[]);
    let client = registry.client("local/uploads/restart");
    let status = registry.ask(Method::GET, &upload).send().unwrap();
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-399999"));
    let patch = client.chunk(Method::PATCH, &location(&status), None, 400_000, &bytes[400_000..]);
    assert_eq!(patch.status(), 202);
    let digest = digest(&bytes);
    client.created(&client.close(&location(&patch), &digest, vec![]), &digest, &bytes);
}

/// The record of a chunk follows its answer, so a kill at once may forget the upload; then the client begins anew.
pub(super) fn an_upload_in_chunks_outlives_a_kill(registry: &mut Registry) {
    let bytes = unique(900_000);
    let digest = digest(&bytes);
    for attempt in 0.. {
        assert!(attempt < 8, "no upload was ever found again");
        let client = registry.client("local/uploads/kill");
        let mut upload = client.begin("");
        for at in [0, 200_000] {
            let patch = client.chunk(Method::PATCH, &upload, None, at, &bytes[at..at + 200_000]);
            assert_eq!(patch.status(), 202);
            upload = location(&patch);
        }
        registry.kill();
        let client = registry.client("local/uploads/kill");
        let status = registry.ask(Method::GET, upload.path()).send().unwrap();
        let resumed = status.status() == 204;
        let (upload, sent) = if resumed {
            let sent = header(&status, "range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
            assert!([200_000, 400_000].contains(&sent), "{sent}");
            (location(&status), sent)
        } else {
            assert_eq!(status.status(), 404);
            (client.begin(""), 0)
        };
        let patch = client.chunk(Method::PATCH, &upload, None, sent, &bytes[sent..]);
        assert_eq!(patch.status(), 202);
        client.created(&client.close(&location(&patch), &digest, vec![]), &digest, &bytes);
        client.delete(&format!("blobs/{digest}"));
        if resumed {
            return;
        }
    }
}
