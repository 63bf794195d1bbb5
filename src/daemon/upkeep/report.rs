//! What is kept of runs: their reports, and when the last collection was complete.

use serde::{Deserialize, Serialize};

use super::order::Account;
use crate::names::{ChangeId, Millis};
use crate::state::{Read, Scan, StateError, Table, Tx, record};

/// Reports that are kept.
const KEPT: usize = 100;

/// Reports of runs that ended, by their change, whose ids grow with time.
const REPORTS: Table<ChangeId, ReportRecord> = Table::new("upkeep_reports");
/// When collection was complete last, and which changes of the schedule are still kept.
const SCHEDULE: Table<String, ScheduleRecord> = Table::new("upkeep_schedule");
const COLLECTION: &str = "collection";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReportRecord {
    pub(super) kind: String,
    pub(super) by: String,
    pub(super) dry_run: bool,
    pub(super) ended_at: Millis,
    pub(super) account: Account,
}
record!(ReportRecord, 1);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ScheduleRecord {
    /// When the last run that collected was complete.
    #[serde(default)]
    pub(super) completed_at: Option<Millis>,
    /// The changes that the schedule made, oldest first.
    #[serde(default)]
    pub(super) made: Vec<ChangeId>,
}
record!(ScheduleRecord, 1);

/// Keeps the report, and clears away the oldest.
pub(super) fn put(tx: &mut Tx<'_>, change: &ChangeId, report: &ReportRecord) -> Result<(), StateError> {
    tx.put(&REPORTS, change, report)?;
    let all = tx.scan(&REPORTS, &Scan::all(), KEPT + 10)?;
    for (old, _) in all.iter().take(all.len().saturating_sub(KEPT)) {
        tx.delete(&REPORTS, old)?;
    }
    Ok(())
}

pub(super) fn get(view: &impl Read, change: &ChangeId) -> Result<Option<ReportRecord>, StateError> {
    view.get(&REPORTS, change)
}

pub(super) fn schedule(view: &impl Read) -> Result<ScheduleRecord, StateError> {
    Ok(view.get(&SCHEDULE, &COLLECTION.to_owned())?.unwrap_or_default())
}

pub(super) fn put_schedule(tx: &mut Tx<'_>, record: &ScheduleRecord) -> Result<(), StateError> {
    tx.put(&SCHEDULE, &COLLECTION.to_owned(), record)
}
