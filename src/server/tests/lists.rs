//! Tags, the catalogue, and referrers, a page at a time.

use super::*;

#[tokio::test]
async fn tags_and_the_catalogue_are_paged_in_order() {
    let world = World::new().await;
    for tag in ["b", "a", "c", "B", "a-1"] {
        world.push_image("local/app", tag, b"layer").await;
    }
    for repo in ["local/app/sub", "local/app-x", "local/z"] {
        world.push_blob(repo, b"content").await;
    }
    let tags = async |query: &str| world.get(&format!("/v2/local/app/tags/list{query}")).await;
    let all = tags("").await;
    assert_eq!(all.json(), json!({"name": "local/app", "tags": ["B", "a", "a-1", "b", "c"]}));
    assert_eq!(all.header("link"), "");
    let page = tags("?n=2").await;
    assert_eq!(page.json()["tags"], json!(["B", "a"]));
    assert_eq!(page.header("link"), "</v2/local/app/tags/list?n=2&last=a>; rel=\"next\"");
    assert_eq!(tags("?n=2&last=a").await.json()["tags"], json!(["a-1", "b"]));
    assert_eq!(tags("?last=a").await.json()["tags"], json!(["a-1", "b", "c"]));
    assert_eq!(tags("?last=aa").await.json()["tags"], json!(["b", "c"]));
    let last = tags("?n=2&last=b").await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (json!(["c"]), ""));
    let none = tags("?n=0").await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), ""));
    tags(&format!("?last={}", "x".repeat(5_000))).await.is(200);
    let catalogue =
        async |query: &str| world.get(&format!("/v2/_catalog{query}")).await.json()["repositories"].clone();
    assert_eq!(catalogue("").await, json!(["local/app", "local/app-x", "local/app/sub", "local/z"]));
    assert_eq!(catalogue("?n=1&last=local/app").await, json!(["local/app-x"]));
    assert_eq!(catalogue("?n=0").await, json!([]));
}

#[tokio::test]
async fn referrers_are_told_also_of_what_is_not_there() {
    let world = World::new().await;
    let subject = image(b"layer").to_string();
    let list = async |query: &str| {
        world.get(&format!("/v2/local/app/referrers/{}{query}", Digest::of(subject.as_bytes()))).await
    };
    let empty = list("").await;
    assert_eq!(empty.is(200).header("content-type"), INDEX);
    assert_eq!(empty.json()["manifests"], json!([]));
    world.get(&format!("/v2/elsewhere/app/referrers/{}", Digest::of(b"x"))).await.is(200);
    world.push_blob("local/app", b"{}").await;
    world.push_blob("local/app", b"sbom").await;
    let mut referrer = image(b"sbom");
    referrer["subject"] = descriptor(IMAGE, subject.as_bytes());
    referrer["config"]["mediaType"] = "application/vnd.example.sbom".into();
    referrer["annotations"] = json!({"made.by": "x"});
    let put = world.put_manifest("local/app", "sbom", IMAGE, &referrer).await;
    assert_eq!(put.is(201).header("oci-subject"), Digest::of(subject.as_bytes()).to_string());
    referrer["artifactType"] = "application/vnd.example.other".into();
    referrer["annotations"] = json!({"large": "x".repeat(40_000)});
    world.put_manifest("local/app", "other", IMAGE, &referrer).await.is(201);
    assert_eq!(list("").await.json()["manifests"].as_array().unwrap().len(), 2);
    let filtered = list("?artifactType=application/vnd.example.sbom").await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let entries = filtered.json()["manifests"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 1);
    assert_eq!(entries[0]["annotations"]["made.by"], "x");
    let large = list("?artifactType=application/vnd.example.other").await.json();
    assert_eq!(large["manifests"][0]["annotations"]["large"].as_str().unwrap().len(), 40_000);
    world
        .delete(&format!("/v2/local/app/manifests/{}", Digest::of(referrer.to_string().as_bytes())))
        .await
        .is(202);
    assert_eq!(list("").await.json()["manifests"].as_array().unwrap().len(), 1);
}

/// Pages of any size, begun anywhere, make the whole list as a sorted set has it.
#[tokio::test]
async fn pages_join_to_the_list_that_a_sorted_set_has() {
    use std::collections::BTreeSet;
    let world = World::new().await;
    let digest = world.push_image("local/app", "z", b"layer").await;
    let mut model = BTreeSet::from(["z".to_owned()]);
    let alphabet = b"aAzZ09_.-";
    for (at, pair) in noise(30, 400).chunks(4).enumerate() {
        let text: String =
            pair.iter().map(|b| char::from(alphabet[usize::from(*b) % alphabet.len()])).collect();
        let tag = format!("t{}", &text[..=at % 4]);
        world
            .put_manifest("local/app", &format!("{digest}?tag={tag}"), IMAGE, &image(b"layer"))
            .await
            .is(201);
        model.insert(tag);
        if at % 7 == 0 {
            let gone = model.iter().nth(at % model.len()).unwrap().clone();
            world.delete(&format!("/v2/local/app/manifests/{gone}")).await.is(202);
            model.remove(&gone);
        }
    }
    for n in [1, 2, 3, 7, 50, 499] {
        for start in ["", "t", "t-", "tZ", "ta.", "zz"] {
            let mut path = format!("/v2/local/app/tags/list?n={n}&last={start}");
            let mut found: Vec<String> = Vec::new();
            loop {
                let page = world.get(&path).await;
                let tags: Vec<String> = serde_json::from_value(page.is(200).json()["tags"].clone()).unwrap();
                assert!(tags.len() <= n);
                let link = page.header("link");
                assert!(tags.len() == n || link.is_empty(), "a short page is the last one");
                found.extend(tags);
                match link.strip_prefix('<').and_then(|link| link.split_once('>')) {
                    Some((next, _)) => path = next.to_owned(),
                    None => break,
                }
            }
            let expected: Vec<String> = model.iter().filter(|tag| tag.as_str() > start).cloned().collect();
            assert_eq!(found, expected, "n={n} last={start}");
        }
    }
}
