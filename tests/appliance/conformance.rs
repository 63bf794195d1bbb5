//! What the distribution specification asks of a registry, topic by topic, against the running server: in the clear
//! without accounts, with accounts, over TLS, and after it was killed.
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
#[path = "conformance/registry.rs"]
mod registry;
#[path = "conformance/sha512.rs"]
mod sha512;
#[path = "conformance/sparse.rs"]
mod sparse;
#[path = "conformance/tags.rs"]
mod tags;
#[path = "conformance/uploads.rs"]
mod uploads;

use reqwest::blocking::Response;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use self::registry::{Login, Mode, Registry, Request, Version};

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

/// One repository of one registry.
struct Client<'a> {
    registry: &'a Registry,
    repository: String,
}

impl Client<'_> {
    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("{}/v2/{}/{path}", self.registry.server.url, self.repository)).unwrap()
    }

    fn ask(&self, method: Method, path: &str) -> Request<'_> {
        self.to(method, self.url(path))
    }

    /// A request to where the registry pointed.
    fn to(&self, method: Method, url: Url) -> Request<'_> {
        self.registry.request(method, url)
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
        let put = self.close(&self.begin(""), &digest, bytes.to_vec());
        self.created(&put, &digest, bytes);
        digest
    }

    /// Checks the answer to the end of a push, and that the content is where it says.
    fn created(&self, answer: &Response, digest: &str, bytes: &[u8]) {
        assert_eq!(answer.status(), 201);
        assert_eq!(header(answer, "docker-content-digest"), digest);
        let there = self.to(Method::GET, location(answer)).send().unwrap();
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

    /// The closing PUT of an upload.
    fn close(&self, upload: &Url, digest: &str, bytes: Vec<u8>) -> Response {
        let mut upload = upload.clone();
        upload.query_pairs_mut().append_pair("digest", digest);
        let put = self.to(Method::PUT, upload).header("Content-Type", "application/octet-stream");
        put.body(bytes).send().unwrap()
    }

    /// A chunk by PATCH, or by the closing PUT.
    fn chunk(
        &self,
        method: Method,
        upload: &Url,
        digest: Option<&str>,
        first: usize,
        bytes: &[u8],
    ) -> Response {
        let mut upload = upload.clone();
        if let Some(digest) = digest {
            upload.query_pairs_mut().append_pair("digest", digest);
        }
        self.to(method, upload)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", format!("{first}-{}", first + bytes.len() - 1))
            .body(bytes.to_vec())
            .send()
            .unwrap()
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

/// The code of an error answer, which must be JSON.
fn code(answer: Response) -> String {
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: Value = answer.json().unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

/// What is asked of a registry, with its name in the order of the walk.
type Topic = (&'static str, fn(&mut Registry));

macro_rules! topics {
    ($($part:ident::$topic:ident,)*) => {
        &[$((concat!(stringify!($part), "::", stringify!($topic)), $part::$topic)),*]
    };
}

const TOPICS: &[Topic] = topics![
    uploads::every_way_to_push_a_blob_gives_the_same_blob,
    uploads::a_chunk_out_of_order_is_refused_and_the_upload_lives_on,
    uploads::a_chunk_must_be_what_it_says,
    uploads::what_is_not_its_digest_is_refused_in_every_way,
    uploads::an_upload_that_is_cancelled_is_gone,
    uploads::a_blob_is_mounted_from_where_it_is,
    uploads::an_algorithm_may_be_announced,
    uploads::an_upload_outlives_a_restart,
    uploads::an_upload_in_chunks_outlives_a_kill,
    ranges::a_range_gives_what_it_names,
    ranges::a_head_tells_ranges_and_takes_none,
    manifests::every_shape_of_manifest_is_kept_as_it_came,
    manifests::a_manifest_of_any_size_up_to_the_cap_is_taken,
    manifests::the_type_is_that_of_the_document,
    manifests::one_push_by_digest_sets_tags,
    manifests::a_manifest_that_is_not_its_digest_is_refused,
    manifests::writers_that_read_the_same_do_not_overwrite_each_other,
    sha512::content_is_answered_under_the_name_that_is_asked_for,
    sha512::both_names_of_the_same_bytes_cost_one_file,
    referrers::referrers_are_there_before_with_and_after_their_subject,
    referrers::referrers_are_told_where_nothing_is,
    referrers::a_long_list_comes_in_pages,
    referrers::a_fallback_tag_and_cosigns_tags_belong_to_their_image,
    tags::tags_are_listed_in_order_and_in_pages,
    sparse::a_sparse_repository_takes_what_others_refuse,
    sparse::an_immutable_tag_stays_where_it_is,
    errors::every_refusal_is_json_with_a_code,
    errors::a_manifest_names_what_is_missing,
    deletion::a_tag_goes_alone_and_a_manifest_with_its_tags,
    deletion::a_blob_that_is_unlinked_stays_where_else_it_is,
    deletion::deleting_can_be_switched_off,
];

/// Walks through all topics; tells which of them fail, all of them together.
fn walk(registry: &mut Registry) {
    let failed: Vec<&str> = TOPICS
        .iter()
        .filter(|(_, topic)| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| topic(registry))).is_err()
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "{:?}: {failed:#?}\n{}", registry.mode, registry.server.log());
    registry.forgets_nothing_when_killed();
}

#[test]
fn in_the_clear_and_without_accounts() {
    walk(&mut Registry::new(Mode { login: Login::None, tls: None }));
}

#[test]
fn with_tokens_and_again_after_a_kill() {
    let mut registry = Registry::new(Mode { login: Login::Tokens, tls: None });
    walk(&mut registry);
    registry.turn_over();
    walk(&mut registry);
}

#[test]
fn with_passwords_over_tls_by_http_1() {
    walk(&mut Registry::new(Mode { login: Login::Basic, tls: Some(Version::HTTP_11) }));
}

#[test]
fn with_tokens_over_tls_by_http_2() {
    walk(&mut Registry::new(Mode { login: Login::Tokens, tls: Some(Version::HTTP_2) }));
}
