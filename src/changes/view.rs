//! How a change is shown.

use serde::{Deserialize, Serialize};

use super::TaskFailure;
use super::record::{CHANGES, ChangeRecord, Progress, TASKS, TaskRecord};
use crate::names::ChangeId;
use crate::state::{Read, Scan, StateError};

/// A change as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ChangeView {
    /// Its id.
    pub id: String,
    /// What it is, e.g. `install`.
    pub kind: String,
    /// What it does, as a sentence.
    pub summary: String,
    /// What it is about.
    pub subject: String,
    /// `queued`, `running`, `waiting`, `undoing`; ended: `done`, `undone`, `cancelled`, `needs_attention`.
    pub state: String,
    /// Its tasks, in order.
    pub tasks: Vec<TaskView>,
    /// Why it failed, or what the last attempt failed with.
    pub error: Option<FailureView>,
    /// Who asked for it.
    pub by: String,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
}

impl ChangeView {
    /// Whether the change has ended, however it ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// A task as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskView {
    /// Its kind, e.g. `install.link`.
    pub kind: String,
    /// `pending`, `doing`, `waiting`, `retrying`, `done`, `skipped`, `failed`, `undoing`, `undone`.
    pub state: String,
    /// How much is done, in `unit`.
    pub done: u64,
    /// How much there is to do, in `unit`; 0 = unknown.
    pub total: u64,
    /// What is counted, e.g. `bytes`.
    pub unit: String,
    /// How long it took, from its first start to its end, waits included.
    pub millis: Option<u64>,
}

/// A failure as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FailureView {
    /// The stable code.
    pub code: String,
    /// What went wrong, as a sentence.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

impl From<TaskFailure> for FailureView {
    fn from(failure: TaskFailure) -> Self {
        Self { code: failure.code, message: failure.message, hint: failure.hint }
    }
}

/// The change as it is persisted.
pub(super) fn of(view: &impl Read, id: &ChangeId) -> Result<Option<ChangeView>, StateError> {
    view.get(&CHANGES, id)?.map(|record| whole(view, id, record)).transpose()
}

/// The changes after `after` in the order of their ids, which is that of their creation.
pub(super) fn page(
    view: &impl Read,
    after: Option<&ChangeId>,
    limit: usize,
) -> Result<Vec<(ChangeId, ChangeView)>, StateError> {
    let scan = after.map_or_else(Scan::all, |id| Scan::all().after(id));
    let rows = view.scan(&CHANGES, &scan, limit)?;
    rows.into_iter().map(|(id, record)| whole(view, &id, record).map(|shown| (id, shown))).collect()
}

/// Shows the progress of the task that runs now.
pub(super) fn show_progress(shown: &mut ChangeView, place: u64, progress: &Progress) {
    let task = usize::try_from(place).ok().and_then(|place| shown.tasks.get_mut(place));
    if let Some(task) = task.filter(|task| task.state == "doing" || task.state == "undoing") {
        task.done = progress.done;
        task.total = progress.total;
        task.unit.clone_from(&progress.unit);
    }
}

fn whole(view: &impl Read, id: &ChangeId, record: ChangeRecord) -> Result<ChangeView, StateError> {
    let tasks = view.scan(&TASKS, &Scan::prefix(id), 1000)?;
    Ok(ChangeView {
        id: id.to_string(),
        kind: record.kind,
        summary: record.summary,
        subject: record.subject,
        state: record.state.as_str().to_owned(),
        tasks: tasks.into_iter().map(|(_, task)| shown(task)).collect(),
        error: record.error.map(FailureView::from),
        by: record.by,
        created_at: record.created.rfc3339(),
        ended_at: record.ended.map(crate::names::Millis::rfc3339),
    })
}

fn shown(task: TaskRecord) -> TaskView {
    let millis = task.started.zip(task.ended).map(|(started, ended)| ended.0.saturating_sub(started.0));
    TaskView {
        kind: task.kind,
        state: task.state.as_str().to_owned(),
        done: task.progress.done,
        total: task.progress.total,
        unit: task.progress.unit,
        millis,
    }
}
