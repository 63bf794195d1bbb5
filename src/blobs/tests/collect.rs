//! Collection against a model, and each race of it in a fixed order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use proptest::prelude::*;

use super::super::collect::{condemn, remove_unnamed};
use super::super::references::unreferenced_since;
use super::super::{
    Collected, Cursor, INLINE_BYTES, Owner, Stored, Sweep, is_known, link, link_known, renew, unlink,
};
use super::{Root, content, eventually};
use crate::names::{Clock as _, Digest};
use crate::state::Read as _;

const GRACE: Sweep = Sweep { grace_ms: 10_000, dry_run: false };
const AT_ONCE: Sweep = Sweep { grace_ms: 0, dry_run: false };
const LARGE: usize = INLINE_BYTES + 1_000;

impl Root {
    /// A whole run.
    async fn collect(&self, sweep: Sweep) -> Collected {
        let (mut total, mut cursor) = (Collected::default(), Cursor::default());
        while cursor != Cursor::End {
            let (next, part) = self.blobs.collect(cursor, sweep).await.unwrap();
            total.add(part);
            cursor = next;
        }
        total
    }

    async fn unlink(&self, digest: &Digest) {
        let (digest, now) = (digest.clone(), self.clock.now());
        self.state.write(move |tx| unlink(tx, &digest, &Owner::new("test", "one"), now)).await.unwrap();
    }

    /// A blob that was linked and unlinked again.
    async fn forsaken(&self, seed: u64, size: usize) -> Digest {
        let stored = self.blobs.put(content(seed, size)).await.unwrap();
        self.link(&stored).await;
        self.unlink(&stored.digest).await;
        stored.digest.clone()
    }

    async fn knows(&self, digest: &Digest) -> bool {
        let digest = digest.clone();
        self.state.read(move |view| is_known(view, &digest)).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn what_nobody_refers_to_goes_after_the_grace_and_nothing_else() {
    let root = Root::new().await;
    let small = root.forsaken(1, 100).await;
    let large = root.forsaken(2, LARGE).await;
    let kept = root.blobs.put(content(3, LARGE)).await.unwrap();
    root.link(&kept).await;
    drop(kept);
    root.clock.advance(Duration::from_millis(9_999));
    assert!(root.collect(GRACE).await.is_nothing());
    root.clock.advance(Duration::from_millis(1));
    let dry = root.collect(Sweep { dry_run: true, ..GRACE }).await;
    assert_eq!((dry.seen, dry.blobs, dry.blob_bytes), (3, 2, 100 + LARGE as u64));
    assert_eq!(root.blob_files(), 2, "a dry run changes nothing");
    assert!(root.knows(&small).await && root.knows(&large).await);
    assert_eq!(root.collect(GRACE).await, dry);
    assert_eq!(root.blob_files(), 1);
    assert!(!root.knows(&small).await && !root.knows(&large).await);
    assert!(root.collect(GRACE).await.is_nothing());
    // The same bytes come back as if they had never been here.
    for (seed, size) in [(1, 100), (2, LARGE)] {
        let stored = root.blobs.put(content(seed, size)).await.unwrap();
        root.link(&stored).await;
        assert_eq!(root.blobs.read_small(&stored.digest, u64::MAX).await.unwrap(), content(seed, size));
    }
}

#[tokio::test]
async fn an_old_blob_that_was_asked_for_can_still_be_named() {
    let root = Root::new().await;
    let old = root.forsaken(1, LARGE).await;
    root.clock.advance(Duration::from_hours(1));
    let (key, now) = (old.clone(), root.clock.now());
    assert!(root.state.write(move |tx| renew(tx, &key, now)).await.unwrap());
    assert_eq!(root.collect(GRACE).await.blobs, 0, "its grace began anew");
    root.clock.advance(Duration::from_millis(9_999));
    assert_eq!(root.collect(GRACE).await.blobs, 0);
    let key = old.clone();
    assert!(root.state.write(move |tx| link_known(tx, &key, &Owner::new("test", "two"))).await.unwrap());
    root.clock.advance(Duration::from_hours(1));
    assert_eq!(root.collect(GRACE).await.blobs, 0);
    assert_eq!(root.blobs.read_small(&old, u64::MAX).await.unwrap(), content(1, LARGE));
    // What is referred to needs no renewal, and gets no write.
    let commits = root.state.stats().commits;
    let (key, now) = (old.clone(), root.clock.now());
    assert!(root.state.write(move |tx| renew(tx, &key, now)).await.unwrap());
    let unknown = Digest::of(b"unknown");
    assert!(!root.state.write(move |tx| renew(tx, &unknown, now)).await.unwrap());
    assert_eq!(root.state.stats().commits, commits);
}

#[tokio::test]
async fn a_reference_that_comes_after_the_look_and_before_the_sentence_saves_the_blob() {
    let root = Root::new().await;
    let digest = root.forsaken(1, LARGE).await;
    let (key, now) = (digest.clone(), root.clock.now());
    let condemned = root
        .state
        .write(move |tx| {
            assert!(link_known(tx, &key, &Owner::new("test", "two"))?);
            condemn(tx, &key, now, Duration::ZERO)
        })
        .await
        .unwrap();
    assert_eq!(condemned, None);
    assert!(root.collect(AT_ONCE).await.is_nothing());
    assert!(root.knows(&digest).await);
}

#[tokio::test]
async fn a_push_between_sentence_and_removal_waits_and_loses_no_byte() {
    let root = Root::new().await;
    let digest = root.forsaken(1, LARGE).await;
    let store = std::sync::Arc::clone(root.blobs.inner());
    let seized = store.pins.seize(&digest).unwrap();
    let (key, now) = (digest.clone(), root.clock.now());
    let condemned = root.state.write(move |tx| condemn(tx, &key, now, Duration::ZERO)).await.unwrap();
    assert!(condemned.is_some());
    // Now somebody pushes the same bytes: the old file is still there, with the right size.
    let blobs = root.blobs.clone();
    let push = tokio::spawn(async move { blobs.put(content(1, LARGE)).await.unwrap() });
    eventually("the bytes came", || !root.uploads().is_empty()).await;
    assert!(!push.is_finished());
    tokio::task::spawn_blocking(move || {
        assert_eq!(remove_unnamed(&store, std::slice::from_ref(&seized)).unwrap().files, 1);
        assert!(!push.is_finished(), "it waits until the old file is gone");
        (push, drop(seized))
    })
    .await
    .map(|(push, ())| push)
    .unwrap()
    .await
    .map(|stored| assert_eq!(stored.digest, digest))
    .unwrap();
    let stored = root.blobs.put(content(1, LARGE)).await.unwrap();
    root.link(&stored).await;
    assert_eq!(root.blobs.read_small(&digest, u64::MAX).await.unwrap(), content(1, LARGE));
}

#[tokio::test]
async fn bytes_that_came_and_are_not_named_yet_are_spared_whatever_the_grace() {
    let root = Root::new().await;
    let digest = root.forsaken(1, LARGE).await;
    let stored = root.blobs.put(content(1, LARGE)).await.unwrap();
    let fresh = root.blobs.put(content(2, LARGE)).await.unwrap();
    let found = root.collect(AT_ONCE).await;
    assert_eq!((found.blobs, found.files, found.spared), (0, 0, 2));
    for stored in [&stored, &fresh] {
        root.link(stored).await;
    }
    assert_eq!(root.blobs.read_small(&digest, u64::MAX).await.unwrap(), content(1, LARGE));
    assert_eq!(root.blobs.read_small(&fresh.digest, u64::MAX).await.unwrap(), content(2, LARGE));
    drop((stored, fresh));
    // A push that ended without a name leaves a file, which goes.
    let left = root.blobs.put(content(3, LARGE)).await.unwrap();
    drop(left);
    assert_eq!(root.collect(AT_ONCE).await.files, 1);
    assert_eq!(root.blob_files(), 2);
}

#[tokio::test]
async fn a_known_blob_can_be_held_until_it_is_named() {
    let root = Root::new().await;
    let digest = root.forsaken(1, LARGE).await;
    let held = root.blobs.hold(&digest).await.unwrap().unwrap();
    assert_eq!(root.collect(AT_ONCE).await.blobs, 0);
    root.link(&held).await;
    drop(held);
    assert!(root.collect(AT_ONCE).await.is_nothing());
    root.unlink(&digest).await;
    assert_eq!(root.collect(AT_ONCE).await.blobs, 1);
    assert!(root.blobs.hold(&digest).await.unwrap().is_none());
    let small = root.forsaken(2, 10).await;
    let held = root.blobs.hold(&small).await.unwrap().unwrap();
    assert_eq!(root.collect(AT_ONCE).await.blobs, 1, "small ones are held in memory");
    root.link(&held).await;
    assert_eq!(root.blobs.read_small(&small, 10).await.unwrap(), content(2, 10));
}

#[tokio::test]
async fn after_a_crash_between_sentence_and_removal_the_file_goes_unless_it_was_pushed_again() {
    for pushed_again in [false, true] {
        let root = Root::new().await;
        let digest = root.forsaken(1, LARGE).await;
        let (key, now) = (digest.clone(), root.clock.now());
        root.state.write(move |tx| condemn(tx, &key, now, Duration::ZERO)).await.unwrap().unwrap();
        let root = root.restart().await;
        assert_eq!(root.blob_files(), 1);
        assert!(root.blobs.open_blob(&digest).await.unwrap().is_none(), "it is gone for everybody");
        if pushed_again {
            let stored = root.blobs.put(content(1, LARGE)).await.unwrap();
            root.link(&stored).await;
        }
        let found = root.collect(GRACE).await;
        assert_eq!((found.blobs, found.files), (0, u64::from(!pushed_again)));
        assert_eq!(root.blob_files(), usize::from(pushed_again));
        if pushed_again {
            assert_eq!(root.blobs.read_small(&digest, u64::MAX).await.unwrap(), content(1, LARGE));
        }
        assert!(root.collect(GRACE).await.is_nothing(), "and the note is gone");
    }
}

#[tokio::test]
async fn an_open_reader_reads_on_and_a_late_one_is_told_that_it_is_gone() {
    let root = Root::new().await;
    let digest = root.forsaken(1, 2_000_000).await;
    let reader = root.blobs.open_blob(&digest).await.unwrap().unwrap();
    assert_eq!(root.collect(AT_ONCE).await.blobs, 1);
    assert_eq!(root.blob_files(), 0);
    let pieces: Vec<bytes::Bytes> = reader.stream(None).try_collect().await.unwrap();
    assert_eq!(pieces.concat(), content(1, 2_000_000));
    assert!(root.blobs.open_blob(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn strangers_are_left_alone_and_young_files_too() {
    let root = Root::new().await;
    let folder = root.folder.path().join("blobs/sha256/ab");
    fs_err::write(folder.join("notes.txt"), "mine").unwrap();
    fs_err::write(folder.join("cd".repeat(32)), "in the wrong folder").unwrap();
    fs_err::create_dir(folder.join("ab".repeat(32))).unwrap();
    let unnamed = folder.join(format!("ab{}", "0".repeat(62)));
    fs_err::write(&unnamed, "left by a crash").unwrap();
    let set = |path: &std::path::Path, seconds| {
        let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        file.into_parts().0.set_modified(at).unwrap();
    };
    root.clock.advance(Duration::from_secs(1_000));
    set(&unnamed, 995);
    let found = root.collect(GRACE).await;
    assert_eq!((found.strangers, found.files), (3, 0));
    set(&unnamed, 900);
    let found = root.collect(GRACE).await;
    assert_eq!((found.strangers, found.files, found.file_bytes), (3, 1, 15));
    assert_eq!(fs_err::read_dir(&folder).unwrap().count(), 3, "strangers stay");
}

#[tokio::test]
async fn uploads_that_are_written_to_or_recorded_stay_and_leftovers_go() {
    let root = Root::new().await;
    let mut writer = root.blobs.begin().await.unwrap();
    writer.write(content(1, 600_000)).await.unwrap();
    let mut other = root.blobs.begin().await.unwrap();
    other.write(content(2, 600_000)).await.unwrap();
    let suspended = other.suspend().await.unwrap();
    eventually("the first one has its file", || root.uploads().len() == 2).await;
    let id = crate::names::UploadId::new(&*root.clock, &crate::names::SystemRandom);
    let left = root.folder.path().join("uploads").join(id.as_str());
    fs_err::write(&left, "left").unwrap();
    for name in root.uploads() {
        let file = fs_err::OpenOptions::new().write(true).open(root.folder.path().join("uploads").join(name));
        file.unwrap().into_parts().0.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    root.clock.advance(Duration::from_mins(2));
    assert_eq!(root.collect(Sweep { dry_run: true, ..GRACE }).await.uploads, 1);
    let found = root.collect(GRACE).await;
    assert_eq!((found.uploads, found.upload_bytes), (1, 4));
    assert_eq!(root.uploads().len(), 2);
    root.clock.advance(Duration::from_hours(25));
    assert_eq!(root.collect(Sweep { dry_run: true, ..GRACE }).await.uploads, 1);
    assert_eq!(root.collect(GRACE).await.uploads, 1);
    assert_eq!(root.uploads(), [writer.id().as_str()]);
    assert!(root.blobs.resume(&suspended).await.unwrap().is_none());
    assert!(writer.finish(None).await.is_ok());
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8),
    LetGo(u8),
    Link(u8, u8),
    Unlink(u8, u8),
    Renew(u8),
    Pass(u16),
    Collect,
    /// So many steps of a run, and then a crash.
    Crash(u16),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..4_u8).prop_map(Act::Put),
        1 => (0..4_u8).prop_map(Act::LetGo),
        4 => (0..4_u8, 0..2_u8).prop_map(|(n, by)| Act::Link(n, by)),
        4 => (0..4_u8, 0..2_u8).prop_map(|(n, by)| Act::Unlink(n, by)),
        1 => (0..4_u8).prop_map(Act::Renew),
        2 => (1..12_000_u16).prop_map(Act::Pass),
        3 => Just(Act::Collect),
        1 => (0..6_u16).prop_map(Act::Crash),
    ]
}

#[derive(Default, Debug)]
struct Known {
    owners: BTreeSet<u8>,
    since: Option<u64>,
}

fn bytes_of(n: u8) -> bytes::Bytes {
    content(u64::from(n) + 100, if n < 2 { 50 } else { LARGE })
}

fn by(n: u8) -> Owner {
    Owner::new("test", n.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn collection_follows_the_model(acts in proptest::collection::vec(any_act(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut root = Root::new().await;
            let mut model: BTreeMap<u8, Known> = BTreeMap::new();
            let mut hands: BTreeMap<u8, Stored> = BTreeMap::new();
            for act in acts {
                let now = root.clock.now();
                match act {
                    Act::Put(n) => {
                        hands.insert(n, root.blobs.put(bytes_of(n)).await.unwrap());
                    }
                    Act::LetGo(n) => drop(hands.remove(&n)),
                    Act::Link(n, owner) => {
                        let (hand, digest) = (hands.get(&n).cloned(), Digest::of(&bytes_of(n)));
                        let linked = root.state.write(move |tx| match &hand {
                            Some(stored) => link(tx, stored, &by(owner)).map(|()| true),
                            None => link_known(tx, &digest, &by(owner)),
                        }).await.unwrap();
                        assert_eq!(linked, hands.contains_key(&n) || model.contains_key(&n));
                        if linked {
                            let known = model.entry(n).or_default();
                            known.owners.insert(owner);
                            known.since = None;
                        }
                    }
                    Act::Unlink(n, owner) => {
                        let digest = Digest::of(&bytes_of(n));
                        root.state.write(move |tx| unlink(tx, &digest, &by(owner), now)).await.unwrap();
                        if let Some(known) = model.get_mut(&n)
                            && known.owners.remove(&owner) && known.owners.is_empty() {
                            known.since = Some(now.0);
                        }
                    }
                    Act::Renew(n) => {
                        let digest = Digest::of(&bytes_of(n));
                        let known = root.state.write(move |tx| renew(tx, &digest, now)).await.unwrap();
                        assert_eq!(known, model.contains_key(&n));
                        if let Some(since) = model.get_mut(&n).and_then(|known| known.since.as_mut()) {
                            *since = now.0;
                        }
                    }
                    Act::Pass(span) => root.clock.advance(Duration::from_millis(span.into())),
                    Act::Collect => {
                        root.collect(GRACE).await;
                        model.retain(|n, known| {
                            let due = known.since.is_some_and(|since| now.0 - since >= GRACE.grace_ms);
                            // Large ones that are in somebody's hand are spared.
                            !due || (*n >= 2 && hands.contains_key(n))
                        });
                    }
                    Act::Crash(steps) => {
                        let mut cursor = Cursor::default();
                        for _ in 0..steps {
                            let before = cursor.clone();
                            let (next, _) = root.blobs.collect(cursor, GRACE).await.unwrap();
                            cursor = next;
                            if matches!(before, Cursor::Records(_)) {
                                model.retain(|n, known| {
                                    let due = known.since.is_some_and(|since| now.0 - since >= GRACE.grace_ms);
                                    !due || (*n >= 2 && hands.contains_key(n))
                                });
                            }
                        }
                        hands.clear();
                        root = root.restart().await;
                    }
                }
                for n in 0..4 {
                    let digest = Digest::of(&bytes_of(n));
                    let since = root.state
                        .read_blocking(|view| unreferenced_since(view, &digest)).unwrap();
                    match model.get(&n) {
                        Some(known) => {
                            let read = root.blobs.read_small(&digest, u64::MAX).await.unwrap();
                            assert_eq!(read, bytes_of(n));
                            assert_eq!(since.map(|since| since.0), known.since);
                        }
                        None => assert!(root.blobs.open_blob(&digest).await.unwrap().is_none()),
                    }
                }
            }
            hands.clear();
            root.collect(AT_ONCE).await;
            let large = model.iter().filter(|(n, known)| **n >= 2 && !known.owners.is_empty()).count();
            assert_eq!((root.blob_files(), root.uploads().len()), (large, 0), "nothing else is left");
            let rows = root.state.read_blocking(|view| {
                view.scan(&super::super::references::INLINE, &crate::state::Scan::all(), 100)
            });
            let small = model.iter().filter(|(n, known)| **n < 2 && !known.owners.is_empty()).count();
            assert_eq!(rows.unwrap().len(), small);
        });
    }
}
