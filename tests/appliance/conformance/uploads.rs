//! Blobs coming in.

use super::super::support::fresh_root;
use super::*;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

#[test]
fn every_way_to_push_a_blob_gives_the_same_blob() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/a");
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
        let patch = http().patch(client.begin("")).body(stream).send().unwrap();
        assert_eq!((patch.status().as_u16(), header(&patch, "range")), (202, "0-99999"));
        client.created(&close(&location(&patch), &digest, vec![]), &digest, &bytes);
        // In chunks; the last one by PATCH, or by the closing PUT.
        for by_put in [false, true] {
            let bytes = unique(3 * 1024 - 5);
            let digest = algorithm.of(&bytes);
            let mut upload = client.begin("");
            for (at, part) in bytes.chunks(1024).enumerate() {
                let last = at == 2;
                if last && by_put {
                    let put = chunk(Method::PUT, &upload, Some(&digest), at * 1024, part);
                    client.created(&put, &digest, &bytes);
                    break;
                }
                let patch = chunk(Method::PATCH, &upload, None, at * 1024, part);
                assert_eq!(patch.status(), 202);
                assert_eq!(header(&patch, "range"), format!("0-{}", at * 1024 + part.len() - 1));
                upload = location(&patch);
                if last {
                    client.created(&close(&upload, &digest, vec![]), &digest, &bytes);
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

#[test]
fn a_chunk_out_of_order_is_refused_and_the_upload_lives_on() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/order");
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
                    chunk(Method::PUT, &upload, Some(&digest), wrong, part)
                } else {
                    chunk(Method::PATCH, &upload, None, wrong, part)
                };
                assert_eq!(refused.status(), 416);
                assert_eq!(header(&refused, "range"), format!("0-{}", sent.max(1) - 1));
                upload = location(&refused);
                assert_eq!(code(refused), "BLOB_UPLOAD_INVALID");
                let status = http().get(upload.clone()).send().unwrap();
                assert_eq!(status.status(), 204);
                assert_eq!(header(&status, "range"), format!("0-{}", sent.max(1) - 1));
                upload = location(&status);
            }
            let patch = chunk(Method::PATCH, &upload, None, sent, part);
            assert_eq!(patch.status(), 202);
            upload = location(&patch);
            sent += part.len();
        }
        client.created(&close(&upload, &digest, vec![]), &digest, &bytes);
    }
}

#[test]
fn a_chunk_must_be_what_it_says() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/say");
    let upload = client.begin("");
    for range in ["5-1", "x", "", "0-", "-3", "bytes", "0-1,2-3", "0-99999999999999999999"] {
        let refused = http().patch(upload.clone()).header("Content-Range", range).body("abc").send().unwrap();
        assert!((400..500).contains(&refused.status().as_u16()), "{range}: {}", refused.status());
        assert_eq!(http().get(upload.clone()).send().unwrap().status(), 204, "{range}");
    }
    let twice = http().patch(upload.clone()).header("Content-Range", "0-2").header("Content-Range", "0-2");
    assert_eq!(twice.body("abc").send().unwrap().status(), 400);
    let longer = http().patch(upload.clone()).header("Content-Range", "0-9").body("abc").send().unwrap();
    assert_eq!(code(longer), "SIZE_INVALID");
    let whole = b"abc";
    client.created(&close(&upload, &digest(whole), whole.to_vec()), &digest(whole), whole);
}

#[test]
fn what_is_not_its_digest_is_refused_in_every_way() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/bad");
    for algorithm in ALGORITHMS {
        let bytes = unique(3_000);
        let digest = algorithm.of(&unique(3_000));
        let post = client.ask(Method::POST, &format!("blobs/uploads/?digest={digest}"));
        let post = post.body(bytes.clone()).send().unwrap();
        let put = close(&client.begin(""), &digest, bytes.clone());
        let patched = chunk(Method::PATCH, &client.begin(""), None, 0, &bytes);
        let chunked = close(&location(&patched), &digest, vec![]);
        let last = chunk(Method::PUT, &client.begin(""), Some(&digest), 0, &bytes);
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
        assert_eq!(code(close(&upload, bad, vec![])), "DIGEST_INVALID", "{bad}");
    }
    assert_eq!(http().put(upload.clone()).body("x").send().unwrap().status(), 400, "no digest at all");
    // None of these took the upload away.
    client.created(&close(&upload, &digest(b"x"), b"x".to_vec()), &digest(b"x"), b"x");
}

#[test]
fn an_upload_that_is_cancelled_is_gone() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/cancel");
    for sent in [0, 500_000] {
        let mut upload = client.begin("");
        if sent > 0 {
            upload = location(&chunk(Method::PATCH, &upload, None, 0, &unique(sent)));
        }
        assert_eq!(http().delete(upload.clone()).send().unwrap().status(), 204);
        assert_eq!(http().delete(upload.clone()).send().unwrap().status(), 404);
        assert_eq!(code(http().get(upload.clone()).send().unwrap()), "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(chunk(Method::PATCH, &upload, None, sent, b"more").status(), 404);
        assert_eq!(close(&upload, &digest(b""), vec![]).status(), 404);
    }
    assert_eq!(std::fs::read_dir(server.root.join("uploads")).unwrap().count(), 0);
}

#[test]
fn a_blob_is_mounted_from_where_it_is() {
    let server = Server::start();
    let (from, to) = (Client::new(&server, "local/mount/a"), Client::new(&server, "local/mount/b"));
    for algorithm in ALGORITHMS {
        for named in [true, false] {
            let bytes = unique(50_000);
            let digest = from.push(algorithm, &bytes);
            let source = if named { "&from=local/mount/a" } else { "" };
            let mount = to.ask(Method::POST, &format!("blobs/uploads/?mount={digest}{source}"));
            to.created(&mount.send().unwrap(), &digest, &bytes);
            from.delete(&format!("blobs/{digest}"));
            to.holds_blob(&digest, &bytes);
            to.delete(&format!("blobs/{digest}"));
            // Nobody has it any more: an ordinary upload begins.
            let mount = to.ask(Method::POST, &format!("blobs/uploads/?mount={digest}{source}"));
            let begun = mount.send().unwrap();
            assert_eq!(begun.status(), 202);
            to.created(&close(&location(&begun), &digest, bytes.clone()), &digest, &bytes);
        }
    }
}

#[test]
fn an_algorithm_may_be_announced() {
    let server = Server::start();
    let client = Client::new(&server, "local/uploads/announced");
    let bytes = unique(70_000);
    let digest = Algorithm::Sha512.of(&bytes);
    let upload = client.begin("?digest-algorithm=sha512");
    client.created(&close(&upload, &digest, bytes.clone()), &digest, &bytes);
    // A hint only: the closing request decides.
    let upload = client.begin("?digest-algorithm=sha512");
    let digest = Algorithm::Sha256.of(&bytes);
    client.created(&close(&upload, &digest, bytes.clone()), &digest, &bytes);
    assert_eq!(client.status(Method::POST, "blobs/uploads/?digest-algorithm=crc32"), 400);
}

#[test]
fn an_upload_outlives_a_restart() {
    let server = Server::start();
    let bytes = unique(900_000);
    let client = Client::new(&server, "local/uploads/restart");
    let patch = chunk(Method::PATCH, &client.begin(""), None, 0, &bytes[..400_000]);
    let upload_path = location(&patch).path().to_owned();
    server.stop();
    let again = Server::start_on(&server.root, &[]);
    let client = Client::new(&again, "local/uploads/restart");
    let upload = Url::parse(&format!("{}{upload_path}", again.url)).unwrap();
    let status = http().get(upload.clone()).send().unwrap();
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-399999"));
    let patch = chunk(Method::PATCH, &location(&status), None, 400_000, &bytes[400_000..]);
    assert_eq!(patch.status(), 202);
    let digest = digest(&bytes);
    client.created(&close(&location(&patch), &digest, vec![]), &digest, &bytes);
}

/// The record of a chunk follows its answer, so a kill at once may forget the upload; then the client begins anew.
#[test]
fn an_upload_in_chunks_outlives_a_kill() {
    let bytes = unique(900_000);
    let digest = digest(&bytes);
    let folder = fresh_root();
    let root = folder.path().join("root");
    let mut server = Server::start_on(&root, &[]);
    for attempt in 0.. {
        assert!(attempt < 8, "no upload was ever found again");
        let client = Client::new(&server, "local/uploads/kill");
        let mut upload = client.begin("");
        for at in [0, 200_000] {
            let patch = chunk(Method::PATCH, &upload, None, at, &bytes[at..at + 200_000]);
            assert_eq!(patch.status(), 202);
            upload = location(&patch);
        }
        server.kill();
        let again = Server::start_on(&root, &[]);
        let client = Client::new(&again, "local/uploads/kill");
        let upload = Url::parse(&format!("{}{}", again.url, upload.path())).unwrap();
        let status = http().get(upload).send().unwrap();
        let resumed = status.status() == 204;
        let (upload, sent) = if resumed {
            let sent = header(&status, "range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
            assert!([200_000, 400_000].contains(&sent), "{sent}");
            (location(&status), sent)
        } else {
            assert_eq!(status.status(), 404);
            (client.begin(""), 0)
        };
        let patch = chunk(Method::PATCH, &upload, None, sent, &bytes[sent..]);
        assert_eq!(patch.status(), 202);
        client.created(&close(&location(&patch), &digest, vec![]), &digest, &bytes);
        client.delete(&format!("blobs/{digest}"));
        if resumed {
            return;
        }
        server = again;
    }
}
