//! How many blobs there are, counted as they come and go.

use serde::{Deserialize, Serialize};

use super::references::BLOBS;
use crate::state::{MAX_SCAN_ROWS, Read, Scan, State, StateError, Table, Tx, record};

const TOTALS: Table<String, TotalsRecord> = Table::new("blob_totals");

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct TotalsRecord {
    blobs: u64,
    bytes: u64,
    /// What a Pantry without this row left was counted too.
    whole: bool,
}
record!(TotalsRecord, 1);

/// The table has one row.
fn key() -> String {
    "all".to_owned()
}

/// What is stored, each content once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobTotals {
    /// How many blobs are known.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is stored; one row is read.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn totals(view: &impl Read) -> Result<BlobTotals, StateError> {
    let TotalsRecord { blobs, bytes, .. } = view.get(&TOTALS, &key())?.unwrap_or_default();
    Ok(BlobTotals { blobs, bytes })
}

/// A blob became known.
pub(super) fn came(tx: &mut Tx<'_>, size: u64) -> Result<(), StateError> {
    let mut totals = tx.get(&TOTALS, &key())?.unwrap_or_default();
    totals.blobs += 1;
    totals.bytes = totals.bytes.saturating_add(size);
    tx.put(&TOTALS, &key(), &totals)
}

/// A blob is known no longer.
pub(super) fn went(tx: &mut Tx<'_>, size: u64) -> Result<(), StateError> {
    let mut totals = tx.get(&TOTALS, &key())?.unwrap_or_default();
    totals.blobs = totals.blobs.saturating_sub(1);
    totals.bytes = totals.bytes.saturating_sub(size);
    tx.put(&TOTALS, &key(), &totals)
}

/// Counts once what was stored before it was counted as it came; to be called while nobody writes.
///
/// # Errors
/// [`StateError`] when the state fails.
pub async fn count_once(state: &State) -> Result<(), StateError> {
    if state.read(|view| view.get(&TOTALS, &key())).await?.is_some_and(|totals| totals.whole) {
        return Ok(());
    }
    let mut totals = TotalsRecord { whole: true, ..TotalsRecord::default() };
    let mut scan = Scan::all();
    loop {
        let page = scan.clone();
        let rows = state.read(move |view| view.scan(&BLOBS, &page, MAX_SCAN_ROWS)).await?;
        let Some((last, _)) = rows.last() else { break };
        scan = scan.after(last);
        totals.blobs += rows.len() as u64;
        totals.bytes = rows.iter().fold(totals.bytes, |bytes, (_, blob)| bytes.saturating_add(blob.size));
    }
    state.write(move |tx| tx.put(&TOTALS, &key(), &totals)).await
}
