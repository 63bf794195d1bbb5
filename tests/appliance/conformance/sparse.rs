//! Manifests that come before their content, or without it.

use super::*;

pub(super) fn a_sparse_repository_takes_what_others_refuse(registry: &mut Registry) {
    let client = registry.client("local/sparse");
    let mut image = client.image(Algorithm::Sha256);
    image["layers"].as_array_mut().unwrap().push(descriptor(Algorithm::Sha256, LAYER, b"never pushed"));
    let bytes = image.to_string().into_bytes();
    assert_eq!(code(client.put_manifest("image", IMAGE, &bytes)), "MANIFEST_BLOB_UNKNOWN");
    registry.set(&json!({"sparse": true}));
    let sparse = client.manifest(Algorithm::Sha256, Some("image"), IMAGE, &image);
    let whole = client.manifest(Algorithm::Sha256, None, IMAGE, &client.image(Algorithm::Sha256));
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [whole.descriptor(), sparse.descriptor(), descriptor(Algorithm::Sha256, IMAGE, b"never put")],
    });
    let index = client.manifest(Algorithm::Sha256, Some("index"), INDEX, &index);
    registry.set(&json!({}));
    // What was taken stays; the next one is refused again.
    client.holds_manifest("index", &index.digest, INDEX, &index.bytes);
    assert_eq!(code(client.put_manifest("again", IMAGE, &bytes)), "MANIFEST_BLOB_UNKNOWN");
    for put in [index, sparse, whole] {
        client.delete(&format!("manifests/{}", put.digest));
    }
}

pub(super) fn an_immutable_tag_stays_where_it_is(registry: &mut Registry) {
    let client = registry.client("local/fixed");
    registry.set(&json!({"immutable_tags": ["v*"]}));
    let put = client.manifest(Algorithm::Sha256, Some("v1"), IMAGE, &client.image(Algorithm::Sha256));
    assert_eq!(client.put_manifest("v1", IMAGE, &put.bytes).status(), 201, "the same again");
    let other = client.image(Algorithm::Sha256).to_string().into_bytes();
    let refused = client.put_manifest("v1", IMAGE, &other);
    assert_eq!(refused.status(), 403);
    assert_eq!(code(refused), "DENIED");
    assert_eq!(client.put_manifest("latest", IMAGE, &other).status(), 201);
    client.holds_manifest("v1", &put.digest, IMAGE, &put.bytes);
    registry.set(&json!({}));
}
