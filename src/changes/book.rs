//! The rows of changes, as transactions of others and of the engine write them: creation, signals, aborts, waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{
    CHANGES, CONFLICTS, ChangeRecord, ChangeState, Course, DATA, DEADLINES, Holder, Json, NUMBERS, Number,
    Progress, READY, Ready, SIGNALS, SIGNALS_AT, Signal, TASKS, TaskRecord, TaskState, UNFINISHED,
    Unfinished, WAITS, Wait, Why,
};
use crate::names::{ChangeId, Millis};
use crate::state::{Read, Scan, StateError, Tx};

/// Rows that one transaction moves at most.
const BATCH: usize = 100;
/// How long a change counts as being worked on without a sign of life.
pub(super) const LEASE: Duration = Duration::from_secs(150);
const CLOCK: &str = "clock";

/// An event that a wait waits for, e.g. `EventKey::new("result", submission_id)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(String);

impl EventKey {
    /// The event of this kind about `key`; it should be about one thing only, and never come back with another meaning.
    #[must_use]
    pub fn new(kind: &str, key: &str) -> Self {
        Self(format!("{kind}/{key}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The event that the engine signals when `change` has ended, however it ended.
#[must_use]
pub fn ended_event(change: &ChangeId) -> EventKey {
    EventKey::new("change-ended", change.as_str())
}

/// A change to be created.
#[derive(Clone, Debug)]
pub struct NewChange {
    /// Its id; also the name of its work folder.
    pub id: ChangeId,
    /// What it is: `submit`, `install`, `remove`, …
    pub kind: String,
    /// What it does, as a sentence for people.
    pub summary: String,
    /// What it is about, e.g. a package.
    pub subject: String,
    /// The kinds of its tasks, in order.
    pub tasks: Vec<&'static str>,
    /// What no other unfinished change may hold, e.g. `package/acme/weather`.
    pub conflicts: Vec<String>,
    /// What its tasks need to know, ≤ 256 KiB as JSON.
    pub data: serde_json::Value,
    /// Who asked for it.
    pub by: String,
}

/// Why a change was not created: another one holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The key that is taken.
    pub key: String,
    /// The change that holds it.
    pub holder: ChangeId,
}

/// Writes the change in the caller's transaction; call [`Changes::wake`](super::Changes::wake) after the commit.
///
/// The inner error names the first conflict key that is taken and its holder; nothing is written then. An id that is
/// in use is such a conflict too.
///
/// # Errors
/// Those of the state.
pub fn create(tx: &mut Tx<'_>, now: Millis, change: &NewChange) -> Result<Result<(), Conflict>, StateError> {
    if tx.get(&CHANGES, &change.id)?.is_some() {
        return Ok(Err(Conflict { key: format!("change/{}", change.id), holder: change.id.clone() }));
    }
    for key in &change.conflicts {
        if let Some(holder) = tx.get(&CONFLICTS, key)? {
            return Ok(Err(Conflict { key: key.clone(), holder: holder.change }));
        }
    }
    let now = tick(tx, now)?;
    for key in &change.conflicts {
        tx.put(&CONFLICTS, key, &Holder { change: change.id.clone() })?;
    }
    for (place, kind) in (0_u64..).zip(&change.tasks) {
        let task = TaskRecord {
            kind: (*kind).to_owned(),
            state: TaskState::Pending,
            started: None,
            ended: None,
            progress: Progress::default(),
            attempts: 0,
            seen: std::collections::BTreeMap::new(),
        };
        tx.put(&TASKS, &(change.id.clone(), place), &task)?;
    }
    let record = ChangeRecord {
        kind: change.kind.clone(),
        summary: change.summary.clone(),
        subject: change.subject.clone(),
        by: change.by.clone(),
        state: ChangeState::Queued,
        course: Course::Forward,
        cancel: false,
        error: None,
        conflicts: change.conflicts.clone(),
        tasks: change.tasks.len() as u64,
        created: now,
        ended: None,
        wait: None,
        log: None,
        owner: None,
        lease_until: None,
    };
    tx.put(&CHANGES, &change.id, &record)?;
    tx.put(&DATA, &change.id, &Json(change.data.clone()))?;
    tx.put(&UNFINISHED, &change.id, &Unfinished { created: now })?;
    tx.put(&READY, &change.id, &Ready { since: now, why: Why::Next })?;
    Ok(Ok(()))
}

/// Signals an event in the event's own transaction; call [`Changes::wake`](super::Changes::wake) after the commit.
///
/// Whoever waits for it goes on; who waits only later goes on at once, if the signal isn't older than a day and older
/// than every unfinished change.
///
/// # Errors
/// Those of the state.
pub fn signal(tx: &mut Tx<'_>, event: &EventKey) -> Result<(), StateError> {
    let key = event.as_str().to_owned();
    let now = clock(tx)?;
    let before = tx.get(&SIGNALS, &key)?;
    if let Some(before) = &before {
        tx.delete(&SIGNALS_AT, &(before.at, key.clone()))?;
    }
    let count = before.map_or(0, |before| before.count) + 1;
    tx.put(&SIGNALS, &key, &Signal { count, at: now })?;
    tx.put(&SIGNALS_AT, &(now, key.clone()), &())?;
    loop {
        let waiting = tx.scan(&WAITS, &Scan::prefix(&key), BATCH)?;
        for ((event, id), ()) in &waiting {
            match tx.get(&CHANGES, id)? {
                Some(mut record) => {
                    end_wait(tx, id, &mut record)?;
                    tx.put(&CHANGES, id, &record)?;
                    tx.put(&READY, id, &Ready { since: now, why: Why::Event(event.clone()) })?;
                }
                None => tx.delete(&WAITS, &(event.clone(), id.clone()))?,
            }
        }
        if waiting.len() < BATCH {
            return Ok(());
        }
    }
}

/// How often `event` was signalled.
pub(super) fn signals(view: &impl Read, event: &str) -> Result<u64, StateError> {
    Ok(view.get(&SIGNALS, &event.to_owned())?.map_or(0, |signal| signal.count))
}

/// What became of the wish to abort a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abort {
    /// There is no such change.
    Unknown,
    /// It has ended, or it only goes forward.
    TooLate,
    /// It is being undone, or will be.
    Asked,
}

/// Marks the change to be undone, and ends its wait.
pub(super) fn abort(tx: &mut Tx<'_>, now: Millis, id: &ChangeId) -> Result<Abort, StateError> {
    let Some(mut record) = tx.get(&CHANGES, id)? else { return Ok(Abort::Unknown) };
    match record.course {
        _ if record.ended.is_some() => return Ok(Abort::TooLate),
        Course::OnlyForward | Course::Stuck => return Ok(Abort::TooLate),
        Course::Forward if !record.cancel => {}
        Course::Forward | Course::Back => return Ok(Abort::Asked),
    }
    let now = tick(tx, now)?;
    record.cancel = true;
    if record.wait.is_some() {
        end_wait(tx, id, &mut record)?;
        tx.put(&READY, id, &Ready { since: now, why: Why::Abort })?;
    }
    tx.put(&CHANGES, id, &record)?;
    Ok(Abort::Asked)
}

/// Makes the change wait; removes it from those that can go on.
pub(super) fn begin_wait(
    tx: &mut Tx<'_>,
    id: &ChangeId,
    record: &mut ChangeRecord,
    wait: Wait,
) -> Result<(), StateError> {
    if let Some(event) = &wait.event {
        tx.put(&WAITS, &(event.clone(), id.clone()), &())?;
    }
    if let Some(deadline) = wait.deadline {
        tx.put(&DEADLINES, &(deadline, id.clone()), &())?;
    }
    tx.delete(&READY, id)?;
    record.state = ChangeState::Waiting;
    record.owner = None;
    record.lease_until = None;
    record.wait = Some(wait);
    Ok(())
}

/// Removes the rows of the wait, if there is one.
pub(super) fn end_wait(tx: &mut Tx<'_>, id: &ChangeId, record: &mut ChangeRecord) -> Result<(), StateError> {
    let Some(wait) = record.wait.take() else { return Ok(()) };
    if let Some(event) = wait.event {
        tx.delete(&WAITS, &(event, id.clone()))?;
    }
    if let Some(deadline) = wait.deadline {
        tx.delete(&DEADLINES, &(deadline, id.clone()))?;
    }
    Ok(())
}

/// Lets those changes go on whose deadline has passed; whether there may be more of them.
pub(super) fn fire_deadlines(tx: &mut Tx<'_>, now: Millis) -> Result<bool, StateError> {
    let now = tick(tx, now)?;
    let rows = tx.scan(&DEADLINES, &Scan::all(), BATCH)?;
    let more = rows.len() == BATCH && rows.last().is_some_and(|((at, _), ())| *at <= now);
    for ((at, id), ()) in rows.into_iter().take_while(|((at, _), ())| *at <= now) {
        tx.delete(&DEADLINES, &(at, id.clone()))?;
        let Some(mut record) = tx.get(&CHANGES, &id)? else { continue };
        let Some(wait) = record.wait.clone().filter(|wait| wait.deadline == Some(at)) else { continue };
        end_wait(tx, &id, &mut record)?;
        tx.put(&CHANGES, &id, &record)?;
        let why = if wait.event.is_some() { Why::Deadline } else { Why::Retry };
        tx.put(&READY, &id, &Ready { since: now, why })?;
    }
    Ok(more)
}

/// Extends the leases of the changes that this process runs.
pub(super) fn renew(tx: &mut Tx<'_>, now: Millis, ids: &[ChangeId]) -> Result<(), StateError> {
    let now = tick(tx, now)?;
    for id in ids {
        if let Some(mut record) = tx.get(&CHANGES, id)?.filter(|record| record.owner.is_some()) {
            record.lease_until = Some(now.after(LEASE));
            tx.put(&CHANGES, id, &record)?;
        }
    }
    Ok(())
}

/// The last persisted instant.
pub(super) fn clock(view: &impl Read) -> Result<Millis, StateError> {
    Ok(Millis(number(view, CLOCK)?))
}

/// The later one of `now` and the last persisted instant, which it becomes.
pub(super) fn tick(tx: &mut Tx<'_>, now: Millis) -> Result<Millis, StateError> {
    let last = clock(tx)?;
    if now > last {
        put_number(tx, CLOCK, now.0)?;
    }
    Ok(now.max(last))
}

pub(super) fn number(view: &impl Read, name: &str) -> Result<u64, StateError> {
    Ok(view.get(&NUMBERS, &name.to_owned())?.map_or(0, |number| number.value))
}

pub(super) fn put_number(tx: &mut Tx<'_>, name: &str, value: u64) -> Result<(), StateError> {
    tx.put(&NUMBERS, &name.to_owned(), &Number { value })
}
