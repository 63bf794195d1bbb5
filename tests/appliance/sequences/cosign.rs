//! cosign 2.6.5 (its package `oci/remote` was watched): the requests are those of crane's library; what it adds are
//! signatures and attestations, kept under tags that are made of the image's digest, or as referrers.

use serde_json::json;

use super::*;

const AGENT: &str = "cosign/v2.6.5 (linux; amd64)";
const ACCEPT: (&str, &str) = (
    "Accept",
    "application/vnd.docker.distribution.manifest.v1+json,application/vnd.docker.distribution.manifest.v1+prettyjws,\
     application/vnd.docker.distribution.manifest.v2+json,application/vnd.oci.image.manifest.v1+json,\
     application/vnd.docker.distribution.manifest.list.v2+json,application/vnd.oci.image.index.v1+json",
);
const SIGNATURE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// `/v2/`, and a token for what follows.
fn begin(client: &mut Client<'_>, actions: &str) {
    client.authorization = None;
    let challenge = Challenge::of(&client.get("/v2/", &[]));
    let query = format!("scope={}&service={}", scope(REPOSITORY, actions), challenge.service);
    client.token_by_get(&challenge, &query);
}

fn push_blob(client: &mut Client<'_>, bytes: &[u8]) -> Value {
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", digest(bytes));
    if client.head(&blob, &[]).status == 404 {
        let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let begun = client.ask("POST", &uploads, &[("Content-Type", "application/json")], Body::Nothing);
        assert_eq!(begun.status, 202, "{begun:?}");
        let patched = client.ask("PATCH", begun.header("location"), &[OCTETS], Body::Whole(bytes));
        assert_eq!(patched.status, 202, "{patched:?}");
        let closing = with_digest(patched.header("location"), &digest(bytes));
        assert_eq!(client.ask("PUT", &closing, &[OCTETS], Body::Nothing).status, 201);
    }
    json!({"digest": digest(bytes), "size": bytes.len()})
}

fn put(client: &mut Client<'_>, reference: &str, manifest: &Value) -> (Vec<u8>, Answer) {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
    let answer = client.ask("PUT", &path, &[("Content-Type", IMAGE)], Body::Whole(&bytes));
    assert_eq!(answer.status, 201, "{answer:?}");
    (bytes, answer)
}

fn image(client: &mut Client<'_>) -> Vec<u8> {
    begin(client, "push,pull");
    let mut config = push_blob(client, br#"{"os":"linux"}"#);
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []});
    put(client, "1", &image).0
}

#[test]
fn cosign_keeps_signatures_under_tags_of_the_digest() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    let image = image(&mut client);
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", digest(&image));
    let tag = |suffix: &str| format!("{}.{suffix}", digest(&image).replace(':', "-"));
    // Signs twice and attests once: reads what is there, and writes it again with one layer more.
    for (suffix, kind, layers) in
        [("sig", SIGNATURE, 1), ("sig", SIGNATURE, 2), ("att", "application/vnd.dsse.envelope.v1+json", 1)]
    {
        begin(&mut client, "pull");
        assert_eq!(client.get(&by_digest, &[ACCEPT]).body, image);
        let path = format!("/v2/{REPOSITORY}/manifests/{}", tag(suffix));
        let there = client.get(&path, &[ACCEPT]);
        let mut manifest = if layers == 1 {
            assert_eq!((there.status, there.code()), (404, "MANIFEST_UNKNOWN".to_owned()));
            json!({"schemaVersion": 2, "mediaType": IMAGE, "layers": []})
        } else {
            assert_eq!((there.status, there.header("content-type")), (200, IMAGE));
            there.json()
        };
        assert_eq!(manifest["layers"].as_array().unwrap().len(), layers - 1);
        begin(&mut client, "push,pull");
        if let Some(config) = manifest["config"]["digest"].as_str() {
            let config = client.get(&format!("/v2/{REPOSITORY}/blobs/{config}"), &[]);
            assert_eq!(config.body, b"{\"sig\":1}");
        }
        assert_eq!(client.head(&path, &[ACCEPT]).status, there.status);
        let mut layer = push_blob(&mut client, format!("{suffix} {layers}").as_bytes());
        layer["mediaType"] = kind.into();
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": "MEUCIQ=="});
        manifest["layers"].as_array_mut().unwrap().push(layer);
        manifest["config"] = push_blob(&mut client, format!("{{\"{suffix}\":{layers}}}").as_bytes());
        manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        put(&mut client, &tag(suffix), &manifest);
    }
    // cosign verify: the image, what is under the tag, and each layer.
    begin(&mut client, "pull");
    assert_eq!(client.get(&by_digest, &[ACCEPT]).body, image);
    let signed = client.get(&format!("/v2/{REPOSITORY}/manifests/{}", tag("sig")), &[ACCEPT]).json();
    for layer in signed["layers"].as_array().unwrap() {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", layer["digest"].as_str().unwrap());
        assert!(client.get(&path, &[]).body.starts_with(b"sig "));
    }
    let tags = client.get(&format!("/v2/{REPOSITORY}/tags/list?n=1000"), &[]).json();
    assert_eq!(tags["tags"], json!(["1", tag("att"), tag("sig")]));
    // cosign clean
    begin(&mut client, "push,pull,delete");
    for suffix in ["sig", "att"] {
        let path = format!("/v2/{REPOSITORY}/manifests/{}", tag(suffix));
        assert_eq!(client.ask("DELETE", &path, &[], Body::Nothing).status, 202);
        assert_eq!(client.head(&path, &[ACCEPT]).status, 404);
    }
    assert_eq!(client.head(&by_digest, &[ACCEPT]).status, 200);
}

/// The form of cosign 3, and of 2 with `--registry-referrers-mode=oci-1-1`.
#[test]
fn cosign_keeps_bundles_as_referrers() {
    let server = private(Way::Plain);
    let mut client = Client::new(&server, AGENT);
    let image = image(&mut client);
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", digest(&image));
    let referrers = format!("/v2/{REPOSITORY}/referrers/{}", digest(&image));
    // The subject is described by what HEAD told.
    begin(&mut client, "pull");
    let head = client.head(&by_digest, &[ACCEPT]);
    let subject = json!({
        "mediaType": head.header("content-type"),
        "digest": head.header("docker-content-digest"),
        "size": head.header("content-length").parse::<u64>().unwrap(),
    });
    begin(&mut client, "push,pull");
    let mut config = push_blob(&mut client, b"{}");
    config["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    config["artifactType"] = BUNDLE.into();
    let mut layer =
        push_blob(&mut client, br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#);
    layer["mediaType"] = BUNDLE.into();
    let annotations = json!({
        "org.opencontainers.image.created": "2026-11-20T15:24:04Z",
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
    });
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [layer],
        "annotations": annotations, "subject": subject, "artifactType": BUNDLE});
    let reference = digest(&serde_json::to_vec(&manifest).unwrap());
    let (bytes, answer) = put(&mut client, &reference, &manifest);
    assert_eq!(answer.header("oci-subject"), digest(&image));
    // After each PUT of something with a subject the library looks whether it must keep the list itself.
    let list = client.get(&referrers, &[("Accept", INDEX)]);
    assert_eq!((list.status, list.header("content-type")), (200, INDEX));
    // cosign verify finds it by its type and the annotations that were copied up.
    begin(&mut client, "pull");
    let wanted = format!("{referrers}?artifactType={}", BUNDLE.replace('/', "%2F").replace('+', "%2B"));
    let index = client.get(&wanted, &[("Accept", INDEX)]).json();
    let [found] = &index["manifests"].as_array().unwrap()[..] else { panic!("{index}") };
    assert_eq!(found["digest"], digest(&bytes));
    assert_eq!((&found["artifactType"], &found["annotations"]), (&json!(BUNDLE), &annotations));
    let tags = client.get(&format!("/v2/{REPOSITORY}/tags/list?n=1000"), &[]).json();
    assert_eq!(tags["tags"], json!(["1"]), "no tag was needed");
}
