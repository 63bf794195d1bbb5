//! What is persisted: the records of a change and the tables by which it is found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TaskFailure;
use crate::names::{ChangeId, Digest, Millis};
use crate::state::{Table, record};

/// Where a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChangeState {
    /// Created, no task started yet.
    Queued,
    /// A task runs, or will as soon as there is a place.
    Running,
    /// A task waits for an event, a deadline, or its next attempt.
    Waiting,
    /// A task failed or the change was aborted; the started tasks are being undone.
    Undoing,
    /// Complete.
    Done,
    /// A task failed, and every started task was undone.
    Undone,
    /// Aborted, and every started task was undone.
    Cancelled,
    /// Neither complete nor undone; only a person can go on.
    NeedsAttention,
}

impl ChangeState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Cancelled => "cancelled",
            Self::NeedsAttention => "needs_attention",
        }
    }
}

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Course {
    /// Forward; a failure or an abort turns it back.
    Forward,
    /// A pivot has completed, or a task ended the change: only forward.
    OnlyForward,
    /// The started tasks are to be undone.
    Back,
    /// Neither on nor back; only the end is left to be recorded.
    Stuck,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TaskState {
    /// Not started.
    Pending,
    /// Started; after a crash it is run again.
    Doing,
    /// Waits for an event or a deadline.
    Waiting,
    /// Failed for a cause outside; runs again at a deadline.
    Retrying,
    /// Complete.
    Done,
    /// Not needed: the change was complete before it.
    Skipped,
    /// Failed; the undo is still to come.
    Failed,
    /// Its undo was started.
    Undoing,
    /// Undone.
    Undone,
}

impl TaskState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Doing => "doing",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
        }
    }

    /// Whether the task may have acted, so that it has to be undone when the change fails.
    pub(super) fn to_be_undone(self) -> bool {
        match self {
            Self::Doing | Self::Waiting | Self::Retrying | Self::Done | Self::Failed | Self::Undoing => true,
            Self::Pending | Self::Skipped | Self::Undone => false,
        }
    }
}

/// A change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ChangeRecord {
    pub(super) kind: String,
    pub(super) summary: String,
    pub(super) subject: String,
    pub(super) by: String,
    pub(super) state: ChangeState,
    /// Where it goes, whatever `state` shows (a back-off shows as waiting).
    pub(super) course: Course,
    /// Somebody asked to abort it.
    pub(super) cancel: bool,
    pub(super) error: Option<TaskFailure>,
    pub(super) conflicts: Vec<String>,
    /// How many tasks it has; they are rows of their own.
    pub(super) tasks: u64,
    pub(super) created: Millis,
    pub(super) ended: Option<Millis>,
    /// What it waits for, so that the rows of the wait can be found and removed.
    pub(super) wait: Option<Wait>,
    /// The log of an ended change.
    pub(super) log: Option<Digest>,
    /// Which process works on it.
    pub(super) owner: Option<String>,
    /// Until when it may be taken for alive without a sign of life.
    pub(super) lease_until: Option<Millis>,
}
record!(ChangeRecord, 1);

/// What a change waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) event: Option<String>,
    pub(super) deadline: Option<Millis>,
}

/// A task of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TaskRecord {
    pub(super) kind: String,
    pub(super) state: TaskState,
    pub(super) started: Option<Millis>,
    pub(super) ended: Option<Millis>,
    pub(super) progress: Progress,
    /// Failed attempts in a row.
    pub(super) attempts: u32,
    /// How many signals of an event this task has already been woken by, by event.
    pub(super) seen: BTreeMap<String, u64>,
}
record!(TaskRecord, 1);

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) unit: String,
}

/// What an owner gave to a change, or a task saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Json(pub(super) serde_json::Value);
record!(Json, 1);

/// That a change can go on, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) since: Millis,
    pub(super) why: Why,
}
record!(Ready, 1);

/// Why a change can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// It is new, or simply has more to do.
    Next,
    /// The event that it waited for was signalled.
    Event(String),
    /// The deadline of its wait has passed.
    Deadline,
    /// The back-off after a failure is over.
    Retry,
    /// It was aborted.
    Abort,
}

/// Who holds a conflict key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) change: ChangeId,
}
record!(Holder, 1);

/// An unfinished change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unfinished {
    pub(super) created: Millis,
}
record!(Unfinished, 1);

/// How often an event was signalled, and when last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Signal {
    pub(super) count: u64,
    pub(super) at: Millis,
}
record!(Signal, 1);

/// A number by name.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Number {
    pub(super) value: u64,
}
record!(Number, 1);

/// Every change that is kept.
pub(super) const CHANGES: Table<ChangeId, ChangeRecord> = Table::new("changes");
/// What their owners gave to them.
pub(super) const DATA: Table<ChangeId, Json> = Table::new("change_data");
/// Their tasks, by place.
pub(super) const TASKS: Table<(ChangeId, u64), TaskRecord> = Table::new("change_tasks");
/// What tasks saved: rows of their own, so that a list of changes doesn't read them.
pub(super) const SAVED: Table<(ChangeId, u64), Json> = Table::new("change_saved");
/// The unfinished ones, so that a start costs nothing for those that ended.
pub(super) const UNFINISHED: Table<ChangeId, Unfinished> = Table::new("change_unfinished");
/// Those that can go on now.
pub(super) const READY: Table<ChangeId, Ready> = Table::new("change_ready");
/// Those that wait for an event.
pub(super) const WAITS: Table<(String, ChangeId), ()> = Table::new("change_waits");
/// When a wait or a back-off is over at the latest.
pub(super) const DEADLINES: Table<(Millis, ChangeId), ()> = Table::new("change_deadlines");
/// Signalled events.
pub(super) const SIGNALS: Table<String, Signal> = Table::new("change_signals");
/// Signalled events by instant.
pub(super) const SIGNALS_AT: Table<(Millis, String), ()> = Table::new("change_signals_at");
/// Conflict keys that are held.
pub(super) const CONFLICTS: Table<String, Holder> = Table::new("change_conflicts");
/// Ended changes by instant.
pub(super) const ENDED: Table<(Millis, ChangeId), ()> = Table::new("change_ended");
/// The clock and the count of ended changes.
pub(super) const NUMBERS: Table<String, Number> = Table::new("change_numbers");
