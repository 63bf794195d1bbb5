//! The disk is full, fails, or gives no more handles: the request fails, the store stays as it was.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::super::RegistryError;
use super::model::{Loss, Model};
use super::script::{is_fault, script};
use super::world::{CONTENTS, REPOS, TEAM, TEAMS, World, blob_path, fresh, who};
use crate::blobs::{BlobError, Call};
use crate::names::{Digest, Faults};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// The codes that a failure of the disk may have.
fn code(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Blobs(error) => error.code(),
        RegistryError::State(error) => error.code(),
        error => panic!("no fault of the disk: {error}"),
    }
}

#[tokio::test]
async fn a_call_that_fails_fails_its_request_and_nothing_else() {
    let base = fresh().await;
    let calls = [
        (Call::Create, &[ENOSPC, EMFILE, EIO][..]),
        (Call::Open, &[EMFILE, EIO]),
        (Call::Write, &[ENOSPC, EIO]),
        (Call::Read, &[EIO]),
        (Call::Cut, &[EIO]),
        (Call::Sync, &[EIO, ENOSPC]),
        (Call::Rename, &[ENOSPC, EIO]),
        (Call::SyncFolder, &[EIO]),
        (Call::Remove, &[EIO]),
    ];
    let (mut reached, mut told) = (0, 0);
    for (call, errnos) in calls {
        for (turn, errno) in errnos.iter().cycle().take(8).enumerate() {
            let (seed, when) = (turn as u64, format!("{call:?} number {turn} fails with {errno}"));
            let disk = base.copied();
            let world = World::open(&disk, Faults::none()).await.unwrap();
            disk.fail(call, turn as u64 / errnos.len() as u64 * 2, *errno);
            let mut model = Model::default();
            for act in script(seed) {
                if let Err(error) = act.run(&world, &mut model).await
                    && is_fault(&error)
                {
                    let expected: &[&str] = match *errno {
                        ENOSPC => &["disk_full"],
                        _ => &["blob_io_failed", "upload_spoiled"],
                    };
                    assert!(expected.contains(&code(&error)), "{when}: {act:?}: {} {error}", code(&error));
                    told += 1;
                    model.check(&world, &when).await;
                    // The same again is well, as the disk is.
                    act.run(&world, &mut model).await.unwrap_or_else(|error| {
                        assert!(!is_fault(&error), "{when}: {act:?} fails again: {error}");
                    });
                }
            }
            reached += usize::from(!disk.is_to_fail());
            disk.heal();
            model.check(&world, &when).await;
            let image = disk.after_power_loss(seed);
            drop(world);
            let world = World::open(&image, Faults::none()).await.unwrap();
            model.check(&world, &format!("{when}, then the power goes")).await;
            model.finish_uploads(&world, Loss::Disk, &when).await;
            model.check(&world, &format!("{when}, and uploads go on")).await;
        }
    }
    assert!(reached >= 40 && told >= 20, "{reached} failures came, {told} were told");
}

#[tokio::test]
async fn a_full_state_file_fails_its_requests_and_nothing_else() {
    let base = fresh().await;
    for turn in 0..6 {
        let (when, disk) = (format!("call {turn} of the state fails"), base.copied());
        let world = World::open(&disk, Faults::none()).await.unwrap();
        disk.fail(Call::State, turn * 5, ENOSPC);
        let mut model = Model::default();
        for act in script(turn) {
            if let Err(error) = act.run(&world, &mut model).await
                && is_fault(&error)
            {
                assert!(["disk_full", "state_failed"].contains(&code(&error)), "{when}: {error}");
                model.check(&world, &when).await;
            }
        }
        assert!(!disk.is_to_fail());
        model.check(&world, &when).await;
        let image = disk.after_power_loss(turn);
        drop(world);
        let world = World::open(&image, Faults::none()).await.unwrap();
        model.check(&world, &format!("{when}, then the power goes")).await;
    }
}

#[tokio::test]
async fn a_sync_that_failed_is_not_tried_again_for_its_upload() {
    for call in [Call::Sync, Call::SyncFolder, Call::Write, Call::Rename] {
        for put_aside in [false, true] {
            let disk = fresh().await;
            let world = World::open(&disk, Faults::none()).await.unwrap();
            let (bytes, digest) = &CONTENTS[4];
            let id = world.begin(REPOS[0]).await.unwrap();
            let sent = world.append(REPOS[0], &id, &bytes[..290_000]).await.unwrap();
            if put_aside {
                world.registry.close().await;
            }
            disk.fail(call, 0, EIO);
            let failed = world.finish(REPOS[0], &id, 4, sent).await.unwrap_err();
            assert!(is_fault(&failed) && !disk.is_to_fail(), "{call:?}: {failed}");
            // The disk is well again, and a sync would say so; but bytes are gone.
            let again = world.finish(REPOS[0], &id, 4, sent).await;
            assert!(matches!(again, Err(RegistryError::UploadUnknown)), "{call:?}: {again:?}");
            assert!(!world.blob(REPOS[0], 4).await);
            let uploads = super::world::root().join("uploads");
            for _ in 0..1_000 {
                if disk.names(&uploads).is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(disk.names(&uploads).is_empty(), "{call:?}");
            world.push_whole(REPOS[0], 4).await.unwrap();
            let world = World::open(&disk.after_power_loss(3), Faults::none()).await.unwrap();
            assert!(world.blob(REPOS[0], 4).await, "{call:?}: {digest} was acknowledged");
        }
    }
}

#[tokio::test]
async fn an_upload_whose_bytes_could_not_be_put_aside_is_gone() {
    for resumed in [false, true] {
        let disk = fresh().await;
        let world = World::open(&disk, Faults::none()).await.unwrap();
        let id = world.begin(REPOS[0]).await.unwrap();
        world.append(REPOS[0], &id, &CONTENTS[4].0[..100_000]).await.unwrap();
        if resumed {
            world.registry.close().await;
            world.append(REPOS[0], &id, &CONTENTS[4].0[100_000..200_000]).await.unwrap();
        }
        disk.fail(Call::Sync, 0, EIO);
        world.registry.close().await;
        let status = world.registry.upload_status(&who(), REPOS[0], &id).await;
        assert!(matches!(status, Err(RegistryError::UploadUnknown)), "{status:?}");
    }
}

#[tokio::test]
async fn a_read_that_fails_or_a_file_that_shrinks_never_ends_cleanly() {
    let disk = fresh().await;
    let world = World::open(&disk, Faults::none()).await.unwrap();
    world.push_whole(REPOS[0], 4).await.unwrap();
    let digest = &CONTENTS[4].1;
    let found = world.registry.blob(&who(), REPOS[0], digest).await.unwrap();
    // The first piece comes, the second does not.
    disk.fail(Call::Read, 1, EIO);
    let pieces: Vec<_> = world.registry.open(&found).await.unwrap().stream(None).collect().await;
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].as_ref().unwrap_err().raw_os_error(), Some(EIO));
    // It is cut off while somebody reads.
    let reader = world.registry.open(&found).await.unwrap();
    disk.tamper(&blob_path(digest), |bytes| bytes.truncate(270_000));
    let pieces: Vec<_> = reader.stream(None).collect().await;
    assert_eq!(pieces.last().unwrap().as_ref().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    // Who opens it from now on is told at once, and a push heals it.
    let opened = world.registry.open(&found).await;
    assert!(matches!(opened, Err(RegistryError::BlobUnknown { .. })), "{opened:?}");
    let small = world.blobs.read_small(&Digest::parse(digest).unwrap(), 1 << 20).await;
    assert!(matches!(small, Err(BlobError::Damaged(_))), "{small:?}");
    assert!(!world.blob(REPOS[0], 4).await);
    world.push_whole(REPOS[0], 4).await.unwrap();
    assert!(world.blob(REPOS[0], 4).await);
}

#[tokio::test]
async fn a_blob_is_set_aside_when_files_can_be_opened_again_and_nobody_tries_for_ever() {
    let disk = fresh().await;
    let world = World::open(&disk, Faults::none()).await.unwrap();
    world.push_whole(REPOS[0], 4).await.unwrap();
    let digest = Digest::parse(&CONTENTS[4].1).unwrap();
    disk.tamper(&blob_path(&CONTENTS[4].1), |bytes| bytes.truncate(100));
    // The file is opened and looked at; then there are no handles left, to see whether a name is free.
    let set_aside = |world: &World| {
        let (blobs, digest) = (world.blobs.clone(), digest.clone());
        async move { tokio::time::timeout(Duration::from_secs(20), blobs.quarantine(&digest)).await.unwrap() }
    };
    disk.fail_for_good(Call::Open, 2, EMFILE);
    let failed = set_aside(&world).await;
    assert!(matches!(failed, Err(BlobError::Io { .. })), "{failed:?}");
    disk.heal();
    assert!(set_aside(&world).await.unwrap().is_some());
    assert!(!world.blob(REPOS[0], 4).await);
}

#[tokio::test]
async fn a_repository_whose_removal_failed_acknowledges_nothing_that_then_goes_with_it() {
    let base = fresh().await;
    let (mut failed, mut went) = (0, 0);
    for turn in 0..24 {
        let (when, disk) = (format!("call {turn} of the state fails"), base.copied());
        let world = World::open(&disk, Faults::none()).await.unwrap();
        world.push_whole(REPOS[TEAMS], 0).await.unwrap();
        disk.fail(Call::State, turn, EIO);
        let removed = world.registry.remove_repository(&who(), TEAM, true, false).await;
        failed += usize::from(removed.is_err());
        // The state is opened again; who pushes then is told that it is gone, or it is there.
        let push = || world.push_whole(REPOS[TEAMS], 1);
        let mut pushed = world.steady(push).await;
        if matches!(pushed, Err(RegistryError::NameUnknown { .. })) && world.team().await {
            pushed = world.steady(push).await;
        }
        disk.heal();
        let world = World::open(&disk.after_the_process_ended(), Faults::none()).await.unwrap();
        match pushed {
            Ok(()) => assert!(world.blob(REPOS[TEAMS], 1).await, "{when}: it was acknowledged and is gone"),
            Err(RegistryError::NameUnknown { .. }) => {
                went += 1;
                assert!(!world.registry.names().exists(TEAM), "{when}: it was said to be gone");
            }
            Err(error) => panic!("{when}: {error}"),
        }
    }
    assert!(failed > 3 && went > 24 - failed, "{failed} removals failed, {went} took place");
}
