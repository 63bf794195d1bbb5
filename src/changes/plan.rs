//! What a change does next: the pure decisions, each in one transaction with the outcome that led to it.

use std::time::Duration;

use super::book::{LEASE, begin_wait, signals, tick};
use super::record::{
    CHANGES, ChangeRecord, ChangeState, Course, DATA, Progress, READY, Ready, SAVED, TASKS, TaskRecord,
    TaskState, Wait, Why,
};
use super::{Step, TaskFailure, TaskSet, Woken};
use crate::names::{ChangeId, Millis};
use crate::state::{Read, Scan, StateError, Tx};

/// How long a task that failed for a cause outside waits before its next attempt; after the last one it has failed.
pub(super) const BACK_OFF: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];

/// The most tasks that a change has; one read takes them all.
const MOST_TASKS: usize = 1000;

/// Which way an assignment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Back,
}

/// A task to run or to undo, with all that its context needs.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) direction: Direction,
    pub(super) place: u64,
    pub(super) kind: String,
    pub(super) woken: Woken,
    pub(super) data: serde_json::Value,
    /// What the change's tasks saved, with place and kind.
    pub(super) saved: Vec<(u64, String, serde_json::Value)>,
    pub(super) progress: Progress,
    /// The signal that the task is woken by: taken as seen when the run has ended, not before, so that a crash in
    /// between does not lose it.
    pub(super) signal: Option<(String, u64)>,
}

/// How an assignment ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Step { step: Step, pivot: bool },
    Failed(TaskFailure),
    Undone,
    UndoFailed(TaskFailure),
}

/// An assignment's end, to be recorded.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) place: u64,
    pub(super) outcome: Outcome,
    pub(super) progress: Progress,
    pub(super) signal: Option<(String, u64)>,
}

/// What a change does next.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Nothing: it waits, or it has ended.
    Idle,
    Act(Box<Assignment>),
    /// Only its end is left to be recorded.
    End {
        change_kind: String,
        state: ChangeState,
    },
}

/// Records how the last assignment ended, if there was one, and says what is next.
pub(super) fn advance(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &ChangeId,
    owner: &str,
    known: &TaskSet,
    report: Option<&Report>,
) -> Result<Next, StateError> {
    let Some(mut record) = tx.get(&CHANGES, id)?.filter(|record| record.ended.is_none()) else {
        tx.delete(&READY, id)?;
        return Ok(Next::Idle);
    };
    let now = tick(tx, now)?;
    if let Some(report) = report {
        settle(tx, now, id, &mut record, report)?;
    }
    let next = plan(tx, now, id, owner, known, &mut record)?;
    tx.put(&CHANGES, id, &record)?;
    Ok(next)
}

fn settle(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &ChangeId,
    record: &mut ChangeRecord,
    report: &Report,
) -> Result<(), StateError> {
    let key = (id.clone(), report.place);
    let Some(mut task) = tx.get(&TASKS, &key)? else { return Ok(()) };
    task.progress = report.progress.clone();
    if matches!(report.outcome, Outcome::Step { .. }) {
        // What an earlier attempt failed with is of no interest once one went well.
        record.error = None;
    }
    match &report.outcome {
        Outcome::Step { step: Step::Done, pivot } => {
            task.complete(TaskState::Done, now);
            if *pivot {
                record.course = Course::OnlyForward;
            }
        }
        Outcome::Step { step: Step::Finish, .. } => {
            task.complete(TaskState::Done, now);
            record.course = Course::OnlyForward;
            for place in report.place + 1..record.tasks {
                let key = (id.clone(), place);
                if let Some(mut later) = tx.get(&TASKS, &key)? {
                    later.state = TaskState::Skipped;
                    tx.put(&TASKS, &key, &later)?;
                }
            }
        }
        Outcome::Step { step: Step::Wait { event, deadline }, .. } => {
            task.state = TaskState::Waiting;
            task.attempts = 0;
            let event = event.as_str().to_owned();
            if let Some((woken_by, count)) = &report.signal {
                task.seen.insert(woken_by.clone(), *count);
            }
            if signals(tx, &event)? > task.seen.get(&event).copied().unwrap_or(0) {
                tx.put(&READY, id, &Ready { since: now, why: Why::Event(event) })?;
            } else {
                begin_wait(tx, id, record, Wait { event: Some(event), deadline: *deadline })?;
            }
        }
        Outcome::Failed(failure) => {
            if record.cancel && record.course == Course::Forward {
                task.complete(TaskState::Failed, now);
            } else if (failure.retry || record.course == Course::OnlyForward)
                && back_off(tx, now, id, record, &mut task)?
            {
                task.state = TaskState::Retrying;
                record.error = Some(bounded(failure));
            } else {
                task.complete(TaskState::Failed, now);
                record.error = Some(bounded(failure));
                record.course = match record.course {
                    Course::OnlyForward => Course::Stuck,
                    _ => Course::Back,
                };
            }
        }
        Outcome::Undone => {
            task.state = TaskState::Undone;
            task.attempts = 0;
        }
        Outcome::UndoFailed(failure) => {
            if !(failure.retry && back_off(tx, now, id, record, &mut task)?) {
                record.course = Course::Stuck;
                record.error = Some(bounded(&undo_failure(&task.kind, failure, record.error.as_ref())));
            }
        }
    }
    tx.put(&TASKS, &key, &task)
}

/// Makes the change wait for the task's next attempt; `false` when it has no attempt left.
fn back_off(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &ChangeId,
    record: &mut ChangeRecord,
    task: &mut TaskRecord,
) -> Result<bool, StateError> {
    let pause = usize::try_from(task.attempts).ok().and_then(|attempts| BACK_OFF.get(attempts));
    let Some(pause) = pause else { return Ok(false) };
    task.attempts += 1;
    begin_wait(tx, id, record, Wait { event: None, deadline: Some(now.after(*pause)) })?;
    Ok(true)
}

fn plan(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &ChangeId,
    owner: &str,
    known: &TaskSet,
    record: &mut ChangeRecord,
) -> Result<Next, StateError> {
    let Some(ready) = tx.get(&READY, id)? else { return Ok(Next::Idle) };
    let mut tasks = tx.scan(&TASKS, &Scan::prefix(id), MOST_TASKS)?;
    if let Some((_, stranger)) = tasks.iter().find(|(_, task)| known.get(&task.kind).is_none())
        && record.course != Course::Stuck
    {
        record.course = Course::Stuck;
        record.error = Some(unknown_kind(&stranger.kind));
    }
    if record.cancel && record.course == Course::Forward {
        record.course = Course::Back;
        record.error = Some(aborted());
    }
    let end = |state| Next::End { change_kind: record.kind.clone(), state };
    if record.course == Course::Stuck {
        return Ok(end(ChangeState::NeedsAttention));
    }
    let back = record.course == Course::Back;
    let found = if back {
        tasks.iter().rposition(|(_, task)| task.state.to_be_undone())
    } else {
        tasks.iter().position(|(_, task)| !matches!(task.state, TaskState::Done | TaskState::Skipped))
    };
    let Some(place) = found else {
        if back {
            return Ok(end(if record.cancel { ChangeState::Cancelled } else { ChangeState::Undone }));
        }
        let next = end(ChangeState::Done);
        // From here on it is too late to abort: the end that is about to be recorded is decided.
        record.course = Course::OnlyForward;
        return Ok(next);
    };

    let (key, task) = &mut tasks[place];
    let mut signal = None;
    let (direction, woken) = if back {
        let first = task.state != TaskState::Undoing;
        if first {
            task.attempts = 0;
        }
        task.state = TaskState::Undoing;
        record.state = ChangeState::Undoing;
        (Direction::Back, if first { Woken::FirstRun } else { Woken::AfterRestart })
    } else {
        let woken = match (task.state, &ready.why) {
            (TaskState::Pending, _) => Woken::FirstRun,
            (TaskState::Waiting, Why::Event(event)) => {
                signal = Some((event.clone(), signals(tx, event)?));
                Woken::Event
            }
            (TaskState::Waiting, Why::Deadline) => Woken::Deadline,
            (TaskState::Retrying, _) => Woken::Retry,
            _ => Woken::AfterRestart,
        };
        task.state = TaskState::Doing;
        task.started.get_or_insert(now);
        record.state = ChangeState::Running;
        (Direction::Forward, woken)
    };
    tx.put(&TASKS, key, task)?;
    // After a crash the reason is gone, and the task is told so.
    tx.put(&READY, id, &Ready { since: now, why: Why::Next })?;
    record.owner = Some(owner.to_owned());
    record.lease_until = Some(now.after(LEASE));

    let mut saved = Vec::new();
    for ((_, place), json) in tx.scan(&SAVED, &Scan::prefix(id), MOST_TASKS)? {
        if let Some((_, task)) = tasks.iter().find(|((_, other), _)| *other == place) {
            saved.push((place, task.kind.clone(), json.0));
        }
    }
    let ((_, at), task) = &tasks[place];
    Ok(Next::Act(Box::new(Assignment {
        direction,
        place: *at,
        kind: task.kind.clone(),
        woken,
        data: tx.get(&DATA, id)?.map(|json| json.0).unwrap_or_default(),
        saved,
        progress: task.progress.clone(),
        signal,
    })))
}

impl TaskRecord {
    fn complete(&mut self, state: TaskState, now: Millis) {
        self.state = state;
        self.ended = Some(now);
        self.attempts = 0;
    }
}

fn aborted() -> TaskFailure {
    TaskFailure::new("cancelled", "the change was aborted")
}

fn unknown_kind(kind: &str) -> TaskFailure {
    TaskFailure::new("unknown_task_kind", format!("this version of Pantry knows no task {kind:?}")).with_hint(
        "a newer version began this change; run that version, or mend what the change is about by hand",
    )
}

fn undo_failure(kind: &str, failure: &TaskFailure, cause: Option<&TaskFailure>) -> TaskFailure {
    let cause = cause.map_or_else(String::new, |cause| format!("; undone because: {}", cause.message));
    TaskFailure {
        code: "undo_failed".to_owned(),
        message: format!("undoing {kind} failed ({}): {}{cause}", failure.code, failure.message),
        hint: failure.hint.clone(),
        retry: false,
    }
}

/// The failure with texts that fit a record, whatever a task put into them.
fn bounded(failure: &TaskFailure) -> TaskFailure {
    let cut = |text: &str, limit: usize| text[..text.floor_char_boundary(limit)].to_owned();
    TaskFailure {
        code: cut(&failure.code, 64),
        message: cut(&failure.message, 2048),
        hint: failure.hint.as_deref().map(|hint| cut(hint, 1024)),
        retry: failure.retry,
    }
}
