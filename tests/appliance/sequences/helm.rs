//! helm 3.22.0: puts a chart's archive and its description whole, the manifest by its digest and then under the version.
//! The manifest says no media type of itself; and a chart is known by the media types that only helm uses.

use serde_json::json;

use super::*;

const AGENT: &str = "Helm/3.22";
const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const PROVENANCE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";
const ACCEPT: (&str, &str) = (
    "Accept",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.artifact.manifest.v1+json",
);

/// Follows a challenge for these rights in a repository.
fn login(client: &mut Client<'_>, refused: &Answer, repository: &str, asked: &str, actions: &str) {
    let challenge = Challenge::of(refused);
    assert_eq!(challenge.scope, Some(format!("repository:{repository}:{asked}")));
    client.token_by_get(
        &challenge,
        &format!("scope={}&service={}", scope(repository, actions), challenge.service),
    );
}

/// Pushes a chart; its manifest.
fn push(client: &mut Client<'_>, repository: &str, tag: &str, blobs: &[(&str, &[u8])]) -> Vec<u8> {
    let descriptors: Vec<Value> = blobs
        .iter()
        .map(|(kind, bytes)| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()}))
        .collect();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "config": descriptors[0],
        "layers": descriptors[1..],
        "annotations": {"org.opencontainers.image.title": "greeter", "org.opencontainers.image.version": tag},
    }))
    .unwrap();
    let by_digest = format!("/v2/{repository}/manifests/{}", digest(&manifest));
    client.authorization = None;
    let refused = client.head(&by_digest, &[ACCEPT]);
    login(client, &refused, repository, "pull", "pull,push");
    assert_eq!(client.head(&by_digest, &[ACCEPT]).status, 404);
    for (_, bytes) in blobs {
        let head = client.head(&format!("/v2/{repository}/blobs/{}", digest(bytes)), &[]);
        if head.status == 200 {
            continue;
        }
        assert_eq!(head.status, 404);
        let begun = client.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], Body::Nothing);
        assert_eq!(begun.status, 202, "{begun:?}");
        let closing = with_digest(begun.header("location"), &digest(bytes));
        let put = client.ask("PUT", &closing, &[OCTETS], Body::Whole(bytes));
        assert_eq!(put.status, 201, "{put:?}");
    }
    let kind = ("Content-Type", IMAGE);
    assert_eq!(client.ask("PUT", &by_digest, &[kind], Body::Whole(&manifest)).status, 201);
    // It reads what it wrote, to write it again under the version.
    let read = client.get(&by_digest, &[("Accept", IMAGE)]);
    assert_eq!((read.status, read.header("content-type"), &read.body), (200, IMAGE, &manifest));
    let tagged = format!("/v2/{repository}/manifests/{tag}");
    let put = client.ask("PUT", &tagged, &[kind], Body::Whole(&manifest));
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest(&manifest).as_str()));
    manifest
}

fn pushes_and_pulls_charts(way: Way) {
    let server = private(way);
    let mut client = Client::new(&server, AGENT);
    // helm registry login
    let challenge = Challenge::of(&client.get("/v2/", &[]));
    let password = PASSWORD.replace(' ', "+");
    let form = format!(
        "client_id=oras-go&grant_type=password&password={password}&service={}&username=ada",
        challenge.service
    );
    client.token_by_post(&challenge, &form);
    assert_eq!(client.get("/v2/", &[]).status, 200);

    // helm push, with a signature; then a version with a `+`, which no tag can have.
    let chart = format!("{REPOSITORY}/charts/greeter");
    let config = br#"{"name":"greeter","version":"1.2.3","apiVersion":"v2"}"#;
    let (archive, provenance) = (bytes(7, 40_000), b"-----BEGIN PGP SIGNED MESSAGE-----\n");
    let blobs: [(&str, &[u8]); 3] = [(CONFIG, config), (CHART, &archive), (PROVENANCE, provenance)];
    let manifest = push(&mut client, &chart, "1.2.3", &blobs);
    push(
        &mut client,
        &chart,
        "1.3.0_build.7",
        &[(CONFIG, b"{\"version\":\"1.3.0+build.7\"}"), (CHART, &archive)],
    );

    // helm pull --version '^1': all tags, then the newest that fits.
    client.authorization = None;
    let tags = format!("/v2/{chart}/tags/list");
    let refused = client.get(&tags, &[]);
    login(&mut client, &refused, &chart, "pull", "pull");
    let list = client.get(&tags, &[]);
    assert_eq!((list.status, list.json()), (200, json!({"name": chart, "tags": ["1.2.3", "1.3.0_build.7"]})));
    let read = client.get(&format!("/v2/{chart}/manifests/1.2.3"), &[ACCEPT]);
    assert_eq!((read.status, read.header("content-type"), &read.body), (200, IMAGE, &manifest));
    assert_eq!(read.header("docker-content-digest"), digest(&manifest));
    for (_, bytes) in blobs {
        let blob = client.get(&format!("/v2/{chart}/blobs/{}", digest(bytes)), &[]);
        assert_eq!((blob.status, blob.body.as_slice()), (200, bytes));
    }
}

#[test]
fn helm_pushes_and_pulls_charts() {
    pushes_and_pulls_charts(Way::Plain);
}

#[test]
fn helm_pushes_and_pulls_charts_with_tls() {
    pushes_and_pulls_charts(Way::Tls);
}

/// A chart that is not there, or not theirs, is told with a code in a body that it shows.
#[test]
fn helm_is_told_why_in_bodies() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    for repository in [format!("{REPOSITORY}/none"), "local/others/greeter".to_owned()] {
        client.authorization = None;
        let tags = format!("/v2/{repository}/tags/list");
        let refused = client.get(&tags, &[]);
        login(&mut client, &refused, &repository, "pull", "pull");
        let none = client.get(&tags, &[]);
        assert_eq!((none.status, none.code()), (404, "NAME_UNKNOWN".to_owned()), "{repository}");
    }
}
