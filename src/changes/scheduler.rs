//! The loop that finds what can go on, and the driver that takes one change through its tasks.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Live;
use super::engine::Inner;
use super::log::{self, LiveLog};
use super::plan::{Assignment, Direction, Next, Outcome, Report, advance};
use super::record::{CHANGES, ChangeState, DEADLINES, READY, UNFINISHED};
use super::{Task, TaskContext, TaskFailure, TaskSet, book, retention};
use crate::blobs::Stored;
use crate::names::{ChangeId, Millis};
use crate::state::{Read as _, Scan, StateError};

/// Changes that run side by side, of the kinds that have no places of their own; one that waits doesn't count.
pub(super) const SIDE_BY_SIDE: usize = 4;
/// How long to rest after the state could not be read or written.
const REST: Duration = Duration::from_secs(2);
/// The longest pause while something has a deadline or a lease: the machine may sleep, and its clock be set.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest pause while nothing has.
const IDLE_PAUSE: Duration = Duration::from_hours(1);
const PAGE: usize = 1000;

/// What the loop keeps in mind.
struct Scheduler {
    inner: Arc<Inner>,
    tasks: Arc<TaskSet>,
    drivers: JoinSet<Result<(), StateError>>,
    /// Which change each driver drives, and in which group it has its place.
    driven: HashMap<Id, (ChangeId, Option<&'static str>)>,
    /// Changes whose driver could not write, and until when they are left alone.
    resting: HashMap<ChangeId, Instant>,
    renewed: Instant,
}

/// Recovers, then runs until the engine is stopped.
///
/// `left` are the work folders that were there at the start.
pub(super) async fn run(inner: Arc<Inner>, tasks: Arc<TaskSet>, left: io::Result<Vec<OsString>>) {
    let left = left.unwrap_or_else(|error| {
        tracing::warn!(%error, "work folders can't be listed; nothing is swept");
        Vec::new()
    });
    while let Err(error) = recover(&inner, &left).await {
        tracing::error!(%error, "unfinished changes can't be read");
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
    let mut scheduler = Scheduler {
        inner,
        tasks,
        drivers: JoinSet::new(),
        driven: HashMap::new(),
        resting: HashMap::new(),
        renewed: Instant::now(),
    };
    scheduler.run().await;
}

/// Takes over the persisted clock, and sweeps work folders that no unfinished change names.
async fn recover(inner: &Arc<Inner>, left: &[OsString]) -> Result<(), StateError> {
    let last = inner.state.read(|rows| book::clock(rows)).await?;
    inner.floor.fetch_max(last.0, std::sync::atomic::Ordering::SeqCst);
    let mut kept = HashSet::new();
    let mut scan = Scan::all();
    loop {
        let page = scan.clone();
        let rows = inner.state.read(move |rows| rows.scan(&UNFINISHED, &page, PAGE)).await?;
        kept.extend(rows.iter().map(|(id, _)| id.to_string()));
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE => scan = Scan::all().after(last),
            _ => break,
        }
    }
    let (workspace, left) = (inner.workspace.clone(), left.to_vec());
    let _ = tokio::task::spawn_blocking(move || workspace.sweep(left, &kept)).await;
    Ok(())
}

impl Scheduler {
    async fn run(&mut self) {
        let stop = self.inner.stop.clone();
        while !stop.is_cancelled() {
            let pause = match self.turn().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "the state of changes can't be read or written");
                    REST
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(joined) = self.drivers.join_next_with_id() => self.driver_ended(joined),
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        while let Some(joined) = self.drivers.join_next_with_id().await {
            self.driver_ended(joined);
        }
    }

    /// Starts what can go on; how long the loop may sleep.
    async fn turn(&mut self) -> Result<Duration, StateError> {
        let now = self.inner.now();
        loop {
            let due = self.inner.state.read(|rows| rows.scan(&DEADLINES, &Scan::all(), 1)).await?;
            if due.first().is_none_or(|((at, _), ())| *at > now) {
                break;
            }
            if !self.inner.state.write(move |tx| book::fire_deadlines(tx, now)).await? {
                break;
            }
        }
        let instant = Instant::now();
        self.resting.retain(|_, until| *until > instant);
        let (free, next) = self.free_to_begin().await?;
        for (id, group) in free {
            self.begin(id, group);
        }
        if !self.driven.is_empty() && self.renewed.elapsed() >= LONGEST_PAUSE {
            let ids: Vec<ChangeId> = self.driven.values().map(|(id, _)| id.clone()).collect();
            self.inner.state.write(move |tx| book::renew(tx, now, &ids)).await?;
            self.renewed = instant;
        }
        Ok(self.pause(now, next, instant))
    }

    fn pause(&self, now: Millis, deadline: Option<Millis>, instant: Instant) -> Duration {
        let busy = !self.driven.is_empty() || deadline.is_some();
        let longest = if busy { LONGEST_PAUSE } else { IDLE_PAUSE };
        let deadline = deadline.map(|at| at.since(now));
        let rest = self.resting.values().map(|until| until.saturating_duration_since(instant));
        // Never less than a moment, so that a deadline in the same millisecond is no busy loop.
        deadline.into_iter().chain(rest).min().unwrap_or(longest).clamp(Duration::from_millis(1), longest)
    }

    /// The changes that can go on and have a place, oldest first; and the next deadline.
    async fn free_to_begin(
        &self,
    ) -> Result<(Vec<(ChangeId, Option<&'static str>)>, Option<Millis>), StateError> {
        let mut taken: HashMap<Option<&'static str>, usize> = HashMap::new();
        for (_, group) in self.driven.values() {
            *taken.entry(*group).or_default() += 1;
        }
        let mut busy: HashSet<ChangeId> = self.inner.live().keys().cloned().collect();
        busy.extend(self.resting.keys().cloned());
        let tasks = Arc::clone(&self.tasks);
        self.inner
            .state
            .read(move |rows| {
                let next = rows.scan(&DEADLINES, &Scan::all(), 1)?.first().map(|((at, _), ())| *at);
                let mut free = Vec::new();
                for (id, _) in rows.scan(&READY, &Scan::all(), PAGE)? {
                    if busy.contains(&id) {
                        continue;
                    }
                    // A row of a change that is gone is cleared away by its driver.
                    let kind = rows.get(&CHANGES, &id)?.map(|change| change.kind).unwrap_or_default();
                    let (group, places) = tasks.places(&kind);
                    let taken = taken.entry(group).or_default();
                    if *taken < places {
                        *taken += 1;
                        free.push((id, group));
                    }
                }
                Ok((free, next))
            })
            .await
    }

    fn begin(&mut self, id: ChangeId, group: Option<&'static str>) {
        let live = Arc::new(Live {
            cancel: CancellationToken::new(),
            progress: Mutex::default(),
            log: Arc::new(LiveLog::of(self.inner.workspace.clone(), id.clone())),
        });
        self.inner.live().insert(id.clone(), Arc::clone(&live));
        let driver =
            Driver { inner: Arc::clone(&self.inner), tasks: Arc::clone(&self.tasks), id: id.clone(), live };
        let handle = self.drivers.spawn(driver.run());
        self.driven.insert(handle.id(), (id, group));
    }

    fn driver_ended(&mut self, joined: Result<(Id, Result<(), StateError>), tokio::task::JoinError>) {
        let (driver, problem) = match joined {
            Ok((driver, Ok(()))) => (driver, None),
            Ok((driver, Err(error))) => (driver, Some(error.to_string())),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let Some((id, _)) = self.driven.remove(&driver) else { return };
        self.inner.live().remove(&id);
        if let Some(error) = problem {
            tracing::error!(change = %id, error, "the change can't be recorded; it is taken up again soon");
            self.resting.insert(id, Instant::now() + REST);
        }
    }
}

/// Takes one change as far as it can go now.
struct Driver {
    inner: Arc<Inner>,
    tasks: Arc<TaskSet>,
    id: ChangeId,
    live: Arc<Live>,
}

impl Driver {
    async fn run(self) -> Result<(), StateError> {
        let mut report: Option<(Report, String)> = None;
        loop {
            let next = self.advance(report.as_ref().map(|(report, _)| report.clone())).await?;
            if let Some((_, point)) = report.take() {
                self.inner.faults.pass(&format!("{point}.recorded"));
            }
            match next {
                Next::Idle => return Ok(()),
                Next::End { change_kind, state } => return self.end(&change_kind, state).await,
                Next::Act(assignment) => match self.act(*assignment).await {
                    Some(ended) => report = Some(ended),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn advance(&self, report: Option<Report>) -> Result<Next, StateError> {
        let (id, now, owner) = (self.id.clone(), self.inner.now(), self.inner.owner.clone());
        let tasks = Arc::clone(&self.tasks);
        self.inner.state.write(move |tx| advance(tx, now, &id, &owner, &tasks, report.as_ref())).await
    }

    /// Runs or undoes a task; `None` when the engine stops first.
    async fn act(&self, assignment: Assignment) -> Option<(Report, String)> {
        let task = Arc::clone(self.tasks.get(&assignment.kind)?);
        let (place, kind, direction) = (assignment.place, assignment.kind.clone(), assignment.direction);
        let signal = assignment.signal.clone();
        self.live.set_progress(place, assignment.progress.clone());
        let point = match direction {
            Direction::Forward => format!("changes.{kind}"),
            Direction::Back => format!("changes.{kind}.undo"),
        };
        let context = TaskContext {
            change: self.id.clone(),
            own: Mutex::new(
                assignment
                    .saved
                    .iter()
                    .find(|(other, _, _)| *other == place)
                    .map(|(_, _, value)| value.clone()),
            ),
            live: Arc::clone(&self.live),
            // An undo must not see the abort that it serves.
            cancel: match direction {
                Direction::Forward => self.live.cancel.clone(),
                Direction::Back => CancellationToken::new(),
            },
            engine: Arc::clone(&self.inner),
            assignment,
        };
        if self.inner.stop.is_cancelled() {
            return None;
        }
        self.inner.faults.pass(&format!("{point}.before"));
        let outcome = tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => return None,
            outcome = perform(task.as_ref(), direction, &context) => outcome,
        };
        self.inner.faults.pass(&format!("{point}.done"));
        if let Outcome::Failed(failure) | Outcome::UndoFailed(failure) = &outcome {
            let what = if direction == Direction::Forward { "failed" } else { "its undo failed" };
            context.log(&format!("{what} ({}): {}", failure.code, failure.message)).await;
        }
        Some((Report { place, outcome, progress: self.live.progress().1, signal }, point))
    }

    async fn end(&self, change_kind: &str, state: ChangeState) -> Result<(), StateError> {
        let point = format!("changes.{change_kind}.end");
        self.inner.say(&self.live.log, change_kind, &format!("ended: {}", state.as_str())).await;
        let log = self.archive().await;
        self.inner.faults.pass(&format!("{point}.logged"));
        let (id, now) = (self.id.clone(), self.inner.now());
        self.inner.state.write(move |tx| retention::end(tx, now, &id, state, log.as_ref())).await?;
        self.inner.faults.pass(&format!("{point}.recorded"));
        let (workspace, id) = (self.inner.workspace.clone(), self.id.clone());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || workspace.remove(&id)).await {
            tracing::warn!(change = %self.id, %error, "the work folder can't be removed; the next start sweeps it");
        }
        self.inner.faults.pass(&format!("{point}.swept"));
        self.inner.count_end(change_kind, state.as_str());
        self.inner.ended.send_modify(|count| *count += 1);
        // Others may have waited for this end, or for a place.
        self.inner.wake.notify_one();
        Ok(())
    }

    /// The log as durable bytes. A log that can't be kept must not keep the change from ending.
    async fn archive(&self) -> Option<Stored> {
        let folder = self.inner.workspace.of(&self.id);
        let read = tokio::task::spawn_blocking(move || log::read(&folder)).await;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let bytes = match read {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(change = %self.id, %error, "the change's log can't be read; it is lost");
                return None;
            }
        };
        match self.inner.blobs.put(bytes.into()).await {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(change = %self.id, %error, "the change's log can't be kept; it is lost");
                None
            }
        }
    }
}

/// Runs or undoes the task; a panic is its failure, not the engine's.
async fn perform(task: &dyn Task, direction: Direction, context: &TaskContext) -> Outcome {
    let panicked =
        |_| TaskFailure::new("task_panicked", format!("task {} broke off by a fault in Pantry", task.kind()));
    match direction {
        Direction::Forward => {
            let run = AssertUnwindSafe(async { task.run(context).await }).catch_unwind().await;
            match run.unwrap_or_else(|panic| Err(panicked(panic))) {
                Ok(step) => Outcome::Step { step, pivot: task.pivot() },
                Err(failure) => Outcome::Failed(failure),
            }
        }
        Direction::Back => {
            let undo = AssertUnwindSafe(async { task.undo(context).await }).catch_unwind().await;
            match undo.unwrap_or_else(|panic| Err(panicked(panic))) {
                Ok(()) => Outcome::Undone,
                Err(failure) => Outcome::UndoFailed(failure),
            }
        }
    }
}
