//! SIGKILL at every boundary of a change, in a process of its own; this process then recovers what it left.
#![cfg(feature = "fault-points")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::world::{Journal, Kinds, World};
use crate::changes::{Step, TaskFailure};
use crate::names::Faults;

const ROOT: &str = "PANTRY_TEST_CHANGES_ROOT";
const TASKS: &str = "PANTRY_TEST_CHANGES_TASKS";
const GOOD: [&str; 3] = ["k.a", "k.pivot", "k.b"];
const BAD: [&str; 3] = ["k.a", "k.b", "k.fail"];

/// Tasks that make a file each, and take it away again.
fn kinds(root: &Path) -> Kinds {
    let mut kinds = Kinds::new(&Journal::default());
    for kind in ["k.a", "k.b", "k.pivot", "k.fail"] {
        let file: Arc<Path> = root.join(format!("made-{kind}")).into();
        let (made, removed) = (Arc::clone(&file), file);
        kinds = kinds.task(
            kind,
            move |ctx| {
                let file = Arc::clone(&made);
                async move {
                    ctx.save(&file.to_path_buf()).await?;
                    ctx.work_dir()?;
                    fs_err::write(&file, "made").unwrap();
                    if kind == "k.fail" {
                        Err(TaskFailure::new("broken", "it is broken"))
                    } else {
                        Ok(Step::Done)
                    }
                }
                .boxed()
            },
            move |ctx| {
                let file = Arc::clone(&removed);
                async move {
                    if ctx.saved::<PathBuf>()?.is_some() && file.exists() {
                        fs_err::remove_file(&file).unwrap();
                    }
                    Ok(())
                }
                .boxed()
            },
        );
    }
    kinds
}

fn made(root: &Path) -> Vec<String> {
    let names =
        fs_err::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut made: Vec<String> =
        names.filter_map(|name| name.strip_prefix("made-").map(str::to_owned)).collect();
    made.sort();
    made
}

/// The process that is killed; does nothing unless the test below started it.
#[tokio::test]
async fn child() {
    let (Some(root), Ok(tasks)) = (std::env::var_os(ROOT), std::env::var(TASKS)) else { return };
    let root = PathBuf::from(root);
    let world = World::at(&root, kinds(&root), Faults::from_environment()).await;
    let id = world.begin(if tasks == "good" { &GOOD } else { &BAD }).await;
    world.ended(&id).await;
    world.changes.stop().await;
}

#[tokio::test]
async fn a_kill_at_any_boundary_leaves_a_change_that_ends_as_without_it() {
    let forward = |tasks: [&'static str; 3]| {
        tasks
            .into_iter()
            .flat_map(|task| ["before", "done", "recorded"].map(|at| format!("changes.{task}.{at}")))
    };
    let back = BAD
        .into_iter()
        .flat_map(|task| ["before", "done", "recorded"].map(|at| format!("changes.{task}.undo.{at}")));
    let end = ["logged", "recorded", "swept"].map(|at| format!("changes.test.end.{at}"));
    let good = forward(GOOD).chain(end.clone()).map(|point| ("good", point));
    let bad = forward(BAD).chain(back).chain(end).map(|point| ("bad", point));
    for (tasks, point) in good.chain(bad) {
        let root = tempfile::Builder::new().prefix("changes-").tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "changes::tests::kill::child"]).stdout(Stdio::null()).stderr(Stdio::null());
        child.env(ROOT, root.path()).env(TASKS, tasks).env("PANTRY_FAULT", &point);
        let status = tokio::task::spawn_blocking(move || child.status()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(9), "{point} was never passed: {status}");

        let world = World::at(root.path(), kinds(root.path()), Faults::none()).await;
        let id = world.changes.list(None, 10).await.unwrap().remove(0).id.parse().unwrap();
        let view = world.ended(&id).await;
        // The engine's own start has swept what the killed process left; its present work is over with the next end.
        let mut marker = world.new_change(&[]);
        marker.id = "marker".parse().unwrap();
        let marker = world.submit(marker).await.unwrap();
        world.ended(&marker).await;
        if tasks == "good" {
            assert_eq!(
                (view.state.as_str(), made(root.path())),
                ("done", vec!["a", "b", "pivot"].into_iter().map(|k| format!("k.{k}")).collect()),
                "{point}"
            );
        } else {
            assert_eq!((view.state.as_str(), made(root.path())), ("undone", vec![]), "{point}");
        }
        world.changes.stop().await;
        let left = fs_err::read_dir(root.path().join("tmp")).unwrap().count();
        assert_eq!(left, 0, "a work folder is left after {point}");
        let log = world.changes.log(&id).await.unwrap();
        assert!(log.last().unwrap().contains("ended: "), "{point}: {log:?}");
    }
}
