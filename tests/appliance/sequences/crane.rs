//! crane 0.22.1: asks `/v2/` before anything else, then for a token that has the scope which it will need.

use serde_json::json;

use super::*;

const AGENT: &str = "crane/v0.22.1 go-containerregistry/v0.22.1";
const ACCEPT: (&str, &str) = (
    "Accept",
    "application/vnd.docker.distribution.manifest.v1+json,application/vnd.docker.distribution.manifest.v1+prettyjws,\
     application/vnd.docker.distribution.manifest.v2+json,application/vnd.oci.image.manifest.v1+json,\
     application/vnd.docker.distribution.manifest.list.v2+json,application/vnd.oci.image.index.v1+json",
);

/// The challenge of `/v2/`, which names no scope, and a token for these.
fn begin(client: &mut Client<'_>, scopes: &[String]) {
    client.authorization = None;
    let challenge = Challenge::of(&client.get("/v2/", &[]));
    assert_eq!((challenge.scope.as_deref(), challenge.error.as_deref()), (None, None));
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
    client.token_by_get(&challenge, &format!("{}&service={}", scopes.join("&"), challenge.service));
}

/// HEAD, POST, one PATCH with its length and without a range, an empty PUT.
fn push_blob(client: &mut Client<'_>, repository: &str, bytes: &[u8]) {
    let blob = format!("/v2/{repository}/blobs/{}", digest(bytes));
    assert_eq!(client.head(&blob, &[]).status, 404);
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let begun = client.ask("POST", &uploads, &[("Content-Type", "application/json")], Body::Nothing);
    assert_eq!(begun.status, 202, "{begun:?}");
    let patched = client.ask("PATCH", begun.header("location"), &[OCTETS], Body::Whole(bytes));
    assert_eq!(patched.status, 202, "{patched:?}");
    let closing = with_digest(patched.header("location"), &digest(bytes));
    let put = client.ask("PUT", &closing, &[OCTETS], Body::Nothing);
    assert_eq!(put.status, 201, "{put:?}");
}

fn pushes_copies_lists_and_deletes(way: Way) {
    let server = private(way);
    let mut client = Client::new(&server, AGENT);
    let (source, target) = (format!("{REPOSITORY}/app"), format!("{REPOSITORY}/copy"));

    // crane push
    begin(&mut client, &[scope(&source, "push,pull")]);
    let tag = format!("/v2/{source}/manifests/1");
    assert_eq!(client.head(&tag, &[ACCEPT]).status, 404);
    let (config, layer) = (br#"{"architecture":"amd64"}"#.to_vec(), bytes(1, 300_000));
    for blob in [&config, &layer] {
        push_blob(&mut client, &source, blob);
    }
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": digest(&config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": layer.len(), "digest": digest(&layer)}],
    }))
    .unwrap();
    let put = client.ask("PUT", &tag, &[("Content-Type", IMAGE)], Body::Whole(&manifest));
    assert_eq!(put.status, 201, "{put:?}");

    // crane copy, within the server: reads, asks again, and mounts with a token for both ends.
    begin(&mut client, &[scope(&source, "pull")]);
    let read = client.get(&tag, &[ACCEPT]);
    assert_eq!((read.status, read.header("content-type")), (200, IMAGE));
    assert_eq!((read.header("docker-content-digest"), &read.body), (digest(&manifest).as_str(), &manifest));
    begin(&mut client, &[scope(&target, "push,pull")]);
    let copied = format!("/v2/{target}/manifests/1");
    assert_eq!(client.head(&copied, &[ACCEPT]).status, 404);
    for blob in [&config, &layer] {
        assert_eq!(client.head(&format!("/v2/{target}/blobs/{}", digest(blob)), &[]).status, 404);
    }
    begin(&mut client, &[scope(&target, "push,pull"), scope(&source, "pull")]);
    let mount = |client: &mut Client<'_>, from: &str, blob: &[u8]| {
        let (from, blob) = (from.replace('/', "%2F"), digest(blob).replace(':', "%3A"));
        let query = format!("from={from}&mount={blob}&origin={}", server.address().replace(':', "%3A"));
        let uploads = format!("/v2/{target}/blobs/uploads/?{query}");
        client.ask("POST", &uploads, &[("Content-Type", "application/json")], Body::Nothing)
    };
    for blob in [&config, &layer] {
        let mounted = mount(&mut client, &source, blob);
        assert_eq!(mounted.status, 201, "{mounted:?}");
    }
    let put = client.ask("PUT", &copied, &[("Content-Type", IMAGE)], Body::Whole(&manifest));
    assert_eq!(put.status, 201, "{put:?}");
    // What it copies from elsewhere has a source that is unknown here: it goes on with the upload that it is given.
    for from in ["library/busybox", "local/others/app"] {
        let begun = mount(&mut client, from, &bytes(2, 10));
        assert_eq!(begun.status, 202, "{from}: {begun:?}");
        let ended = client.ask("DELETE", begun.header("location"), &[], Body::Nothing);
        assert_eq!(ended.status, 204, "{ended:?}");
    }

    // crane append of a stream: the PATCH has no length, as nobody knows it yet.
    let begun = client.ask("POST", &format!("/v2/{target}/blobs/uploads/"), &[], Body::Nothing);
    let stream = bytes(3, 200_000);
    let patched = client.ask("PATCH", begun.header("location"), &[OCTETS], Body::Stream(&stream));
    assert_eq!(patched.status, 202, "{patched:?}");
    let closing = with_digest(patched.header("location"), &digest(&stream));
    assert_eq!(client.ask("PUT", &closing, &[OCTETS], Body::Nothing).status, 201);

    // crane ls, catalog, pull
    begin(&mut client, &[scope(&source, "pull")]);
    let tags = client.get(&format!("/v2/{source}/tags/list?n=1000"), &[]);
    assert_eq!((tags.status, tags.json()), (200, json!({"name": source, "tags": ["1"]})));
    let blob = client.get(&format!("/v2/{source}/blobs/{}", digest(&layer)), &[]);
    assert_eq!((blob.status, &blob.body), (200, &layer));
    begin(&mut client, &["registry%3Acatalog%3A%2A".to_owned()]);
    let all = client.get("/v2/_catalog?n=1000", &[]);
    assert_eq!((all.status, all.json()), (200, json!({"repositories": [source, target]})));

    // crane delete
    begin(&mut client, &[scope(&source, "push,pull,delete")]);
    let by_digest = format!("/v2/{source}/manifests/{}", digest(&manifest));
    assert_eq!(client.ask("DELETE", &by_digest, &[], Body::Nothing).status, 202);
    assert_eq!(client.head(&tag, &[ACCEPT]).status, 404);
}

#[test]
fn crane_pushes_copies_lists_and_deletes() {
    pushes_copies_lists_and_deletes(Way::Plain);
}

#[test]
fn crane_pushes_copies_lists_and_deletes_with_tls() {
    pushes_copies_lists_and_deletes(Way::Tls);
}

/// Without an answer to HEAD it asks by GET, and shows its user the code in the body.
#[test]
fn crane_is_told_why_in_bodies() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    begin(&mut client, &[scope(REPOSITORY, "pull")]);
    let tag = format!("/v2/{REPOSITORY}/manifests/none");
    assert_eq!(client.head(&tag, &[ACCEPT]).status, 404);
    let told = client.get(&tag, &[ACCEPT]);
    assert_eq!((told.status, told.code()), (404, "MANIFEST_UNKNOWN".to_owned()));
    // Without a login it takes a token that is good for nothing, and is asked once more.
    let challenge = Challenge::of(&Client::new(&server, AGENT).get("/v2/", &[]));
    client.authorization = None;
    let target =
        format!("{}?scope={}&service={}", challenge.realm, scope(REPOSITORY, "pull"), challenge.service);
    let token = client.get(&target, &[]);
    client.take_token(&token);
    let refused = client.get(&tag, &[ACCEPT]);
    assert_eq!(Challenge::of(&refused).error.as_deref(), Some("insufficient_scope"));
    assert_eq!(refused.code(), "UNAUTHORIZED");
}
