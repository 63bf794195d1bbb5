//! What owners implement, and the set in which the engine finds it.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::scheduler::SIDE_BY_SIDE;
use super::{EventKey, TaskContext, TaskFailure};
use crate::names::Millis;

/// How a run of a task ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The task is complete.
    Done,
    /// Wait until the event is signalled or the deadline passes; then the task runs again, and
    /// [`TaskContext::woken`] tells why. A wait may also end without cause; the task then waits again.
    Wait {
        /// What is waited for.
        event: EventKey,
        /// Until when, by [`TaskContext::now`].
        deadline: Option<Millis>,
    },
    /// The change is complete without its remaining tasks (a rejection is a result).
    Finish,
}

/// Why a task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It was never started before.
    FirstRun,
    /// It was running when the process ended, or when its outcome could not be recorded.
    AfterRestart,
    /// The event that it waited for was signalled.
    Event,
    /// The deadline of its wait has passed.
    Deadline,
    /// It failed with `retry`, and the back-off is over.
    Retry,
}

/// A kind of task. Owners register theirs.
///
/// Both `run` and `undo` may run twice, and may be dropped at any point where they await. `undo` is called in reverse
/// order for the tasks that were started, when a later one (or the task itself) fails before the pivot.
pub trait Task: Send + Sync {
    /// Its name, e.g. `install.link`; with a version when its meaning changes over upgrades.
    fn kind(&self) -> &'static str;

    /// Whether a change only goes forward once this task has completed.
    fn pivot(&self) -> bool {
        false
    }

    /// Does it.
    fn run<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<Step, TaskFailure>>;

    /// Takes back what `run` did, by what it saved; also when `run` came to nothing.
    fn undo<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<(), TaskFailure>>;
}

/// The kinds of task that this process knows, and how many changes of a kind run at a time.
#[derive(Clone, Default)]
pub struct TaskSet {
    tasks: HashMap<&'static str, Arc<dyn Task>>,
    limits: HashMap<&'static str, usize>,
}

impl TaskSet {
    /// A set without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind; of two of the same name the later one counts.
    pub fn add(&mut self, task: Arc<dyn Task>) {
        self.tasks.insert(task.kind(), task);
    }

    /// Gives the changes of this kind places of their own, at least one: they take none of the others', and no more
    /// of them run at a time. Changes that wait take no place.
    pub fn limit(&mut self, change_kind: &'static str, at_a_time: usize) {
        self.limits.insert(change_kind, at_a_time.max(1));
    }

    pub(super) fn get(&self, kind: &str) -> Option<&Arc<dyn Task>> {
        self.tasks.get(kind)
    }

    /// The group in which changes of this kind find a place, and its size.
    pub(super) fn places(&self, change_kind: &str) -> (Option<&'static str>, usize) {
        match self.limits.get_key_value(change_kind) {
            Some((kind, places)) => (Some(*kind), *places),
            None => (None, SIDE_BY_SIDE),
        }
    }
}
