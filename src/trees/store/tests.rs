use std::sync::Arc;

use super::super::handmade::{Tar, gzip};
use super::super::{RefusalCode, walk};
use super::*;
use crate::blobs::{Blobs, Owner};
use crate::names::{ManualClock, Millis, SeededRandom};
use crate::state::State;

/// Trees whose extractor is a plain call: what is tested here is what is around it.
async fn trees() -> (tempfile::TempDir, Trees) {
    let (root, _, trees) = with_state().await;
    (root, trees)
}

async fn with_state() -> (tempfile::TempDir, State, Trees) {
    let root = tempfile::tempdir().unwrap();
    let state = State::open(&root.path().join("state.redb"), Faults::none()).unwrap();
    let clock = Arc::new(ManualClock::at(Millis(1)));
    let random = Arc::new(SeededRandom::new(1));
    let blobs = Blobs::open(root.path(), state.clone(), clock, random, Faults::none()).await.unwrap();
    let trees = Trees::unconfined(root.path(), blobs).unwrap();
    (root, state, trees)
}

fn layer(tar: Tar) -> (LayerRef, Vec<u8>) {
    let inner = tar.end();
    let bytes = gzip(&inner);
    (LayerRef { digest: Digest::of(&bytes), diff_id: Digest::of(&inner) }, bytes)
}

fn reader(bytes: &[u8]) -> Box<dyn Read + Send> {
    Box::new(std::io::Cursor::new(bytes.to_vec()))
}

/// What lies in `trees/` besides the lock.
fn left(root: &tempfile::TempDir) -> usize {
    fs_err::read_dir(root.path().join("trees"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name() != ".lock")
        .count()
}

#[test]
fn chain_ids_follow_the_specification() {
    let one = LayerRef { digest: Digest::of(b"1"), diff_id: Digest::of(b"a") };
    let two = LayerRef { digest: Digest::of(b"2"), diff_id: Digest::of(b"b") };
    let chain = chain_ids(&[one.clone(), two.clone()]);
    assert_eq!(chain[0], one.diff_id);
    assert_eq!(chain[1], Digest::of(format!("{} {}", one.diff_id, two.diff_id).as_bytes()));
    assert!(chain_ids(&[]).is_empty());
}

#[tokio::test]
async fn a_layer_is_unpacked_once_and_found_again() {
    let (root, trees) = trees().await;
    let (layer, bytes) = layer(Tar::new().file("a", b"1"));
    assert!(trees.present(std::slice::from_ref(&layer)).is_none());
    let path = trees.ensure_from(&[], &layer, reader(&bytes)).unwrap();
    assert_eq!(fs_err::read(path.join("a")).unwrap(), b"1");
    // The second time nothing is read.
    assert_eq!(trees.ensure_from(&[], &layer, Box::new(std::io::empty())).unwrap(), path);
    assert_eq!(trees.present(std::slice::from_ref(&layer)), Some(vec![path.clone()]));
    trees.verify(&layer.diff_id).unwrap();
    // Not even root may alter it unseen.
    fs_err::write(path.join("a"), b"2").unwrap();
    assert_eq!(trees.verify(&layer.diff_id).unwrap_err().code(), "tree_altered");
    assert_eq!(left(&root), 2);
}

#[tokio::test]
async fn stored_layers_are_unpacked_from_their_blobs() {
    let (root, state, trees) = with_state().await;
    let (first, first_bytes) = layer(Tar::new().file("a", b"1"));
    let (second, second_bytes) = layer(Tar::new().file("b", b"2"));
    for bytes in [first_bytes, second_bytes] {
        let stored = trees.0.blobs.as_ref().unwrap().put_reader_blocking(&mut &bytes[..], 1 << 20).unwrap();
        let owner = Owner::new("test", "x");
        state.write(move |tx| crate::blobs::link(tx, &stored, &owner)).await.unwrap();
    }
    let layers = [first, second];
    let found = trees.ensure(&layers).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[1].ends_with(chain_ids(&layers)[1].hex()));
    assert_eq!(fs_err::read(found[1].join("b")).unwrap(), b"2");
    let missing = LayerRef { digest: Digest::of(b"no"), diff_id: Digest::of(b"no") };
    assert_eq!(trees.ensure(&[missing]).unwrap_err().code(), "blob_missing");
    assert_eq!(left(&root), 4);
}

#[tokio::test]
async fn a_layer_with_other_bytes_or_another_archive_leaves_nothing() {
    let (root, trees) = trees().await;
    let (good, bytes) = layer(Tar::new().file("a", b"1"));
    let (other, _) = layer(Tar::new().file("a", b"2"));
    let wrong_name = LayerRef { digest: other.digest.clone(), diff_id: good.diff_id.clone() };
    let wrong_archive = LayerRef { digest: good.digest.clone(), diff_id: other.diff_id.clone() };
    for (layer, code) in [(wrong_name, "digest_mismatch"), (wrong_archive, "layer_diff_id_mismatch")] {
        assert_eq!(trees.ensure_from(&[], &layer, reader(&bytes)).unwrap_err().code(), code);
    }
    let (hostile, bytes) = layer(Tar::new().file("../a", b"1"));
    let error = trees.ensure_from(&[], &hostile, reader(&bytes)).unwrap_err();
    assert!(matches!(error, TreeError::Refused { code: RefusalCode::ArchiveEntryRefused, .. }));
    assert_eq!(left(&root), 0);
}

#[tokio::test]
async fn an_unfinished_tree_is_never_taken_for_a_whole_one() {
    let (root, trees) = trees().await;
    let (layer, bytes) = layer(Tar::new().file("a", b"1").file("b", b"2"));
    let tree = root.path().join("trees").join(layer.diff_id.hex());
    let stamp = tree.with_extension("json");
    // Renamed, and the stamp not yet written.
    fs_err::create_dir(&tree).unwrap();
    fs_err::write(tree.join("a"), b"half").unwrap();
    assert!(trees.present(std::slice::from_ref(&layer)).is_none());
    trees.ensure_from(&[], &layer, reader(&bytes)).unwrap();
    assert_eq!(fs_err::read(tree.join("a")).unwrap(), b"1");
    // A stamp, and another directory in the place of the one it was written for.
    fs_err::rename(&tree, root.path().join("moved")).unwrap();
    fs_err::create_dir(&tree).unwrap();
    assert!(trees.present(std::slice::from_ref(&layer)).is_none());
    trees.ensure_from(&[], &layer, reader(&bytes)).unwrap();
    assert!(tree.join("b").exists());
    // A stamp that is cut off.
    fs_err::write(&stamp, b"{\"version\":1").unwrap();
    assert!(trees.present(std::slice::from_ref(&layer)).is_none());
    trees.ensure_from(&[], &layer, reader(&bytes)).unwrap();
    assert!(trees.present(std::slice::from_ref(&layer)).is_some());
    assert_eq!(left(&root), 2);
}

#[tokio::test]
async fn many_at_once_unpack_one_tree() {
    let (root, trees) = trees().await;
    let (layer, bytes) = layer(Tar::new().file("a", &vec![1; 100_000]));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| trees.ensure_from(&[], &layer, reader(&bytes)).unwrap());
        }
    });
    assert_eq!(left(&root), 2);
    trees.verify(&layer.diff_id).unwrap();
}

#[tokio::test]
async fn sweeping_removes_what_is_not_kept_and_what_was_left_behind() {
    let (root, trees) = trees().await;
    let (kept, kept_bytes) = layer(Tar::new().file("a", b"1"));
    let (gone, gone_bytes) = layer(Tar::new().directory("closed", 0o500).file("closed/b", b"2"));
    trees.ensure_from(&[], &kept, reader(&kept_bytes)).unwrap();
    trees.ensure_from(&[], &gone, reader(&gone_bytes)).unwrap();
    let folder = root.path().join("trees");
    fs_err::create_dir(folder.join(".tmp-999999-0")).unwrap();
    let worked_on = trees.begin().unwrap();
    assert_eq!(trees.sweep(std::slice::from_ref(&kept.diff_id)).unwrap(), 1);
    assert!(worked_on.path.exists());
    assert!(!folder.join(".tmp-999999-0").exists());
    drop(worked_on);
    assert!(trees.present(&[kept]).is_some());
    assert!(trees.present(&[gone]).is_none());
    assert_eq!(left(&root), 2);
}

#[tokio::test]
async fn a_refused_source_leaves_no_directory() {
    let (root, trees) = trees().await;
    let archive = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    };
    let into = root.path().join("source");
    let bad = archive(&Tar::new().file("a", b"1").link("b", "../..").end());
    let error = trees.unpack_source(bad, &into, &SourceCaps::default()).unwrap_err();
    assert_eq!((error.code(), error.hint().is_some()), ("archive_entry_refused", true));
    assert!(!into.exists());
    let good = archive(&Tar::new().file("top/a", b"123").gzip());
    let unpacked = trees.unpack_source(good, &into, &SourceCaps::default()).unwrap();
    assert_eq!(unpacked, Unpacked { files: 1, bytes: 3 });
    assert_eq!(fs_err::read(into.join("top/a")).unwrap(), b"123");
    let again = archive(&Tar::new().file("a", b"1").end());
    assert_eq!(trees.unpack_source(again, &into, &SourceCaps::default()).unwrap_err().code(), "tree_io");
    assert!(into.join("top/a").exists(), "a directory that was there is not touched");
    walk::remove_tree(&into).unwrap();
}

#[test]
fn a_foreign_layer_loses_what_no_tree_may_have_and_removes_what_is_below() {
    let root = tempfile::tempdir().unwrap();
    let trees = Trees::foreign_unconfined(root.path()).unwrap();
    let (low, low_bytes) = layer(Tar::new().file("etc/motd", b"old").file("opt/a", b"a").file("opt/b", b"b"));
    let high = Tar::new()
        .file_mode("bin/su", 0o4755, b"su")
        .raw(b"dev/null", b'3', 0o666, 0, b"", b"")
        .raw(b"run/pipe", b'6', 0o666, 0, b"", b"")
        .file("etc/.wh.motd", b"")
        .directory("opt", 0o755)
        .file("opt/.wh..wh..opq", b"")
        .file("opt/c", b"c")
        .file(".wh..wh.plnk", b"");
    let (high, high_bytes) = layer(high);
    trees.ensure_from(&[], &low, reader(&low_bytes)).unwrap();
    let tree = trees.ensure_from(std::slice::from_ref(&low), &high, reader(&high_bytes)).unwrap();
    let mode = |path: &str| fs_err::symlink_metadata(tree.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("bin/su"), 0o755);
    for gone in ["dev/null", "run/pipe", "etc/.wh.motd", "opt/.wh..wh..opq", ".wh..wh.plnk"] {
        assert!(fs_err::symlink_metadata(tree.join(gone)).is_err(), "{gone}");
    }
    let layers = [low, high];
    let stack = trees.present(&layers).unwrap();
    assert_eq!(stack.len(), 3, "{stack:?}");
    assert_eq!(stack[2], tree);
    for mark in ["etc/motd", "opt"] {
        assert_eq!(
            fs_err::symlink_metadata(stack[1].join(mark)).unwrap().mode() & 0o170_000,
            0o020_000,
            "{mark}"
        );
    }
    assert_eq!(trees.sweep(&[]).unwrap(), 2);
    assert_eq!(left(&root), 0);

    for hostile in [".wh.", ".wh...", "a/.wh..", ".wh..wh..opq"] {
        let (bad, bytes) = layer(Tar::new().file("a/b", b"").file(hostile, b""));
        let refused = trees.ensure_from(&[], &bad, reader(&bytes));
        assert!(matches!(refused, Err(TreeError::Refused { .. })), "{hostile}: {refused:?}");
    }
}

#[test]
fn places_that_a_jail_mounts_over_are_real_directories() {
    let root = tempfile::tempdir().unwrap();
    let trees = Trees::foreign_unconfined(root.path()).unwrap();
    for name in ["dev", "proc", "sys", "tmp"] {
        let (bad, bytes) = layer(Tar::new().file("bin/x", b"").link(name, "bin"));
        let refused = trees.ensure_from(&[], &bad, reader(&bytes));
        assert!(matches!(refused, Err(TreeError::Refused { .. })), "{name}: {refused:?}");
        let (good, bytes) = layer(
            Tar::new().directory(name, 0o755).directory("usr", 0o755).link(&format!("usr/{name}"), "../bin"),
        );
        trees.ensure_from(&[], &good, reader(&bytes)).unwrap();
    }
}
