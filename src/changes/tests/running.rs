//! Side by side, stopping, recovery, what is saved, and the log with its work folder.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::world::{Journal, Kinds, World, code, within};
use crate::changes::scheduler::SIDE_BY_SIDE;
use crate::changes::{ChangeError, EventKey, NewChange, Step, TaskFailure};
use crate::names::{ChangeId, Clock as _};

#[tokio::test]
async fn at_most_four_changes_run_at_once_and_waiting_ones_take_no_place() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal)
        .waits("t.wait", EventKey::new("never", "comes"), None)
        .hangs("t.hang")
        .done("t.done");
    let world = World::new(kinds).await;
    for _ in 0..2 * SIDE_BY_SIDE {
        let id = world.begin(&["t.wait"]).await;
        world.until(&id, "waiting").await;
    }
    let mut hanging = Vec::new();
    for number in 1..=SIDE_BY_SIDE {
        hanging.push(world.begin(&["t.hang"]).await);
        within(async {
            while journal.count("run t.hang FirstRun") < number {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(world.changes.oldest_waiting().await.unwrap(), None);
    let queued_at = world.clock.now();
    let fifth = world.begin(&["t.done"]).await;
    world.advance(5);
    assert_eq!(world.changes.oldest_waiting().await.unwrap(), Some(queued_at));
    assert_eq!(world.view(&fifth).await.state, "queued");
    let world = world
        .restart(
            Kinds::new(&journal).waits("t.wait", EventKey::new("a", "b"), None).done("t.hang").done("t.done"),
        )
        .await;
    assert_eq!(world.ended(&fifth).await.state, "done");
    for id in hanging {
        world.ended(&id).await;
    }
    assert_eq!(journal.count("run t.hang AfterRestart"), SIDE_BY_SIDE);
}

#[tokio::test]
async fn a_kind_with_places_of_its_own_takes_none_of_the_others() {
    let journal = Journal::default();
    let kinds = || Kinds::new(&journal).limit("few", 2).hangs("t.hang").done("t.done");
    let world = World::new(kinds()).await;
    let few = |task: &'static str| NewChange { kind: "few".into(), ..world.new_change(&[task]) };
    for _ in 0..5 {
        world.submit(few("t.hang")).await.unwrap();
    }
    let queued = world.submit(few("t.done")).await.unwrap();
    // Others find a place at once, though more of the first kind are queued than there are places at all.
    let other = world.begin(&["t.done"]).await;
    assert_eq!(world.ended(&other).await.state, "done");
    assert_eq!(journal.count("run t.hang FirstRun"), 2);
    assert_eq!(world.view(&queued).await.state, "queued");
    for _ in 0..SIDE_BY_SIDE {
        world.begin(&["t.hang"]).await;
    }
    within(async {
        while journal.count("run t.hang FirstRun") < 2 + SIDE_BY_SIDE {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(world.view(&queued).await.state, "queued");
}

#[tokio::test]
async fn a_stop_drops_what_runs_and_a_restart_runs_it_again() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).done("t.a").hangs("t.b")).await;
    let id = world.begin(&["t.a", "t.b"]).await;
    journal.until("run t.b FirstRun").await;
    let waiting = world.changes.until_ended(&id);
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(waiting, world.changes.stop());
    assert!(matches!(stopped, Err(ChangeError::Stopped(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let world = world.restart(Kinds::new(&journal).done("t.a").done("t.b")).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.lines(), ["run t.a FirstRun", "run t.b FirstRun", "run t.b AfterRestart"]);
}

#[tokio::test]
async fn what_has_ended_never_runs_again_however_often_the_engine_starts() {
    let journal = Journal::default();
    let kinds = || Kinds::new(&journal).done("t.a").fails("t.b");
    let world = World::new(kinds()).await;
    let (done, undone) = (world.begin(&["t.a"]).await, world.begin(&["t.a", "t.b"]).await);
    world.ended(&done).await;
    world.ended(&undone).await;
    journal.clear();
    let world = world.crash(kinds()).await.restart(kinds()).await;
    let marker = world.begin(&[]).await;
    world.ended(&marker).await;
    assert_eq!(journal.lines(), Vec::<String>::new());
    assert_eq!(world.view(&done).await.state, "done");
    assert_eq!(world.view(&undone).await.state, "undone");
}

#[tokio::test]
async fn a_task_finds_its_data_what_it_saved_and_what_others_saved() {
    let journal = Journal::default();
    let kinds = || {
        Kinds::new(&journal)
            .task(
                "t.a",
                |ctx| {
                    async {
                        assert_eq!(ctx.saved::<u64>()?, None);
                        assert_eq!(ctx.data::<String>()?, "the data");
                        assert_eq!(ctx.data::<u64>().unwrap_err().code, "task_data_unreadable");
                        ctx.save(&7_u64).await?;
                        assert_eq!(ctx.saved::<u64>()?, Some(7));
                        ctx.progress(3, 4, "files");
                        Ok(Step::Done)
                    }
                    .boxed()
                },
                |ctx| {
                    async {
                        assert_eq!(ctx.saved::<u64>()?, Some(7));
                        assert_eq!(ctx.saved_by::<String>("t.b")?, Some("cursor".into()));
                        Ok(())
                    }
                    .boxed()
                },
            )
            .runs("t.b", |ctx| {
                async {
                    assert_eq!(ctx.saved_by::<u64>("t.a")?, Some(7));
                    if ctx.saved::<String>()?.is_some() {
                        return Err(TaskFailure::new("second_run", "it ran twice"));
                    }
                    ctx.save(&"cursor").await?;
                    std::future::pending().await
                }
                .boxed()
            })
    };
    let world = World::new(kinds()).await;
    let mut change = world.new_change(&["t.a", "t.b"]);
    change.data = "the data".into();
    let id = world.submit(change).await.unwrap();
    journal.until("run t.b FirstRun").await;
    within(async {
        let saved = |world: &World| {
            let (state, key) = (world.state.clone(), (id.clone(), 1));
            async move {
                use crate::state::Read as _;
                state.read(move |rows| rows.get(&crate::changes::record::SAVED, &key)).await.unwrap()
            }
        };
        while saved(&world).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let world = world.crash(kinds()).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("undone", "second_run"));
    assert_eq!((view.tasks[0].done, view.tasks[0].total, view.tasks[0].unit.as_str()), (3, 4, "files"));
}

#[tokio::test]
async fn progress_is_seen_while_the_task_runs() {
    let journal = Journal::default();
    let noted = journal.clone();
    let kinds = Kinds::new(&journal).runs("t.a", move |ctx| {
        ctx.progress(1, 10, "bytes");
        noted.note("told");
        std::future::pending().boxed()
    });
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    journal.until("told").await;
    let task = world.view(&id).await.tasks.remove(0);
    assert_eq!((task.done, task.total, task.unit.as_str(), task.state.as_str()), (1, 10, "bytes", "doing"));
}

#[tokio::test]
async fn a_log_is_a_file_while_it_lives_and_a_blob_when_it_is_closed() {
    let journal = Journal::default();
    let event = EventKey::new("go", "on");
    let waited = event.clone();
    let kinds = Kinds::new(&journal).runs("t.a", move |ctx| {
        let event = waited.clone();
        async move {
            if ctx.woken() == crate::changes::Woken::Event {
                return Ok(Step::Done);
            }
            fs_err::write(ctx.work_dir()?.join("staged"), "bytes").unwrap();
            ctx.log("first\nsecond \u{1b}[2Jwiped").await;
            Ok(Step::Wait { event, deadline: None })
        }
        .boxed()
    });
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    world.until(&id, "waiting").await;
    let folder = world.path("tmp").join(id.as_str());
    assert!(folder.join("staged").exists());
    let live = world.changes.log(&id).await.unwrap();
    assert_eq!(live.len(), 2);
    assert!(live[0].ends_with("t.a: first"), "{live:?}");
    assert!(live[1].ends_with("t.a: second \u{fffd}[2Jwiped"), "{live:?}");
    world.signal(&event).await;
    world.ended(&id).await;
    within(async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let closed = world.changes.log(&id).await.unwrap();
    assert_eq!(closed[..2], live[..]);
    assert!(closed[2].ends_with("ended: done"));
    let unknown = ChangeId::parse("nobody").unwrap();
    assert!(matches!(world.changes.log(&unknown).await, Err(ChangeError::Unknown(_))));
}

#[tokio::test]
async fn a_log_without_end_is_cut_and_says_so() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).runs("t.a", |ctx| {
        async {
            let line = "x".repeat(16 << 10);
            for _ in 0..300 {
                ctx.log(&line).await;
            }
            Ok(Step::Done)
        }
        .boxed()
    });
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    world.ended(&id).await;
    let log = world.changes.log(&id).await.unwrap();
    assert!(log.iter().map(String::len).sum::<usize>() <= 4 << 20);
    assert!(log.last().unwrap().contains("the log is full"));
}

#[tokio::test]
async fn work_folders_that_no_unfinished_change_names_are_swept_at_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    let journal = Journal::default();
    let kinds = || {
        Kinds::new(&journal).runs("t.a", |ctx| {
            async {
                ctx.work_dir()?;
                Ok(Step::Wait { event: EventKey::new("never", "comes"), deadline: None })
            }
            .boxed()
        })
    };
    let world = World::new(kinds()).await;
    let id = world.begin(&["t.a"]).await;
    world.until(&id, "waiting").await;
    let tmp = world.path("tmp");
    fs_err::create_dir_all(tmp.join("left-over/locked/inner")).unwrap();
    fs_err::write(tmp.join("left-over/locked/inner/file"), "x").unwrap();
    fs_err::set_permissions(tmp.join("left-over/locked"), std::fs::Permissions::from_mode(0o555)).unwrap();
    fs_err::write(tmp.join("stray"), "x").unwrap();
    std::os::unix::fs::symlink("/", tmp.join("link")).unwrap();
    let world = world.crash(kinds()).await;
    let marker = world.begin(&[]).await;
    world.ended(&marker).await;
    let left: Vec<_> = fs_err::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [id.as_str()]);
}
