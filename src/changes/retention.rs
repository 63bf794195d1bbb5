//! The end of a change, and how long ended ones are kept.

use std::time::Duration;

use super::book::{end_wait, ended_event, number, put_number, signal, tick};
use super::record::{
    CHANGES, CONFLICTS, ChangeState, DATA, ENDED, READY, SAVED, SIGNALS, SIGNALS_AT, TASKS, UNFINISHED,
};
use crate::blobs::{self, Owner, Stored};
use crate::names::{ChangeId, Digest, Millis};
use crate::state::{Read, Scan, StateError, Tx};

/// How long every ended change is kept.
const KEPT: Duration = Duration::from_hours(24);
/// How many ended changes are kept however old they are.
const NEWEST: u64 = 500;
/// How many old rows one end clears away at most: more than it adds, so that none pile up.
const PRUNED: usize = 16;
/// Rows of one read.
const PAGE: usize = 1000;

const ENDED_COUNT: &str = "ended";

fn log_owner(id: &ChangeId) -> Owner {
    Owner::new("change-log", id.as_str())
}

/// Records the end, releases what the change held, signals its end, and clears away what is too old.
pub(super) fn end(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &ChangeId,
    state: ChangeState,
    log: Option<&Stored>,
) -> Result<(), StateError> {
    let Some(mut record) = tx.get(&CHANGES, id)?.filter(|record| record.ended.is_none()) else {
        return Ok(());
    };
    let now = tick(tx, now)?;
    end_wait(tx, id, &mut record)?;
    if let Some(log) = log {
        blobs::link(tx, log, &log_owner(id))?;
        record.log = Some(log.digest.clone());
    }
    for key in &record.conflicts {
        if tx.get(&CONFLICTS, key)?.is_some_and(|holder| holder.change == *id) {
            tx.delete(&CONFLICTS, key)?;
        }
    }
    record.state = state;
    record.ended = Some(now);
    record.owner = None;
    record.lease_until = None;
    tx.put(&CHANGES, id, &record)?;
    tx.delete(&READY, id)?;
    tx.delete(&UNFINISHED, id)?;
    tx.put(&ENDED, &(now, id.clone()), &())?;
    put_number(tx, ENDED_COUNT, number(tx, ENDED_COUNT)? + 1)?;
    signal(tx, &ended_event(id))?;
    prune_changes(tx, now)?;
    prune_signals(tx, now)
}

fn is_old(at: Millis, now: Millis) -> bool {
    now.since(at) > KEPT
}

fn prune_changes(tx: &mut Tx<'_>, now: Millis) -> Result<(), StateError> {
    let mut count = number(tx, ENDED_COUNT)?;
    for ((at, id), ()) in tx.scan(&ENDED, &Scan::all(), PRUNED)? {
        if count <= NEWEST || !is_old(at, now) {
            break;
        }
        if let Some(record) = tx.get(&CHANGES, &id)? {
            if let Some(log) = &record.log {
                blobs::unlink(tx, log, &log_owner(&id), now)?;
            }
            for place in 0..record.tasks {
                tx.delete(&TASKS, &(id.clone(), place))?;
                tx.delete(&SAVED, &(id.clone(), place))?;
            }
        }
        tx.delete(&DATA, &id)?;
        tx.delete(&CHANGES, &id)?;
        tx.delete(&ENDED, &(at, id))?;
        count -= 1;
    }
    put_number(tx, ENDED_COUNT, count)
}

/// Removes an ended change with its log, before its time; `false` when there is none, or it has not ended. For changes
/// that come by the clock, so that they don't crowd out those that people made.
///
/// # Errors
/// Those of the state.
pub fn forget(tx: &mut Tx<'_>, now: Millis, id: &ChangeId) -> Result<bool, StateError> {
    let Some(record) = tx.get(&CHANGES, id)? else { return Ok(false) };
    let Some(ended) = record.ended else { return Ok(false) };
    if let Some(log) = &record.log {
        blobs::discard(tx, log, &log_owner(id), now)?;
    }
    remove(tx, id, ended, record.tasks)?;
    let event = ended_event(id).as_str().to_owned();
    if let Some(signal) = tx.get(&SIGNALS, &event)? {
        tx.delete(&SIGNALS, &event)?;
        tx.delete(&SIGNALS_AT, &(signal.at, event))?;
    }
    put_number(tx, ENDED_COUNT, number(tx, ENDED_COUNT)?.saturating_sub(1))?;
    Ok(true)
}

/// Whether the ended change of this id has this log.
///
/// # Errors
/// Those of the state.
pub fn log_stands(tx: &Tx<'_>, key: &str, digest: &Digest) -> Result<bool, StateError> {
    let Ok(id) = ChangeId::parse(key) else { return Ok(false) };
    Ok(tx.get(&CHANGES, &id)?.is_some_and(|record| record.log.as_ref() == Some(digest)))
}

/// Removes the rows of an ended change.
fn remove(tx: &mut Tx<'_>, id: &ChangeId, ended: Millis, tasks: u64) -> Result<(), StateError> {
    for place in 0..tasks {
        tx.delete(&TASKS, &(id.clone(), place))?;
        tx.delete(&SAVED, &(id.clone(), place))?;
    }
    tx.delete(&DATA, id)?;
    tx.delete(&CHANGES, id)?;
    tx.delete(&ENDED, &(ended, id.clone()))
}

/// A signal may go when nobody can still be on the way to wait for it.
fn prune_signals(tx: &mut Tx<'_>, now: Millis) -> Result<(), StateError> {
    let mut old = tx.scan(&SIGNALS_AT, &Scan::all(), PRUNED)?;
    old.retain(|((at, _), ())| is_old(*at, now));
    if old.is_empty() {
        return Ok(());
    }
    let unfinished = tx.scan(&UNFINISHED, &Scan::all(), PAGE)?;
    if unfinished.len() == PAGE {
        return Ok(());
    }
    let oldest = unfinished.iter().map(|(_, change)| change.created).min().unwrap_or(now);
    for ((at, event), ()) in old.into_iter().filter(|((at, _), ())| *at < oldest) {
        tx.delete(&SIGNALS, &event)?;
        tx.delete(&SIGNALS_AT, &(at, event))?;
    }
    Ok(())
}
