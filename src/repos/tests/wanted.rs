//! What comes after the manifest that names it is kept like what came before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::tables::{KEEPS, WANTED, WANTS};
use super::*;
use crate::blobs::{Cursor, Sweep};

/// What the model knows of the world.
#[derive(Clone, Debug)]
enum Step {
    PushBlob(usize),
    DeleteBlob(usize),
    PutManifest(usize),
    DeleteManifest(usize),
    Collect,
}

const BLOBS: [&[u8]; 4] = [b"blob zero", b"blob one", b"blob two", b"blob three"];
const MANIFESTS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..BLOBS.len()).prop_map(Step::PushBlob),
        1 => (0..BLOBS.len()).prop_map(Step::DeleteBlob),
        4 => (0..MANIFESTS).prop_map(Step::PutManifest),
        2 => (0..MANIFESTS).prop_map(Step::DeleteManifest),
        2 => Just(Step::Collect),
    ]
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
}

/// Three images, an index of two of them, and an index of that index.
fn manifest(at: usize) -> serde_json::Value {
    let blob = |at: usize| descriptor("a/b", BLOBS[at]);
    let child = |at: usize| {
        let bytes = manifest(at).to_string();
        descriptor(if at < 3 { IMAGE } else { INDEX }, bytes.as_bytes())
    };
    let index = |children: Vec<serde_json::Value>| serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    match at {
        0..3 => {
            let mut image = image(&blob(at), &at.to_string());
            let layers = vec![
                blob(at + 1),
                descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", BLOBS[(at + 2) % 4]),
            ];
            image["layers"] = layers.into();
            image
        }
        3 => index(vec![child(0), child(1)]),
        _ => index(vec![child(3), child(2)]),
    }
}

fn digest_of(at: usize) -> Digest {
    Digest::of(manifest(at).to_string().as_bytes())
}

fn needs(at: usize) -> BTreeSet<Digest> {
    let parsed = parse_manifest(None, manifest(at).to_string().as_bytes()).unwrap();
    parsed.config.into_iter().chain(parsed.layers).chain(parsed.elsewhere).chain(parsed.children).collect()
}

#[derive(Default)]
struct Model {
    blobs: BTreeSet<Digest>,
    manifests: BTreeSet<Digest>,
    keeps: BTreeMap<Digest, BTreeSet<Digest>>,
    wants: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Model {
    fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains(digest) || self.manifests.contains(digest)
    }

    fn arrived(&mut self, digest: &Digest) {
        for (manifest, wants) in &mut self.wants {
            if wants.remove(digest) {
                self.keeps.entry(manifest.clone()).or_default().insert(digest.clone());
            }
        }
    }

    fn put(&mut self, at: usize) {
        let name = digest_of(at);
        let (here, lacking): (BTreeSet<_>, BTreeSet<_>) = needs(at).into_iter().partition(|n| self.has(n));
        self.keeps.entry(name.clone()).or_default().extend(here);
        self.wants.insert(name.clone(), lacking);
        self.manifests.insert(name.clone());
        self.arrived(&name);
    }

    fn is_kept(&self, digest: &Digest) -> bool {
        self.keeps.values().any(|kept| kept.contains(digest))
    }

    fn rows(of: &BTreeMap<Digest, BTreeSet<Digest>>) -> BTreeSet<(Digest, Digest)> {
        of.iter().flat_map(|(of, all)| all.iter().map(|one| (of.clone(), one.clone()))).collect()
    }
}

impl World {
    async fn sparse() -> Self {
        let world = Self::new().await;
        let settings = RepositorySettings { sparse: true, ..RepositorySettings::default() };
        world.state.write(move |tx| put_settings(tx, "local", &settings)).await.unwrap();
        world
    }

    /// A whole collection without a grace.
    async fn collect(&self) {
        let mut after = None;
        loop {
            let from = after.clone();
            let idle = self.state.write(move |tx| let_go(tx, NOW, from.as_ref(), Duration::ZERO, true));
            after = idle.await.unwrap().next;
            if after.is_none() {
                break;
            }
        }
        let mut cursor = Cursor::default();
        while cursor != Cursor::End {
            cursor = self.blobs.collect(cursor, Sweep { grace_ms: 0, dry_run: false }).await.unwrap().0;
        }
    }

    async fn knows(&self, digest: &Digest) -> bool {
        let digest = digest.clone();
        self.state.read(move |view| crate::blobs::is_known(view, &digest)).await.unwrap().is_some()
    }

    async fn holds(&self, digest: &Digest) -> bool {
        let digest = digest.clone();
        self.state.read(move |view| blob_at(view, &repo(), &digest)).await.unwrap().is_some()
    }

    async fn delete(&self, digest: &Digest) -> bool {
        let digest = digest.clone();
        self.state.write(move |tx| delete_manifest(tx, NOW, &repo(), &digest)).await.unwrap()
    }

    async fn flaws(&self) -> Vec<String> {
        let (mut flaws, mut after) = (Vec::new(), None::<String>);
        loop {
            let from = after.take();
            let mended = self.state.write(move |tx| mend(tx, from.as_deref(), false)).await.unwrap();
            flaws.extend(mended.flaws.iter().map(|flaw| format!("{}: {}", flaw.class, flaw.subject)));
            after = mended.next;
            if after.is_none() {
                return flaws;
            }
        }
    }

    async fn apply(&self, model: &mut Model, step: &Step) {
        match *step {
            Step::PushBlob(at) => {
                self.add(BLOBS[at]).await;
                model.blobs.insert(Digest::of(BLOBS[at]));
                model.arrived(&Digest::of(BLOBS[at]));
            }
            Step::DeleteBlob(at) => {
                let digest = Digest::of(BLOBS[at]);
                let was = model.blobs.remove(&digest);
                let write = self.state.write(move |tx| delete_blob(tx, NOW, &repo(), &digest));
                assert_eq!(write.await.unwrap(), was);
            }
            Step::PutManifest(at) => {
                self.put(&manifest(at), &[]).await.unwrap();
                model.put(at);
            }
            Step::DeleteManifest(at) => {
                let digest = digest_of(at);
                assert_eq!(self.delete(&digest).await, model.manifests.remove(&digest));
                model.keeps.remove(&digest);
                model.wants.remove(&digest);
            }
            Step::Collect => {
                self.collect().await;
                let idle: Vec<Digest> =
                    model.blobs.iter().filter(|blob| !model.is_kept(blob)).cloned().collect();
                for blob in &idle {
                    model.blobs.remove(blob);
                }
                let all = BLOBS.iter().map(|bytes| Digest::of(bytes)).chain((0..MANIFESTS).map(digest_of));
                for digest in all {
                    let expected = model.has(&digest) || model.is_kept(&digest);
                    assert_eq!(self.knows(&digest).await, expected, "{digest}");
                }
            }
        }
        let rows = self.state.read(|view| {
            let read = |table| view.scan(table, &Scan::all(), 1_000);
            Ok::<_, StateError>((read(&KEEPS)?, read(&WANTS)?, read(&WANTED)?))
        });
        let (keeps, wants, wanted) = rows.await.unwrap();
        let keeps: BTreeSet<_> = keeps.into_iter().map(|((_, of, one), ())| (of, one)).collect();
        let wants: BTreeSet<_> = wants.into_iter().map(|((_, of, one), ())| (of, one)).collect();
        let wanted: BTreeSet<_> = wanted.into_iter().map(|((_, one, of), ())| (of, one)).collect();
        assert_eq!(keeps, Model::rows(&model.keeps));
        assert_eq!(wants, Model::rows(&model.wants));
        assert_eq!(wants, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn in_whatever_order_things_come_and_go(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let world = World::sparse().await;
            let mut model = Model::default();
            for step in &steps {
                world.apply(&mut model, step).await;
            }
            world.apply(&mut model, &Step::Collect).await;
            // Everything that a manifest names and the repository holds is kept by it.
            for at in (0..MANIFESTS).filter(|at| model.manifests.contains(&digest_of(*at))) {
                for need in needs(at).iter().filter(|need| model.has(need)) {
                    assert!(model.keeps[&digest_of(at)].contains(need));
                }
            }
            assert!(world.flaws().await.is_empty());
        });
    }
}

#[tokio::test]
async fn more_manifests_may_wait_for_a_blob_than_get_it_at_once() {
    const WAITING: usize = 2_500;
    let world = World::sparse().await;
    let layer = descriptor("a/b", BLOBS[0]);
    let mut all = Vec::new();
    for at in 0..WAITING {
        let bytes = image(&layer, &at.to_string()).to_string();
        let parsed = parse_manifest(None, bytes.as_bytes()).unwrap();
        all.push((world.stored(bytes.as_bytes()).await, parsed));
    }
    let names: Vec<Digest> = all.iter().map(|(stored, _)| stored.digest.clone()).collect();
    let put = world.state.write(move |tx| {
        for (stored, parsed) in &all {
            put_manifest(tx, NOW, &repo(), stored, parsed, &[])?.unwrap();
        }
        Ok::<_, StateError>(())
    });
    put.await.unwrap();
    world.add(BLOBS[0]).await;
    // Those that have it go, one after another, and at each moment the blob is held for the others.
    let mut left: BTreeSet<Digest> = names.into_iter().collect();
    while !left.is_empty() {
        world.collect().await;
        assert!(world.holds(&Digest::of(BLOBS[0])).await, "{} are left", left.len());
        assert!(world.flaws().await.iter().all(|flaw| flaw.starts_with("want_is_here")));
        let scan = Scan::prefix(&repo());
        let having = world.state.read(move |view| view.scan(&KEEPS, &scan, 1_000)).await.unwrap();
        let having: Vec<Digest> = having.into_iter().map(|((_, of, _), ())| of).collect();
        assert!(!having.is_empty() && (left.len() < WAITING || having.len() < WAITING));
        for gone in &having {
            left.remove(gone);
        }
        let delete = world.state.write(move |tx| {
            having.iter().try_for_each(|gone| delete_manifest(tx, NOW, &repo(), gone).map(drop))
        });
        delete.await.unwrap();
    }
    world.collect().await;
    assert!(!world.holds(&Digest::of(BLOBS[0])).await);
    assert!(!world.knows(&Digest::of(BLOBS[0])).await);
}

/// In a repository that is not sparse, too: a layer that need not be there may come all the same.
#[tokio::test]
async fn a_layer_that_is_not_distributed_is_kept_when_it_comes() {
    let world = World::new().await;
    world.add(BLOBS[0]).await;
    world.add(BLOBS[1]).await;
    let name = world.put(&manifest(0), &["v1"]).await.unwrap();
    world.add(BLOBS[2]).await;
    world.collect().await;
    assert!(world.holds(&Digest::of(BLOBS[2])).await);
    world.delete(&name).await;
    world.collect().await;
    assert!(!world.knows(&Digest::of(BLOBS[2])).await);
}

/// A name by sha512 is waited for as such: the same bytes under their sha256 are not what the manifest names.
#[tokio::test]
async fn a_name_by_sha512_is_waited_for_too() {
    let world = World::sparse().await;
    let long = Digest::sha512_of(BLOBS[0]);
    let config = serde_json::json!({"mediaType": "a/b", "digest": long, "size": BLOBS[0].len()});
    world.put(&image(&config, "long"), &["v1"]).await.unwrap();
    world.add(BLOBS[0]).await;
    world.collect().await;
    assert!(!world.holds(&Digest::of(BLOBS[0])).await);
    let stored = world.stored(BLOBS[0]).await;
    let named = long.clone();
    world.state.write(move |tx| add_blob_named(tx, NOW, &repo(), &named, &stored)).await.unwrap();
    world.collect().await;
    assert!(world.holds(&long).await && world.knows(&Digest::of(BLOBS[0])).await);
}

/// Who is about a manifest belongs to it from when that one comes; nothing keeps a subject for those about it.
#[tokio::test]
async fn a_subject_may_come_later() {
    let world = World::new().await;
    let config = world.add(b"{}").await;
    let subject = image(&config, "subject");
    let mut about = image(&config, "about");
    about["subject"] = descriptor(IMAGE, subject.to_string().as_bytes());
    let about = world.put(&about, &[]).await.unwrap();
    let referrer = |of: Digest| {
        let view = world.state.read(move |view| {
            let (found, _) = manifests_page(view, &repo(), &|_, _| None, None, 10)?;
            Ok::<_, StateError>(found.into_iter().find(|one| one.digest == of).unwrap().facts.referrer)
        });
        async { view.await.unwrap() }
    };
    assert!(!referrer(about.clone()).await);
    world.put(&subject, &["v1"]).await.unwrap();
    assert!(referrer(about.clone()).await);
    assert!(world.flaws().await.is_empty());
}

#[tokio::test]
async fn rows_that_do_not_fit_are_mended() {
    let world = World::sparse().await;
    let name = world.put(&manifest(0), &["v1"]).await.unwrap();
    let (of, gone) = (name.clone(), Digest::of(b"no such manifest"));
    let spoil = world.state.write(move |tx| {
        let (one, two) = (Digest::of(BLOBS[0]), Digest::of(BLOBS[1]));
        tx.delete(&WANTED, &(repo(), one, of.clone()))?;
        tx.delete(&WANTS, &(repo(), of.clone(), two.clone()))?;
        tx.put(&WANTS, &(repo(), gone.clone(), two.clone()), &())?;
        tx.put(&WANTED, &(repo(), two, gone.clone()), &())
    });
    spoil.await.unwrap();
    let classes: Vec<String> =
        world.flaws().await.iter().map(|flaw| flaw.split(':').next().unwrap().to_owned()).collect();
    let classes: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
    assert_eq!(classes, BTreeSet::from(["want_dangling", "want_not_listed", "want_listed_wrongly"]));
    let mut after = None::<String>;
    loop {
        let from = after.take();
        after = world.state.write(move |tx| mend(tx, from.as_deref(), true)).await.unwrap().next;
        if after.is_none() {
            break;
        }
    }
    assert!(world.flaws().await.is_empty());
    world.add(BLOBS[0]).await;
    world.collect().await;
    assert!(world.holds(&Digest::of(BLOBS[0])).await);
}
