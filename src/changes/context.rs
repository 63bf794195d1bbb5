//! What a task is given.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::engine::Inner;
use super::log::LiveLog;
use super::plan::Assignment;
use super::record::{Json, Progress, SAVED};
use super::{TaskFailure, Woken};
use crate::names::{ChangeId, Millis};

/// What the driver of a change, the tasks and those who look on share while it runs.
#[derive(Debug)]
pub(super) struct Live {
    /// Cancelled when the change is aborted.
    pub(super) cancel: CancellationToken,
    /// Place and progress of the present task.
    pub(super) progress: Mutex<(u64, Progress)>,
    pub(super) log: Arc<LiveLog>,
}

impl Live {
    pub(super) fn progress(&self) -> (u64, Progress) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_progress(&self, place: u64, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = (place, progress);
    }
}

/// What a task is given: the change's data, what was saved, and the ways to save, report and notice an abort.
pub struct TaskContext {
    pub(super) change: ChangeId,
    pub(super) assignment: Assignment,
    /// What this task saved, also in this run.
    pub(super) own: Mutex<Option<serde_json::Value>>,
    pub(super) live: Arc<Live>,
    pub(super) cancel: CancellationToken,
    pub(super) engine: Arc<Inner>,
}

impl TaskContext {
    /// The change that the task belongs to.
    #[must_use]
    pub fn change(&self) -> &ChangeId {
        &self.change
    }

    /// The change's own data as given to [`create`](super::create).
    ///
    /// # Errors
    /// `task_data_unreadable` when it is no `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, TaskFailure> {
        self.read(&self.assignment.data)
    }

    /// Why the task runs.
    #[must_use]
    pub fn woken(&self) -> Woken {
        self.assignment.woken
    }

    /// The engine's present instant, by which deadlines count.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.engine.now()
    }

    /// What this task saved before (undo data, a cursor).
    ///
    /// # Errors
    /// `task_data_unreadable` when it is no `T`.
    pub fn saved<T: DeserializeOwned>(&self) -> Result<Option<T>, TaskFailure> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.map(|value| self.read(&value)).transpose()
    }

    /// Persists undo data or a cursor in place of what was saved before; call it before the act that it can undo.
    ///
    /// # Errors
    /// Those of the state. *Limits*: 256 KiB as JSON.
    pub async fn save<T: Serialize + Sync>(&self, value: &T) -> Result<(), TaskFailure> {
        let value = serde_json::to_value(value).map_err(|error| self.unreadable(&error))?;
        let key = (self.change.clone(), self.assignment.place);
        let json = Json(value.clone());
        self.engine.state.write(move |tx| tx.put(&SAVED, &key, &json)).await?;
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// What the change's task of kind `task_kind` saved.
    ///
    /// # Errors
    /// `task_data_unreadable` when it is no `T`.
    pub fn saved_by<T: DeserializeOwned>(&self, task_kind: &str) -> Result<Option<T>, TaskFailure> {
        if task_kind == self.assignment.kind {
            return self.saved();
        }
        let found = self.assignment.saved.iter().find(|(_, kind, _)| kind == task_kind);
        found.map(|(_, _, value)| self.read(value)).transpose()
    }

    /// Appends to the change's log. A log that can't be written stops no task; the daemon's own log says so.
    pub async fn log(&self, line: &str) {
        self.engine.say(&self.live.log, &self.assignment.kind, line).await;
    }

    /// Tells how far the task is; `total` 0 = unknown. Kept in memory until the task's outcome is recorded.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str) {
        self.live.set_progress(self.assignment.place, Progress { done, total, unit: unit.to_owned() });
    }

    /// `<root>/tmp/<change>`, made on demand; swept when the change has ended.
    ///
    /// # Errors
    /// `work_folder_unavailable`, to be tried again.
    pub fn work_dir(&self) -> Result<PathBuf, TaskFailure> {
        self.engine.workspace.make(&self.change).map_err(|error| {
            TaskFailure::new("work_folder_unavailable", format!("the work folder can't be made: {error}"))
                .retryable()
        })
    }

    /// Whether the change was aborted; never while it is undone.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Resolves when the change is aborted; never while it is undone.
    pub async fn until_cancelled(&self) {
        self.cancel.cancelled().await;
    }

    fn read<T: DeserializeOwned>(&self, value: &serde_json::Value) -> Result<T, TaskFailure> {
        T::deserialize(value).map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &serde_json::Error) -> TaskFailure {
        let message = format!("the data of task {} can't be read or written: {error}", self.assignment.kind);
        TaskFailure::new("task_data_unreadable", message)
    }
}
