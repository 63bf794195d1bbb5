//! What goes, and what stays.

use super::*;

pub(super) fn a_tag_goes_alone_and_a_manifest_with_its_tags(registry: &mut Registry) {
    let client = registry.client("local/gone");
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let image = client.image(algorithm);
        let bytes = image.to_string().into_bytes();
        let digest = algorithm.of(&bytes);
        let put = client.put_manifest(&format!("{digest}?tag=a&tag=b&tag=c"), IMAGE, &bytes);
        assert_eq!(put.status(), 201);
        client.delete("manifests/a");
        client.holds_manifest("b", &digest, IMAGE, &bytes);
        client.holds_manifest(&digest, &digest, IMAGE, &bytes);
        client.delete(&format!("manifests/{digest}"));
        for tag in ["b", "c"] {
            assert_eq!(client.status(Method::GET, &format!("manifests/{tag}")), 404);
            assert_eq!(client.status(Method::DELETE, &format!("manifests/{tag}")), 404);
        }
        for name in [&image["config"]["digest"], &image["layers"][0]["digest"]] {
            client.delete(&format!("blobs/{}", name.as_str().unwrap()));
        }
    }
    for missing in
        [format!("manifests/{}", digest(b"x")), format!("blobs/{}", digest(b"x")), "manifests/x".into()]
    {
        assert_eq!(client.status(Method::DELETE, &missing), 404, "{missing}");
    }
}

pub(super) fn a_blob_that_is_unlinked_stays_where_else_it_is(registry: &mut Registry) {
    let (one, other) = (registry.client("local/one"), registry.client("local/other"));
    let bytes = unique(60_000);
    let digest = one.push(Algorithm::Sha256, &bytes);
    other.push(Algorithm::Sha256, &bytes);
    let long = other.push(Algorithm::Sha512, &bytes);
    one.delete(&format!("blobs/{digest}"));
    other.holds_blob(&digest, &bytes);
    other.delete(&format!("blobs/{digest}"));
    // The same bytes under another name are another blob to a client.
    other.holds_blob(&long, &bytes);
}

pub(super) fn deleting_can_be_switched_off(registry: &mut Registry) {
    registry.restart_with(&[("PANTRY_REGISTRY_DELETE", "false")]);
    let client = registry.client("local/kept");
    let image = client.image(Algorithm::Sha256);
    let put = client.manifest(Algorithm::Sha256, Some("v1"), IMAGE, &image);
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    for path in ["manifests/v1", &format!("manifests/{}", put.digest), &format!("blobs/{layer}")] {
        let refused = client.ask(Method::DELETE, path).send().unwrap();
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(code(refused), "UNSUPPORTED");
        assert_eq!(client.status(Method::HEAD, path), 200);
    }
    // An upload is no content yet.
    assert_eq!(client.to(Method::DELETE, client.begin("")).send().unwrap().status(), 204);
    registry.restart_with(&[]);
}
