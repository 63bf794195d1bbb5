//! Appending, listing and verifying.

use super::chain::{Entry, Event, Head, genesis};
use crate::names::Millis;
use crate::state::{Raw, Read, Scan, State, StateError, Table, Tx, Value};

const ENTRIES: Table<u64, Entry> = Table::new("audit_entries");
/// The same rows as they lie there: verification must see a row that is no entry any more.
const ENTRY_BYTES: Table<u64, Raw> = Table::new("audit_entries");
const HEAD: Table<String, Head> = Table::new("audit_head");
const HEAD_KEY: &str = "head";

/// Rows of one verifying transaction.
const PAGE: usize = 500;

/// Appends in the transaction of the act itself; texts beyond 1 KiB are cut.
///
/// # Errors
/// Those of the state.
pub fn append(tx: &mut Tx<'_>, now: Millis, event: &Event) -> Result<(), StateError> {
    let key = HEAD_KEY.to_owned();
    let (last, previous) =
        tx.get(&HEAD, &key)?.map_or_else(|| (0, genesis()), |head| (head.sequence, head.hash));
    let entry = Entry::chained(last + 1, now, event.bounded(), previous);
    tx.put(&HEAD, &key, &Head { sequence: entry.sequence, hash: entry.hash.clone() })?;
    tx.put(&ENTRIES, &entry.sequence, &entry)
}

/// The entries after the number `after` (from the first on without it), oldest first, at most `limit` and 1,000.
///
/// # Errors
/// Those of the state.
pub fn list(view: &impl Read, after: Option<u64>, limit: usize) -> Result<Vec<Entry>, StateError> {
    let scan = after.map_or_else(Scan::all, |number| Scan::all().after(&number));
    Ok(view.scan(&ENTRIES, &scan, limit.min(1000))?.into_iter().map(|(_, entry)| entry).collect())
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every entry is as it was appended, and none is missing.
    Intact {
        /// How many there are.
        entries: u64,
    },
    /// The log was changed.
    Broken {
        /// The first number at which something is altered, missing, moved or too much.
        at: u64,
    },
}

/// Recomputes the whole chain as it was when the call began, a page of rows a transaction.
///
/// # Errors
/// Those of the state; a damaged row is no error but [`Verdict::Broken`].
pub async fn verify(state: &State) -> Result<Verdict, StateError> {
    let (end, too_much) = state
        .read(|view| {
            let head = view.get(&HEAD, &HEAD_KEY.to_owned())?;
            let end = head.unwrap_or_else(|| Head { sequence: 0, hash: genesis() });
            let beyond = view.scan(&ENTRY_BYTES, &Scan::all().after(&end.sequence), 1)?;
            Ok((end, !beyond.is_empty()))
        })
        .await?;
    let mut last = Head { sequence: 0, hash: genesis() };
    while last.sequence < end.sequence {
        let after = last.sequence;
        let want = PAGE.min(usize::try_from(end.sequence - after).unwrap_or(PAGE));
        let rows = state.read(move |view| view.scan(&ENTRY_BYTES, &Scan::all().after(&after), want)).await?;
        if rows.is_empty() {
            return Ok(Verdict::Broken { at: after + 1 });
        }
        for (number, bytes) in rows {
            let expected = last.sequence + 1;
            let entry = Entry::from_bytes(&bytes.0).ok();
            match entry.filter(|entry| number == expected && entry.follows(expected, &last.hash)) {
                Some(entry) => last = Head { sequence: expected, hash: entry.hash },
                None => return Ok(Verdict::Broken { at: expected }),
            }
        }
    }
    if last != end {
        return Ok(Verdict::Broken { at: end.sequence });
    }
    if too_much {
        return Ok(Verdict::Broken { at: end.sequence + 1 });
    }
    Ok(Verdict::Intact { entries: end.sequence })
}
