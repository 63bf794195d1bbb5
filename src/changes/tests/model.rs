//! Random scripts and random crashes: whatever happens, a change ends as its script says, and nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::world::{Journal, Kinds, World};
use crate::changes::record::{CONFLICTS, DEADLINES, READY, UNFINISHED, WAITS};
use crate::changes::{EventKey, NewChange, Step, TaskContext, TaskFailure, signal};
use crate::names::ChangeId;
use crate::state::{Read as _, Scan, State};

/// What a task does before its end, in the order of its runs.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Fails for a cause outside.
    Retry,
    /// Signals the event itself, then waits for it.
    SignalThenWait,
    /// Waits for an event that somebody signals at any time.
    WaitForOther,
    /// Waits for a deadline.
    WaitForDeadline,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Fail,
    Panic,
    Finish,
}

#[derive(Clone, Debug)]
struct Script {
    acts: Vec<Act>,
    end: End,
    pivot: bool,
    undo_retries: u64,
}

const KINDS: [&str; 5] = ["m.0", "m.1", "m.2", "m.3", "m.4"];
const PIVOTS: [&str; 5] = ["m.0.pivot", "m.1.pivot", "m.2.pivot", "m.3.pivot", "m.4.pivot"];

/// Outlives crashes, like the world outside the process.
#[derive(Default)]
struct Outside {
    scripts: BTreeMap<ChangeId, Vec<Script>>,
    /// What tasks have made and not taken back: change and place.
    made: BTreeSet<(ChangeId, usize)>,
    /// Every call, in order: change, place, whether it is an undo.
    calls: Vec<(ChangeId, usize, bool)>,
    undo_failures: BTreeMap<(ChangeId, usize), u64>,
    /// Events that somebody is going to signal.
    promised: Vec<EventKey>,
}

struct Machine {
    outside: Mutex<Outside>,
    state: Mutex<Option<State>>,
    /// Counts points passed inside tasks; a crash happens at some of them.
    points: AtomicU64,
    crashes: Vec<u64>,
    crash: tokio::sync::Notify,
}

impl Machine {
    /// Passes a point; never returns when the process ends here.
    async fn point(&self) {
        if self.crashes.contains(&self.points.fetch_add(1, Ordering::SeqCst)) {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn script(&self, ctx: &TaskContext, place: usize) -> Script {
        self.outside.lock().unwrap().scripts[ctx.change()][place].clone()
    }

    async fn run(&self, ctx: &TaskContext, place: usize) -> Result<Step, TaskFailure> {
        let key = (ctx.change().clone(), place);
        self.outside.lock().unwrap().calls.push((key.0.clone(), place, false));
        self.point().await;
        let script = self.script(ctx, place);
        let cursor: usize = ctx.saved()?.unwrap_or(0);
        ctx.save(&(cursor + 1)).await?;
        self.point().await;
        self.outside.lock().unwrap().made.insert(key);
        self.point().await;
        let event = EventKey::new("model", &format!("{}-{place}-{cursor}", ctx.change()));
        let outcome = match script.acts.get(cursor) {
            Some(Act::Retry) => Err(TaskFailure::new("down", "no answer").retryable()),
            Some(Act::SignalThenWait) => {
                let (state, signalled) = (self.state.lock().unwrap().clone().unwrap(), event.clone());
                state.write(move |tx| signal(tx, &signalled)).await?;
                Ok(Step::Wait { event, deadline: None })
            }
            Some(Act::WaitForOther) => {
                self.outside.lock().unwrap().promised.push(event.clone());
                Ok(Step::Wait { event, deadline: None })
            }
            Some(Act::WaitForDeadline) => {
                Ok(Step::Wait { event, deadline: Some(ctx.now().after(Duration::from_secs(20))) })
            }
            None => match script.end {
                End::Done => Ok(Step::Done),
                End::Finish => Ok(Step::Finish),
                End::Fail => Err(TaskFailure::new("broken", "it is broken")),
                End::Panic => std::panic::resume_unwind(Box::new("on purpose")),
            },
        };
        self.point().await;
        outcome
    }

    async fn undo(&self, ctx: &TaskContext, place: usize) -> Result<(), TaskFailure> {
        let key = (ctx.change().clone(), place);
        let retries = self.script(ctx, place).undo_retries;
        {
            let mut outside = self.outside.lock().unwrap();
            outside.calls.push((key.0.clone(), place, true));
            let failures = outside.undo_failures.entry(key.clone()).or_default();
            if *failures < retries {
                *failures += 1;
                return Err(TaskFailure::new("busy", "it is in use").retryable());
            }
        }
        self.point().await;
        self.outside.lock().unwrap().made.remove(&key);
        self.point().await;
        Ok(())
    }

    fn kinds(self: &Arc<Self>) -> Kinds {
        let mut kinds = Kinds::new(&Journal::default());
        for place in 0..KINDS.len() {
            for kind in [KINDS[place], PIVOTS[place]] {
                let (runs, undoes) = (Arc::clone(self), Arc::clone(self));
                kinds = kinds.task(
                    kind,
                    move |ctx| {
                        let machine = Arc::clone(&runs);
                        async move { machine.run(ctx, place).await }.boxed()
                    },
                    move |ctx| {
                        let machine = Arc::clone(&undoes);
                        async move { machine.undo(ctx, place).await }.boxed()
                    },
                );
            }
        }
        kinds
    }
}

/// What the script must come to: the state, and the places whose work must be there.
fn expected(script: &[Script]) -> (&'static str, BTreeSet<usize>) {
    let mut made = BTreeSet::new();
    let mut pivoted = false;
    for (place, task) in script.iter().enumerate() {
        made.insert(place);
        match task.end {
            End::Done => pivoted |= task.pivot,
            End::Finish => return ("done", made),
            End::Fail | End::Panic if pivoted => return ("needs_attention", made),
            End::Fail | End::Panic => return ("undone", BTreeSet::new()),
        }
    }
    ("done", made)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        Just(Act::Retry),
        Just(Act::SignalThenWait),
        Just(Act::WaitForOther),
        Just(Act::WaitForDeadline)
    ];
    prop::collection::vec(act, 0..3)
}

fn script() -> impl Strategy<Value = Script> {
    let end = prop_oneof![
        8 => Just(End::Done), 2 => Just(End::Fail), 1 => Just(End::Panic), 1 => Just(End::Finish)
    ];
    (acts(), end, prop::bool::weighted(0.2), 0..3_u64).prop_map(|(acts, end, pivot, undo_retries)| Script {
        acts,
        end,
        pivot,
        undo_retries,
    })
}

async fn play(scripts: Vec<Vec<Script>>, crashes: Vec<u64>) -> Result<(), TestCaseError> {
    let machine = Arc::new(Machine {
        outside: Mutex::default(),
        state: Mutex::default(),
        points: AtomicU64::new(0),
        crashes,
        crash: tokio::sync::Notify::new(),
    });
    let mut world = World::new(machine.kinds()).await;
    *machine.state.lock().unwrap() = Some(world.state.clone());
    let mut ids = Vec::new();
    for script in &scripts {
        let kinds: Vec<_> = (0..script.len())
            .map(|place| if script[place].pivot { PIVOTS[place] } else { KINDS[place] })
            .collect();
        let mut change = world.new_change(&kinds);
        change.conflicts = vec![format!("package/{}", change.id)];
        machine.outside.lock().unwrap().scripts.insert(change.id.clone(), script.clone());
        ids.push(change.id.clone());
        world.submit(NewChange { ..change }).await.unwrap();
    }

    let begun = Instant::now();
    loop {
        let died = tokio::time::timeout(Duration::from_millis(2), machine.crash.notified()).await.is_ok();
        if died {
            world = world.crash(machine.kinds()).await;
            *machine.state.lock().unwrap() = Some(world.state.clone());
        }
        let promised = std::mem::take(&mut machine.outside.lock().unwrap().promised);
        for event in promised {
            world.signal(&event).await;
        }
        world.advance(5);
        let mut ended = true;
        for id in &ids {
            ended &= world.view(id).await.is_ended();
        }
        if ended {
            break;
        }
        prop_assert!(begun.elapsed() < Duration::from_mins(1), "stuck: {:?}", world.view(&ids[0]).await);
    }

    check(&world, &machine, &ids).await?;
    // Nothing of it runs again, after two more starts.
    let calls = machine.outside.lock().unwrap().calls.len();
    let world = world.crash(machine.kinds()).await.restart(machine.kinds()).await;
    let marker = world.begin(&[]).await;
    world.ended(&marker).await;
    prop_assert_eq!(machine.outside.lock().unwrap().calls.len(), calls);
    Ok(())
}

async fn check(world: &World, machine: &Machine, ids: &[ChangeId]) -> Result<(), TestCaseError> {
    for id in ids {
        let view = world.view(id).await;
        let outside = machine.outside.lock().unwrap();
        let (state, made) = expected(&outside.scripts[id]);
        prop_assert_eq!(view.state.as_str(), state, "{:?}", view);
        let found: BTreeSet<usize> =
            outside.made.iter().filter(|(other, _)| other == id).map(|(_, place)| *place).collect();
        prop_assert_eq!(found, made);

        let calls: Vec<_> = outside.calls.iter().filter(|(other, ..)| other == id).collect();
        let mut runs: Vec<usize> =
            calls.iter().filter(|(_, _, undo)| !undo).map(|(_, place, _)| *place).collect();
        let mut undos: Vec<usize> =
            calls.iter().filter(|(_, _, undo)| *undo).map(|(_, place, _)| *place).collect();
        let first_undo = calls.iter().position(|(_, _, undo)| *undo).unwrap_or(calls.len());
        prop_assert!(calls[first_undo..].iter().all(|(_, _, undo)| *undo), "no task runs after an undo");
        runs.dedup();
        undos.dedup();
        prop_assert!(runs.is_sorted() && runs.iter().copied().eq(0..runs.len()), "in order: {:?}", runs);
        if state == "undone" {
            runs.reverse();
            prop_assert_eq!(undos, runs, "every started task is undone, the last one first");
        } else {
            prop_assert!(undos.is_empty());
        }
    }
    let left = world.state.read(|rows| {
        Ok([
            rows.scan(&CONFLICTS, &Scan::all(), 10)?.len(),
            rows.scan(&WAITS, &Scan::all(), 10)?.len(),
            rows.scan(&DEADLINES, &Scan::all(), 10)?.len(),
            rows.scan(&READY, &Scan::all(), 10)?.len(),
            rows.scan(&UNFINISHED, &Scan::all(), 10)?.len(),
        ])
    });
    prop_assert_eq!(left.await.unwrap(), [0; 5], "no row of a wait, a conflict or a place is left");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_change_ends_as_its_script_says_whatever_crashes(
        scripts in prop::collection::vec(prop::collection::vec(script(), 1..=5), 1..=3),
        crashes in prop::collection::vec(0..60_u64, 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(scripts, crashes))?;
    }
}
