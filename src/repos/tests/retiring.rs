//! Retention over manifests that go by their longer name.

use super::*;

const LATER: Millis = Millis(NOW.0 + 60_000);

impl World {
    /// Puts it under its SHA-512.
    async fn put_long(&self, manifest: &serde_json::Value, tags: &[&str]) -> Digest {
        let bytes = manifest.to_string();
        let name = Digest::sha512_of(bytes.as_bytes());
        let stored = self.stored(bytes.as_bytes()).await;
        let parsed = parse_manifest(None, bytes.as_bytes()).unwrap();
        let (tags, named): (Vec<Tag>, _) = (tags.iter().map(|text| tag(text)).collect(), name.clone());
        let put =
            self.state.write(move |tx| put_manifest_named(tx, NOW, &repo(), &named, &stored, &parsed, &tags));
        put.await.unwrap().unwrap();
        name
    }

    /// Removes what these rules do not keep; gives how many tags and manifests went.
    async fn retire(&self, rules: &str) -> (usize, u64) {
        let rules: RepositorySettings = serde_json::from_str(rules).unwrap();
        let set = rules.clone();
        self.state.write(move |tx| put_settings(tx, "local", &set)).await.unwrap();
        let removed = self.state.write(move |tx| {
            let none = |_: &RepoName, _: &Digest| None;
            let mut builder = NewestBuilder::new(1);
            builder.take(survey_page(tx, &repo(), None, 100)?);
            let newest = builder.finish();
            let judged = tags_page(tx, &repo(), &newest, &none, None, 100)?;
            remove_tags(tx, LATER, &repo(), &rules, &newest, &none, &judged)
        });
        let Removal::Done(removed) = removed.await.unwrap() else { panic!("the survey is of this moment") };
        (removed.tags.len(), removed.manifests)
    }

    async fn manifest(&self, mark: &str) -> serde_json::Value {
        image(&self.add(b"{}").await, mark)
    }
}

#[tokio::test]
async fn a_child_named_by_sha512_goes_with_its_index() {
    let world = World::new().await;
    let child = world.put_long(&world.manifest("child").await, &[]).await;
    let other = world.put(&world.manifest("other child").await, &[]).await.unwrap();
    let entry = |digest: &Digest| serde_json::json!({"mediaType": IMAGE, "digest": digest, "size": 1});
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&child), entry(&other)],
    });
    let index = world.put_long(&index, &["a"]).await;
    world.put(&world.manifest("newest").await, &["b"]).await.unwrap();
    assert_eq!(world.retire(r#"{"retention": {"keep_last": 1}}"#).await, (1, 3));
    for gone in [index, child, other] {
        assert!(!world.has(Reference::Digest(gone.clone())).await, "{gone}");
    }
}

#[tokio::test]
async fn a_manifest_is_not_kept_by_the_other_name_of_its_bytes() {
    let world = World::new().await;
    let manifest = world.manifest("twice").await;
    let long = world.put_long(&manifest, &["a"]).await;
    let short = world.put(&manifest, &["b"]).await.unwrap();
    world.put(&world.manifest("newest").await, &["c"]).await.unwrap();
    assert_eq!(world.retire(r#"{"retention": {"keep_last": 1}}"#).await, (2, 2));
    for gone in [long, short] {
        assert!(!world.has(Reference::Digest(gone.clone())).await, "{gone}");
    }
}
