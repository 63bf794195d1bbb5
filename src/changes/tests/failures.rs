//! Failures, retries, panics, undo, pivots, aborts, conflicts, and tasks that nobody knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::world::{Journal, Kinds, World, code, states};
use crate::changes::record::CONFLICTS;
use crate::changes::{ChangeError, Conflict, EventKey, Step, TaskFailure};
use crate::names::ChangeId;
use crate::state::{Read as _, Scan};

fn flaky(left: &Arc<AtomicU64>) -> Result<(), TaskFailure> {
    let failing = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    if failing {
        Err(TaskFailure::new("upstream_down", "no answer").with_hint("wait").retryable())
    } else {
        Ok(())
    }
}

/// Lets every back-off pass until the change has ended.
async fn ended_with_time(world: &World, id: &ChangeId) -> crate::changes::ChangeView {
    let mut passed = 0;
    loop {
        let view = world.view(id).await;
        if view.is_ended() {
            return view;
        }
        passed += 1;
        assert!(passed < 20_000, "it never ends: {view:?}");
        if view.state == "waiting" {
            world.advance(1);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_failure_undoes_every_started_task_the_last_one_first() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).done("t.a").done("t.b").fails("t.c").done("t.d");
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a", "t.b", "t.c", "t.d"]).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("undone", "broken"));
    assert_eq!(states(&view), ["undone", "undone", "undone", "pending"]);
    assert_eq!(journal.lines()[3..], ["undo t.c", "undo t.b", "undo t.a"]);
}

#[tokio::test]
async fn a_finish_completes_the_change_without_its_other_tasks() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).runs("t.a", |_| async { Ok(Step::Finish) }.boxed()).done("t.b");
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a", "t.b"]).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), states(&view)), ("done", vec!["done", "skipped"]));
    assert_eq!(journal.lines(), ["run t.a FirstRun"]);
}

#[tokio::test]
async fn a_panic_is_a_failure_of_the_task_and_not_of_the_engine() {
    let journal = Journal::default();
    let kinds =
        Kinds::new(&journal).done("t.a").runs("t.b", |_| std::panic::resume_unwind(Box::new("on purpose")));
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a", "t.b"]).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("undone", "task_panicked"));
    let next = world.begin(&["t.a"]).await;
    assert_eq!(world.ended(&next).await.state, "done");
}

#[tokio::test]
async fn a_retry_waits_1_5_and_25_seconds_and_then_the_task_has_failed() {
    let journal = Journal::default();
    let left = Arc::new(AtomicU64::new(9));
    let counted = Arc::clone(&left);
    let kinds = Kinds::new(&journal)
        .runs("t.a", move |_| std::future::ready(flaky(&counted).map(|()| Step::Done)).boxed());
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    for (attempt, pause) in [(1, 1), (2, 5), (3, 25)] {
        world.until(&id, "waiting").await;
        assert_eq!(9 - left.load(Ordering::SeqCst), attempt);
        assert_eq!(code(&world.view(&id).await), "upstream_down");
        world.advance(pause - 1);
        let other = world.begin(&[]).await;
        world.ended(&other).await;
        assert_eq!(world.view(&id).await.state, "waiting", "before {pause} s have passed");
        world.advance(1);
        super::world::within(async {
            while 9 - left.load(Ordering::SeqCst) == attempt {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("undone", "upstream_down"));
    assert_eq!(view.error.unwrap().hint.unwrap(), "wait");
    assert_eq!(left.load(Ordering::SeqCst), 5, "four attempts in all");
}

#[tokio::test]
async fn a_retry_that_goes_well_leaves_no_error() {
    let journal = Journal::default();
    let left = Arc::new(AtomicU64::new(3));
    let kinds = Kinds::new(&journal)
        .runs("t.a", move |_| std::future::ready(flaky(&left).map(|()| Step::Done)).boxed());
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    let view = ended_with_time(&world, &id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("done", ""));
    assert_eq!(journal.count("run t.a Retry"), 3);
}

#[tokio::test]
async fn an_undo_is_retried_and_then_needs_attention_with_both_causes() {
    for (failures, state) in [(3, "undone"), (4, "needs_attention")] {
        let journal = Journal::default();
        let left = Arc::new(AtomicU64::new(failures));
        let kinds = Kinds::new(&journal)
            .done("t.a")
            .task(
                "t.b",
                |_| async { Ok(Step::Done) }.boxed(),
                move |_| std::future::ready(flaky(&left)).boxed(),
            )
            .fails("t.c");
        let world = World::new(kinds).await;
        let id = world.begin(&["t.a", "t.b", "t.c"]).await;
        let view = ended_with_time(&world, &id).await;
        assert_eq!(view.state, state);
        assert_eq!(journal.count("undo t.b"), 4);
        if failures == 4 {
            let error = view.error.unwrap();
            assert_eq!(error.code, "undo_failed");
            assert!(
                error.message.contains("no answer") && error.message.contains("it is broken"),
                "{error:?}"
            );
            assert_eq!(journal.count("undo t.a"), 0, "what came before the stuck undo is left as it is");
        }
    }
}

#[tokio::test]
async fn an_undo_that_panics_needs_attention() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).task(
        "t.a",
        |_| async { Err(TaskFailure::new("broken", "it is broken")) }.boxed(),
        |_| std::panic::resume_unwind(Box::new("on purpose")),
    );
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a"]).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("needs_attention", "undo_failed"));
}

#[tokio::test]
async fn after_the_pivot_a_change_only_goes_forward() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).done("t.a").done("t.pivot").fails("t.b");
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a", "t.pivot", "t.b"]).await;
    world.until(&id, "waiting").await;
    assert!(!world.changes.abort(&id).await.unwrap(), "too late to abort");
    let view = ended_with_time(&world, &id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("needs_attention", "broken"));
    assert_eq!(states(&view), ["done", "done", "failed"]);
    assert_eq!(journal.count("run t.b Retry"), 3);
    assert!(!journal.lines().iter().any(|line| line.starts_with("undo")));
}

#[tokio::test]
async fn a_pivot_that_fails_is_undone_like_any_other_task() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).done("t.a").fails("t.pivot")).await;
    let id = world.begin(&["t.a", "t.pivot"]).await;
    assert_eq!(world.ended(&id).await.state, "undone");
    assert_eq!(journal.lines()[2..], ["undo t.pivot", "undo t.a"]);
}

#[tokio::test]
async fn a_task_that_nobody_knows_needs_attention_and_nothing_spins() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).done("t.a").hangs("t.future")).await;
    let id = world.begin(&["t.a", "t.future"]).await;
    journal.until("run t.future FirstRun").await;
    let world = world.crash(Kinds::new(&journal).done("t.a")).await;
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("needs_attention", "unknown_task_kind"));
    assert!(view.error.unwrap().message.contains("t.future"));
    let before = world.state.stats().commits;
    let world = world.restart(Kinds::new(&journal).done("t.a")).await;
    let other = world.begin(&["t.a"]).await;
    world.ended(&other).await;
    assert!(world.state.stats().commits < before + 20, "it is not taken up again");
    assert_eq!(journal.lines(), ["run t.a FirstRun", "run t.future FirstRun", "run t.a FirstRun"]);
}

#[tokio::test]
async fn an_abort_while_a_task_runs_wakes_it_and_undoes() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).done("t.a").task(
        "t.b",
        |ctx| {
            async {
                ctx.until_cancelled().await;
                assert!(ctx.cancelled());
                Err(TaskFailure::new("interrupted", "it was interrupted").retryable())
            }
            .boxed()
        },
        |ctx| {
            assert!(!ctx.cancelled(), "an undo is not aborted");
            async { Ok(()) }.boxed()
        },
    );
    let world = World::new(kinds).await;
    let id = world.begin(&["t.a", "t.b"]).await;
    journal.until("run t.b FirstRun").await;
    assert!(world.changes.abort(&id).await.unwrap());
    let view = world.ended(&id).await;
    assert_eq!((view.state.as_str(), code(&view)), ("cancelled", "cancelled"));
    assert_eq!(journal.lines()[2..], ["undo t.b", "undo t.a"]);
    assert!(!world.changes.abort(&id).await.unwrap(), "it has ended");
}

#[tokio::test]
async fn an_abort_while_waiting_or_backing_off_undoes_at_once() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal)
        .waits("t.wait", EventKey::new("never", "comes"), None)
        .runs("t.flaky", |_| async { Err(TaskFailure::new("down", "no answer").retryable()) }.boxed());
    let world = World::new(kinds).await;
    for task in ["t.wait", "t.flaky"] {
        let id = world.begin(&[task]).await;
        world.until(&id, "waiting").await;
        assert!(world.changes.abort(&id).await.unwrap());
        let view = world.ended(&id).await;
        assert_eq!((view.state.as_str(), states(&view)), ("cancelled", vec!["undone"]));
        assert_eq!(journal.lines().last().unwrap(), &format!("undo {task}"));
    }
}

#[tokio::test]
async fn an_abort_survives_a_crash() {
    let journal = Journal::default();
    let kinds = || Kinds::new(&journal).hangs("t.a");
    let world = World::new(kinds()).await;
    let id = world.begin(&["t.a"]).await;
    journal.until("run t.a FirstRun").await;
    assert!(world.changes.abort(&id).await.unwrap());
    let world = world.crash(kinds()).await;
    assert_eq!(world.ended(&id).await.state, "cancelled");
    assert_eq!(journal.lines(), ["run t.a FirstRun", "undo t.a"]);
    let unknown = ChangeId::parse("nobody").unwrap();
    assert!(matches!(world.changes.abort(&unknown).await, Err(ChangeError::Unknown(_))));
}

#[tokio::test]
async fn a_conflict_names_the_holder_and_ends_with_it() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).hangs("t.a").done("t.b")).await;
    let change = |tasks: &[&'static str], keys: &[&str]| {
        let mut change = world.new_change(tasks);
        change.conflicts = keys.iter().map(|key| (*key).to_owned()).collect();
        change
    };
    let first = world.submit(change(&["t.a"], &["package/acme/weather", "command/weather"])).await.unwrap();
    let refused = world.submit(change(&["t.b"], &["package/acme/other", "command/weather"])).await;
    assert_eq!(refused, Err(Conflict { key: "command/weather".into(), holder: first.clone() }));
    let independent = world.submit(change(&["t.b"], &["package/acme/other"])).await.unwrap();
    assert_eq!(world.ended(&independent).await.state, "done");
    let mut again = change(&["t.b"], &[]);
    again.id = first.clone();
    assert_eq!(world.submit(again).await.unwrap_err().holder, first);

    journal.until("run t.a FirstRun").await;
    world.changes.abort(&first).await.unwrap();
    let world = world.crash(Kinds::new(&journal).hangs("t.a").done("t.b")).await;
    world.ended(&first).await;
    let left = world.state.read(|rows| Ok(rows.scan(&CONFLICTS, &Scan::all(), 10)?.len())).await.unwrap();
    assert_eq!(left, 0);
}
