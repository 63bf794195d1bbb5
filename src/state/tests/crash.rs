//! What a crash leaves: every write that was acknowledged, and no half of any other.

use std::sync::atomic::Ordering;

use super::super::{MAX_SCAN_ROWS, Raw, Read, Scan, State, StateError};
use super::backend::{Recorded, Step, replay};
use super::{COUNTERS, ROWS, state_on};
use crate::names::{Random, SeededRandom};

const WRITES: u64 = 40;

fn counter(view: &impl Read) -> Result<u64, StateError> {
    let raw = view.get(&COUNTERS, &"count".to_owned())?;
    Ok(raw.map_or(0, |raw| u64::from_be_bytes(raw.0.try_into().unwrap())))
}

/// Adds row `n` and raises the counter to `n + 1`; the row is large enough to touch several pages.
pub(super) fn write_row(state: &State, n: u64) -> Result<(), StateError> {
    state.write_blocking(move |tx| {
        let count = counter(tx)?;
        tx.put(&ROWS, &("row".to_owned(), n), &Raw(vec![u8::try_from(n).unwrap(); 3_000]))?;
        tx.put(&COUNTERS, &"count".to_owned(), &Raw((count + 1).to_be_bytes().to_vec()))
    })
}

/// Checks that the state holds a whole prefix of the writes, and says how long it is.
pub(super) fn whole_rows(state: &State) -> Result<u64, StateError> {
    state.read_blocking(|view| {
        let count = counter(view)?;
        let rows = view.scan(&ROWS, &Scan::all(), MAX_SCAN_ROWS)?;
        assert_eq!(rows.len() as u64, count, "rows and counter were written together");
        for (at, ((_, n), Raw(bytes))) in rows.into_iter().enumerate() {
            assert_eq!(n, at as u64);
            assert_eq!(bytes, vec![u8::try_from(n).unwrap(); 3_000]);
        }
        Ok(count)
    })
}

/// Opens an image and checks that it holds a whole prefix of the writes, not shorter than what was acknowledged.
fn audit(image: Vec<u8>, acknowledged: u64) {
    let count = whole_rows(&state_on(Recorded::holding(image))).unwrap();
    assert!(count >= acknowledged, "{acknowledged} were acknowledged, {count} are there");
}

#[test]
fn every_durable_image_holds_all_acknowledged_writes_and_no_half_of_one() {
    let backend = Recorded::default();
    drop(state_on(backend.clone()));
    let mut image = Vec::new();
    for step in backend.steps.lock().unwrap().drain(..) {
        replay(&mut image, &step);
    }

    let state = state_on(backend.clone());
    for n in 0..WRITES {
        write_row(&state, n).unwrap();
        backend.acknowledged.store(n + 1, Ordering::SeqCst);
    }
    let steps = backend.steps.lock().unwrap().clone();
    drop(state);

    let random = SeededRandom::new(17);
    let (mut unsynced, mut images, mut last_acknowledged) = (Vec::new(), 0_u64, 0);
    for step in steps {
        if let Step::Sync { acknowledged } = step {
            // Just before this sync, any part of what came after the last one may have reached the disk.
            let mut torn = image.clone();
            for step in &unsynced {
                let mut coin = [0];
                random.fill(&mut coin);
                if coin[0] & 1 == 0 || matches!(step, Step::SetLen(_)) {
                    replay(&mut torn, step);
                }
            }
            audit(torn, last_acknowledged);
            for step in unsynced.drain(..) {
                replay(&mut image, &step);
            }
            audit(image.clone(), acknowledged);
            last_acknowledged = acknowledged;
            images += 2;
        } else {
            unsynced.push(step);
        }
    }
    assert!(images > WRITES, "each commit syncs at least once");
}
