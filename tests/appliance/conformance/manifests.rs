//! Manifests of every shape.

use super::*;

fn blob(client: &Client<'_>, kind: &str, bytes: &[u8]) -> Value {
    client.push(Algorithm::Sha256, bytes);
    descriptor(Algorithm::Sha256, kind, bytes)
}

pub(super) fn every_shape_of_manifest_is_kept_as_it_came(registry: &mut Registry) {
    let client = registry.client("local/shapes");
    let sha256 = Algorithm::Sha256;
    let children: Vec<Value> = ["amd64", "arm64"]
        .map(|architecture| {
            let image = client.manifest(sha256, None, IMAGE, &client.image(sha256));
            let mut child = image.descriptor();
            child["platform"] = json!({"os": "linux", "architecture": architecture});
            child
        })
        .into();
    let index = |children: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    let inner = client.manifest(sha256, Some("index"), INDEX, &index(&children));
    client.manifest(sha256, Some("nested"), INDEX, &index(&[inner.descriptor(), children[0].clone()]));
    client.manifest(sha256, Some("empty-index"), INDEX, &index(&[]));
    let mut typed = index(&children);
    typed["artifactType"] = "application/vnd.example.list".into();
    client.manifest(sha256, Some("artifact-index"), INDEX, &typed);

    let config = blob(&client, EMPTY, b"{}");
    let mut artifact = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "artifactType": "application/vnd.example.thing",
        "config": config, "layers": [blob(&client, "application/vnd.example.thing", &unique(2_048))],
    });
    client.manifest(sha256, Some("artifact"), IMAGE, &artifact);
    artifact["layers"] = json!([config]);
    client.manifest(sha256, Some("artifact-of-nothing"), IMAGE, &artifact);
    artifact["layers"] = json!([]);
    client.manifest(sha256, Some("no-layers"), IMAGE, &artifact);

    let mut foreign = client.image(sha256);
    for kind in ["tar", "tar+gzip", "tar+zstd"] {
        let elsewhere = format!("application/vnd.oci.image.layer.nondistributable.v1.{kind}");
        let mut layer = descriptor(sha256, &elsewhere, &unique(64));
        layer["urls"] = json!(["https://store.example.com/blob"]);
        foreign["layers"].as_array_mut().unwrap().push(layer);
    }
    client.manifest(sha256, Some("foreign"), IMAGE, &foreign);

    let mut odd = client.image(sha256);
    odd["config"]["data"] = "e30=".into();
    odd["org.example.own"] = json!({"deep": [1, {"er": null}]});
    odd["layers"][0]["org.example.more"] = "x".into();
    client.manifest(sha256, Some("custom"), IMAGE, &odd);

    let mut large = client.image(sha256);
    let annotations: serde_json::Map<String, Value> =
        (0..390).map(|n| (format!("large-{n}"), "A".repeat(10_000).into())).collect();
    large["annotations"] = annotations.into();
    assert!(large.to_string().len() > 3_900_000);
    client.manifest(sha256, Some("large"), IMAGE, &large);
}

pub(super) fn a_manifest_of_any_size_up_to_the_cap_is_taken(registry: &mut Registry) {
    let client = registry.client("local/sizes");
    let image = client.image(Algorithm::Sha256);
    for (size, taken) in [(4 << 20, true), (8 << 20, true), ((8 << 20) + 1, false)] {
        let mut bytes = image.to_string().into_bytes();
        bytes.resize(size, b' ');
        let put = client.put_manifest("sized", IMAGE, &bytes);
        if taken {
            assert_eq!(put.status(), 201);
            client.holds_manifest("sized", &digest(&bytes), IMAGE, &bytes);
        } else {
            assert_eq!(put.status(), 413);
            assert_eq!(code(put), "SIZE_INVALID");
        }
    }
}

pub(super) fn the_type_is_that_of_the_document(registry: &mut Registry) {
    let client = registry.client("local/types");
    let image = client.image(Algorithm::Sha256);
    let bytes = image.to_string().into_bytes();
    let with_parameters = format!("{IMAGE}; charset=utf-8");
    assert_eq!(client.put_manifest("a", &with_parameters, &bytes).status(), 201);
    client.holds_manifest("a", &digest(&bytes), IMAGE, &bytes);
    for other in [INDEX, "application/vnd.docker.distribution.manifest.v2+json", "text/plain"] {
        assert_eq!(code(client.put_manifest("b", other, &bytes)), "MANIFEST_INVALID", "{other}");
    }
    // The request says what a document that is silent is.
    let mut silent = image;
    silent.as_object_mut().unwrap().remove("mediaType");
    let bytes = silent.to_string().into_bytes();
    assert_eq!(client.put_manifest("c", IMAGE, &bytes).status(), 201);
    client.holds_manifest("c", &digest(&bytes), IMAGE, &bytes);
    let nobody = client.ask(Method::PUT, "manifests/d").body(bytes).send().unwrap();
    assert_eq!(code(nobody), "MANIFEST_INVALID");
}

pub(super) fn one_push_by_digest_sets_tags(registry: &mut Registry) {
    let client = registry.client("local/parameters");
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let bytes = client.image(algorithm).to_string().into_bytes();
        let digest = algorithm.of(&bytes);
        let tags: Vec<String> = (0..12).map(|n| format!("t{n}-{algorithm:?}")).collect();
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let put = client.put_manifest(&format!("{digest}?{}", query.join("&")), IMAGE, &bytes);
        assert_eq!(put.status(), 201);
        assert_eq!(header(&put, "docker-content-digest"), digest);
        let told: Vec<&str> = put
            .headers()
            .get_all("oci-tag")
            .iter()
            .flat_map(|value| value.to_str().unwrap().split(", "))
            .collect();
        assert_eq!(told, tags);
        for tag in &tags {
            client.holds_manifest(tag, &digest, IMAGE, &bytes);
        }
    }
}

pub(super) fn a_manifest_that_is_not_its_digest_is_refused(registry: &mut Registry) {
    let client = registry.client("local/wrong");
    let mut bytes = client.image(Algorithm::Sha256).to_string().into_bytes();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let before = algorithm.of(&bytes);
        bytes.extend(b"  ");
        assert_eq!(code(client.put_manifest(&before, IMAGE, &bytes)), "DIGEST_INVALID");
        assert_eq!(client.status(Method::GET, &format!("manifests/{before}")), 404);
        assert_eq!(client.status(Method::GET, &format!("manifests/{}", algorithm.of(&bytes))), 404);
        assert_eq!(client.status(Method::DELETE, &format!("manifests/{before}")), 404);
    }
    for bad in ["sha256:baddigeststring", "sha384:00", "sha256:", "SHA256:00"] {
        assert_eq!(client.put_manifest(bad, IMAGE, &bytes).status(), 400, "{bad}");
        assert!([400, 404].contains(&client.status(Method::GET, &format!("manifests/{bad}"))), "{bad}");
    }
}

pub(super) fn writers_that_read_the_same_do_not_overwrite_each_other(registry: &mut Registry) {
    let client = registry.client("local/races");
    let bytes = |n: u8| {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"n": n.to_string()}})
            .to_string()
    };
    assert_eq!(client.put_manifest("list", INDEX, bytes(0).as_bytes()).status(), 201);
    let before = client.get("manifests/list");
    let etag = header(&before, "etag");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (1..9)
            .map(|n| {
                let client = &client;
                let put = client.ask(Method::PUT, "manifests/list").header("Content-Type", INDEX);
                let put = put.header("If-Match", etag).body(bytes(n));
                scope.spawn(move || put.send().unwrap().status().as_u16())
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
}
