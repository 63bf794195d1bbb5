//! The index of referrers.

use super::*;

const SUBJECT: &[u8] = b"a manifest that nobody has pushed";

fn referrer(mark: &str, kind: Option<&str>) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [],
        "subject": descriptor(IMAGE, SUBJECT),
        "annotations": {"mark": mark},
    });
    if let Some(kind) = kind {
        manifest["artifactType"] = kind.into();
    }
    manifest
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::of(manifest.to_string().as_bytes())
}

async fn listed(world: &World, query: &str) -> Vec<Value> {
    let path = format!("/v2/local/app/referrers/{}{query}", Digest::of(SUBJECT));
    world.get(&path).await.is(200).json()["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_kind_of_referrer_is_told_as_it_says() {
    let world = World::new().await;
    world.push_blob("local/app", b"{}").await;
    let typed = referrer("typed", Some("application/vnd.example.sbom"));
    let untyped = referrer("untyped", None);
    let index = |kind: Option<&str>| {
        let mut index = json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": descriptor(IMAGE, SUBJECT),
        });
        if let Some(kind) = kind {
            index["artifactType"] = kind.into();
        }
        index
    };
    let cases = [
        (IMAGE, typed, Some("application/vnd.example.sbom")),
        (IMAGE, untyped, Some("application/vnd.oci.empty.v1+json")),
        (INDEX, index(Some("application/vnd.example.list")), Some("application/vnd.example.list")),
        (INDEX, index(None), None),
    ];
    for (kind, manifest, _) in &cases {
        let put = world.put_manifest("local/app", &digest_of(manifest).to_string(), kind, manifest).await;
        assert_eq!(put.is(201).header("oci-subject"), Digest::of(SUBJECT).to_string());
    }
    let found = listed(&world, "").await;
    assert_eq!(found.len(), cases.len());
    for (kind, manifest, artifact_type) in &cases {
        let digest = digest_of(manifest).to_string();
        let entry = found.iter().find(|entry| entry["digest"] == digest).unwrap();
        assert_eq!(entry["mediaType"], *kind);
        assert_eq!(entry["size"], manifest.to_string().len());
        assert_eq!(entry.get("artifactType").and_then(Value::as_str), *artifact_type);
        assert_eq!(entry.get("annotations"), manifest.get("annotations"));
        if let Some(wanted) = artifact_type {
            let only = listed(&world, &format!("?artifactType={wanted}")).await;
            assert_eq!(only.len(), 1, "{wanted}");
            assert_eq!(only[0]["digest"], digest);
        }
    }
    // Those that have no type can be asked for too.
    let untyped = listed(&world, "?artifactType=").await;
    assert_eq!(untyped.len(), cases.iter().filter(|(_, _, artifact_type)| artifact_type.is_none()).count());
    assert!(!untyped.is_empty() && untyped.iter().all(|entry| entry.get("artifactType").is_none()));
    let path = format!("/v2/local/app/referrers/{}?artifactType=none", Digest::of(SUBJECT));
    let none = world.get(&path).await;
    assert_eq!(none.is(200).header("oci-filters-applied"), "artifactType");
    assert_eq!(none.json()["manifests"], json!([]));
    let plain = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let without = world.put_manifest("local/app", "plain", INDEX, &plain).await;
    assert_eq!(without.is(201).header("oci-subject"), "");
}

#[tokio::test]
async fn fallback_tags_are_taken_in_once_and_in_order() {
    let world = World::new().await;
    world.push_blob("local/app", b"{}").await;
    let mut known = Vec::new();
    for n in 0..130 {
        let kind = format!("application/vnd.example.{}", n % 2);
        let mut manifest = referrer(&n.to_string(), Some(&kind));
        // Every third one has no subject: only the fallback tag knows what it is about.
        if n % 3 == 0 {
            manifest.as_object_mut().unwrap().remove("subject");
        }
        let digest = digest_of(&manifest);
        world.put_manifest("local/app", &digest.to_string(), IMAGE, &manifest).await.is(201);
        known.push((digest, manifest, kind));
    }
    known.sort_by(|a, b| a.0.cmp(&b.0));
    let mut entries: Vec<Value> = known
        .iter()
        .map(|(digest, manifest, kind)| {
            json!({
                "mediaType": IMAGE, "digest": digest, "size": manifest.to_string().len(),
                "artifactType": kind, "annotations": manifest["annotations"],
            })
        })
        .collect();
    // Listed by its children, the index must hold them; a fallback index of clients need not.
    world.set(json!({"sparse": true})).await;
    entries.push(descriptor(IMAGE, b"gone long ago"));
    let fallback = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let tag = format!("sha256-{}", Digest::of(SUBJECT).hex());
    world.put_manifest("local/app", &tag, INDEX, &fallback).await.is(201);
    for kind in [None, Some("application/vnd.example.1")] {
        let expected: Vec<String> = known
            .iter()
            .filter(|known| kind.is_none_or(|kind| known.2 == kind))
            .map(|known| known.0.to_string())
            .collect();
        let filter = kind.map(|kind| format!("?artifactType={kind}")).unwrap_or_default();
        let mut path = format!("/v2/local/app/referrers/{}{filter}", Digest::of(SUBJECT));
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let page = world.get(&path).await;
            for entry in page.is(200).json()["manifests"].as_array().unwrap() {
                let at = known.iter().find(|known| entry["digest"] == known.0.to_string()).unwrap();
                assert_eq!(entry["annotations"], at.1["annotations"]);
                assert_eq!(entry["artifactType"], at.2);
                found.push(entry["digest"].as_str().unwrap().to_owned());
            }
            pages += 1;
            let link = page.header("link");
            if link.is_empty() {
                break;
            }
            path = link[1..].split_once('>').unwrap().0.to_owned();
        }
        assert_eq!(found, expected);
        assert_eq!(pages, expected.len().div_ceil(100));
    }
}

#[tokio::test]
async fn a_fallback_index_of_hostile_size_is_left_out_and_said_to_be() {
    let world = World::new().await;
    world.push_blob("local/app", b"{}").await;
    world.set(json!({"sparse": true})).await;
    let known = referrer("known", None);
    world.put_manifest("local/app", &digest_of(&known).to_string(), IMAGE, &known).await.is(201);
    let mut unknown = referrer("unknown", None);
    unknown.as_object_mut().unwrap().remove("subject");
    world.put_manifest("local/app", &digest_of(&unknown).to_string(), IMAGE, &unknown).await.is(201);
    let tag = format!("sha256-{}", Digest::of(SUBJECT).hex());
    let path = format!("/v2/local/app/referrers/{}", Digest::of(SUBJECT));
    let entry = descriptor(IMAGE, unknown.to_string().as_bytes());
    // It names few, more than are taken in, and few again in more bytes than are read.
    for (others, padding, listed) in [(0, 0, 2), (1_500, 0, 2), (0, 1024 * 1024, 1)] {
        let mut entries = vec![entry.clone()];
        entries.extend((0..others).map(|n: u32| descriptor(IMAGE, &n.to_be_bytes())));
        let padding = json!({"padding": " ".repeat(padding)});
        let fallback =
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, "annotations": padding});
        world.put_manifest("local/app", &tag, INDEX, &fallback).await.is(201);
        let answer = world.get(&path).await;
        let told = answer.json()["manifests"].as_array().unwrap().len();
        let whole = answer.is(200).header("warning").is_empty();
        assert_eq!((told, whole), (listed, (others, listed) == (0, 2)));
    }
}

#[tokio::test]
async fn what_is_no_index_under_a_fallback_tag_tells_nothing() {
    let world = World::new().await;
    world.push_image("local/app", &format!("sha256-{}", Digest::of(SUBJECT).hex()), b"layer").await;
    assert!(listed(&world, "").await.is_empty());
}

#[tokio::test]
async fn a_referrer_goes_with_its_manifest_and_waits_for_its_subject() {
    let world = World::new().await;
    let subject = image(b"layer");
    let mut about = referrer("early", Some("application/vnd.example.sbom"));
    about["subject"] = descriptor(IMAGE, subject.to_string().as_bytes());
    world.push_blob("local/app", b"{}").await;
    let put = world.put_manifest("local/app", "sbom", IMAGE, &about).await;
    put.is(201);
    let path = format!("/v2/local/app/referrers/{}", digest_of(&subject));
    let count = async || world.get(&path).await.is(200).json()["manifests"].as_array().unwrap().len();
    assert_eq!(count().await, 1);
    let pushed = world.push_image("local/app", "v1", b"layer").await;
    assert_eq!((pushed, count().await), (digest_of(&subject), 1));
    world.delete("/v2/local/app/manifests/sbom").await.is(202);
    assert_eq!(count().await, 1, "a tag is not the manifest");
    world.delete(&format!("/v2/local/app/manifests/{}", digest_of(&subject))).await.is(202);
    assert_eq!(count().await, 1, "a subject need not be there");
    world.delete(&format!("/v2/local/app/manifests/{}", digest_of(&about))).await.is(202);
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn referrers_are_told_while_the_manifests_that_tell_more_are_damaged() {
    let world = World::new().await;
    world.push_blob("local/app", b"{}").await;
    let mut large = referrer("large", Some("application/vnd.example.sbom"));
    large["annotations"] = json!({"much": "a".repeat(40_000)});
    let mut listed = referrer("listed", None);
    listed.as_object_mut().unwrap().remove("subject");
    for manifest in [&large, &listed] {
        world.put_manifest("local/app", &digest_of(manifest).to_string(), IMAGE, manifest).await.is(201);
    }
    let fallback = json!({
        "schemaVersion": 2, "mediaType": INDEX, "annotations": {"much": "b".repeat(40_000)},
        "manifests": [descriptor(IMAGE, listed.to_string().as_bytes())],
    });
    let tag = format!("sha256-{}", Digest::of(SUBJECT).hex());
    world.put_manifest("local/app", &tag, INDEX, &fallback).await.is(201);
    let path = format!("/v2/local/app/referrers/{}", Digest::of(SUBJECT));
    let sound = world.get(&path).await;
    assert_eq!(sound.is(200).header("warning"), "");
    assert_eq!(sound.json()["manifests"].as_array().unwrap().len(), 2);

    let digests = [digest_of(&large), digest_of(&fallback)];
    for digest in &digests {
        let file = world.folder.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
        let mut bytes = fs_err::read(&file).unwrap();
        bytes[20_000] ^= 1;
        fs_err::remove_file(&file).unwrap();
        fs_err::write(&file, bytes).unwrap();
    }
    let (root, clock) = (world.folder.path(), world.clock.clone());
    let random = Arc::new(SystemRandom);
    let blobs = Blobs::open(root, world.state.clone(), clock, random, Faults::none()).await.unwrap();
    for quarantined in [false, true] {
        if quarantined {
            for digest in &digests {
                // The first list has done it already.
                assert_eq!(blobs.quarantine(digest).await.unwrap(), None);
                world.get(&format!("/v2/local/app/manifests/{digest}")).await.is(404);
            }
        }
        let answer = world.get(&path).await;
        assert!(answer.is(200).header("warning").starts_with("299 - "));
        let entries = answer.json()["manifests"].clone();
        assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
        assert_eq!(entries[0]["digest"], digests[0].to_string());
        assert_eq!(entries[0].get("annotations"), None);
    }
}
