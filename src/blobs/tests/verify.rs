//! Damage: found, set aside, told, healed; and records that do not fit together.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::super::references::{BLOBS, REFERENCES};
use super::super::{
    BlobError, Damage, INLINE_BYTES, Owner, Pace, Verdict, damaged, is_known, link_known, mend_references,
    owners,
};
use super::{Root, content};
use crate::names::{Digest, Millis};
use crate::state::Read as _;

const LARGE: usize = INLINE_BYTES + 1_000;

impl Root {
    async fn stored(&self, seed: u64, size: usize) -> Digest {
        let stored = self.blobs.put(content(seed, size)).await.unwrap();
        self.link(&stored).await;
        stored.digest.clone()
    }

    async fn verdict(&self, digest: &Digest) -> Verdict {
        self.blobs.verify(digest, &[], &mut Pace::default(), |_| ()).await.unwrap()
    }

    fn spoil(&self, digest: &Digest, how: impl FnOnce(&mut Vec<u8>)) {
        let path = self.blob_path(digest);
        let mut bytes = fs_err::read(&path).unwrap();
        how(&mut bytes);
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        fs_err::write(&path, bytes).unwrap();
    }
}

fn intact() -> Verdict {
    Verdict::Intact { false_names: Vec::new() }
}

/// A loss of power may bring back the name under which damaged bytes lay, after the record was flagged.
#[tokio::test]
async fn damaged_bytes_that_come_back_under_their_name_are_replaced_by_a_push() {
    let root = Root::new().await;
    let digest = root.stored(3, 400_000).await;
    root.spoil(&digest, |bytes| bytes[300_000] ^= 1);
    let rotten = fs_err::read(root.blob_path(&digest)).unwrap();
    assert_eq!(root.blobs.quarantine(&digest).await.unwrap(), Some(Damage::Damaged));
    fs_err::write(root.blob_path(&digest), rotten).unwrap();
    assert_eq!(root.stored(3, 400_000).await, digest);
    assert_eq!(root.verdict(&digest).await, intact());
    assert_eq!(root.blobs.read_small(&digest, u64::MAX).await.unwrap(), content(3, 400_000));
}

#[tokio::test]
async fn a_flipped_bit_is_found_set_aside_never_served_and_healed_by_a_push() {
    let root = Root::new().await;
    let digest = root.stored(1, 20_000_000).await;
    let mut told = 0;
    let verdict = root.blobs.verify(&digest, &[], &mut Pace::default(), |bytes| told += bytes).await.unwrap();
    assert_eq!((verdict, told), (intact(), 20_000_000));
    root.spoil(&digest, |bytes| bytes[13_000_000] ^= 1);
    let rotten = fs_err::read(root.blob_path(&digest)).unwrap();
    assert_eq!(root.verdict(&digest).await, Verdict::Damaged);
    assert_eq!(root.blobs.quarantine(&digest).await.unwrap(), Some(Damage::Damaged));
    let aside = root.folder.path().join("quarantine").join(digest.hex());
    assert_eq!(fs_err::read(&aside).unwrap(), rotten, "set aside byte for byte");
    assert!(!root.blob_path(&digest).exists());
    assert!(matches!(root.blobs.open_blob(&digest).await, Err(BlobError::Damaged(_))));
    assert!(root.blobs.hold(&digest).await.unwrap().is_none());
    let key = digest.clone();
    let (known, linked) = root
        .state
        .write(move |tx| {
            Ok::<_, crate::state::StateError>((
                is_known(tx, &key)?,
                link_known(tx, &key, &Owner::new("test", "two"))?,
            ))
        })
        .await
        .unwrap();
    assert_eq!((known, linked), (None, false), "it counts as not there, so that it is pushed again");
    let key = digest.clone();
    let (listed, who) = root
        .state
        .read(move |view| {
            Ok::<_, crate::state::StateError>((damaged(view, None, 10)?, owners(view, &key, 10)?))
        })
        .await
        .unwrap();
    assert_eq!((listed.len(), &listed[0].digest, listed[0].damage), (1, &digest, Damage::Damaged));
    assert_eq!(who, [("test".to_owned(), "one".to_owned())], "who needs it is still known");
    assert_eq!(root.verdict(&digest).await, Verdict::Known(Damage::Damaged));
    assert_eq!(root.blobs.quarantine(&digest).await.unwrap(), None, "once is enough");

    root.stored(1, 20_000_000).await;
    assert_eq!(root.verdict(&digest).await, intact());
    assert!(root.blobs.open_blob(&digest).await.unwrap().is_some());
    assert!(root.state.read(|view| damaged(view, None, 10)).await.unwrap().is_empty());
    // A second time beside the first.
    root.spoil(&digest, |bytes| bytes.truncate(5));
    assert_eq!(root.blobs.quarantine(&digest).await.unwrap(), Some(Damage::Damaged));
    assert_eq!(fs_err::read_dir(aside.parent().unwrap()).unwrap().count(), 2);
}

#[tokio::test]
async fn each_kind_of_damage_has_its_verdict() {
    let root = Root::new().await;
    let (cut, longer, gone, small) = (
        root.stored(1, LARGE).await,
        root.stored(2, LARGE).await,
        root.stored(3, LARGE).await,
        root.stored(4, 9).await,
    );
    root.spoil(&cut, |bytes| bytes.truncate(10));
    root.spoil(&longer, |bytes| bytes.push(0));
    fs_err::remove_file(root.blob_path(&gone)).unwrap();
    let key = small.clone();
    let table = super::super::references::INLINE;
    root.state
        .write(move |tx| tx.put(&table, &key, &crate::state::Raw(b"different".to_vec())))
        .await
        .unwrap();
    for (digest, verdict, damage) in [
        (&cut, Verdict::Damaged, Damage::Damaged),
        (&longer, Verdict::Damaged, Damage::Damaged),
        (&gone, Verdict::Missing, Damage::Missing),
        (&small, Verdict::Damaged, Damage::Damaged),
    ] {
        assert_eq!(root.verdict(digest).await, verdict);
        assert_eq!(root.blobs.quarantine(digest).await.unwrap(), Some(damage));
        assert_eq!(root.verdict(digest).await, Verdict::Known(damage));
    }
    let aside = root.folder.path().join("quarantine");
    assert_eq!(fs_err::read(aside.join(small.hex())).unwrap(), b"different");
    assert_eq!(root.verdict(&Digest::of(b"nobody")).await, Verdict::Gone);
    for (seed, size) in [(1, LARGE), (2, LARGE), (3, LARGE), (4, 9)] {
        let digest = root.stored(seed, size).await;
        assert_eq!(root.verdict(&digest).await, intact());
    }
    assert!(root.state.read(|view| damaged(view, None, 10)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_false_sha512_is_told() {
    let root = Root::new().await;
    for size in [10, LARGE] {
        let digest = root.stored(1, size).await;
        let (right, wrong) = (Digest::sha512_of(&content(1, size)), Digest::sha512_of(b"other"));
        let names = [right, wrong.clone()];
        let verdict = root.blobs.verify(&digest, &names, &mut Pace::default(), |_| ()).await.unwrap();
        assert_eq!(verdict, Verdict::Intact { false_names: vec![wrong] });
    }
}

#[tokio::test]
async fn what_is_being_pushed_is_not_set_aside_under_the_push() {
    let root = Root::new().await;
    let digest = root.stored(1, LARGE).await;
    let held = root.blobs.hold(&digest).await.unwrap().unwrap();
    assert!(matches!(root.blobs.quarantine(&digest).await, Err(BlobError::InUse(_))));
    drop(held);
    assert_eq!(root.blobs.quarantine(&digest).await.unwrap(), None, "it is intact");
}

#[tokio::test]
async fn the_pace_is_kept() {
    let root = Root::new().await;
    let digest = root.stored(1, 17 * 1_024 * 1_024).await;
    let mut pace = Pace::default();
    pace.limit(Some(64 * 1_024 * 1_024));
    let began = std::time::Instant::now();
    let verdict = root.blobs.verify(&digest, &[], &mut pace, |_| ()).await.unwrap();
    assert_eq!(verdict, intact());
    assert!(began.elapsed() >= Duration::from_millis(210), "{:?}", began.elapsed());
}

#[tokio::test]
async fn small_blobs_do_not_outrun_the_pace() {
    let root = Root::new().await;
    let mut all = Vec::new();
    for seed in 0..20 {
        all.push(root.stored(seed, if seed % 2 == 0 { LARGE } else { INLINE_BYTES }).await);
    }
    let bytes = 10 * (LARGE + INLINE_BYTES) as u64;
    let mut pace = Pace::default();
    pace.limit(Some(2 * bytes));
    let began = std::time::Instant::now();
    for digest in &all {
        assert_eq!(root.blobs.verify(digest, &[], &mut pace, |_| ()).await.unwrap(), intact());
    }
    assert!(began.elapsed() >= Duration::from_millis(440), "{:?}", began.elapsed());
}

/// The classes of flaws that a run of mending finds, sorted.
async fn flaws(root: &Root, act: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let mended = root.blobs.mend(after, act).await.unwrap();
        found.extend(mended.flaws);
        match mended.next {
            Some(next) => after = Some(Digest::parse(&next).unwrap()),
            None => break,
        }
    }
    let stands: super::super::OwnerView = |_, key, _| Ok(key == "one");
    let owners = [("test", stands)];
    let mut after: Option<String> = None;
    loop {
        let owners = owners.to_vec();
        let mended = root
            .state
            .write(move |tx| mend_references(tx, after.as_deref(), &owners, act, Millis(7)))
            .await
            .unwrap();
        found.extend(mended.flaws);
        match mended.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let mut classes: Vec<String> = found.into_iter().map(|flaw| flaw.class).collect();
    classes.sort();
    classes
}

#[tokio::test]
async fn a_healthy_store_needs_no_mending_and_one_flaw_of_each_class_is_mended_alone() {
    let root = Root::new().await;
    let mut all = Vec::new();
    for seed in 0..120_u64 {
        all.push(root.stored(seed, if seed % 10 == 0 { LARGE } else { 100 }).await);
    }
    let commits = root.state.stats().commits;
    assert_eq!(flaws(&root, false).await, [""; 0]);
    assert_eq!(flaws(&root, true).await, [""; 0]);
    assert_eq!(root.state.stats().commits, commits, "a healthy store is not written to");

    // One planted flaw of each class.
    let (marked, unmarked, gone, dangling) =
        (all[1].clone(), all[2].clone(), all[10].clone(), all[3].clone());
    let (lost, stranger) = (Digest::of(b"lost"), all[4].clone());
    fs_err::remove_file(root.blob_path(&gone)).unwrap();
    let (row, one) =
        (|digest: &Digest, kind: &str, key: &str| (digest.clone(), kind.to_owned(), key.to_owned()), "one");
    let planted = (
        row(&dangling, "test", "gone"),
        row(&lost, "test", one),
        row(&stranger, "unheard-of", "x"),
        row(&unmarked, "test", one),
    );
    root.state
        .write(move |tx| {
            let mut record = tx.get(&BLOBS, &marked)?.unwrap();
            record.unreferenced_since = Some(Millis(1));
            tx.put(&BLOBS, &marked, &record)?;
            tx.delete(&REFERENCES, &planted.3)?;
            tx.put(&REFERENCES, &planted.0, &())?;
            tx.put(&REFERENCES, &planted.1, &())?;
            tx.put(&REFERENCES, &planted.2, &())
        })
        .await
        .unwrap();
    let expected = [
        "bytes_missing",
        "marked_though_referenced",
        "reference_dangling",
        "reference_without_blob",
        "unmarked_though_unreferenced",
    ];
    assert_eq!(flaws(&root, false).await, expected);
    assert_eq!(flaws(&root, false).await, expected, "a dry run mends nothing");
    assert_eq!(flaws(&root, true).await, expected);
    for _ in 0..3 {
        assert_eq!(flaws(&root, true).await, [""; 0], "mended once and for all");
    }
    let listed = root.state.read(|view| damaged(view, None, 10)).await.unwrap();
    assert_eq!(listed.len(), 2, "the missing file and the blob that never was");
    for (digest, seed) in all.iter().zip(0_u64..).filter(|(digest, _)| **digest != gone) {
        let size = if seed % 10 == 0 { LARGE } else { 100 };
        assert_eq!(root.blobs.read_small(digest, u64::MAX).await.unwrap(), content(seed, size));
    }
    let key = stranger.clone();
    let who = root.state.read(move |view| owners(view, &key, 10)).await.unwrap();
    assert_eq!(who.len(), 2, "an owner of an unknown kind is left alone");
}
