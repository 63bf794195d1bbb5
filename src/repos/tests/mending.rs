//! What repair finds in the rows of repositories, and mends.

use super::super::manifests::owner;
use super::super::tables::{CATALOGUE, CatalogueRecord, TOTALS};
use super::*;
use crate::blobs;

/// The flaws of a whole run, as `class: subject`.
async fn flaws(world: &World, act: bool) -> Vec<String> {
    let (mut flaws, mut after) = (Vec::new(), None::<String>);
    loop {
        let from = after.take();
        let mended = world.state.write(move |tx| mend(tx, from.as_deref(), act)).await.unwrap();
        flaws.extend(mended.flaws.iter().map(|flaw| format!("{}: {}", flaw.class, flaw.subject)));
        after = mended.next;
        if after.is_none() {
            return flaws;
        }
    }
}

/// A dry run tells them twice, mending once, and then there are none.
async fn mended(world: &World, expected: &[String]) {
    assert_eq!(flaws(world, false).await, expected);
    assert_eq!(flaws(world, true).await, expected);
    assert_eq!(flaws(world, true).await, [""; 0]);
}

#[tokio::test]
async fn references_of_a_manifest_beyond_its_first_thousand_are_mended() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let (mut layers, mut added) = (Vec::new(), Vec::new());
    for at in 0..1_200 {
        let bytes = format!("layer {at}").into_bytes();
        let digest = Digest::of(&bytes);
        layers.push(serde_json::json!({"mediaType": "a/b", "digest": digest, "size": bytes.len()}));
        added.push(world.stored(&bytes).await);
    }
    let mut digests: Vec<Digest> = added.iter().map(|stored| stored.digest.clone()).collect();
    digests.sort();
    let all = move |tx: &mut Tx<'_>| added.iter().try_for_each(|stored| add_blob(tx, NOW, &repo(), stored));
    world.state.write(all).await.unwrap();
    let mut many = image(&config, "many");
    many["layers"] = layers.into();
    let name = world.put(&many, &["many"]).await.unwrap();
    assert_eq!(flaws(&world, false).await, [""; 0]);
    let (last, by) = (digests[1_199].clone(), owner(&repo(), &name));
    let (lost, of) = (last.clone(), by.clone());
    world.state.write(move |tx| blobs::unlink(tx, &lost, &of, NOW)).await.unwrap();
    mended(&world, &[format!("reference_missing: {last} for manifest {}@{name}", repo())]).await;
    assert!(world.state.read(move |view| blobs::refers(view, &last, &by)).await.unwrap());
}

#[tokio::test]
async fn an_image_that_is_listed_nowhere_and_wrong_counts_are_mended() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    for at in 0..150 {
        world.put(&image(&config, &at.to_string()), &[&format!("v{at}")]).await.unwrap();
    }
    // Beside it one that holds a blob alone.
    let other = RepoName::parse("local/other").unwrap();
    let (stored, to) = (world.stored(b"alone").await, other.clone());
    world.state.write(move |tx| add_blob(tx, NOW, &to, &stored)).await.unwrap();
    world.state.write(|tx| put_settings(tx, "local", &RepositorySettings::default())).await.unwrap();
    let read = |world: &World| {
        let (state, other) = (world.state.clone(), other.clone());
        async move {
            let rows = state.read(move |view| {
                let (one, two) = (view.get(&CATALOGUE, &repo())?, view.get(&CATALOGUE, &other)?);
                Ok::<_, StateError>((one, two, view.get(&TOTALS, &"local".to_owned())?))
            });
            rows.await.unwrap()
        }
    };
    let whole = read(&world).await;
    assert_eq!(whole.0.map(|held| (held.manifests, held.tags, held.blobs)), Some((150, 150, 1)));
    assert_eq!(flaws(&world, false).await, [""; 0]);

    let to = other.clone();
    let lose = world.state.write(move |tx| {
        tx.delete(&CATALOGUE, &repo())?;
        tx.delete(&CATALOGUE, &to)
    });
    lose.await.unwrap();
    let listing = |image: &RepoName| format!("image_not_listed: {image}");
    mended(&world, &[listing(&repo()), listing(&other), "total_wrong: local".to_owned()]).await;
    assert_eq!(read(&world).await, whole);

    let spoil = world.state.write(|tx| {
        let held = tx.get(&CATALOGUE, &repo())?.unwrap();
        tx.put(&CATALOGUE, &repo(), &CatalogueRecord { bytes: held.bytes + 7, ..held })
    });
    spoil.await.unwrap();
    mended(&world, &[format!("count_wrong: {}", repo()), "total_wrong: local".to_owned()]).await;
    assert_eq!(read(&world).await, whole);
}
