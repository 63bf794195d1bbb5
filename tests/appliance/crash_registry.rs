//! kill -9 at every point of a push, a deletion and an upload that is put aside, and right after the answer to a chunk:
//! what was answered is there afterwards.

use reqwest::StatusCode;
use reqwest::blocking::{Body, RequestBuilder, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::support::{Server, http, signal};

/// Points of the registry and of blobs; those of an upload that is put aside are passed when the server stops.
const POINTS: &[&str] = &[
    "blobs.resume.before_cut",
    "blobs.resume.after_cut",
    "blobs.upload.before_write",
    "blobs.upload.after_write@3",
    "blobs.mark.before_write",
    "blobs.mark.after_write",
    "blobs.close.before_fsync",
    "blobs.close.after_fsync",
    "blobs.close.after_rename",
    "blobs.close.after_dirsync@2",
    "registry.upload.before-record",
    "registry.upload.after-record@2",
    "registry.upload.before-record@3",
    "registry.manifest.before-record",
    "registry.manifest.after-record",
    "registry.manifest.before-record@2",
    "registry.mount.before-record",
    "registry.mount.after-record",
    "registry.manifest-delete.before-record",
    "registry.manifest-delete.after-record",
    "registry.blob-delete.before-record",
    "registry.blob-delete.after-record",
    "blobs.discard.before_remove",
    "blobs.suspend.before_fsync",
    "blobs.suspend.after_fsync",
    "blobs.suspend.before_record",
    "blobs.suspend.after_record",
];

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// So much of the upload that is put aside was sent to the server before.
const SENT: usize = 400_000;

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Bytes that no other seed gives.
fn content(seed: usize, size: usize) -> Vec<u8> {
    let block = Sha256::digest(seed.to_be_bytes());
    let numbered = (0..=size / 32).flat_map(|at| Sha256::digest([&block[..], &at.to_be_bytes()].concat()));
    numbered.take(size).collect()
}

/// What was answered, and so must be as it was answered.
#[derive(Default)]
struct Acknowledged {
    /// Path, digest of what is there, `None` for what was deleted.
    paths: Vec<(String, Option<String>)>,
    /// An upload in chunks that is under way.
    upload: Option<String>,
}

impl Acknowledged {
    fn now(&mut self, path: String, digest: Option<&str>) {
        self.paths.retain(|(other, _)| *other != path);
        self.paths.push((path, digest.map(str::to_owned)));
    }

    /// What is being changed may be there or not until it is answered.
    fn begun(&mut self, path: &str) {
        self.paths.retain(|(other, _)| other != path);
    }

    fn check(&self, server: &Server, point: &str) {
        for (path, expected) in &self.paths {
            let response = http().get(format!("{}{path}", server.url)).send().unwrap();
            match expected {
                Some(expected) => {
                    assert_eq!(response.status(), 200, "{path} after {point}: {}", server.log());
                    assert_eq!(digest(&response.bytes().unwrap()), *expected, "{path} after {point}");
                }
                None => assert_eq!(response.status(), 404, "{path} after {point}"),
            }
        }
    }
}

/// Sends it; `Err` when the server died over it.
fn send(request: RequestBuilder, expected: u16) -> Result<Response, ()> {
    let response = request.send().map_err(drop)?;
    assert_eq!(response.status().as_u16(), expected, "{}", response.url().clone());
    Ok(response)
}

fn location(server: &Server, response: &Response) -> String {
    let location = response.headers()["location"].to_str().unwrap();
    if location.starts_with('/') { format!("{}{location}", server.url) } else { location.to_owned() }
}

fn begin(server: &Server, name: &str) -> Result<String, ()> {
    let request =
        http().post(format!("{}/v2/{name}/blobs/uploads/", server.url)).header("Content-Length", "0");
    Ok(location(server, &send(request, 202)?))
}

fn with(location: &str, query: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{query}")
}

fn push(server: &Server, done: &mut Acknowledged, name: &str, bytes: &[u8]) -> Result<String, ()> {
    let digest = digest(bytes);
    let location = begin(server, name)?;
    let half = bytes.len() / 2;
    send(http().patch(&location).body(bytes[..half].to_vec()), 202)?;
    let closing = http().put(with(&location, &format!("digest={digest}"))).body(bytes[half..].to_vec());
    send(closing, 201)?;
    done.now(format!("/v2/{name}/blobs/{digest}"), Some(&digest));
    Ok(digest)
}

fn push_in_chunks(server: &Server, done: &mut Acknowledged, name: &str, bytes: &[u8]) -> Result<String, ()> {
    let digest = digest(bytes);
    let location = begin(server, name)?;
    done.upload = Some(location[location.find("/v2/").unwrap()..].to_owned());
    for from in (0..bytes.len()).step_by(20_000) {
        send(chunk(&location, bytes, from, (from + 20_000).min(bytes.len())), 202)?;
    }
    send(http().put(with(&location, &format!("digest={digest}"))), 201)?;
    done.upload = None;
    done.now(format!("/v2/{name}/blobs/{digest}"), Some(&digest));
    Ok(digest)
}

fn put(
    server: &Server,
    done: &mut Acknowledged,
    name: &str,
    tag: &str,
    config: &str,
    layer: (&str, usize),
) -> Result<String, ()> {
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 40},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1}],
    }))
    .unwrap();
    let path = format!("/v2/{name}/manifests/{tag}");
    done.begun(&path);
    let request = http().put(format!("{}{path}", server.url)).header("Content-Type", IMAGE);
    send(request.body(manifest.clone()), 201)?;
    let digest = digest(&manifest);
    done.now(path, Some(&digest));
    done.now(format!("/v2/{name}/manifests/{digest}"), Some(&digest));
    Ok(digest)
}

fn delete(server: &Server, done: &mut Acknowledged, path: &str) -> Result<(), ()> {
    done.begun(path);
    send(http().delete(format!("{}{path}", server.url)), 202)?;
    done.now(path.to_owned(), None);
    Ok(())
}

/// Everything that a client may do; ends early when the server dies.
fn work(server: &Server, done: &mut Acknowledged, turn: usize, aside: &str) -> Result<(), ()> {
    let whole = content(turn * 10, 1_000_000);
    // Goes on with what the server before put aside.
    send(http().patch(aside).body(whole[SENT..700_000].to_vec()), 202)?;
    let layer = content(turn * 10 + 1, 600_000);
    let layer = (push(server, done, "local/a", &layer)?, layer.len());
    let other = content(turn * 10 + 2, 50_000);
    let other = (push_in_chunks(server, done, "local/a", &other)?, other.len());
    let config = push(server, done, "local/a", &content(turn * 10 + 3, 40))?;
    let first = put(server, done, "local/a", "moved", &config, (&layer.0, layer.1))?;
    put(server, done, "local/a", "moved", &config, (&other.0, other.1))?;
    let mount = format!("{}/v2/local/b/blobs/uploads/?mount={}&from=local/a", server.url, layer.0);
    send(http().post(mount).header("Content-Length", "0"), 201)?;
    done.now(format!("/v2/local/b/blobs/{}", layer.0), Some(&layer.0));
    delete(server, done, &format!("/v2/local/a/manifests/{first}"))?;
    delete(server, done, &format!("/v2/local/a/blobs/{}", layer.0))?;
    let cancelled = begin(server, "local/a")?;
    send(http().patch(&cancelled).body(content(turn * 10 + 4, 900_000)), 202)?;
    send(http().delete(&cancelled), 204).map(drop)
}

#[test]
fn what_was_answered_is_there_after_kill_9_at_every_point_of_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let mut done = Acknowledged::default();
    for (turn, point) in POINTS.iter().enumerate() {
        let whole = content(turn * 10, 1_000_000);
        let server = Server::start_on(&root, &[]);
        let aside = begin(&server, "local/a").unwrap();
        send(http().patch(&aside).body(whole[..SENT].to_vec()), 202).unwrap();
        server.stop();

        let server = Server::start_on(&root, &[("PANTRY_FAULT", point)]);
        let path = aside[aside.find("/v2/").unwrap()..].to_owned();
        if work(&server, &mut done, turn, &format!("{}{path}", server.url)).is_ok() {
            signal(server.pid(), nix::sys::signal::Signal::SIGTERM);
        }
        server.until_dead();

        let server = Server::start_on(&root, &[]);
        done.check(&server, point);
        let aside = format!("{}{path}", server.url);
        let status = http().get(&aside).send().unwrap();
        assert_eq!(status.status(), StatusCode::NO_CONTENT, "the upload goes on after {point}");
        let range = status.headers()["range"].to_str().unwrap();
        let received = range.trim_start_matches("0-").parse::<usize>().unwrap() + 1;
        assert!(received >= SENT, "{received} after {point}");
        let digest = digest(&whole);
        let rest = http().put(with(&aside, &format!("digest={digest}"))).body(whole[received..].to_vec());
        send(rest, 201).unwrap();
        done.now(format!("/v2/local/a/blobs/{digest}"), Some(&digest));
        // One in chunks goes on too, unless it was being closed; here nobody wants it any more.
        if let Some(path) = done.upload.take() {
            let cancelled = http().delete(format!("{}{path}", server.url)).send().unwrap().status().as_u16();
            assert!([204, 404].contains(&cancelled), "{cancelled} after {point}");
        }
        // The same requests again, on what the dead server left.
        let mut again = Acknowledged::default();
        let bytes = content(turn * 10 + 1, 600_000);
        push(&server, &mut again, "local/a", &bytes).unwrap();
        again.check(&server, point);
        done.paths.retain(|(path, _)| again.paths.iter().all(|(other, _)| path != other));
        done.paths.append(&mut again.paths);
        server.stop();
    }
    let server = Server::start_on(&root, &[]);
    done.check(&server, "all of them");
    assert_eq!(std::fs::read_dir(root.join("uploads")).unwrap().count(), 0, "nothing is left of uploads");
}

/// A chunk that says where it stands.
fn chunk(location: &str, bytes: &[u8], from: usize, to: usize) -> RequestBuilder {
    let range = format!("{from}-{}", to - 1);
    http().patch(location).header("Content-Range", range).body(bytes[from..to].to_vec())
}

/// Up to where an upload has come, as the answer says; it names the last byte.
fn end_of(response: &Response) -> usize {
    let range = response.headers()["range"].to_str().unwrap();
    range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}

#[test]
fn an_upload_in_chunks_goes_on_after_kill_9_right_after_the_answer_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let mut done = Acknowledged::default();
    // What lives in the state file, what one write takes, and more; killed after the first chunk, or a later one.
    for (turn, (size, chunks)) in
        [(9_000, 1), (400_000, 3), (3_000_000, 2), (12_000_000, 5)].into_iter().enumerate()
    {
        let (bytes, streamed) = (content(1_000 + turn, size), content(2_000 + turn, size));
        let step = size / 6;
        let server = Server::start_on(&root, &[]);
        let path = |location: String| location[location.find("/v2/").unwrap()..].to_owned();
        let by_range = path(begin(&server, "local/a").unwrap());
        let by_stream = path(begin(&server, "local/a").unwrap());
        let stream = Body::new(std::io::Cursor::new(streamed[..size / 2].to_vec()));
        send(http().patch(format!("{}{by_stream}", server.url)).body(stream), 202).unwrap();
        let mut answered = 0;
        for _ in 0..chunks {
            let location = format!("{}{by_range}", server.url);
            answered = end_of(&send(chunk(&location, &bytes, answered, answered + step), 202).unwrap());
        }
        assert_eq!(answered, chunks * step);
        server.kill();

        let server = Server::start_on(&root, &[]);
        done.check(&server, "kill -9 after a chunk");
        let location = format!("{}{by_range}", server.url);
        let told = end_of(&send(http().get(&location), 204).unwrap());
        assert!((answered..=size).contains(&told), "{told} of {answered} that were answered");
        assert_eq!(told, answered, "nothing else was sent");
        // One that stands elsewhere is refused, and the upload lives on.
        let refused = send(chunk(&location, &bytes, told - 1, told + 9), 416).unwrap();
        assert_eq!(end_of(&refused), told);
        let told = end_of(&send(chunk(&location, &bytes, told, told + step), 202).unwrap());
        assert_eq!(told, answered + step);
        let digest_of_all = digest(&bytes);
        let rest =
            http().put(with(&location, &format!("digest={digest_of_all}"))).body(bytes[told..].to_vec());
        send(rest, 201).unwrap();
        done.now(format!("/v2/local/a/blobs/{digest_of_all}"), Some(&digest_of_all));
        // A stream said nothing of where it stands: it is unknown, for all requests alike, and is sent anew.
        let location = format!("{}{by_stream}", server.url);
        for request in [http().get(&location), http().patch(&location).body(vec![1; 10])] {
            let error: serde_json::Value = send(request, 404).unwrap().json().unwrap();
            assert_eq!(error["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN");
        }
        push(&server, &mut done, "local/a", &streamed).unwrap();
        done.check(&server, "what was sent after kill -9");
        server.kill();
    }
    let server = Server::start_on(&root, &[]);
    done.check(&server, "all of them");
    assert_eq!(std::fs::read_dir(root.join("uploads")).unwrap().count(), 0, "nothing is left of uploads");
}

#[test]
fn a_blob_that_is_cut_off_is_told_and_never_passed_on_as_whole() {
    use std::io::{Read as _, Write as _};
    let server = Server::start();
    let bytes = content(7, 32 << 20);
    let digest = push(&server, &mut Acknowledged::default(), "local/cut", &bytes).unwrap();
    let hex = digest.trim_start_matches("sha256:");
    let file = server.root.join("blobs/sha256").join(&hex[..2]).join(hex);
    let cut = |length: u64| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length).unwrap();
    };
    // While somebody reads it: the connection ends before the length that was announced.
    let mut client = std::net::TcpStream::connect(server.address()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    write!(client, "GET /v2/local/cut/blobs/{digest} HTTP/1.1\r\nHost: {}\r\n\r\n", server.address())
        .unwrap();
    let mut start = vec![0; 100_000];
    client.read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"HTTP/1.1 200"));
    cut(20 << 20);
    let mut rest = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        rest += count;
    }
    assert!(start.len() + rest < bytes.len(), "the whole length came, though it is not there");
    // Afterwards it is set aside and counts as not there, so that a push heals it; not a byte is sent.
    let refused = http().get(format!("{}/v2/local/cut/blobs/{digest}", server.url)).send().unwrap();
    assert_eq!(refused.status(), 404);
    let error: serde_json::Value = refused.json().unwrap();
    assert!(error["errors"][0]["code"].is_string(), "{error}");
    assert!(!file.exists(), "the file lies where blobs are");
    let refused = http().get(format!("{}/v2/local/cut/blobs/{digest}", server.url)).send().unwrap();
    assert_eq!(refused.status(), 404);
    assert_eq!(server.get("/health").0, 200);
}
