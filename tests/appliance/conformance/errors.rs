//! What is refused, and how.

use super::*;

pub(super) fn every_refusal_is_json_with_a_code(registry: &mut Registry) {
    let ask = |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        registry.ask(method, path).send().unwrap()
    };
    let unknown = digest(b"unknown");
    for (method, path, status, expected) in [
        ("GET", format!("/v2/local/x/manifests/{unknown}"), 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/local/x/manifests/missing".into(), 404, "MANIFEST_UNKNOWN"),
        ("GET", format!("/v2/local/x/blobs/{unknown}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/local/x/blobs/sha256:short".into(), 400, "DIGEST_INVALID"),
        (
            "GET",
            "/v2/local/x/blobs/sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
            400,
            "DIGEST_INVALID",
        ),
        ("GET", "/v2/local/x/manifests/sha256:baddigeststring".into(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/local/Upper/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", "/v2/local/x..y/tags/list".into(), 400, "NAME_INVALID"),
        ("GET", format!("/v2/local/{}/tags/list", "x".repeat(300)), 400, "NAME_INVALID"),
        ("GET", "/v2/nowhere/x/tags/list".into(), 404, "NAME_UNKNOWN"),
        ("POST", "/v2/nowhere/x/blobs/uploads/".into(), 404, "NAME_UNKNOWN"),
        ("POST", "/v2/packages/x/blobs/uploads/".into(), 403, "DENIED"),
        ("GET", "/v2/local/x/blobs/uploads/none".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "/v2/local/x/blobs/uploads/none".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "/v2/local/x/blobs/uploads/none".into(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/local/x/blobs/uploads/?mount=sha256:bad".into(), 400, "DIGEST_INVALID"),
        ("PUT", "/v2/local/x/tags/list".into(), 405, "UNSUPPORTED"),
        ("BREW", "/v2/local/x/manifests/v1".into(), 405, "UNSUPPORTED"),
    ] {
        let refused = ask(method, &path);
        assert_eq!(refused.status(), status, "{method} {path}");
        assert_eq!(header(&refused, "docker-distribution-api-version"), "registry/2.0", "{method} {path}");
        assert_eq!(code(refused), expected, "{method} {path}");
    }
    let ping = ask("GET", "/v2/");
    assert_eq!(
        (ping.status().as_u16(), header(&ping, "docker-distribution-api-version")),
        (200, "registry/2.0")
    );
    let extensions: Value = ask("GET", "/v2/_oci/ext/discover").json().unwrap();
    assert!(extensions["extensions"].is_array());
    // Which registry the client believes it talks to is nothing to a local repository.
    let client = registry.client("local/x");
    let pushed = client.manifest(Algorithm::Sha256, Some("v1"), IMAGE, &client.image(Algorithm::Sha256));
    let answer = client.get("manifests/v1?ns=docker.io");
    assert_eq!((answer.status().as_u16(), header(&answer, "oci-namespace")), (200, ""));
    assert_eq!(header(&answer, "docker-content-digest"), pushed.digest);
}

pub(super) fn a_manifest_names_what_is_missing(registry: &mut Registry) {
    let client = registry.client("local/lacking");
    let mut image = client.image(Algorithm::Sha256);
    let lost = descriptor(Algorithm::Sha256, LAYER, b"lost");
    image["layers"].as_array_mut().unwrap().push(lost.clone());
    let refused = client.put_manifest("v1", IMAGE, image.to_string().as_bytes());
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().unwrap();
    assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert!(body.to_string().contains(lost["digest"].as_str().unwrap()), "{body}");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(Algorithm::Sha256, IMAGE, b"lost")]});
    assert_eq!(code(client.put_manifest("v1", INDEX, index.to_string().as_bytes())), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(client.status(Method::GET, "manifests/v1"), 404);
}
