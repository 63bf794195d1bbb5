//! The registry as any client of the distribution API meets it.

use reqwest::blocking::{Body, Response};
use serde_json::{Value, json};

use super::support::{Server, digest, http, until};

fn put_blob(server: &Server, repository: &str, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let location = start_upload(server, repository);
    let separator = if location.contains('?') { '&' } else { '?' };
    let response = http()
        .put(format!("{location}{separator}digest={digest}"))
        .header("Content-Type", "application/octet-stream")
        .body(bytes.to_vec())
        .send()
        .unwrap();
    assert_eq!(response.status(), 201, "{}", response.text().unwrap());
    digest
}

fn start_upload(server: &Server, repository: &str) -> String {
    let response = http()
        .post(format!("{}/v2/{repository}/blobs/uploads/", server.url))
        .header("Content-Length", "0")
        .send()
        .unwrap();
    assert_eq!(response.status(), 202);
    absolute(server, response.headers()["location"].to_str().unwrap())
}

fn absolute(server: &Server, location: &str) -> String {
    if location.starts_with('/') { format!("{}{location}", server.url) } else { location.to_owned() }
}

fn manifest_of(config: &str, config_size: usize, layers: &[(&str, usize)]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}))
        .collect();
    serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers,
    }))
    .unwrap()
}

/// Pushes an image that is no other's.
pub fn push_image(server: &Server, repository: &str, tag: &str) {
    let layer = format!("{repository}:{tag}").into_bytes();
    let config = put_blob(server, repository, b"{}");
    let digest = put_blob(server, repository, &layer);
    let manifest = manifest_of(&config, 2, &[(&digest, layer.len())]);
    assert_eq!(put_manifest(server, repository, tag, IMAGE, &manifest).status(), 201);
}

fn put_manifest(
    server: &Server,
    repository: &str,
    reference: &str,
    media_type: &str,
    bytes: &[u8],
) -> Response {
    http()
        .put(format!("{}/v2/{repository}/manifests/{reference}", server.url))
        .header("Content-Type", media_type)
        .body(bytes.to_vec())
        .send()
        .unwrap()
}

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn code(response: Response) -> String {
    let body: Value = response.json().expect("errors are JSON");
    body["errors"][0]["code"].as_str().expect("an error has a code").to_owned()
}

#[test]
fn all_four_manifest_types_are_kept_byte_for_byte() {
    let server = Server::start();
    let repository = "local/types";
    let config = put_blob(&server, repository, b"{}");
    let image = manifest_of(&config, 2, &[]);
    let docker = String::from_utf8(image.clone())
        .unwrap()
        .replace(IMAGE, DOCKER)
        .replace("vnd.oci.image.config.v1+json", "vnd.docker.container.image.v1+json")
        .into_bytes();
    let child =
        |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
    let list = |media: &str, child: Value| {
        serde_json::to_vec_pretty(&json!({"schemaVersion": 2, "mediaType": media, "manifests": [child]}))
            .unwrap()
    };
    let index = list(INDEX, child(IMAGE, &image));
    let docker_list = list(DOCKER_LIST, child(DOCKER, &docker));
    for (tag, media, bytes) in
        [("i", IMAGE, &image), ("d", DOCKER, &docker), ("x", INDEX, &index), ("l", DOCKER_LIST, &docker_list)]
    {
        let put = put_manifest(&server, repository, tag, media, bytes);
        assert_eq!(put.status(), 201, "{tag}: {}", put.text().unwrap());
        for reference in [tag.to_owned(), digest(bytes)] {
            let got =
                http().get(format!("{}/v2/{repository}/manifests/{reference}", server.url)).send().unwrap();
            assert_eq!(got.status(), 200);
            assert_eq!(got.headers()["content-type"], media);
            assert_eq!(got.headers()["docker-content-digest"], digest(bytes).as_str());
            assert_eq!(got.bytes().unwrap(), bytes.as_slice());
        }
    }
    let tags = server.get(&format!("/v2/{repository}/tags/list")).1;
    assert_eq!(tags, json!({"name": repository, "tags": ["d", "i", "l", "x"]}));
    let page = server.get(&format!("/v2/{repository}/tags/list?n=2&last=d")).1;
    assert_eq!(page["tags"], json!(["i", "l"]));
    assert!(server.get("/v2/_catalog").1["repositories"].as_array().unwrap().contains(&json!(repository)));
}

#[test]
fn a_streamed_upload_without_a_length_is_taken() {
    let server = Server::start();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let location = start_upload(&server, "local/stream");
    let patch = http()
        .patch(&location)
        .header("Content-Type", "application/octet-stream")
        .body(Body::new(std::io::Cursor::new(bytes.clone())))
        .send()
        .unwrap();
    assert_eq!(patch.status(), 202);
    assert_eq!(patch.headers()["range"], format!("0-{}", bytes.len() - 1).as_str());
    let location = absolute(&server, patch.headers()["location"].to_str().unwrap());
    let separator = if location.contains('?') { '&' } else { '?' };
    let put = http()
        .put(format!("{location}{separator}digest={}", digest(&bytes)))
        .header("Content-Length", "0")
        .send()
        .unwrap();
    assert_eq!(put.status(), 201);
    let url = format!("{}/v2/local/stream/blobs/{}", server.url, digest(&bytes));
    assert_eq!(http().get(&url).send().unwrap().bytes().unwrap(), bytes.as_slice());
    let part = http().get(&url).header("Range", "bytes=100-199").send().unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], format!("bytes 100-199/{}", bytes.len()).as_str());
    assert_eq!(part.bytes().unwrap(), &bytes[100..200]);
    let beyond = http().get(&url).header("Range", "bytes=9000000-").send().unwrap();
    assert_eq!(beyond.status(), 416);
    let head = http().head(&url).send().unwrap();
    assert_eq!(head.headers()["content-length"], bytes.len().to_string().as_str());
}

#[test]
fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let server = Server::start();
    let location = start_upload(&server, "local/wrong");
    let wrong = digest(b"something else");
    let separator = if location.contains('?') { '&' } else { '?' };
    let put = http().put(format!("{location}{separator}digest={wrong}")).body("the bytes").send().unwrap();
    assert_eq!(put.status(), 400);
    assert_eq!(code(put), "DIGEST_INVALID");
    for bytes in [&b"the bytes"[..], b"something else"] {
        assert_eq!(server.get(&format!("/v2/local/wrong/blobs/{}", digest(bytes))).0, 404);
    }
    until("the upload's file is gone", || server.leftovers().is_empty());
}

#[test]
fn a_truncated_upload_leaves_nothing_visible() {
    use std::io::Write as _;
    let server = Server::start();
    let whole = vec![7_u8; 200_000];
    let location = start_upload(&server, "local/cut");
    let path = location.trim_start_matches(&server.url).to_owned();
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut connection = std::net::TcpStream::connect(server.address()).unwrap();
    write!(
        connection,
        "PUT {path}{separator}digest={} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        digest(&whole),
        server.address(),
        whole.len()
    )
    .unwrap();
    connection.write_all(&whole[..100_000]).unwrap();
    drop(connection);
    assert_eq!(server.get(&format!("/v2/local/cut/blobs/{}", digest(&whole))).0, 404);
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn clients_cannot_write_what_is_pantrys_own() {
    let server = Server::start();
    for repository in ["packages/acme/x", "pantry/base"] {
        let response = http().post(format!("{}/v2/{repository}/blobs/uploads/", server.url)).send().unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(code(response), "DENIED");
    }
    let unknown = http().post(format!("{}/v2/mistyped/x/blobs/uploads/", server.url)).send().unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(code(unknown), "NAME_UNKNOWN");
}

#[test]
fn malformed_names_and_digests_are_never_a_server_error() {
    let server = Server::start();
    for path in [
        "/v2/local/x/manifests/sha256:baddigeststring",
        "/v2/local/x/blobs/sha256:bad",
        "/v2/local/x/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
        "/v2/local/UPPER/manifests/latest",
        "/v2/local/../x/manifests/latest",
        "/v2/local/x/manifests/%ff",
        "/v2//manifests/latest",
        "/v2/local/x/blobs/uploads/unknown",
        "/v2/local/x/nonsense",
    ] {
        let status = server.get(path).0;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let bad = put_manifest(&server, "local/x", "sha256:bad", IMAGE, b"{}");
    assert_eq!(bad.status(), 400);
    for bytes in [&b"not json"[..], b"[]", b"{\"schemaVersion\":1}", &[0xff, 0xfe]] {
        let refused = put_manifest(&server, "local/x", "t", IMAGE, bytes);
        assert_eq!(refused.status(), 400);
        assert_eq!(code(refused), "MANIFEST_INVALID");
    }
    let deep = [vec![b'['; 1_000_000], vec![b']'; 1_000_000]].concat();
    assert_eq!(put_manifest(&server, "local/x", "t", IMAGE, &deep).status(), 400);
}

#[test]
fn a_manifest_of_100_mib_is_refused_and_not_held() {
    let server = Server::start();
    let before = resident_kib(&server);
    let refused = put_manifest(&server, "local/big", "t", IMAGE, &vec![b' '; 100 << 20]);
    assert_eq!(refused.status(), 413);
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 32 * 1024, "the server grew by {grown} KiB");
}

#[test]
fn memory_does_not_depend_on_the_size_of_a_blob() {
    let server = Server::start();
    put_blob(&server, "local/warm", &vec![1; 8 << 20]);
    let before = resident_kib(&server);
    let bytes: Vec<u8> =
        (0..(192_u32 << 20) / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let digest = put_blob(&server, "local/large", &bytes);
    let got =
        http().get(format!("{}/v2/local/large/blobs/{digest}", server.url)).send().unwrap().bytes().unwrap();
    assert!(got == bytes.as_slice());
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 48 * 1024, "the server grew by {grown} KiB over a blob of 192 MiB");
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn missing_blobs_are_named() {
    let server = Server::start();
    let manifest = manifest_of(&digest(b"never sent"), 10, &[]);
    let refused = put_manifest(&server, "local/missing", "t", IMAGE, &manifest);
    assert_eq!(refused.status(), 400);
    assert_eq!(code(refused), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(server.get("/v2/local/missing/manifests/t").0, 404);
}

#[test]
fn deleting_a_tag_leaves_the_manifest_and_deleting_it_takes_its_tags() {
    let server = Server::start();
    let repository = "local/gone";
    let config = put_blob(&server, repository, b"{ }");
    let manifest = manifest_of(&config, 3, &[]);
    for tag in ["a", "b"] {
        assert_eq!(put_manifest(&server, repository, tag, IMAGE, &manifest).status(), 201);
    }
    let delete = |reference: &str| {
        http()
            .delete(format!("{}/v2/{repository}/manifests/{reference}", server.url))
            .send()
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(delete("a"), 202);
    assert_eq!(server.get(&format!("/v2/{repository}/manifests/a")).0, 404);
    assert_eq!(server.get(&format!("/v2/{repository}/manifests/b")).0, 200);
    assert_eq!(delete(&digest(&manifest)), 202);
    assert_eq!(server.get(&format!("/v2/{repository}/manifests/b")).0, 404);
    let blob = http().delete(format!("{}/v2/{repository}/blobs/{config}", server.url)).send().unwrap();
    assert_eq!(blob.status(), 202);
    assert_eq!(server.get(&format!("/v2/{repository}/blobs/{config}")).0, 404);
}

#[test]
fn what_was_answered_201_is_there_after_kill_9() {
    let server = Server::start();
    let config = put_blob(&server, "local/durable", b"{  }");
    let layer = put_blob(&server, "local/durable", &vec![9; 1_500_000]);
    let manifest = manifest_of(&config, 4, &[(&layer, 1_500_000)]);
    assert_eq!(put_manifest(&server, "local/durable", "t", IMAGE, &manifest).status(), 201);
    server.kill();
    let again = Server::start_on(&server.root, &[]);
    assert_eq!(again.get("/v2/local/durable/manifests/t").0, 200);
    let got = http().get(format!("{}/v2/local/durable/blobs/{layer}", again.url)).send().unwrap();
    assert_eq!(digest(&got.bytes().unwrap()), layer);
}

#[test]
fn what_stalled_clients_sent_is_bounded_and_given_back() {
    use std::io::Write as _;
    let server = Server::start();
    server.until_healthy();
    let before = resident_kib(&server);
    // Together five times what may be held; a refused client's write may break off.
    let clients: Vec<_> = (0..24)
        .map(|_| {
            let address = server.address().to_owned();
            std::thread::spawn(move || {
                let mut client = std::net::TcpStream::connect(&address).unwrap();
                client.set_write_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
                let head = format!(
                    "PUT /v2/local/held/manifests/t HTTP/1.1\r\nHost: {address}\r\nContent-Type: {IMAGE}\r\nContent-Length: 8388608\r\n\r\n"
                );
                client.write_all(head.as_bytes()).unwrap();
                _ = client.write_all(&vec![b' '; 7 << 20]);
                client
            })
        })
        .collect();
    let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 64 * 1024, "the server grew by {grown} KiB while clients stalled");
    // A manifest as they usually are needs nothing of what the others hold.
    let config = put_blob(&server, "local/held", b"{}");
    let manifest = manifest_of(&config, 2, &[]);
    assert_eq!(put_manifest(&server, "local/held", "t", IMAGE, &manifest).status(), 201);
    drop(clients);
    until("the memory is given back", || resident_kib(&server) < before + 16 * 1024);
}

#[test]
fn a_path_that_is_no_text_is_refused_as_a_problem() {
    let server = Server::start();
    let (status, problem) = server.get("/v1/packages/%ff");
    assert_eq!((status, problem["code"].as_str()), (400, Some("path_invalid")));
    assert!(problem["hint"].is_string() && problem["request_id"].is_string());
}
