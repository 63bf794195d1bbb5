//! What the distribution specification asks of a registry, topic by topic, against the running server.
//!
//! The client here sends requests as the specification writes them and knows nothing of this registry: it follows each
//! `Location`, resolves it against the address that it asked, and appends `digest` to whatever query is there.

#[path = "conformance/deletion.rs"]
mod deletion;
#[path = "conformance/errors.rs"]
mod errors;
#[path = "conformance/manifests.rs"]
mod manifests;
#[path = "conformance/ranges.rs"]
mod ranges;
#[path = "conformance/referrers.rs"]
mod referrers;
#[path = "conformance/sha512.rs"]
mod sha512;
#[path = "conformance/sparse.rs"]
mod sparse;
#[path = "conformance/tags.rs"]
mod tags;
#[path = "conformance/uploads.rs"]
mod uploads;

use reqwest::blocking::{RequestBuilder, Response};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use super::support::{Server, http};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Under which algorithm content is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn of(self, bytes: &[u8]) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Sha256 => format!("sha256:{}", hex(&Sha256::digest(bytes))),
            Self::Sha512 => format!("sha512:{}", hex(&Sha512::digest(bytes))),
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    Algorithm::Sha256.of(bytes)
}

/// Bytes that no other test has.
fn unique(length: usize) -> Vec<u8> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = Vec::with_capacity(length + 32);
    let seed = NEXT.fetch_add(1, Ordering::Relaxed);
    for block in 0_u64.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend(Sha256::digest(format!("{seed} {block}")));
    }
    bytes.truncate(length);
    bytes
}

/// One repository of one server.
struct Client<'a> {
    server: &'a Server,
    repository: &'static str,
}

impl<'a> Client<'a> {
    fn new(server: &'a Server, repository: &'static str) -> Self {
        Self { server, repository }
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}/v2/{}/{path}", self.server.url, self.repository)).unwrap()
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        http().request(method, self.url(path))
    }

    fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().unwrap()
    }

    fn status(&self, method: Method, path: &str) -> u16 {
        self.ask(method, path).send().unwrap().status().as_u16()
    }

    /// Begins an upload; where it is.
    fn begin(&self, query: &str) -> Url {
        let begun = self.ask(Method::POST, &format!("blobs/uploads/{query}"));
        let begun = begun.header("Content-Length", "0").send().unwrap();
        assert_eq!(begun.status(), 202);
        location(&begun)
    }

    /// POST, then PUT with everything.
    fn push(&self, algorithm: Algorithm, bytes: &[u8]) -> String {
        let digest = algorithm.of(bytes);
        let put = close(&self.begin(""), &digest, bytes.to_vec());
        self.created(&put, &digest, bytes);
        digest
    }

    /// Checks the answer to the end of a push, and that the content is where it says.
    fn created(&self, answer: &Response, digest: &str, bytes: &[u8]) {
        assert_eq!(answer.status(), 201);
        assert_eq!(header(answer, "docker-content-digest"), digest);
        let there = http().get(location(answer)).send().unwrap();
        assert_eq!(there.status(), 200);
        assert_eq!(there.bytes().unwrap(), bytes);
        self.holds_blob(digest, bytes);
    }

    fn holds_blob(&self, digest: &str, bytes: &[u8]) {
        let path = format!("blobs/{digest}");
        let head = self.ask(Method::HEAD, &path).send().unwrap();
        let get = self.get(&path);
        for answer in [&head, &get] {
            assert_eq!(answer.status(), 200);
            assert_eq!(header(answer, "content-length"), bytes.len().to_string());
            assert_eq!(header(answer, "docker-content-digest"), digest);
        }
        assert!(head.bytes().unwrap().is_empty());
        assert_eq!(get.bytes().unwrap(), bytes);
    }

    fn put_manifest(&self, reference: &str, kind: &str, bytes: &[u8]) -> Response {
        let put = self.ask(Method::PUT, &format!("manifests/{reference}"));
        put.header("Content-Type", kind).body(bytes.to_vec()).send().unwrap()
    }

    /// Puts a manifest that must be taken, by its digest or under a tag, and reads it back.
    fn manifest(&self, algorithm: Algorithm, tag: Option<&str>, kind: &str, document: &Value) -> Put {
        let bytes = document.to_string().into_bytes();
        let digest = algorithm.of(&bytes);
        let put = self.put_manifest(tag.unwrap_or(&digest), kind, &bytes);
        let (status, told) = (put.status(), header(&put, "docker-content-digest").to_owned());
        assert_eq!(status, 201, "{}", put.text().unwrap());
        assert_eq!(told, digest);
        for reference in [Some(digest.as_str()), tag].into_iter().flatten() {
            self.holds_manifest(reference, &digest, kind, &bytes);
        }
        Put { digest, bytes, kind: kind.to_owned() }
    }

    fn holds_manifest(&self, reference: &str, digest: &str, kind: &str, bytes: &[u8]) {
        let path = format!("manifests/{reference}");
        let head = self.ask(Method::HEAD, &path).send().unwrap();
        let get = self.get(&path);
        for answer in [&head, &get] {
            assert_eq!(answer.status(), 200);
            assert_eq!(header(answer, "content-type"), kind);
            assert_eq!(header(answer, "content-length"), bytes.len().to_string());
            assert_eq!(header(answer, "docker-content-digest"), digest);
        }
        assert!(head.bytes().unwrap().is_empty());
        assert_eq!(get.bytes().unwrap(), bytes);
    }

    /// A config and one layer, pushed; the image over them.
    fn image(&self, algorithm: Algorithm) -> Value {
        let config = format!("{{\"architecture\":\"amd64\",\"mark\":\"{}\"}}", digest(&unique(8)));
        let layer = unique(600);
        self.push(algorithm, config.as_bytes());
        self.push(algorithm, &layer);
        json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor(algorithm, CONFIG, config.as_bytes()),
            "layers": [descriptor(algorithm, LAYER, &layer)],
        })
    }

    fn delete(&self, path: &str) {
        assert_eq!(self.status(Method::DELETE, path), 202, "{path}");
        assert_eq!(self.status(Method::HEAD, path), 404, "{path}");
    }
}

/// A manifest that was put.
struct Put {
    digest: String,
    bytes: Vec<u8>,
    kind: String,
}

impl Put {
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest, "size": self.bytes.len()})
    }
}

fn descriptor(algorithm: Algorithm, kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": algorithm.of(bytes), "size": bytes.len()})
}

fn header<'r>(answer: &'r Response, name: &str) -> &'r str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Where an answer points to, as the one who asked resolves it.
fn location(answer: &Response) -> Url {
    answer.url().join(header(answer, "location")).unwrap()
}

/// The closing PUT of an upload.
fn close(upload: &Url, digest: &str, bytes: Vec<u8>) -> Response {
    let mut upload = upload.clone();
    upload.query_pairs_mut().append_pair("digest", digest);
    http().put(upload).header("Content-Type", "application/octet-stream").body(bytes).send().unwrap()
}

/// A chunk by PATCH, or by the closing PUT.
fn chunk(method: Method, upload: &Url, digest: Option<&str>, first: usize, bytes: &[u8]) -> Response {
    let mut upload = upload.clone();
    if let Some(digest) = digest {
        upload.query_pairs_mut().append_pair("digest", digest);
    }
    http()
        .request(method, upload)
        .header("Content-Type", "application/octet-stream")
        .header("Content-Range", format!("{first}-{}", first + bytes.len() - 1))
        .body(bytes.to_vec())
        .send()
        .unwrap()
}

/// The code of an error answer, which must be JSON.
fn code(answer: Response) -> String {
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: Value = answer.json().unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}
