//! Schema 17 → 18: the nonce of an attempt, kept as `callback_token`, is named `callback_nonce`.
//!
//! The old name stays beside the new one. The submission itself, its `context` and each of its `attempts` may hold
//! the field; any of them may be missing or empty, and a row that is no record is left as it is: one bad row must
//! not keep the whole appliance from starting.

use std::ops::Bound;

use redb::{ReadableTable, WriteTransaction};
use serde_json::{Map, Value};

use super::super::StateError;
use super::super::table::RawTable;

const SUBMISSIONS: &str = "submissions";
/// Rows taken into memory at once.
const PAGE: usize = 500;

pub(super) fn run(transaction: &WriteTransaction) -> Result<u64, StateError> {
    let mut table = transaction
        .open_table(RawTable::new(SUBMISSIONS))
        .map_err(|error| StateError::storage("open a table", error).in_table(SUBMISSIONS))?;
    let failed = |error| StateError::storage("migrate a row", error).in_table(SUBMISSIONS);
    let mut changed = 0;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::with_capacity(PAGE);
        for row in table.range::<&[u8]>((start, Bound::Unbounded)).map_err(failed)?.take(PAGE) {
            let (key, value) = row.map_err(failed)?;
            page.push((key.value().to_vec(), expand(value.value())));
        }
        let Some((last, _)) = page.last() else { return Ok(changed) };
        after = Some(last.clone());
        for (key, value) in page {
            if let Some(value) = value {
                table.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
                changed += 1;
            }
        }
    }
}

/// The row with the new field; `None` when there is nothing to add.
fn expand(row: &[u8]) -> Option<Vec<u8>> {
    let Ok(mut row) = serde_json::from_slice::<Value>(row) else {
        tracing::warn!(table = SUBMISSIONS, "a row is no JSON and is left as it is");
        return None;
    };
    let submission = row.get_mut("d")?.as_object_mut()?;
    let mut changed = add_nonce(submission);
    if let Some(Value::Object(context)) = submission.get_mut("context") {
        changed |= add_nonce(context);
    }
    if let Some(Value::Array(attempts)) = submission.get_mut("attempts") {
        for attempt in attempts.iter_mut().filter_map(Value::as_object_mut) {
            changed |= add_nonce(attempt);
        }
    }
    changed.then(|| row.to_string().into_bytes())
}

fn add_nonce(holder: &mut Map<String, Value>) -> bool {
    match holder.get("callback_token") {
        Some(token @ Value::String(_)) if !holder.contains_key("callback_nonce") => {
            let nonce = token.clone();
            holder.insert("callback_nonce".to_owned(), nonce);
            true
        }
        _ => false,
    }
}
