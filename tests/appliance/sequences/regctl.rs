//! regctl 0.11.7: asks for what it wants at once and follows the challenge, once for each kind of right; tries an
//! anonymous mount of every blob; sends chunks with ranges where it is told to, and goes on from where the registry says
//! it is.

use serde_json::json;

use super::*;

const AGENT: &str = "regclient/regctl (v0.11.7)";

/// It sends its list as so many headers.
const ACCEPT: [(&str, &str); 7] = [
    ("Accept", "application/vnd.oci.image.index.v1+json"),
    ("Accept", "application/vnd.oci.image.manifest.v1+json"),
    ("Accept", "application/vnd.docker.distribution.manifest.list.v2+json"),
    ("Accept", "application/vnd.docker.distribution.manifest.v2+json"),
    ("Accept", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ("Accept", "application/vnd.docker.distribution.manifest.v1+json"),
    ("Accept", "application/vnd.oci.artifact.manifest.v1+json"),
];

/// A token for these rights, as it asks for one.
fn login(client: &mut Client<'_>, challenge: &Challenge, scopes: &[String]) {
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
    client.token_by_get(
        challenge,
        &format!(
            "account=ada&client_id=regclient%2Fregctl+%28v0.11.7%29&{}&service={}",
            scopes.join("&"),
            challenge.service
        ),
    );
}

/// Asks for a mount from wherever the blob is, and sends it all when there is none.
fn push_blob(client: &mut Client<'_>, repository: &str, bytes: &[u8]) -> u16 {
    let mount = format!("/v2/{repository}/blobs/uploads/?mount={}", digest(bytes).replace(':', "%3A"));
    let begun = client.ask("POST", &mount, &[], Body::Nothing);
    if begun.status == 202 {
        let closing = with_digest(begun.header("location"), &digest(bytes));
        assert_eq!(client.ask("PUT", &closing, &[OCTETS], Body::Whole(bytes)).status, 201);
    }
    begun.status
}

#[test]
fn regctl_copies_lists_and_deletes() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    let (source, target) = (format!("{REPOSITORY}/app"), format!("{REPOSITORY}/copy"));
    let tag = format!("/v2/{source}/manifests/1");

    // regctl image copy from a layout
    let challenge = Challenge::of(&client.head(&tag, &ACCEPT));
    assert_eq!(challenge.scope.as_deref(), Some("repository:local/private/app:pull"));
    login(&mut client, &challenge, &[scope(&source, "pull")]);
    assert_eq!(client.head(&tag, &ACCEPT).status, 404);
    login(&mut client, &challenge, &[scope(&source, "pull,push")]);
    let (config, layer) = (br#"{"os":"linux"}"#.to_vec(), bytes(4, 100_000));
    for blob in [&config, &layer] {
        assert_eq!(client.head(&format!("/v2/{source}/blobs/{}", digest(blob)), &[]).status, 404);
        assert_eq!(push_blob(&mut client, &source, blob), 202);
    }
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&layer), "size": layer.len()}],
    }))
    .unwrap();
    let put = client.ask("PUT", &tag, &[("Content-Type", IMAGE)], Body::Whole(&manifest));
    assert_eq!(put.status, 201, "{put:?}");

    // regctl image copy within the server
    login(&mut client, &challenge, &[scope(&target, "pull,push"), scope(&source, "pull")]);
    for blob in [&config, &layer] {
        let (from, name) = (source.replace('/', "%2F"), digest(blob).replace(':', "%3A"));
        let mount = format!("/v2/{target}/blobs/uploads/?from={from}&mount={name}");
        assert_eq!(client.ask("POST", &mount, &[], Body::Nothing).status, 201);
    }
    let copied = format!("/v2/{target}/manifests/1");
    let put = client.ask("PUT", &copied, &[("Content-Type", IMAGE)], Body::Whole(&manifest));
    assert_eq!(put.status, 201, "{put:?}");

    // regctl artifact put --subject, list, list by type
    login(&mut client, &challenge, &[scope(&source, "pull,push")]);
    let note = br#"{"spdx":1}"#;
    for blob in [&b"{}"[..], note] {
        push_blob(&mut client, &source, blob);
    }
    let kind = "application/vnd.example.sbom+json";
    let artifact = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": kind, "digest": digest(note), "size": note.len()}],
        "subject": {"mediaType": IMAGE, "digest": digest(&manifest), "size": manifest.len()},
    }))
    .unwrap();
    let by_digest = format!("/v2/{source}/manifests/{}", digest(&artifact));
    let put = client.ask("PUT", &by_digest, &[("Content-Type", IMAGE)], Body::Whole(&artifact));
    // Without this it would write the fallback tag.
    assert_eq!((put.status, put.header("oci-subject")), (201, digest(&manifest).as_str()));
    login(&mut client, &challenge, &[scope(&source, "pull")]);
    let referrers = format!("/v2/{source}/referrers/{}", digest(&manifest));
    for (query, filtered) in [("", false), ("?artifactType=application%2Fvnd.example.sbom%2Bjson", true)] {
        let list = client.get(&format!("{referrers}{query}"), &[]);
        assert_eq!((list.status, list.header("content-type")), (200, INDEX));
        assert_eq!(list.has("oci-filters-applied"), filtered);
        let index = list.json();
        let [found] = &index["manifests"].as_array().unwrap()[..] else { panic!("{index}") };
        assert_eq!((&found["digest"], &found["artifactType"]), (&json!(digest(&artifact)), &json!(kind)));
    }

    // regctl repo ls: shows what it has only when it is asked.
    client.authorization = None;
    let challenge = Challenge::of(&client.get("/v2/_catalog", &[("Accept", "application/json")]));
    assert_eq!(challenge.scope.as_deref(), Some("registry:catalog:*"));
    login(&mut client, &challenge, &["registry%3Acatalog%3A%2A".to_owned()]);
    let all = client.get("/v2/_catalog", &[("Accept", "application/json")]);
    assert_eq!((all.status, all.json()), (200, json!({"repositories": [source, target]})));

    // regctl tag delete
    client.authorization = None;
    let challenge = Challenge::of(&client.ask("DELETE", &copied, &[], Body::Nothing));
    assert_eq!(challenge.scope.as_deref(), Some("repository:local/private/copy:pull,delete"));
    login(&mut client, &challenge, &[scope(&target, "pull,delete,push")]);
    assert_eq!(client.ask("DELETE", &copied, &[], Body::Nothing).status, 202);
    let tags = client.get(&format!("/v2/{target}/tags/list"), &[("Accept", "application/json")]);
    assert_eq!((tags.status, tags.json()), (200, json!({"name": target, "tags": []})));

    // regctl manifest delete --force-tag-dereference: the token that asked for the tag is too narrow.
    login(&mut client, &challenge, &[scope(&source, "pull,push")]);
    let found = client.head(&tag, &ACCEPT);
    let image = format!("/v2/{source}/manifests/{}", found.header("docker-content-digest"));
    let narrow = Challenge::of(&client.ask("DELETE", &image, &[], Body::Nothing));
    assert_eq!(narrow.error.as_deref(), Some("insufficient_scope"));
    assert_eq!(narrow.scope.as_deref(), Some("repository:local/private/app:pull,delete"));
    login(&mut client, &narrow, &[scope(&source, "pull,push,delete")]);
    assert_eq!(client.ask("DELETE", &image, &[], Body::Nothing).status, 202);
    assert_eq!(client.head(&tag, &ACCEPT).status, 404);
}

#[test]
fn regctl_sends_chunks_and_goes_on_where_it_is_told_to() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let challenge = Challenge::of(&client.ask("POST", &uploads, &[], Body::Nothing));
    assert_eq!(challenge.scope.as_deref(), Some("repository:local/private:pull,push"));
    login(&mut client, &challenge, &[scope(REPOSITORY, "pull,push")]);
    let blob = bytes(5, 3_500_000);
    let begun = client.ask("POST", &uploads, &[], Body::Nothing);
    assert_eq!(begun.status, 202, "{begun:?}");
    let mut location = begun.header("location").to_owned();
    let chunk = |client: &mut Client<'_>, location: &str, first: usize, length: usize| {
        let last = (first + length).min(blob.len()) - 1;
        let range = format!("{first}-{last}");
        let headers = [OCTETS, ("Content-Range", &range)];
        client.ask("PATCH", location, &headers, Body::Whole(&blob[first..=last]))
    };
    for first in [0, 1_000_000] {
        let taken = chunk(&mut client, &location, first, 1_000_000);
        assert_eq!((taken.status, taken.header("range")), (202, format!("0-{}", first + 999_999).as_str()));
        location = taken.header("location").to_owned();
    }
    // A token that has ended in the middle: the challenge arrives though the chunk is not read, and the connection
    // lives on.
    let token = client.authorization.replace("Bearer ended".to_owned());
    let refused = Challenge::of(&chunk(&mut client, &location, 2_000_000, 1_000_000));
    assert_eq!(refused.error.as_deref(), Some("invalid_token"));
    client.authorization = token;
    // A chunk that is there already: the refusal says where the upload is, and where it stands.
    let again = chunk(&mut client, &location, 1_000_000, 1_000_000);
    assert_eq!((again.status, again.header("range")), (416, "0-1999999"));
    assert_eq!(again.code(), "BLOB_UPLOAD_INVALID");
    location = again.header("location").to_owned();
    // After any other failure it asks.
    let status = client.get(&location, &[]);
    assert_eq!((status.status, status.header("range")), (204, "0-1999999"));
    location = status.header("location").to_owned();
    for first in [2_000_000, 3_000_000] {
        let taken = chunk(&mut client, &location, first, 1_000_000);
        assert_eq!(taken.status, 202, "{taken:?}");
        location = taken.header("location").to_owned();
    }
    let closing = with_digest(&location, &digest(&blob));
    let put = client.ask("PUT", &closing, &[OCTETS], Body::Nothing);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest(&blob).as_str()));
    let head = client.head(&format!("/v2/{REPOSITORY}/blobs/{}", digest(&blob)), &[]);
    assert_eq!((head.status, head.header("content-length")), (200, "3500000"));
    // What it gives up is freed.
    let begun = client.ask("POST", &uploads, &[], Body::Nothing);
    let location = begun.header("location").to_owned();
    assert_eq!(client.ask("DELETE", &location, &[], Body::Nothing).status, 204);
    assert_eq!(client.get(&location, &[]).code(), "BLOB_UPLOAD_UNKNOWN");
}
