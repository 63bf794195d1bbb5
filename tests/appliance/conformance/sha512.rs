//! Content under its second name.

use super::*;

pub(super) fn content_is_answered_under_the_name_that_is_asked_for(registry: &mut Registry) {
    let client = registry.client("local/long");
    let long = Algorithm::Sha512;
    let children: Vec<Value> =
        (0..2).map(|_| client.manifest(long, None, IMAGE, &client.image(long)).descriptor()).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    let put = client.manifest(long, None, INDEX, &index);
    let tagged = client.put_manifest(&format!("{}?tag=v1", put.digest), INDEX, &put.bytes);
    assert_eq!(tagged.status(), 201);
    client.holds_manifest("v1", &put.digest, INDEX, &put.bytes);
    // The same bytes under both names, each by itself.
    let short = client.manifest(Algorithm::Sha256, Some("short"), INDEX, &index);
    client.holds_manifest("short", &short.digest, INDEX, &put.bytes);
    client.holds_manifest("v1", &put.digest, INDEX, &put.bytes);
    client.delete(&format!("manifests/{}", put.digest));
    client.holds_manifest("short", &short.digest, INDEX, &put.bytes);
    assert_eq!(client.status(Method::GET, "manifests/v1"), 404);
}

pub(super) fn both_names_of_the_same_bytes_cost_one_file(registry: &mut Registry) {
    let client = registry.client("local/both");
    let bytes = unique(3 << 20);
    let root = registry.server.root.clone();
    let files = || {
        let folders = std::fs::read_dir(root.join("blobs/sha256")).unwrap();
        folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).count()
    };
    let before = files();
    let short = client.push(Algorithm::Sha256, &bytes);
    // Named in sha512 only when every byte is in.
    let long = Algorithm::Sha512.of(&bytes);
    let patch = client.chunk(Method::PATCH, &client.begin(""), None, 0, &bytes);
    client.created(&client.close(&location(&patch), &long, vec![]), &long, &bytes);
    client.holds_blob(&short, &bytes);
    assert_eq!(files(), before + 1);
    registry.kill();
    let client = registry.client("local/both");
    client.holds_blob(&short, &bytes);
    client.holds_blob(&long, &bytes);
}
