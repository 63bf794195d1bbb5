//! kill -9 at every point of a push, a deletion and an upload that is put aside: what was answered is there afterwards.

use reqwest::StatusCode;
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::support::{Server, http, signal};

/// Points of the registry and of blobs; those of an upload that is put aside are passed when the server stops.
const POINTS: &[&str] = &[
    "blobs.resume.before_cut",
    "blobs.resume.after_cut",
    "blobs.upload.before_write",
    "blobs.upload.after_write@3",
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
    let other = (push(server, done, "local/a", &other)?, other.len());
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
