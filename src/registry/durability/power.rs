//! Power goes, or the process ends: at every named point, and at every single thing that is done to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;

use super::model::{Loss, Model, Resumed};
use super::script::{Dice, is_fault, script};
use super::world::{World, fresh};
use crate::blobs::{Call, Disk};
use crate::names::{Clock as _, Faults};

/// Points that the scripts must come by; whatever else they pass is tried too.
const POINTS: &[&str] = &[
    "blobs.upload.before_write",
    "blobs.upload.after_write",
    "blobs.suspend.before_fsync",
    "blobs.suspend.after_fsync",
    "blobs.suspend.before_record",
    "blobs.suspend.after_record",
    "blobs.mark.before_write",
    "blobs.mark.after_write",
    "blobs.resume.before_cut",
    "blobs.resume.after_cut",
    "blobs.close.before_fsync",
    "blobs.close.after_fsync",
    "blobs.close.after_rename",
    "blobs.close.after_dirsync",
    "blobs.discard.before_remove",
    "registry.upload.before-record",
    "registry.upload.after-record",
    "registry.manifest.before-record",
    "registry.manifest.after-record",
    "registry.manifest-delete.before-record",
    "registry.manifest-delete.after-record",
    "registry.blob-delete.before-record",
    "registry.blob-delete.after-record",
    "registry.mount.before-record",
    "registry.mount.after-record",
    "blobs.collect.before_condemn",
    "blobs.collect.after_condemn",
    "blobs.collect.before_unlink",
    "blobs.collect.after_unlink",
    "blobs.collect.after_forget",
    "blobs.quarantine.before_move",
    "blobs.quarantine.after_move",
    "blobs.quarantine.after_flag",
    "registry.retention.before-remove",
    "registry.retention.after-remove",
    "registry.repository.drained",
    "state.commit.before",
    "state.commit.after",
];

/// When it ends.
#[derive(Clone, Debug)]
enum Cut {
    /// After the last request.
    AtTheEnd,
    /// At a named point, at the n-th time that it is passed.
    At(String, usize),
    /// Before the n-th change or sync of the disk.
    Before(u64),
}

/// What a run came by.
#[derive(Debug, Default)]
struct Trace {
    points: Vec<String>,
    changes: u64,
    resumed: Resumed,
}

fn runs() -> usize {
    std::env::var("PANTRY_POWER_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1)
}

/// Runs the script of a seed until it ends, with one seed of three the process alone, and looks at what is there
/// afterwards.
async fn run(base: &Disk, seed: u64, cut: Cut) -> Trace {
    let loss = if seed % 3 == 2 { Loss::Process } else { Loss::Power };
    run_on(base.copied(), seed, cut, loss).await
}

async fn run_on(disk: Disk, seed: u64, cut: Cut, loss: Loss) -> Trace {
    let when = format!("seed {seed}, loss of {loss:?} {cut:?}");
    let points = Arc::new(Mutex::new(Vec::new()));
    let faults = {
        let (disk, points, cut) = (disk.clone(), Arc::clone(&points), cut.clone());
        Faults::observed(move |point| {
            let mut points = points.lock().unwrap();
            points.push(point.to_owned());
            if let Cut::At(name, nth) = &cut
                && name == point
                && points.iter().filter(|name| *name == point).count() == *nth
            {
                disk.cut_power();
            }
        })
    };
    let world = World::open(&disk, faults).await.unwrap();
    let start = disk.changes();
    if let Cut::Before(change) = cut {
        disk.cut_power_at(start + change);
    }
    let mut model = Model::default();
    let mut last = Vec::new();
    for act in script(seed) {
        let outcome = act.run(&world, &mut model).await;
        last.push(act);
        match outcome {
            Err(error) if is_fault(&error) => {
                assert!(!disk.has_power(), "{when}: {error} with power");
                break;
            }
            _ if !disk.has_power() => break,
            _ => {}
        }
    }
    let changes = disk.changes() - start;
    let image = match loss {
        Loss::Power | Loss::Disk => disk.after_power_loss(seed),
        Loss::Process => disk.after_the_process_ended(),
    };
    let now = world.clock.now();
    drop(world);

    let world = World::open_at(&image, Faults::none(), now).await.unwrap();
    Model::check_uploads_are_swept(&world, &when).await;
    model.check(&world, &when).await;
    Model::check_order(&world, &when).await;
    let resumed = model.finish_uploads(&world, loss, &when).await;
    model.check(&world, &when).await;
    // What a crash leaves is for collection, which takes no more than that.
    world.collect().await.unwrap();
    assert_eq!(Model::leaks(&world, &when).await, 0, "{when}: files stay that no record names");
    model.check(&world, &when).await;
    // What was under way succeeds when it is asked for again.
    let again = last.last().unwrap();
    if let Err(error) = again.run(&world, &mut model).await {
        assert!(!is_fault(&error), "{when}: {again:?} fails after the restart: {error}");
    }
    // And that, too, is durable once it is acknowledged.
    let image = world.disk.after_power_loss(seed + 1);
    let now = world.clock.now();
    drop(world);
    let world = World::open_at(&image, Faults::none(), now).await.unwrap();
    model.check(&world, &format!("{when}, and once more")).await;
    Model::check_order(&world, &format!("{when}, and once more")).await;
    let points = points.lock().unwrap().clone();
    Trace { points, changes, resumed }
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_loss_of_power_at_every_named_point() {
    let base = fresh().await;
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    let mut resumed = Resumed::default();
    for seed in 0..6 {
        let trace = run(&base, seed, Cut::AtTheEnd).await;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        trace.points.into_iter().for_each(|point| *counts.entry(point).or_default() += 1);
        for (point, count) in counts {
            let most = passed.entry(point).or_insert(count);
            *most = count.min(*most);
        }
        resumed.any += trace.resumed.any;
        resumed.ranged += trace.resumed.ranged;
    }
    assert!(resumed.any > resumed.ranged, "some upload was put aside and goes on afterwards");
    assert!(resumed.ranged > 0, "some upload in chunks goes on afterwards");
    let names: BTreeSet<&str> = passed.keys().map(String::as_str).collect();
    let missed: Vec<&&str> = POINTS.iter().filter(|point| !names.contains(**point)).collect();
    assert!(missed.is_empty(), "the scripts never come by {missed:?}");
    for (number, (point, count)) in passed.iter().enumerate() {
        for turn in 0..6 * runs() {
            let seed = (number * 1_000 + turn) as u64;
            let nth = 1 + Dice::new(seed + 77).below(*count);
            run(&base, seed, Cut::At(point.clone(), nth)).await;
        }
    }
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_loss_of_power_between_any_two_steps() {
    let base = fresh().await;
    let total = run(&base, 0, Cut::AtTheEnd).await.changes;
    assert!(total > 100, "{total} steps");
    let runs = 120 * runs() as u64;
    for number in 0..runs {
        run(&base, number, Cut::Before(number * total / runs)).await;
    }
}

/// Every kind of sync is needed, and these tests notice when one does nothing.
#[tokio::test]
async fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let base = fresh().await;
    for lie in [Call::Sync, Call::SyncFolder, Call::State] {
        let mut found_out = false;
        for seed in 0..40 {
            let disk = base.copied();
            disk.lie_about(lie);
            let run = AssertUnwindSafe(run_on(disk, seed, Cut::AtTheEnd, Loss::Power)).catch_unwind();
            found_out |= run.await.is_err();
            if found_out {
                break;
            }
        }
        assert!(found_out, "nothing depends on {lie:?}");
    }
}
