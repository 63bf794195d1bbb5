//! oras 1.3.1: sends each blob whole in the closing PUT, names what belongs to something by its digest, and keeps the
//! list of that under the fallback tag where it is told that the registry has none.

use serde_json::json;

use super::*;

const AGENT: &str = "oras/1.3.1";
const ACCEPT: (&str, &str) = (
    "Accept",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.artifact.manifest.v1+json",
);

/// HEAD, POST, and everything in the closing PUT: with its length, in one piece.
fn push_blob(client: &mut Client<'_>, repository: &str, bytes: &[u8]) {
    let head = client.head(&format!("/v2/{repository}/blobs/{}", digest(bytes)), &[]);
    if head.status == 200 {
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        return;
    }
    assert_eq!(head.status, 404);
    let begun = client.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], Body::Nothing);
    assert_eq!(begun.status, 202, "{begun:?}");
    let closing = with_digest(begun.header("location"), &digest(bytes));
    let put = client.ask("PUT", &closing, &[OCTETS], Body::Whole(bytes));
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest(bytes).as_str()));
}

/// An artifact of one file, as it writes them.
fn artifact(kind: &str, file: &[u8], subject: Option<&[u8]>) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2, "data": "e30="},
        "layers": [{"mediaType": "text/plain", "digest": digest(file), "size": file.len(),
            "annotations": {"org.opencontainers.image.title": "hello.txt"}}],
        "annotations": {"org.opencontainers.image.created": "2026-11-20T15:24:04Z"},
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({"mediaType": IMAGE, "digest": digest(subject), "size": subject.len()});
    }
    serde_json::to_vec(&manifest).unwrap()
}

/// What the API tells of referrers, by digest.
fn referrers(client: &mut Client<'_>, of: &[u8], query: &str) -> Vec<String> {
    let list = client.get(&format!("/v2/{REPOSITORY}/referrers/{}{query}", digest(of)), &[]);
    assert_eq!((list.status, list.header("content-type")), (200, INDEX));
    let list = list.json();
    let mut found: Vec<String> = list["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["digest"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

fn sorted(manifests: &[&Vec<u8>]) -> Vec<String> {
    let mut names: Vec<String> = manifests.iter().map(|bytes| digest(bytes)).collect();
    names.sort();
    names
}

fn pushes_attaches_and_discovers(way: Way) {
    let server = private(way);
    let mut client = Client::new(&server, AGENT);

    // oras login: a token without a scope, and `/v2/` with it.
    let challenge = Challenge::of(&client.get("/v2/", &[]));
    client.token_by_get(&challenge, &format!("service={}", challenge.service));
    assert_eq!(client.get("/v2/", &[]).status, 200);

    // oras push
    client.authorization = None;
    let file = bytes(6, 150_000);
    let pushed = artifact("application/vnd.example.thing", &file, None);
    let by_digest = |manifest: &[u8]| format!("/v2/{REPOSITORY}/manifests/{}", digest(manifest));
    let challenge = Challenge::of(&client.head(&by_digest(&pushed), &[ACCEPT]));
    let token = format!("scope={}&service={}", scope(REPOSITORY, "pull,push"), challenge.service);
    client.token_by_get(&challenge, &token);
    assert_eq!(client.head(&by_digest(&pushed), &[ACCEPT]).status, 404);
    for blob in [&file[..], b"{}"] {
        push_blob(&mut client, REPOSITORY, blob);
    }
    let tag = format!("/v2/{REPOSITORY}/manifests/1");
    let manifest_type = ("Content-Type", IMAGE);
    let put = client.ask("PUT", &tag, &[manifest_type], Body::Whole(&pushed));
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest(&pushed).as_str()));
    assert!(!put.has("oci-subject"), "{put:?}");

    // oras pull
    let resolved = client.head(&tag, &[ACCEPT]);
    assert_eq!((resolved.status, resolved.header("content-type")), (200, IMAGE));
    assert_eq!(resolved.header("content-length"), pushed.len().to_string());
    assert_eq!(resolved.header("docker-content-digest"), digest(&pushed));
    assert_eq!(client.get(&by_digest(&pushed), &[("Accept", IMAGE)]).body, pushed);
    assert_eq!(client.get(&format!("/v2/{REPOSITORY}/blobs/{}", digest(&file)), &[]).body, file);

    // oras attach
    let note = b"hello\n";
    let attach = |client: &mut Client<'_>, manifest: &Vec<u8>| {
        assert_eq!(client.head(&by_digest(manifest), &[ACCEPT]).status, 404);
        for blob in [&b"{}"[..], note] {
            push_blob(client, REPOSITORY, blob);
        }
        let put = client.ask("PUT", &by_digest(manifest), &[manifest_type], Body::Whole(manifest));
        // Without this it would take the registry for one that has no list of referrers.
        assert_eq!((put.status, put.header("oci-subject")), (201, digest(&pushed).as_str()));
    };
    let sbom = artifact("application/vnd.example.sbom", note, Some(&pushed));
    attach(&mut client, &sbom);
    assert_eq!(referrers(&mut client, &pushed, ""), sorted(&[&sbom]));
    // oras discover asks for the referrers of these, too.
    assert_eq!(referrers(&mut client, &sbom, ""), sorted(&[]));

    // oras attach --distribution-spec v1.1-referrers-tag: reads the list under the tag, appends to it and writes it.
    let fallback = format!("/v2/{REPOSITORY}/manifests/{}", digest(&pushed).replace(':', "-"));
    let mut list: Vec<Value> = Vec::new();
    let others = ["application/vnd.example.one", "application/vnd.example.two"]
        .map(|kind| artifact(kind, note, Some(&pushed)));
    for (number, manifest) in others.iter().enumerate() {
        attach(&mut client, manifest);
        let read = client.get(&fallback, &[ACCEPT]);
        if number == 0 {
            assert_eq!((read.status, read.code()), (404, "MANIFEST_UNKNOWN".to_owned()));
        } else {
            assert_eq!((read.status, read.header("content-type")), (200, INDEX));
            assert_eq!(read.header("docker-content-digest"), digest(&read.body));
            assert_eq!(read.json()["manifests"], json!(list));
        }
        list.push(json!({"mediaType": IMAGE, "digest": digest(manifest), "size": manifest.len(),
            "artifactType": serde_json::from_slice::<Value>(manifest).unwrap()["artifactType"]}));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": list}).to_string();
        let put = client.ask("PUT", &fallback, &[("Content-Type", INDEX)], Body::Whole(index.as_bytes()));
        assert_eq!(put.status, 201, "{put:?}");
    }
    // Each is told once, wherever it stands.
    let all = sorted(&[&sbom, &others[0], &others[1]]);
    assert_eq!(referrers(&mut client, &pushed, ""), all);
    let one = "?artifactType=application%2Fvnd.example.one";
    assert_eq!(referrers(&mut client, &pushed, one), sorted(&[&others[0]]));

    // oras cp within the server: its query has colons and slashes as they are.
    let copy = format!("{REPOSITORY}/copy");
    let uploads = format!("/v2/{copy}/blobs/uploads/");
    for blob in [&file[..], b"{}"] {
        let mount = format!("{uploads}?mount={}&from={REPOSITORY}", digest(blob));
        let authorization = client.authorization.take();
        let challenge = Challenge::of(&client.ask("POST", &mount, &[], Body::Nothing));
        assert_eq!(challenge.scope.as_deref(), Some("repository:local/private/copy:pull,push"));
        let scopes = [scope(REPOSITORY, "pull"), scope(&copy, "pull,push")];
        let token = format!("scope={}&scope={}&service={}", scopes[0], scopes[1], challenge.service);
        client.token_by_get(&challenge, &token);
        assert_eq!(client.ask("POST", &mount, &[], Body::Nothing).status, 201);
        client.authorization = authorization;
    }

    // oras repo tags, oras tag
    let tags = client.get(&format!("/v2/{REPOSITORY}/tags/list"), &[]);
    let names = json!(["1", digest(&pushed).replace(':', "-")]);
    assert_eq!((tags.status, &tags.json()["tags"]), (200, &names));
    let second = format!("/v2/{REPOSITORY}/manifests/two");
    assert_eq!(client.ask("PUT", &second, &[manifest_type], Body::Whole(&pushed)).status, 201);

    // oras manifest delete: by the digest behind the tag, with a challenge of its own.
    let path = format!(
        "/v2/{REPOSITORY}/manifests/{}",
        client.head(&second, &[ACCEPT]).header("docker-content-digest")
    );
    client.authorization = None;
    let challenge = Challenge::of(&client.ask("DELETE", &path, &[], Body::Nothing));
    assert_eq!(challenge.scope.as_deref(), Some("repository:local/private:pull,delete"));
    let token = format!("scope={}&service={}", scope(REPOSITORY, "delete,pull"), challenge.service);
    client.token_by_get(&challenge, &token);
    assert_eq!(client.ask("DELETE", &path, &[], Body::Nothing).status, 202);
    assert_eq!(client.head(&tag, &[ACCEPT]).status, 404);
}

#[test]
fn oras_pushes_attaches_and_discovers() {
    pushes_attaches_and_discovers(Way::Plain);
}

#[test]
fn oras_pushes_attaches_and_discovers_with_tls() {
    pushes_attaches_and_discovers(Way::Tls);
}
