//! Killed at each fault point: what was acknowledged is there and true, what was not left nothing behind.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Arc;

use super::super::{Blobs, Owner, link};
use super::{Root, content, open};
use crate::names::{Digest, Faults, ManualClock, Millis, SystemRandom};
use crate::state::State;

const ROOT: &str = "PANTRY_TEST_ROOT";
const BLOBS: u64 = 6;

/// The process that is killed; started by the test below.
#[tokio::test]
#[ignore = "run by the test that kills it"]
async fn store_blobs_and_acknowledge_each() {
    let Some(root) = std::env::var_os(ROOT).map(std::path::PathBuf::from) else { return };
    let faults = Faults::from_environment();
    let state = State::open(&root.join("state.redb"), faults.clone()).unwrap();
    let clock = Arc::new(ManualClock::at(Millis(1)));
    let blobs = Blobs::open(&root, state.clone(), clock, Arc::new(SystemRandom), faults).await.unwrap();
    let mut acknowledged = fs_err::File::create(root.join("acknowledged")).unwrap();
    for seed in 0..BLOBS {
        let mut writer = blobs.begin().await.unwrap();
        writer.write(content(seed, 500_000)).await.unwrap();
        let stored = writer.finish(None).await.unwrap();
        let digest = stored.digest.clone();
        state.write(move |tx| link(tx, &stored, &Owner::new("test", "one"))).await.unwrap();
        acknowledged.write_all(format!("{digest}\n").as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn a_kill_at_any_point_loses_nothing_acknowledged_and_leaves_no_half() {
    let points = [
        ("blobs.close.before_fsync", 3, 2),
        ("blobs.close.after_fsync", 3, 2),
        ("blobs.close.after_rename", 3, 2),
        ("blobs.close.after_dirsync", 3, 2),
        ("state.commit.before", 3, 2),
        ("state.commit.after", 3, 2),
        ("never", 1, 6),
    ];
    for (point, nth, expected) in points {
        let folder = tempfile::tempdir().unwrap();
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "blobs::tests::crash::store_blobs_and_acknowledge_each", "--ignored"])
            .env(ROOT, folder.path())
            .env("PANTRY_FAULT", format!("{point}@{nth}"))
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), (point != "never").then_some(9), "{point}");
        let acknowledged = fs_err::read_to_string(folder.path().join("acknowledged")).unwrap();
        assert_eq!(acknowledged.lines().count(), expected, "{point}");
        let clock = Arc::new(ManualClock::at(Millis(1)));
        let (state, blobs) = open(folder.path(), Arc::clone(&clock)).await;
        for line in acknowledged.lines() {
            blobs.read_small(&Digest::parse(line).unwrap(), u64::MAX).await.unwrap();
        }
        let root = Root { folder, clock, state, blobs };
        assert_eq!(root.uploads(), [""; 0], "{point}");
        // A file may be there without its record, never a record without its file.
        for seed in 0..BLOBS {
            let digest = Digest::of(&content(seed, 500_000));
            if root.blobs.size(&digest).await.unwrap().is_some() {
                root.blobs.read_small(&digest, u64::MAX).await.unwrap();
            }
        }
    }
}
