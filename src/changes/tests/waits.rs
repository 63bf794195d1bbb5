//! Waits, signals in both orders, deadlines, and the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::world::{Journal, Kinds, START, World, states};
use crate::changes::record::{DEADLINES, READY, SIGNALS, UNFINISHED, WAITS};
use crate::changes::{EventKey, Step, Woken, ended_event};
use crate::names::{Clock as _, ManualClock, Millis};
use crate::state::{Read as _, Scan};

fn event() -> EventKey {
    EventKey::new("result", "one")
}

#[tokio::test]
async fn a_signal_after_the_wait_wakes_the_task() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).waits("t.wait", event(), None).done("t.next")).await;
    let id = world.begin(&["t.wait", "t.next"]).await;
    world.until(&id, "waiting").await;
    world.signal(&event()).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.lines(), ["run t.wait FirstRun", "run t.wait Event", "run t.next FirstRun"]);
}

#[tokio::test]
async fn a_signal_before_the_wait_is_not_lost() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).waits("t.wait", event(), None)).await;
    world.signal(&event()).await;
    let id = world.begin(&["t.wait"]).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.lines(), ["run t.wait FirstRun", "run t.wait Event"]);
}

#[tokio::test]
async fn one_signal_wakes_every_change_that_waits_and_one_that_waits_later() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).waits("t.wait", event(), None)).await;
    let (first, second) = (world.begin(&["t.wait"]).await, world.begin(&["t.wait"]).await);
    world.until(&first, "waiting").await;
    world.until(&second, "waiting").await;
    world.signal(&event()).await;
    world.ended(&first).await;
    world.ended(&second).await;
    let third = world.begin(&["t.wait"]).await;
    world.ended(&third).await;
    assert_eq!(journal.count("run t.wait Event"), 3);
}

#[tokio::test]
async fn a_second_wait_for_the_same_event_needs_a_second_signal() {
    let journal = Journal::default();
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let kinds = Kinds::new(&journal).runs("t.twice", move |ctx| {
        let seen = Arc::clone(&seen);
        async move {
            let events =
                if ctx.woken() == Woken::Event { seen.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
            Ok(if events == 2 { Step::Done } else { Step::Wait { event: event(), deadline: None } })
        }
        .boxed()
    });
    let world = World::new(kinds).await;
    let id = world.begin(&["t.twice"]).await;
    world.signal(&event()).await;
    journal.until("run t.twice Event").await;
    world.until(&id, "waiting").await;
    assert_eq!(journal.count("run t.twice Event"), 1);
    world.signal(&event()).await;
    assert_eq!(world.ended(&id).await.state, "done");
}

#[tokio::test]
async fn an_event_is_told_again_after_a_crash_while_its_task_ran() {
    let journal = Journal::default();
    let hang = Arc::new(AtomicBool::new(true));
    let kinds = |hang: &Arc<AtomicBool>| {
        let hang = Arc::clone(hang);
        Kinds::new(&journal).runs("t.wait", move |ctx| {
            let hang = Arc::clone(&hang);
            async move {
                match ctx.woken() {
                    Woken::Event if hang.load(Ordering::SeqCst) => std::future::pending().await,
                    Woken::Event => Ok(Step::Done),
                    _ => Ok(Step::Wait { event: event(), deadline: None }),
                }
            }
            .boxed()
        })
    };
    let world = World::new(kinds(&hang)).await;
    let id = world.begin(&["t.wait"]).await;
    world.until(&id, "waiting").await;
    world.signal(&event()).await;
    journal.until("run t.wait Event").await;
    hang.store(false, Ordering::SeqCst);
    let world = world.crash(kinds(&hang)).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(
        journal.lines(),
        ["run t.wait FirstRun", "run t.wait Event", "run t.wait AfterRestart", "run t.wait Event"]
    );
}

#[tokio::test]
async fn a_deadline_wakes_the_task_and_not_before() {
    let journal = Journal::default();
    let deadline = START.after(Duration::from_mins(10));
    let world = World::new(Kinds::new(&journal).waits("t.wait", event(), Some(deadline))).await;
    let id = world.begin(&["t.wait"]).await;
    world.until(&id, "waiting").await;
    world.advance(599);
    let other = world.begin(&[]).await;
    world.ended(&other).await;
    assert_eq!(world.view(&id).await.state, "waiting");
    world.advance(1);
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.lines(), ["run t.wait FirstRun", "run t.wait Deadline"]);
}

#[tokio::test]
async fn a_deadline_that_passed_while_nothing_ran_wakes_after_the_restart() {
    let journal = Journal::default();
    let kinds = || Kinds::new(&journal).waits("t.wait", event(), Some(START.after(Duration::from_mins(1))));
    let world = World::new(kinds()).await;
    let id = world.begin(&["t.wait"]).await;
    world.until(&id, "waiting").await;
    world.clock.advance(Duration::from_secs(61));
    let world = world.crash(kinds()).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.lines(), ["run t.wait FirstRun", "run t.wait Deadline"]);
}

#[tokio::test]
async fn the_event_wins_over_a_deadline_that_passed_too_and_leaves_no_row() {
    let journal = Journal::default();
    let kinds = Kinds::new(&journal).waits("t.wait", event(), Some(START.after(Duration::from_mins(1))));
    let world = World::new(kinds).await;
    let id = world.begin(&["t.wait"]).await;
    world.until(&id, "waiting").await;
    world.clock.advance(Duration::from_secs(61));
    world.signal(&event()).await;
    assert_eq!(world.ended(&id).await.state, "done");
    assert_eq!(journal.count("run t.wait Deadline"), 0);
    let left = world.state.read(|rows| {
        Ok((
            rows.scan(&WAITS, &Scan::all(), 10)?.len(),
            rows.scan(&DEADLINES, &Scan::all(), 10)?.len(),
            rows.scan(&READY, &Scan::all(), 10)?.len(),
            rows.scan(&UNFINISHED, &Scan::all(), 10)?.len(),
        ))
    });
    assert_eq!(left.await.unwrap(), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_change_can_wait_for_the_end_of_another_one() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).fails("t.fail")).await;
    let first = world.begin(&["t.fail"]).await;
    world.ended(&first).await;
    let wanted = ended_event(&first);
    let kinds = Kinds::new(&journal).waits("t.wait", wanted, None);
    let world = world.restart(kinds).await;
    let second = world.begin(&["t.wait"]).await;
    assert_eq!(world.ended(&second).await.state, "done");
}

#[tokio::test]
async fn a_wait_survives_a_restart_without_running_anything() {
    let journal = Journal::default();
    let kinds = || Kinds::new(&journal).waits("t.wait", event(), None);
    let world = World::new(kinds()).await;
    let id = world.begin(&["t.wait"]).await;
    world.until(&id, "waiting").await;
    let world = world.restart(kinds()).await;
    let other = world.begin(&[]).await;
    world.ended(&other).await;
    assert_eq!(states(&world.view(&id).await), ["waiting"]);
    world.signal(&event()).await;
    world.ended(&id).await;
    assert_eq!(journal.lines(), ["run t.wait FirstRun", "run t.wait Event"]);
}

#[tokio::test]
async fn the_clock_never_goes_back_over_a_restart() {
    let journal = Journal::default();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kinds = || {
        let told = Arc::clone(&told);
        Kinds::new(&journal).runs("t.now", move |ctx| {
            told.lock().unwrap().push(ctx.now());
            async { Ok(Step::Done) }.boxed()
        })
    };
    let world = World::new(kinds()).await;
    world.advance(100);
    let id = world.begin(&["t.now"]).await;
    world.ended(&id).await;
    let latest = world.clock.now();
    let world = world.with_clock(ManualClock::at(Millis(5))).restart(kinds()).await;
    let id = world.begin(&["t.now"]).await;
    let view = world.ended(&id).await;
    assert_eq!(view.created_at, latest.rfc3339());
    assert_eq!(*told.lock().unwrap(), [latest, latest]);
}

#[tokio::test]
async fn old_signals_are_cleared_away_once_nobody_can_wait_for_them() {
    let journal = Journal::default();
    let world = World::new(Kinds::new(&journal).waits("t.wait", EventKey::new("never", "x"), None)).await;
    let holding = world.begin(&["t.wait"]).await;
    world.until(&holding, "waiting").await;
    world.signal(&event()).await;
    let known = |world: &World| {
        let state = world.state.clone();
        async move { state.read(|rows| rows.get(&SIGNALS, &"result/one".to_owned())).await.unwrap().is_some() }
    };
    world.advance(25 * 3600);
    let other = world.begin(&[]).await;
    world.ended(&other).await;
    assert!(known(&world).await, "an unfinished change is as old as the signal");
    assert!(world.changes.abort(&holding).await.unwrap());
    world.ended(&holding).await;
    let other = world.begin(&[]).await;
    world.ended(&other).await;
    assert!(!known(&world).await);
}
